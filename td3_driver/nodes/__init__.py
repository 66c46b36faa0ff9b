# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Thin executables: simulator, trainer, driver, ackermann_controller."""
