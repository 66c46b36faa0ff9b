# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The divergence benchmark's wirings, with tiny networks: what explodes, dies and stays alive."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.divergence import (
    FIRST,
    LARGEST_REWARD,
    OURS,
    REMEDIES,
    RIGHT,
    WIRINGS,
    Wiring,
    train,
)
from td3_driver.learning.batch import ReplaySpec
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.replay import ReplayBuffer

torch.set_num_threads(1)  # the networks are too small for more

pytestmark = pytest.mark.long

SPEC = NetworkSpec(
    image=(2, 36, 36),
    vector_scale=(1.0, 2.0, 8.0),
    actions=2,
    channels=(8, 16, 16),
    image_features=128,
    hidden=(128, 128),
)
UPDATES, EVERY = 200, 50
SAMPLING = 1
"""Seed of the batches: networks this small die with the right wiring in most streams, not all."""
LEARNING_RATE = 4e-3  # Small networks take larger steps to get as far in as many updates.


@pytest.fixture(scope="module")
def replay() -> ReplayBuffer:
    """Transitions whose reward depends on the vector and the action."""
    buffer = ReplayBuffer(ReplaySpec(SPEC.image, len(SPEC.vector_scale), SPEC.actions), 300)
    rng = np.random.default_rng(0)

    def observe() -> dict[str, np.ndarray]:
        image = rng.integers(0, 256, SPEC.image, dtype=np.uint8)
        return {"image": image, "vector": rng.normal(size=3).astype(np.float32)}

    observation = observe()
    buffer.begin(observation)
    for step in range(1, 200):
        action = rng.uniform(-1, 1, SPEC.actions).astype(np.float32)
        wanted = np.tanh(observation["vector"][: SPEC.actions])
        reward = LARGEST_REWARD - float(np.square(action - wanted).mean())
        observation = observe()
        buffer.add(action, reward, observation, terminated=step % 20 == 0)
        if step % 20 == 0:
            buffer.begin(observation)
    return buffer


def figures(wiring: Wiring, replay: ReplayBuffer, **changes: float) -> list[dict[str, float]]:
    networks = ("actor", "critic", "actor_encoder", "critic_encoder")
    changes |= {f"{network}_learning_rate": LEARNING_RATE for network in networks}
    learner = wiring.learner(SPEC, wiring.settings.model_copy(update=changes), seed=0)
    return list(train(learner, replay, SAMPLING, updates=UPDATES, batch_size=32, every=EVERY))


def limit(wiring: Wiring) -> float:
    return LARGEST_REWARD / (1.0 - wiring.settings.discount)


def test_the_first_description_diverges_and_its_head_stops_learning(replay: ReplayBuffer) -> None:
    rows = figures(WIRINGS[FIRST], replay)
    losses = [row["actor_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < -100.0 * limit(WIRINGS[FIRST])
    assert rows[-1]["exactly_at_bound"] == 1.0
    assert rows[-1]["actor_head_gradient"] == 0.0
    # What moves the encoder is the path through the critic's state argument.
    assert rows[-1]["actor_encoder_gradient"] > 1e3
    assert rows[-1]["actor_features"] > 1e3 * rows[-1]["critic_features"]


def test_the_right_wiring_alone_stays_bounded_but_its_actor_dies(replay: ReplayBuffer) -> None:
    rows = figures(WIRINGS[RIGHT], replay)
    assert all(abs(row["actor_loss"]) < limit(WIRINGS[RIGHT]) for row in rows)
    assert rows[-1]["exactly_at_bound"] == 1.0
    assert rows[-1]["actor_head_gradient"] == rows[-1]["actor_encoder_gradient"] == 0.0


def test_ours_stays_bounded_and_alive(replay: ReplayBuffer) -> None:
    rows = figures(WIRINGS[OURS], replay, actor_warmup_updates=50)
    assert all(abs(row["actor_loss"]) < limit(WIRINGS[OURS]) for row in rows)
    assert all(row["actor_head_gradient"] > 0.0 for row in rows)
    assert all(row["exactly_at_bound"] == 0.0 for row in rows)


def test_clipping_and_target_encoders_do_not_stop_the_divergence(replay: ReplayBuffer) -> None:
    for name in ("first + clipped gradients", "first + target encoders"):
        assert figures(REMEDIES[name], replay)[-1]["actor_loss"] < -100.0 * limit(REMEDIES[name])
