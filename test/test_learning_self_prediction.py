# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Self-prediction: hand-worked losses, whom it trains, what a batch tells of, and checkpoints."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import SMALL
from torch import Tensor, nn

from td3_driver.config import LearningConfig
from td3_driver.learning import categorical, checkpoint
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.self_prediction import (
    Ahead,
    SelfPrediction,
    contrast,
    decisions_ahead,
    reward_loss,
)
from td3_driver.learning.td3 import TD3, UpdateKind

torch.set_num_threads(1)  # the networks are too small for more

BOTH = UpdateKind(actor=True, targets=False)
BATCH = 5


def make_learner(encoders: Any = "separate", **settings: Any) -> TD3:
    base = {"actor_warmup_updates": 0, "policy_freq": 1, "encoders": encoders}
    config = LearningConfig(**{**base, "self_prediction": 1.0, **settings})
    return TD3(dataclasses.replace(SMALL, encoders=encoders), config, seed=3)


def filled(learner: TD3, capacity: int = 60, steps: int = 40) -> ReplayBuffer:
    """Return drives of seven decisions; the reward and the brightness count the slots."""
    replay = make_replay(learner.spec, learner.settings, "cpu", capacity)
    slot = 0

    def observe() -> dict[str, np.ndarray]:
        nonlocal slot
        image = np.random.default_rng(slot).integers(0, 200, (2, 36, 36)).astype(np.uint8)
        image[:, 0, 0] = slot
        slot += 1
        return {"image": image, "vector": np.full(2, slot, np.float32)}

    for step in range(steps):
        if step % 7 == 0:
            replay.begin(observe())
        number = slot - 1
        action = np.array([number / 100, -number / 100], np.float32)
        replay.add(
            action, float(number), observe(), terminated=step % 14 == 6, truncated=step % 14 == 13
        )
    return replay


