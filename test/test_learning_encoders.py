# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""One encoder for actor and critic: who trains it, how often it runs, what leaves the learner.

test_learning_td3.py compares the whole update with a plain reference.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_networks import SMALL
from torch import Tensor, nn

from td3_driver.config import LearningConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import Batch
from td3_driver.learning.captured_check import StateBefore
from td3_driver.learning.following import Follower
from td3_driver.learning.learner_state import live_tensors
from td3_driver.learning.manifest import CheckpointError, seal
from td3_driver.learning.networks import Critic, NetworkSpec, weights_of
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.saved_networks import SavedNetworks
from td3_driver.learning.td3 import TD3, UpdateKind

torch.set_num_threads(1)  # the networks are too small for more

SPEC = dataclasses.replace(SMALL, privileged_scale=(8.0,), encoders="critic")
BATCH = 6
BOTH = UpdateKind(actor=True, targets=True)
CRITIC_ALONE = UpdateKind(actor=False, targets=False)


def seen(seed: int, count: int = BATCH) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (count, 2, 36, 36), np.uint8),
        "vector": random.normal(size=(count, 3)).astype(np.float32),
    }


def make_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    observations, following = (
        {key: torch.from_numpy(value) for key, value in seen(2 * seed + after).items()}
        for after in (0, 1)
    )
    return Batch(
        observations,
        2 * torch.rand(BATCH, 2, generator=generator) - 1,
        torch.randn(BATCH, generator=generator),
        following,
        (torch.arange(BATCH) % 3 == 0).float(),
        torch.ones(BATCH),
    )


def make_learner(encoders: Any = "critic", **settings: Any) -> TD3:
    config = LearningConfig(
        **{"actor_warmup_updates": 0, "policy_freq": 1, "encoders": encoders, **settings}
    )
    return TD3(dataclasses.replace(SPEC, encoders=encoders), config, seed=3)


