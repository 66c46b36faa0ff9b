# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The task: observation, route, reward and ends, action to command, the gymnasium environment."""
