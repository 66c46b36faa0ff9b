"""What runs with what, for `ros2 launch` and for `td3-driver`."""
