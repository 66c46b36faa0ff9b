# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The world stepped over topics, for training."""
