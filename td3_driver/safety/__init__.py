# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The only way to the car: what lets a command through, and what stops it."""
