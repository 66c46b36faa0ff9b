# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Examinations during training: the same drives without noise again and again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from td3_driver.config import Config
from td3_driver.driving.environment import DrivingEnv, SampleStart
from td3_driver.driving.world import Start
from td3_driver.evaluation.rollout import Act, drive_episode, seeded_starts
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld


class EmbeddedExaminer:
    """Examines on the validation maps in a simulator of its own, in process."""

    def __init__(self, config: Config) -> None:
        """Take the settings; the maps are read with the first examination."""
        self._config = config
        self._env: DrivingEnv | None = None
        self._starts: Sequence[Start] = ()

    def __call__(self, act: Act) -> float:
        """Return the mean route completion; raises RoadMapError for an unusable map."""
        if self._env is None:
            self._env = self._make()
        return mean_completion(self._env, act, self._starts)

    def _make(self) -> DrivingEnv:
        settings = self._config.validation
        sampler = StartSampler(settings.maps, settings.route_length_m)
        self._starts = tuple(
            seeded_starts(settings.maps, settings.episodes, settings.seed, sampler.on_map)
        )
        first = self._config.simulator.model_copy(update={"map": settings.maps[0]})
        return DrivingEnv(SimulatedWorld(first), sampler, self._config.driving)


class TownExaminer:
    """Examines between episodes in the world that is trained in, from starts of its own."""

    def __init__(self, env: DrivingEnv, sample: SampleStart, config: Config) -> None:
        """Take the training's environment, and what samples its starts."""
        self._env = env
        self._sample = sample
        self._settings = config.validation

    def __call__(self, act: Act) -> float:
        """Return the mean route completion; raises WorldError as a training does."""
        first, count = self._settings.seed, self._settings.episodes
        starts = (self._sample(np.random.default_rng(first + index)) for index in range(count))
        return mean_completion(self._env, act, starts)


def mean_completion(env: DrivingEnv, act: Act, starts: Iterable[Start]) -> float:
    """Drive from each start without noise; return the mean route completion."""
    driven = [drive_episode(env, act, start) for start in starts]
    return float(np.mean([episode.summary.route_completion for episode in driven]))
