# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The figures of benchmarks/unsteadiness.py, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import unsteadiness

from td3_driver.config import LearningConfig
from td3_driver.learning.batch import ReplaySpec
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.td3 import TD3

SPEC = NetworkSpec(None, (1.0,), 1, channels=(1, 1, 1), image_features=1, hidden=(4,))


def filled(transitions: int, capacity: int) -> ReplayBuffer:
    """A ring whose vectors, actions and rewards count up."""
    replay = ReplayBuffer(ReplaySpec(None, 1, 1), capacity)
    replay.begin({"vector": np.zeros(1, np.float32)})
    for number in range(transitions):
        after = np.full(1, number + 1, np.float32)
        replay.add(np.full(1, number / 1e3), float(number), {"vector": after}, terminated=True)
        replay.begin({"vector": after})
    return replay


@pytest.mark.parametrize("transitions, capacity", [(100, 1000), (300, 201)])
def test_quarters_are_the_oldest_and_the_newest_transitions(
    transitions: int, capacity: int
) -> None:
    replay = filled(transitions, capacity)
    kept = len(replay)
    old, new = unsteadiness.quarters(replay)
    assert old.rewards.min() == transitions - kept
    assert old.rewards.max() == transitions - kept + kept // 4 - 1
    assert new.rewards.min() == transitions - kept // 4
    assert new.rewards.max() == transitions - 1


def test_what_is_forgotten_is_the_td_error_and_the_way_to_the_action_taken() -> None:
    learner = TD3(SPEC, LearningConfig(image_key="", reward_scale=2.0))
    with torch.no_grad():
        for network in (learner.actor, learner.critic, learner.actor_target):
            for parameter in network.parameters():
                parameter.zero_()
        learner.critic.q1[-1].bias.fill_(1.0)
        learner.critic.q2[-1].bias.fill_(3.0)
    replay = filled(4, 10)
    batch = replay.gather(replay.transitions[2:4])  # rewards 2 and 3, which end their episodes
    error, distance = unsteadiness.forgotten(learner, batch)
    # Targets are twice the rewards, 4 and 6; off by 3 and 5 for Q1, by 1 and 3 for Q2.
    assert error == pytest.approx((3 + 5 + 1 + 3) / 4 / 2)
    assert distance == pytest.approx((0.002 + 0.003) / 2)


def test_churn_is_the_mean_change_over_the_interval_and_over_its_blocks() -> None:
    actions = {
        100 * index: torch.full((3, 2), value) for index, value in enumerate((0.0, 0.4, 0.1))
    }
    churn = unsteadiness.churn(actions, 0, 200)
    assert churn == pytest.approx({"churn": 0.1, "churn_of_block": (0.4 + 0.3) / 2})


def test_the_correlation_is_that_of_ranks() -> None:
    assert unsteadiness.correlation([1.0, 2.0, 9.0], [0.1, 0.2, 0.3]) == pytest.approx(1.0)
    assert unsteadiness.correlation([1.0, 2.0, 9.0], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)
    # Ranks 1, 2, 3, 4 and 1.5, 1.5, 3.5, 3.5, so 4 / sqrt(5 * 4).
    tied = unsteadiness.correlation([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 5.0, 5.0])
    assert tied == pytest.approx(2 / 5**0.5)
