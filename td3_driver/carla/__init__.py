"""The topic contract of carla-ros-bridge, and the world stepped over it."""
