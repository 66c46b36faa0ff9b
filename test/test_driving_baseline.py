# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The route-following baseline: arcs and speeds by hand, and a drive."""

from __future__ import annotations

import numpy as np
import pytest

from td3_driver.config import DrivingConfig, SimulatorConfig
from td3_driver.driving.baseline import (
    LATERAL_ACCELERATION_MPS2,
    WHEELBASE_M,
    RouteFollower,
)
from td3_driver.driving.environment import DrivingEnv
from td3_driver.evaluation.rollout import drive_episode
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

CONFIG = DrivingConfig(target_speed_mps=6.0, max_speed_mps=8.0, max_steering_angle_rad=0.5)
CRUISING = 2.0 * 6.0 / 8.0 - 1.0


def act(waypoints: np.ndarray, speed: float = 0.0) -> np.ndarray:
    vector = np.concatenate([[speed, 0.0, 0.0], waypoints.ravel()]).astype(np.float32)
    return RouteFollower(CONFIG).act({"vector": vector})


def arc(radius_m: float) -> np.ndarray:
    """Points 2 m apart on an arc to the left that the middle of the rear axle is on."""
    angles = (WHEELBASE_M / 2.0 + 2.0 * np.arange(1, 11)) / radius_m
    points = radius_m * np.stack([np.sin(angles), 1.0 - np.cos(angles)], axis=1)
    return points - [WHEELBASE_M / 2.0, 0.0]


def test_straight_on_it_keeps_straight_at_the_target_speed() -> None:
    ahead = np.stack([2.0 * np.arange(1, 11), np.zeros(10)], axis=1)
    assert act(ahead, 6.0) == pytest.approx([0.0, CRUISING])


@pytest.mark.parametrize("radius_m", [12.0, 25.0, 80.0])
@pytest.mark.parametrize("speed", [0.0, 6.0])
def test_on_an_arc_it_steers_as_the_arc_bends(radius_m: float, speed: float) -> None:
    steering, _ = act(arc(radius_m), speed)
    # However far it looks, it is the same arc.
    assert steering == pytest.approx(np.arctan(WHEELBASE_M / radius_m) / 0.5, abs=1e-4)
    mirrored = act(arc(radius_m) * [1.0, -1.0], speed)
    assert mirrored[0] == pytest.approx(-steering)


def test_it_slows_down_for_a_bend_to_what_the_bend_allows() -> None:
    # A chord turns as the arc does; the first turn is 2 m off, and braking takes 3 m/s^2.
    allowed = np.sqrt(LATERAL_ACCELERATION_MPS2 * 8.0 + 2.0 * 3.0 * 2.0)
    _, speed = act(arc(8.0), 6.0)
    assert speed == pytest.approx(2.0 * allowed / 8.0 - 1.0, abs=0.01)
    assert act(arc(100.0), 6.0)[1] == pytest.approx(CRUISING)


def test_aside_of_the_route_it_steers_back_and_no_further_than_it_can() -> None:
    left_of_it = np.stack([2.0 * np.arange(1, 11), np.full(10, -1.0)], axis=1)
    assert -1.0 < act(left_of_it, 6.0)[0] < -0.1
    behind = np.stack([np.full(10, -2.0), np.full(10, 3.0)], axis=1)
    assert act(behind)[0] == 1.0


def test_it_drives_a_route_to_its_end() -> None:
    config = DrivingConfig(action_repeat=2)
    starts = StartSampler(["grid_new_town"], 60.0)
    env = DrivingEnv(SimulatedWorld(SimulatorConfig(map="grid_new_town")), starts, config)
    driven = drive_episode(env, RouteFollower(config).act, starts.on_map("grid_new_town", 3))
    assert driven.summary.ended_by == "route_end"
    assert driven.summary.lane_invasions == 0
    assert driven.summary.distance_m / driven.summary.duration_s > 4.0
