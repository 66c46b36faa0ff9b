# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The world that is stepped over topics, for training."""
