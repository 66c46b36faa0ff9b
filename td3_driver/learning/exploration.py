# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How the policy explores: at random at first, then its own actions with noise."""

from __future__ import annotations

import math

import numpy as np
import torch

from td3_driver.config import LearningConfig
from td3_driver.learning.policy import Policy
from td3_driver.learning.schedules import linear


class Exploration:
    """Draws the actions of a run's decisions; `noise_factor` multiplies the configured noise."""

    def __init__(
        self,
        settings: LearningConfig,
        random_steps: int,
        generator: torch.Generator,
        noise_factor: float = 1.0,
    ) -> None:
        self._settings = settings
        self._random_steps = random_steps
        self._generator = generator
        self._noise_factor = noise_factor
        self._noise: np.ndarray | None = None

    def begin(self) -> None:
        """Begin an episode: its noise has nothing to do with that of the last one."""
        self._noise = None

    def act(self, policy: Policy, observation: dict[str, np.ndarray], step: int) -> np.ndarray:
        """Return a random action at first, then the policy's with Gaussian noise.

        `step` is the run's decision. The result is float32 (actions,) in [-1, 1].
        """
        size = (policy.spec.actions,)
        if step < self._random_steps:
            return (2.0 * torch.rand(size, generator=self._generator) - 1.0).numpy()
        deviation = self._noise_factor * linear(
            self._settings.exploration_noise,
            self._settings.exploration_noise_final,
            self._settings.exploration_noise_decay_steps,
            step - self._random_steps,
        )
        action = policy.act(observation) + deviation * self._next_noise(size)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def _next_noise(self, size: tuple[int, ...]) -> np.ndarray:
        """Return noise of deviation 1, correlated with that of the decision before.

        An autoregressive process of first order: the discrete form of the Ornstein-Uhlenbeck
        noise that DDPG explored with (Lillicrap et al., 2016).
        """
        fresh = torch.randn(size, generator=self._generator).numpy()
        kept = self._settings.exploration_noise_correlation
        if self._noise is not None and kept:
            fresh = kept * self._noise + math.sqrt(1.0 - kept**2) * fresh
        self._noise = fresh
        return fresh


def noise_ladder(number: int, collectors: int, least: float, most: float) -> float:
    """Return the factor of one of several collectors' noise, from `least` to `most`.

    They rise by equal ratios (after Horgan et al., 2018, Distributed Prioritized Experience
    Replay); a single collector has 1.
    """
    if collectors == 1:
        return 1.0
    return float(least * (most / least) ** (number / (collectors - 1)))
