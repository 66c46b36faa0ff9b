# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""TD3+BC, batches of recorded and new transitions, pretraining, and going on from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bandit_training import GOAL, LEARNING, TRAINING, Bandit, Heard, assert_same_state, make
from torch import Tensor
from torch.nn import functional

from td3_driver.config import LearningConfig, TrainingConfig
from td3_driver.learning.assembly import offline_training
from td3_driver.learning.batch import Batch, ReplaySpec
from td3_driver.learning.manifest import CheckpointError
from td3_driver.learning.mixed_replay import MixedReplay
from td3_driver.learning.networks import NetworkSpec, network_spec
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.td3 import TD3
from td3_driver.learning.warm_start import WARM_START, adopt

pytestmark = pytest.mark.long

SPEC = NetworkSpec(None, (1.0, 2.0), 2, channels=(1, 1, 1), image_features=1, hidden=(8,))


def make_batch(count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> Tensor:
        return 2.0 * torch.rand(shape, generator=generator) - 1.0

    return Batch(
        observations={"vector": random(count, 2)},
        actions=random(count, 2),
        rewards=random(count),
        next_observations={"vector": random(count, 2)},
        terminated=torch.zeros(count),
        steps=torch.ones(count),
    )


def make_learner(**settings: Any) -> TD3:
    return TD3(SPEC, LearningConfig(**{"actor_warmup_updates": 0, "image_key": "", **settings}))


# --- the loss --------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
def test_the_actors_loss_is_that_of_td3_bc(weight: float) -> None:
    learner, batch = make_learner(bc_alpha=2.5, pre_tanh_penalty=0.0), make_batch()
    values = torch.tensor([1.0, -2.0, 3.0, 4.0, -5.0, 9.0])  # of mean 5/3 and mean size 4
    learner.critic.q1_of_action = lambda seen, actions: values  # type: ignore
    learner.bc_weight.fill_(weight)
    loss, actions, _, q = learner.actor_loss(batch.observations, batch.actions)
    squared = ((actions - batch.actions) ** 2).mean()
    assert q is values
    assert loss.item() == pytest.approx(-2.5 / 4.0 * 5.0 / 3.0 + weight * squared.item())


def test_its_gradient_takes_the_size_of_q_for_a_constant() -> None:
    learner, batch = make_learner(bc_alpha=2.5, pre_tanh_penalty=0.0), make_batch()
    loss, actions, _, q = learner.actor_loss(batch.observations, batch.actions)
    size = q.detach().abs().mean()
    expected = functional.mse_loss(actions, batch.actions) - 2.5 * q.mean() / size
    parameters = list(learner.actor.parameters())
    mine = torch.autograd.grad(loss, parameters, retain_graph=True)
    theirs = torch.autograd.grad(expected, parameters)
    for gradient, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(gradient, other)


def test_without_alpha_it_is_plain_td3() -> None:
    learner, batch = make_learner(), make_batch()
    learner.bc_weight.fill_(7.0)
    loss, *_ = learner.actor_loss(batch.observations, batch.actions)
    plain, *_ = learner.actor_loss(batch.observations)
    assert loss.item() == plain.item()


def test_a_q_of_zero_everywhere_leaves_the_loss_finite() -> None:
    learner, batch = make_learner(bc_alpha=2.5), make_batch()
    learner.critic.q1_of_action = lambda seen, actions: 0.0 * actions.sum(dim=1)  # type: ignore
    loss, *_ = learner.actor_loss(batch.observations, batch.actions)
    assert loss.isfinite()


# --- batches ---------------------------------------------------------------------------------


def filled(count: int, sign: float, **options: Any) -> ReplayBuffer:
    """Return a buffer whose actions and rewards have a sign, for each transition its own."""
    replay = ReplayBuffer(ReplaySpec(None, 1, 1), 50, **options)
    replay.begin({"vector": np.zeros(1, np.float32)})
    for number in range(1, count + 1):
        vector = np.full(1, sign * number, np.float32)
        action = np.full(1, sign * number / 64.0, np.float32)
        replay.add(action, sign * number, {"vector": vector}, terminated=False)
    return replay


@pytest.mark.parametrize("share, recorded", [(0.5, 8), (0.25, 4), (0.01, 1), (0.99, 15)])
def test_a_batch_holds_its_share_of_the_recorded(share: float, recorded: int) -> None:
    mixed = MixedReplay(filled(40, -1.0), filled(3, 1.0), share)
    for seed in range(5):
        batch = mixed.sample(16, torch.Generator().manual_seed(seed))
        assert (batch.rewards < 0).sum() == recorded and len(batch.rewards) == 16
        # What belongs together has stayed together.
        assert torch.equal(batch.actions[:, 0] * 64.0, batch.rewards)
        assert torch.equal(batch.next_observations["vector"][:, 0], batch.rewards)


def test_what_is_new_never_overwrites_what_was_recorded() -> None:
    mixed = MixedReplay(filled(40, -1.0), ReplayBuffer(ReplaySpec(None, 1, 1), 20), 0.5)
    with pytest.raises(ValueError, match="no new transition yet"):
        mixed.sample(4, torch.Generator())
    mixed.begin({"vector": np.zeros(1, np.float32)})
    for _ in range(100):
        mixed.add(np.zeros(1), 1.0, {"vector": np.zeros(1, np.float32)}, terminated=False)
    assert len(mixed.recorded) == 40 and len(mixed) == 40 + 19
    drawn = mixed.sample(4000, torch.Generator().manual_seed(0)).rewards
    assert set(drawn[drawn < 0].tolist()) == {-float(number) for number in range(1, 41)}
    assert mixed.reward_range() == (-40.0, 1.0)


def test_priorities_find_their_buffer_and_survive_a_checkpoint() -> None:
    def fresh() -> MixedReplay:
        both = (filled(40, -1.0, prioritized=True), filled(10, 1.0, prioritized=True))
        return MixedReplay(*both, 0.5)

    mixed = fresh()
    batch = mixed.sample(8, torch.Generator().manual_seed(0))
    assert batch.slots is not None
    mixed.set_priorities(batch.slots, torch.arange(10.0, 18.0))
    for place, slot in enumerate(batch.slots.tolist()):
        later = batch.slots[place + 1 : 4 if place < 4 else 8].tolist()
        if slot not in later:
            owner = mixed.recorded if place < 4 else mixed.online
            assert owner.priorities[slot] == 10.0 + place
    again = fresh()
    again.restore(mixed.state())
    assert torch.equal(again.recorded.priorities, mixed.recorded.priorities)
    assert torch.equal(again.online.priorities, mixed.online.priorities)


# --- pretraining -----------------------------------------------------------------------------


def recorded(count: int = 200) -> ReplayBuffer:
    """Return what a driver has done who knows the bandit well, if not quite."""
    env = Bandit()
    replay = ReplayBuffer(ReplaySpec((2, 36, 36), 2, 1), 2 * count, discount=0.5)
    rng = np.random.default_rng(0)
    observation, _ = env.reset(seed=0)
    replay.begin(observation)
    for _ in range(count):
        good = GOAL if observation["image"].mean() > 128 else -GOAL
        action = np.clip(rng.normal(good, 0.1, 1), -1.0, 1.0).astype(np.float32)
        observation, reward, terminated, _, _ = env.step(action)
        replay.add(action, reward, observation, terminated=terminated)
        if terminated:
            observation, _ = env.reset()
            replay.begin(observation)
    return replay


OFFLINE: dict[str, Any] = {"bc_alpha": 2.5}
UPDATES = 150


def pretrained(folder: Path, heard: Heard | None = None) -> Path:
    heard = heard or Heard()
    env = Bandit()
    learning = LearningConfig(**LEARNING, **OFFLINE)
    training = offline_training(
        recorded(),
        network_spec(learning, env.observation_space, env.action_space, np.ones(2, np.float32)),
        learning,
        TrainingConfig(**{**TRAINING, "offline_updates": UPDATES}),
        folder,
        say=heard.lines.append,
        show=heard.progress.append,
    )
    return training.run()


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrained(tmp_path_factory.mktemp("pretrained"))


def test_pretraining_learns_what_was_recorded(origin: Path) -> None:
    policy = Policy.load(origin)
    env = Bandit()
    for _ in range(10):
        observation, _ = env.reset()
        good = GOAL if observation["image"].mean() > 128 else -GOAL
        assert policy.act(observation) == pytest.approx([good], abs=0.15)


def test_pretraining_shows_every_update_and_keeps_a_record(tmp_path: Path) -> None:
    heard = Heard()
    checkpoint = pretrained(tmp_path, heard)
    assert [progress.updates for progress in heard.progress] == list(range(1, UPDATES + 1))
    assert heard.progress[-1].total_steps == UPDATES
    assert checkpoint.name == f"{UPDATES:09d}"
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 1 + UPDATES // 10


def test_pretraining_is_not_resumed_as_if_it_had_driven(origin: Path, tmp_path: Path) -> None:
    adopted = tmp_path / "checkpoints" / origin.name
    adopted.parent.mkdir()
    origin.rename(adopted)
    try:
        with pytest.raises(CheckpointError, match="--from"):
            make(tmp_path, resume=True, **OFFLINE)
    finally:
        adopted.rename(origin)


# --- going on --------------------------------------------------------------------------------

ONLINE: dict[str, Any] = {**OFFLINE, "random_steps": 0, "total_steps": 60}
ONLINE |= {"bc_decay_steps": 40, "bc_weight_final": 0.25}


def test_it_goes_on_with_the_policy_the_critic_and_what_was_recorded(
    origin: Path, tmp_path: Path
) -> None:
    adopt(origin, tmp_path)
    env, heard = Bandit(), Heard()
    training = make(tmp_path, env, heard=heard, **ONLINE)
    # Beyond the warm-up, which is not made again.
    assert training.trainer.learner.updates == UPDATES
    assert isinstance(training.trainer.replay, MixedReplay)
    assert len(training.trainer.replay.recorded) == 200 and not len(training.trainer.replay.online)
    assert any("200 recorded transitions" in line for line in heard.lines)
    first = {
        name: value.clone() for name, value in training.trainer.learner.critic.named_parameters()
    }
    training.run()
    # From its first step on it drives as it has learnt to, and not at random.
    assert np.abs(np.abs(env.actions) - GOAL).max() < 0.5
    assert (
        len(training.trainer.replay.recorded) == 200 and len(training.trainer.replay.online) == 60
    )
    assert first.keys() == dict(training.trainer.learner.critic.named_parameters()).keys()
    # A batch of new transitions comes first; then updates keep pace with the steps.
    assert training.trainer.learner.updates == UPDATES + 60 - LEARNING["batch_size"]
    assert training.trainer.learner.bc_weight.item() == pytest.approx(0.25)  # faded, but not gone


def test_the_weight_of_the_recorded_fades_with_the_steps(origin: Path, tmp_path: Path) -> None:
    adopt(origin, tmp_path)
    training = make(tmp_path, **{**ONLINE, "total_steps": 30})
    training.run()
    assert training.trainer.learner.bc_weight.item() == pytest.approx(1.0 - 0.75 * 30 / 40)


def test_a_stopped_run_that_goes_on_from_another_resumes_exactly(
    origin: Path, tmp_path: Path
) -> None:
    whole, halved = tmp_path / "whole", tmp_path / "halved"
    lap = {"replay_sampling": "lap", "huber_threshold": 0.1}
    for folder in (whole, halved):
        folder.mkdir()
        adopt(origin, folder)
    once = make(whole, **ONLINE, **lap, checkpoint_interval_steps=25)
    once.run()
    make(halved, **{**ONLINE, "total_steps": 25}, **lap, checkpoint_interval_steps=25).run()
    again = make(halved, resume=True, **ONLINE, **lap, checkpoint_interval_steps=25)
    assert again.trainer.standing.step == 25
    again.run()
    assert_same_state(once, again)
    shutil.rmtree(halved / WARM_START)
    with pytest.raises(CheckpointError, match="origin has gone"):
        make(halved, resume=True, **ONLINE, **lap)


def test_seeds_tell_runs_from_one_origin_apart(origin: Path, tmp_path: Path) -> None:
    driven = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        adopt(origin, folder)
        env = Bandit()
        make(folder, env, **{**ONLINE, "total_steps": 20}, seed=seed).run()
        driven.append(env.actions)
    assert driven[0] != driven[1]


def test_a_damaged_origin_is_refused(origin: Path, tmp_path: Path) -> None:
    adopt(origin, tmp_path)
    damaged = tmp_path / WARM_START / "replay.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"replay\.safetensors"):
        make(tmp_path, **ONLINE)
