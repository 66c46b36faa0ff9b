"""Learning to drive end to end: TD3 from camera images, in ROS 2 and CARLA."""
