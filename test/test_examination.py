# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Examinations with drivers whose completion is known."""

from __future__ import annotations

import numpy as np

from td3_driver.config import Config, build
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import Observation
from td3_driver.driving.world import Start
from td3_driver.evaluation.examination import EmbeddedExaminer, TownExaminer
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

CONFIG = build(
    {
        "validation": {
            "maps": ["ring_hillside", "grid_mill_town"],
            "episodes": 2,
            "route_length_m": 25.0,
        }
    },
    "the test",
)


def stand_still(observation: Observation) -> np.ndarray:
    return np.array([0.0, -1.0], np.float32)


def follower() -> RouteFollower:
    return RouteFollower(CONFIG.driving)


def test_the_validation_maps_are_driven_in_a_world_of_its_own() -> None:
    examine = EmbeddedExaminer(CONFIG)
    assert examine(follower().act) == 1.0
    assert examine(stand_still) < 0.1
    assert examine(follower().act) == 1.0


def test_in_a_town_the_starts_are_its_own_and_always_the_same() -> None:
    sampler = StartSampler(["ring_meadow"], 25.0)
    sampled: list[int] = []

    def sample(rng: np.random.Generator) -> Start:
        start = sampler(rng)
        sampled.append(start.seed)
        return start

    env = DrivingEnv(SimulatedWorld(Config().simulator), sample, CONFIG.driving)
    env.reset(seed=5)
    before = env.np_random.bit_generator.state
    examine = TownExaminer(env, sample, CONFIG)
    assert examine(follower().act) == 1.0
    assert examine(stand_still) < 0.1
    assert env.np_random.bit_generator.state == before
    first, *examined = sampled
    assert len(examined) == 4 and examined[:2] == examined[2:] and first not in examined
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
