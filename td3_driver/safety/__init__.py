# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The only path to the car: checks every command, and stops the car."""
