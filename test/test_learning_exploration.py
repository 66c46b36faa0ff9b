# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The noise that a run explores with."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from td3_driver.config import LearningConfig
from td3_driver.learning.exploration import Exploration

OBSERVATION = {"vector": np.zeros(1, np.float32)}


class Still:
    """A policy whose action is 0, and which takes no time."""

    spec = SimpleNamespace(actions=2)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        return np.zeros(self.spec.actions, np.float32)


def noise_of(decisions: int, episode: int, **settings: float) -> np.ndarray:
    exploration = Exploration(
        LearningConfig(exploration_noise=0.1, **settings), 0, torch.Generator().manual_seed(3)
    )
    noise = []
    for step in range(decisions):
        if step % episode == 0:
            exploration.begin()
        noise.append(exploration.act(Still(), OBSERVATION, step))
    return np.array(noise)


def test_without_correlation_every_noise_is_drawn_on_its_own() -> None:
    drawn = torch.Generator().manual_seed(3)
    expected = [0.1 * torch.randn(2, generator=drawn).numpy() for _ in range(50)]
    assert np.array_equal(noise_of(50, 10), np.array(expected))


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_correlated_noise_keeps_its_deviation_and_fades_as_it_should(kept: float) -> None:
    noise = noise_of(20_000, 20_000, exploration_noise_correlation=kept)
    assert noise.std() == pytest.approx(0.1, rel=0.1)
    for lag in (1, 4):
        correlation = np.mean(noise[lag:] * noise[:-lag]) / np.mean(noise**2)
        assert correlation == pytest.approx(kept**lag, abs=0.08)
    across = np.mean(noise[:, 0] * noise[:, 1]) / np.mean(noise**2)
    assert abs(across) < 0.08


def test_noise_does_not_reach_across_episodes() -> None:
    kept, episode = 0.9, 2
    noise = noise_of(20_000, episode, exploration_noise_correlation=kept)
    first, second = noise[0::2], noise[1::2]
    within = np.mean(first * second) / np.mean(noise**2)
    between = np.mean(second[:-1] * first[1:]) / np.mean(noise**2)
    assert within == pytest.approx(kept, abs=0.05) and abs(between) < 0.05
    # By hand: the second noise is 0.9 of the first and sqrt(1 - 0.81) of the next draw.
    drawn = torch.Generator().manual_seed(3)
    one, other = (0.1 * torch.randn(2, generator=drawn).numpy() for _ in range(2))
    assert noise[1] == pytest.approx(0.9 * one + math.sqrt(0.19) * other, abs=1e-6)
