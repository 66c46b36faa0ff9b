# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The shape of networks that are small enough for tests."""

from td3_driver.learning.networks import NetworkSpec

SMALL = NetworkSpec(
    image=(2, 36, 36),
    vector_scale=(1.0, 2.0),
    actions=2,
    channels=(4, 6, 5),
    image_features=7,
    hidden=(9, 8),
)
