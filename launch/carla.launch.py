# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Starts carla-ros-bridge, the car and its route publisher, for a trainer or driver to join."""

from launch import LaunchDescription

from td3_driver.launching.launch_description import launch_description


def generate_launch_description() -> LaunchDescription:
    """Describe the processes that `world:=carla` adds to the trainer or driver."""
    return launch_description("carla")
