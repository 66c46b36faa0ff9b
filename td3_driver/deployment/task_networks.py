# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The networks for the driving task, as its settings describe them."""

from __future__ import annotations

from td3_driver.config import Config
from td3_driver.driving.environment import action_space, observation_space
from td3_driver.driving.observation import privileged_scale, vector_scale
from td3_driver.learning.networks import NetworkSpec, network_spec


def networks_of(config: Config) -> NetworkSpec:
    """Return the shape of the networks; raises ConfigError."""
    return network_spec(
        config.learning,
        observation_space(config.driving),
        action_space(),
        vector_scale(config.driving),
        privileged_scale(config.driving),
    )
