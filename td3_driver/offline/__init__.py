# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Bags: read, write, inspect; no ROS needed."""
