# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The same drives again and again, in an embedded simulator in process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from td3_driver.config import DrivingConfig, EvaluationConfig, SimulatorConfig, ValidationConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import Start
from td3_driver.evaluation.rollout import Act, drive_episode, seeded_starts
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld


@dataclass(frozen=True)
class FixedDrives:
    """An environment, and the starts to drive from in it."""

    env: DrivingEnv
    starts: Sequence[Start]

    @classmethod
    def of(
        cls,
        simulator: SimulatorConfig,
        driving: DrivingConfig,
        settings: EvaluationConfig | ValidationConfig,
    ) -> FixedDrives:
        """Return the drives that the settings describe; raises RoadMapError."""
        sampler = StartSampler(settings.maps, settings.route_length_m)
        world = SimulatedWorld(simulator.model_copy(update={"map": settings.maps[0]}))
        starts = seeded_starts(settings.maps, settings.episodes, settings.seed, sampler.on_map)
        return cls(DrivingEnv(world, sampler, driving), tuple(starts))


def mean_completion(env: DrivingEnv, act: Act, starts: Iterable[Start]) -> float:
    """Drive from each start without noise; return the mean route completion."""
    driven = [drive_episode(env, act, start) for start in starts]
    return float(np.mean([episode.summary.route_completion for episode in driven]))
