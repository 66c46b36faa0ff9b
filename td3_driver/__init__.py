# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Learning to drive end to end: TD3 from camera images, in ROS 2 and CARLA."""
