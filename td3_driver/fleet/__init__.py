# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Many worlds that feed one learner: collectors in processes or on machines, and their care."""
