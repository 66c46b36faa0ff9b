# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Trained policies on their own: exported to one self-describing file, and loaded to drive."""
