"""The algorithm: networks, TD3, replay, augmentation, checkpoints. Knows nothing of ROS or driving."""
