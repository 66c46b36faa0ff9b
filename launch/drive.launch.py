# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Starts the driver, and its world: the embedded simulator, or CARLA with world:=carla."""

from launch import LaunchDescription

from td3_driver.launching.launch_description import launch_description


def generate_launch_description() -> LaunchDescription:
    """Describe the processes of `td3-driver drive`."""
    return launch_description("drive")
