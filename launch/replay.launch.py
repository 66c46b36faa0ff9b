# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Plays a bag to the driver in shadow mode: it decides, but commands nothing."""

from launch import LaunchDescription

from td3_driver.launching.launch_description import launch_description


def generate_launch_description() -> LaunchDescription:
    """Describe the processes of `td3-driver replay`."""
    return launch_description("replay")
