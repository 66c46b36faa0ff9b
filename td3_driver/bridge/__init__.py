"""The contract with carla-ros-bridge: topics, messages, conversion, parameters."""
