# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Examinations during training: the same drives without noise again and again."""

from __future__ import annotations

import numpy as np

from td3_driver.config import Config
from td3_driver.driving.environment import DrivingEnv, SampleStart
from td3_driver.evaluation.fixed_drives import FixedDrives, mean_completion
from td3_driver.evaluation.rollout import Act


class EmbeddedExaminer:
    """Examines on the validation maps in a simulator of its own, in process."""

    def __init__(self, config: Config) -> None:
        """Take the settings; the maps are read with the first examination."""
        self._config = config
        self._drives: FixedDrives | None = None

    def __call__(self, act: Act) -> float:
        """Return the mean route completion; raises RoadMapError for an unusable map."""
        if self._drives is None:
            config = self._config
            self._drives = FixedDrives.of(config.simulator, config.driving, config.validation)
        return mean_completion(self._drives.env, act, self._drives.starts)


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
