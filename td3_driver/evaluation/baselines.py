# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Drivers that learn nothing, to measure others against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.control import AckermannCommand, action_of
from td3_driver.driving.observation import Observation
from td3_driver.evaluation.rollout import Act


def stand_still(config: DrivingConfig) -> Act:
    """Return a driver that never moves: what a figure is worth that it does well in."""
    return _always(action_of(config, AckermannCommand(0.0, 0.0)))


def straight_on(config: DrivingConfig) -> Act:
    """Return a driver that looks at nothing: straight on at the target speed."""
    return _always(action_of(config, AckermannCommand(0.0, config.target_speed_mps)))


def route_follower(config: DrivingConfig) -> Act:
    """Return the driver that sees the route alone: nothing of the camera, and no traffic."""
    return RouteFollower(config).act


def _always(action: np.ndarray) -> Act:
    def act(observation: Observation) -> np.ndarray:
        return action

    return act


BASELINES: dict[str, Callable[[DrivingConfig], Act]] = {
    driver.__name__: driver for driver in (stand_still, straight_on, route_follower)
}
