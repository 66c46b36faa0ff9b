"""The algorithm: networks, TD3, replay, checkpoints; nothing of ROS, nothing of driving."""
