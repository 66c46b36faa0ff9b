# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The algorithm: networks, TD3, replay, checkpoints; nothing of ROS, nothing of driving."""
