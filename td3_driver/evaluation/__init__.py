# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Evaluation drives: rollouts, reports and pictures."""