def weights(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def differing(before: dict[str, Tensor], network: nn.Module) -> set[str]:
    return {
        name
        for name, value in network.state_dict().items()
        if not torch.equal(value, before[name])
    }


def image_layers(network: nn.Module) -> set[str]:
    names = ("encoder.convolutions.", "encoder.trunk.")
    return {name for name, _ in network.named_parameters() if name.startswith(names)}


# ------------------------------------------------------------------ who trains it


def test_the_image_layers_of_actor_and_critic_are_the_same_and_nothing_else_is() -> None:
    learner = make_learner()
    for actor, critic in (
        (learner.actor, learner.critic),
        (learner.actor_target, learner.critic_target),
    ):
        of_critic = dict(critic.named_parameters())
        common = {name for name, value in actor.named_parameters() if value is of_critic.get(name)}
        assert common == image_layers(actor) != set()
        assert actor.encoder.vector_scale.tolist() == [1.0, 2.0]
        assert critic.encoder.vector_scale.tolist() == [1.0, 2.0, 8.0]
    online = {id(value) for value in learner.critic.parameters()}
    assert online.isdisjoint(id(value) for value in learner.critic_target.parameters())


def test_the_actors_update_changes_its_head_alone() -> None:
    batch = make_batch()
    with_actor, without = make_learner(), make_learner()
    before = weights(without.actor)
    with_actor.move(batch, BOTH)
    without.move(batch, BOTH._replace(actor=False))
    assert not differing(weights(with_actor.critic), without.critic)
    for one, other in zip(
        with_actor.critic.parameters(), without.critic.parameters(), strict=True
    ):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    assert differing(before, without.actor) == image_layers(without.actor)
    heads = set(before) - image_layers(with_actor.actor) - {"encoder.vector_scale"}
    assert differing(weights(without.actor), with_actor.actor) == heads


def test_the_encoders_gradient_is_the_critics_loss_by_the_chain_rule() -> None:
    """By hand, in the one layer where that is short: the LayerNorm's bias before the tanh.

    A feature is tanh(x), so dL/d(bias) is the sum over the batch of dL/d(feature) (1 - feature²).
    """
    learner, batch = make_learner(), make_batch()
    observations = learner.prepare(batch.observations)
    target = learner.target_values(batch, learner.prepare(batch.next_observations))
    features = learner.critic.encoder.encoded(observations)["features"].detach()
    scaled = batch.observations["vector"] / torch.tensor([1.0, 2.0, 8.0])
    leaf = features.clone().requires_grad_(True)
    state = torch.cat([leaf, scaled, batch.actions], dim=1)
    twins = [head(state).squeeze(1) for head in (learner.critic.q1, learner.critic.q2)]
    loss = sum(((q - target) ** 2).sum() / BATCH for q in twins)
    (by_feature,) = torch.autograd.grad(loss, leaf)
    by_bias = (by_feature * (1 - features**2)).sum(dim=0)

    learner.generator.manual_seed(3)  # as when it was made: the same noise for the target
    learner.move(batch, BOTH)  # the actor's loss must add nothing
    bias = learner.critic.encoder.trunk[1].bias
    assert bias.grad is not None and by_bias.abs().min() > 1e-5
    torch.testing.assert_close(bias.grad, by_bias, rtol=1e-4, atol=1e-6)


def test_clipping_leaves_the_critics_gradient_out_of_the_actors() -> None:
    learner = make_learner(gradient_clip_norm=1e-3)
    figures = learner.move(make_batch(), BOTH, measure=True)
    head = torch.cat([value.grad.flatten() for value in learner.actor.head.parameters()])
    assert head.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert "actor_encoder_gradient_norm" not in figures
    assert figures["actor_dormant_share"] == figures["critic_dormant_share"]


# ------------------------------------------------------------------ how often it runs


@contextmanager
def passes_counted(learner: TD3) -> Iterator[dict[str, int]]:
    """Count the passes through the convolutions of all networks, to and fro."""
    passes = {"forward": 0, "backward": 0}

    def back(gradient: Tensor) -> None:
        passes["backward"] += 1

    def forward(module: nn.Module, arguments: Any, output: Tensor) -> None:
        passes["forward"] += 1
        if output.requires_grad:
            output.register_hook(back)

    networks = (learner.actor, learner.critic, learner.actor_target, learner.critic_target)
    convolutions = {network.encoder.convolutions for network in networks}
    hooks = [each.register_forward_hook(forward) for each in convolutions]
    yield passes
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize(
    "encoders, kind, forward, backward",
    [
        ("critic", CRITIC_ALONE, 2, 1),
        ("critic", BOTH, 2, 1),
        ("separate", CRITIC_ALONE, 3, 1),
        ("separate", BOTH, 5, 2),
        ("reused", BOTH, 4, 2),
    ],
)
def test_how_often_an_update_encodes(
    encoders: str, kind: UpdateKind, forward: int, backward: int
) -> None:
    learner = (
        make_learner("separate", reuse_critic_features=True)
        if encoders == "reused"
        else make_learner(encoders)
    )
    with passes_counted(learner) as passes:
        learner.move(make_batch(), kind)
    assert passes == {"forward": forward, "backward": backward}


def test_a_captured_updates_check_holds_each_weight_once_and_puts_it_back() -> None:
    learner = make_learner()
    replay = make_replay(learner.spec, learner.settings, "cpu", 30)
    learner.move(make_batch(), BOTH)
    groups = live_tensors(learner)
    places = [tensor.data_ptr() for group in groups.values() for tensor in group]
    assert len(set(places)) == len(places)
    # The head's six and the vector's scale.
    assert len(groups["actor"]) == len(groups["actor_target"]) == 7
    before = {name: weights(getattr(learner, name)) for name in ("actor", "critic")}
    kept = StateBefore(learner, replay, (learner.generator,))
    learner.move(make_batch(1), BOTH)
    assert all(bool(change.any()) for change in kept.changes().of.values())
    kept.restore()
    assert not any(differing(before[name], getattr(learner, name)) for name in before)


# ------------------------------------------------------------------ what leaves the learner


def drive(policy: Policy, seed: int = 50) -> np.ndarray:
    """Act on an observation as there is when driving: without what is privileged."""
    one = {key: value[0] for key, value in seen(seed, 1).items()}
    return policy.act({"image": one["image"], "vector": one["vector"][:2]})


def test_a_policy_has_the_encoder_of_its_time_and_learns_no_more(tmp_path: Path) -> None:
    learner = make_learner()
    learner.move(make_batch(), BOTH)
    policy = Policy.like(learner.spec)
    follower = Follower(policy, learner.actor)
    elsewhere = Policy.like(learner.spec)
    elsewhere.load_weights(policy.weights())  # as a collector does
    snapshot = checkpoint.take(1, learner, None, {}, {})
    acted = drive(policy)
    learner.move(make_batch(1), CRITIC_ALONE)  # the head stays, the encoder does not
    saved = Policy.load(checkpoint.write(tmp_path, snapshot, 1))
    for each in (policy, elsewhere, saved):
        assert np.array_equal(drive(each), acted)
    follower.follow(at_once=True)
    assert not np.array_equal(drive(policy), acted)
    assert all(parameter.requires_grad for parameter in learner.actor.parameters())


def filled_replay(spec: NetworkSpec) -> ReplayBuffer:
    replay = make_replay(spec, LearningConfig(replay_capacity=100), "cpu", 30)
    stream = [{key: value[0] for key, value in seen(seed, 1).items()} for seed in range(9)]
    replay.begin(stream[0])
    for observation in stream[1:]:
        replay.add(np.zeros(2, np.float32), 0.5, observation, terminated=False)
    return replay


def test_a_saved_learner_goes_on_with_one_encoder_and_its_critic_loads(tmp_path: Path) -> None:
    learner, other = make_learner(), make_learner(tau=0.5)
    learner.move(make_batch(), BOTH)
    replay = filled_replay(learner.spec)
    written = checkpoint.write(tmp_path, checkpoint.take(1, learner, replay, {}, {}), 1)
    checkpoint.load(written, other, filled_replay(SPEC), {})
    for each in (learner, other):
        each.settings = LearningConfig(encoders="critic")
        each.move(make_batch(1), BOTH)
    for name in ("actor", "critic", "actor_target", "critic_target"):
        assert not differing(weights(getattr(learner, name)), getattr(other, name))
    assert other.actor.encoder.trunk is other.critic.encoder.trunk
    critic = SavedNetworks.load(written).critic
    assert critic is not None and image_layers(critic)


@pytest.mark.parametrize("saved, here", [("critic", "separate"), ("separate", "critic")])
def test_a_checkpoint_of_the_other_kind_is_refused(tmp_path: Path, saved: str, here: str) -> None:
    learner = make_learner(saved)
    snapshot = checkpoint.take(1, learner, filled_replay(learner.spec), {}, {})
    written = checkpoint.write(tmp_path, snapshot, 1)
    with pytest.raises(CheckpointError, match=f"encoders '{saved}', not '{here}'"):
        checkpoint.load(written, make_learner(here), filled_replay(SPEC), {})


def test_a_checkpoint_from_before_there_was_a_choice_has_separate_encoders(
    tmp_path: Path,
) -> None:
    learner = make_learner("separate")
    snapshot = checkpoint.take(1, learner, filled_replay(learner.spec), {}, {})
    written = checkpoint.write(tmp_path, snapshot, 1)
    values = json.loads((written / "networks.json").read_text())
    del values["encoders"]
    (written / "networks.json").write_text(json.dumps(values))
    seal(written)
    assert Policy.load(written).spec == learner.spec
    checkpoint.load(written, make_learner("separate"), filled_replay(SPEC), {})


# ------------------------------------------------------------------ a critic without an image


def test_a_critic_that_is_told_everything_has_no_image_layers() -> None:
    learner, batch = make_learner("actor"), make_batch()
    assert image_layers(learner.critic) == set() != image_layers(learner.actor)
    other = {**batch.observations, "image": make_batch(1).observations["image"]}
    before = learner.critic(batch.observations, batch.actions)
    for one, unchanged in zip(learner.critic(other, batch.actions), before, strict=True):
        assert torch.equal(one, unchanged)
    assert not torch.equal(learner.actor(other), learner.actor(batch.observations))
    actor, critic = weights(learner.actor), weights(learner.critic)
    figures = learner.move(batch, BOTH, measure=True)
    assert image_layers(learner.actor) < differing(actor, learner.actor)
    assert differing(critic, learner.critic) == dict(learner.critic.named_parameters()).keys()
    assert "actor_dormant_share" in figures and "critic_dormant_share" not in figures


def test_a_critic_without_an_image_must_be_told_something() -> None:
    spec = dataclasses.replace(SPEC, vector_scale=(), privileged_scale=(), encoders="actor")
    with pytest.raises(ValueError, match="see neither an image nor a vector"):
        weights_of(Critic, spec)


def test_advice_is_imitated_in_place_of_the_batchs_actions() -> None:
    learner, batch = make_learner("actor", bc_alpha=0.5, imitated="advice"), make_batch()
    advice = batch.observations["vector"][:, -2:]
    loss, actions, pre_tanh, q = learner.actor_loss(batch.observations, batch.actions)
    expected = (
        (actions - advice).square().mean()
        - 0.5 * q.mean() / q.abs().mean()
        + 1e-3 * pre_tanh.square().mean()
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    learner.bc_weight.fill_(0.25)
    less = learner.actor_loss(batch.observations, batch.actions)[0]
    gap = 0.75 * (actions - advice).square().mean()
    assert (loss - less).item() == pytest.approx(gap.item(), rel=1e-4)
