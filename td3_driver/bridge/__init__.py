# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The contract with carla-ros-bridge: topics, messages, conversion, parameters."""