def sampled(learner: TD3, seed: int = 0) -> Any:
    return filled(learner).sample(BATCH, torch.Generator().manual_seed(seed))


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def changed(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    after = network.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


# ------------------------------------------------------------------ the losses


def test_a_two_hot_value_is_on_the_atoms_beside_it() -> None:
    found = categorical.two_hot(torch.tensor([0.0, 0.125, -9.0, 5.0], dtype=torch.float64))
    assert found.sum(dim=1).tolist() == pytest.approx([1.0] * 4)
    assert categorical.mean(found).tolist() == pytest.approx([0.0, 0.125, -5.0, 5.0])
    assert found[0, 50] == pytest.approx(1.0)
    assert found[1, 51:53].tolist() == pytest.approx([0.75, 0.25])


def test_the_rewards_loss_is_that_of_the_squeezed_reward() -> None:
    logits = torch.randn(2, categorical.ATOMS, dtype=torch.float64)
    rewards = torch.tensor([math.e - 1.0, 1.0 - math.e**2], dtype=torch.float64)  # to 1 and -2
    logs = logits.log_softmax(dim=1)
    expected = [-logs[0, 60].item(), -logs[1, 30].item()]
    assert reward_loss(logits, rewards).tolist() == pytest.approx(expected)


def test_contrast_by_hand() -> None:
    """Two predictions at right angles; the first points to its own, the second between both."""
    following = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    predicted = torch.tensor([[0.5, 0.0], [1.0, 1.0]])
    found = contrast(predicted, following).tolist()
    assert found == pytest.approx([math.log(1.0 + math.exp(-10.0)), math.log(2.0)], abs=1e-6)


def test_decisions_after_a_drives_end_count_for_nothing() -> None:
    torch.manual_seed(0)
    head = SelfPrediction(SMALL)
    features, following = torch.rand(BATCH, 7), torch.rand(3, BATCH, 7)
    going = torch.ones(3, BATCH)
    going[1:, 2:] = 0.0
    ahead = Ahead(torch.rand(3, BATCH, 2), torch.rand(3, BATCH), going, following)
    actions, rewards = ahead.actions.clone(), ahead.rewards.clone()
    actions[1:, 2:], rewards[1:, 2:] = 9.0, -9.0
    other = ahead._replace(actions=actions, rewards=rewards)
    torch.testing.assert_close(head(features, ahead), head(features, other))
    assert head(features, ahead) != head(features, other._replace(going=torch.ones(3, BATCH)))


def test_it_learns_to_predict() -> None:
    torch.manual_seed(0)
    head = SelfPrediction(SMALL)
    features, actions = torch.rand(64, 7) - 0.5, torch.rand(1, 64, 2) - 0.5
    following = (features.roll(1, dims=1) + actions[0].sum(dim=1, keepdim=True))[None]
    ahead = Ahead(actions, features[:, 0][None], torch.ones(1, 64), following)
    adam = torch.optim.Adam(head.parameters(), 3e-3)
    losses = []
    for _ in range(100):
        adam.zero_grad()
        loss = head(features, ahead)
        loss.backward()
        adam.step()
        losses.append(loss.item())
    with torch.no_grad():
        predicted = head.features(head.hidden(torch.cat([features, actions[0]], dim=1)))
        left = (predicted - following[0]).square().mean() / following.var()
    assert left < 0.1 and losses[-1] < 0.5 * losses[0]


# ------------------------------------------------------------------ what a batch tells


@pytest.mark.parametrize("steps, n_step, ahead", [(1, 1, 0), (1, 3, 1), (2, 1, 2), (5, 3, 5)])
def test_a_batch_tells_of_decisions_only_where_it_must(
    steps: int, n_step: int, ahead: int
) -> None:
    settings = {"self_prediction_steps": steps, "n_step": n_step}
    assert decisions_ahead(LearningConfig(self_prediction=1.0, **settings)) == ahead
    assert decisions_ahead(LearningConfig(**settings)) == 0


def test_the_decisions_ahead_are_those_that_were_taken() -> None:
    learner = make_learner(self_prediction_steps=3)
    replay = filled(learner)
    batch = replay.gather(torch.tensor([8, 12, 14]))  # a drive has the slots 8 to 15
    assert batch.ahead is not None
    assert batch.ahead["rewards"][0].tolist() == [8.0, 9.0, 10.0]
    torch.testing.assert_close(batch.ahead["actions"][0, :, 0], torch.tensor([0.08, 0.09, 0.10]))
    assert batch.ahead["going"].tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert batch.ahead["image"].shape == (3, 3, 2, 36, 36)
    assert batch.ahead["image"][0, :, :, 0, 0].tolist() == [[8, 9], [9, 10], [10, 11]]
    torch.testing.assert_close(batch.ahead["image"][:, 0], batch.next_observations["image"])


def test_images_ahead_are_shifted_as_the_next_ones_are() -> None:
    replay = filled(make_learner(self_prediction_steps=2))
    slots, shifts = torch.tensor([8, 3, 12]), torch.randint(-3, 4, (2, 2, 3))
    ahead = replay.gather(slots, shifts).ahead
    later = replay.gather(slots + 1, shifts)
    assert ahead is not None
    torch.testing.assert_close(ahead["image"][:, 1], later.next_observations["image"])


# ------------------------------------------------------------------ whom it trains


def plain_of(learner: TD3) -> TD3:
    """Return a learner of the same weights without self-prediction."""
    return TD3(learner.spec, learner.settings.model_copy(update={"self_prediction": 0.0}), seed=3)


@pytest.mark.parametrize(
    "encoders, of, trained",
    [
        ("separate", "critic", {"critic"}),
        ("separate", "actor", {"actor"}),
        ("separate", "both", {"actor", "critic"}),
        ("critic", "actor", {"critic"}),
        ("actor", "critic", {"actor"}),
    ],
)
@pytest.mark.parametrize("steps", [1, 2])
def test_it_adds_to_the_gradients_of_its_encoders_alone(
    encoders: str, of: str, trained: set[str], steps: int
) -> None:
    learner = make_learner(encoders, self_prediction_of=of, self_prediction_steps=steps)
    plain = plain_of(learner)
    assert set(learner.predictions.heads) == trained
    heads = {name: weights(head) for name, head in learner.predictions.heads.items()}
    batch = sampled(learner)
    figures = learner.move(batch, UpdateKind(actor=False, targets=False), measure=True)
    plain.move(batch, UpdateKind(actor=False, targets=False))
    # What the critic's step did changes what the actor's loss is: compare from the same critic.
    plain.critic.load_state_dict(learner.critic.state_dict())
    learner.generator.manual_seed(5)
    figures |= learner.move(batch, BOTH, measure=True)
    plain.generator.manual_seed(5)
    plain.move(batch, BOTH)
    assert {name.removesuffix("_self_prediction_loss") for name in figures if "self_" in name} == (
        trained
    )
    for name, head in learner.predictions.heads.items():
        assert changed(heads[name], head) == set(heads[name])

    def gradients(one: TD3, name: str) -> dict[str, Tensor]:
        named = getattr(one, name).named_parameters()
        return {key: value.grad for key, value in named if value.grad is not None}

    mine, theirs = gradients(learner, "critic"), gradients(plain, "critic")
    differing = {key for key in theirs if not torch.equal(mine[key], theirs[key])}
    expected = {key for key in theirs if key.startswith("encoder.")}
    assert differing == (expected if "critic" in trained else set())
    assert not any(
        value.grad is not None
        for target in (learner.actor_target, learner.critic_target)
        for value in target.parameters()
    )


def test_the_gradient_of_an_encoder_is_that_of_both_losses() -> None:
    """By the chain rule, in the LayerNorm's bias before the tanh: see test_learning_encoders."""
    learner = make_learner(self_prediction=0.7)
    batch = sampled(learner)
    observations = learner.prepare(batch.observations)
    following = learner.critic_target.encoder.encoded(learner.prepare(batch.next_observations))
    target = learner.target_values(batch, learner.prepare(batch.next_observations))
    features = learner.critic.encoder.encoded(observations)["features"].detach()
    leaf = features.clone().requires_grad_(True)
    state = torch.cat(
        [leaf, batch.observations["vector"] / torch.tensor([1.0, 2.0]), batch.actions], dim=1
    )
    twins = [head(state).squeeze(1) for head in (learner.critic.q1, learner.critic.q2)]
    loss = sum(((q - target) ** 2).mean() for q in twins)
    ahead = Ahead(
        batch.actions[None],
        batch.rewards[None],
        torch.ones(1, BATCH),
        following["features"].detach()[None],
    )
    loss = loss + 0.7 * learner.predictions.heads["critic"](leaf, ahead)
    (by_feature,) = torch.autograd.grad(loss, leaf)
    by_bias = (by_feature * (1 - features**2)).sum(dim=0)
    learner.generator.manual_seed(3)
    learner.move(batch, UpdateKind(actor=False, targets=False))
    bias = learner.critic.encoder.trunk[1].bias
    torch.testing.assert_close(bias.grad, by_bias, rtol=1e-4, atol=1e-6)


def test_the_networks_begin_as_without_it() -> None:
    learner = make_learner(self_prediction_of="both")
    plain = plain_of(learner)
    for name in ("actor", "critic"):
        assert not changed(weights(getattr(learner, name)), getattr(plain, name))
    assert not plain.predictions.heads and len(plain.optimizers) == 2


@pytest.mark.parametrize("steps", [1, 2])
def test_in_bfloat16_it_is_worked_out_in_float32(steps: int) -> None:
    learner = make_learner(self_prediction_of="both", self_prediction_steps=steps)
    rounded = TD3(learner.spec, learner.settings, seed=3, precision=torch.bfloat16)
    batch = sampled(learner)
    exact, close = (each.move(batch, BOTH, measure=True) for each in (learner, rounded))
    for name in ("actor_self_prediction_loss", "critic_self_prediction_loss"):
        assert close[name].dtype == torch.float32
        torch.testing.assert_close(close[name], exact[name], rtol=0.02, atol=0.0)
    assert bool(rounded.finite)


def test_without_an_image_there_is_nothing_to_predict() -> None:
    with pytest.raises(ValueError, match="self_prediction is of an image's features"):
        LearningConfig(self_prediction=1.0, image_key="")


# ------------------------------------------------------------------ checkpoints


def saved(learner: TD3, folder: Path) -> Path:
    return checkpoint.write(folder, checkpoint.take(1, learner, filled(learner), {}, {}), 1)


def test_a_checkpoint_from_before_begins_it_and_one_with_it_goes_on_without(
    tmp_path: Path,
) -> None:
    learner = make_learner()
    plain = plain_of(learner)
    plain.move(sampled(plain), BOTH)
    fresh = weights(learner.predictions.heads["critic"])
    checkpoint.load(saved(plain, tmp_path / "plain"), learner, filled(learner), {})
    assert not changed(weights(plain.critic), learner.critic)
    assert not changed(fresh, learner.predictions.heads["critic"])
    learner.move(sampled(learner), BOTH)
    checkpoint.load(saved(learner, tmp_path / "with"), plain, filled(plain), {})
    assert not changed(weights(learner.critic), plain.critic)


def test_a_damaged_head_is_refused(tmp_path: Path) -> None:
    learner = make_learner()
    learner.predictions.heads["critic"].reward = nn.Linear(3, 3)
    written = saved(learner, tmp_path)
    with pytest.raises(checkpoint.CheckpointError, match="of critic_prediction, "):
        checkpoint.load(written, make_learner(), filled(learner), {})
