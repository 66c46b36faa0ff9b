# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A trained policy on its own: one file that says what it is for, and what drives with it."""
