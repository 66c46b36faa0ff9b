# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Health: each warning from a learner made ill by hand, and no NaN in a checkpoint."""

from __future__ import annotations

import importlib
import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bandit_training import Bandit, Heard, make, rows_of
from safetensors.torch import load_file

from td3_driver.learning import checkpoint
from td3_driver.learning.health import (
    CHECKS,
    INTERVALS_IN_A_ROW,
    HealthMonitor,
    NotFiniteError,
    Rewards,
    not_finite,
)
from td3_driver.learning.networks import Encoder, NetworkSpec, dormant_share
from td3_driver.learning.online import OnlineTraining

pytestmark = pytest.mark.timeout(60)

REWARDS = Rewards(least=-2.0, greatest=1.0, discount=0.9)
HEALTHY = {
    "policy_q_mean": 4.0,
    "q1_mean": 3.5,
    "q1_std": 1.0,
    "saturated_share": 0.3,
    "actor_gradient_norm": 0.1,
    "actor_encoder_gradient_norm": 0.01,
    "actor_dormant_share": 0.1,
    "critic_dormant_share": 0.1,
}


def judged(figures: dict[str, float]) -> set[str]:
    """Return the checks that find something wrong."""
    return {
        check.name
        for check in CHECKS
        if all(name in figures for name in check.needs) and check.judge(figures, REWARDS)[0]
    }


def test_rewards_limit_what_q_can_be() -> None:
    assert REWARDS.q_limits == pytest.approx((-20.0, 10.0))
    # Ending at once is possible with either sign.
    assert Rewards(1.0, 2.0, 0.5).q_limits == (0.0, 4.0)
    assert Rewards(-2.0, -1.0, 0.5).q_limits == (-4.0, 0.0)


@pytest.mark.parametrize(
    "changes, wrong",
    [
        ({}, set()),
        ({"policy_q_mean": 10.4, "q1_mean": 9.0}, set()),
        ({"policy_q_mean": 10.6, "q1_mean": 9.0}, {"policy_q_beyond_rewards"}),
        ({"policy_q_mean": -20.9, "q1_mean": -20.0}, set()),
        ({"policy_q_mean": -21.1, "q1_mean": -20.0}, {"policy_q_beyond_rewards"}),
        ({"q1_mean": 1.1}, set()),
        ({"q1_mean": 0.9}, {"policy_q_leaves_data_q"}),
        ({"q1_mean": 7.1}, {"policy_q_leaves_data_q"}),
        ({"q1_mean": 0.9, "q1_std": 1.6}, set()),
        ({"saturated_share": 0.89}, set()),
        ({"saturated_share": 0.91}, {"actor_saturated"}),
        ({"actor_gradient_norm": 1e-30}, set()),
        ({"actor_gradient_norm": 0.0}, {"actor_without_gradient"}),
        ({"actor_encoder_gradient_norm": 0.0}, {"actor_without_gradient"}),
        ({"critic_dormant_share": 0.91}, {"encoder_dormant"}),
        ({"actor_dormant_share": 0.91}, {"encoder_dormant"}),
    ],
)
def test_each_check_finds_its_own_illness(changes: dict[str, float], wrong: set[str]) -> None:
    assert judged({**HEALTHY, **changes}) == wrong


def test_the_actors_encoder_is_watched_where_the_critic_has_none() -> None:
    alone = {name: value for name, value in HEALTHY.items() if name != "critic_dormant_share"}
    assert judged(alone) == set()
    assert judged({**alone, "actor_dormant_share": 0.91}) == {"encoder_dormant"}


def test_a_warning_is_said_once_when_it_begins_and_once_when_it_ends() -> None:
    said: list[str] = []
    monitor = HealthMonitor(said.append)
    ill = {**HEALTHY, "saturated_share": 1.0}

    def observe(figures: dict[str, float], times: int) -> None:
        for _ in range(times):
            monitor.observe(figures, REWARDS)

    for _ in range(3):  # never enough in a row
        observe(ill, INTERVALS_IN_A_ROW - 1)
        observe(HEALTHY, 1)
    assert said == [] and monitor.warnings == ()
    observe(ill, INTERVALS_IN_A_ROW)
    assert len(said) == 1
    assert said[0].startswith("warning: 100% of the policy's actions are at their bounds.")
    assert "learning.pre_tanh_penalty" in said[0]
    observe({**ill, "saturated_share": 0.95}, 10)
    (warning,) = monitor.warnings
    assert (warning.check, warning.figure[:4]) == ("actor_saturated", "95% ")
    for _ in range(3):
        observe(HEALTHY, INTERVALS_IN_A_ROW - 1)
        observe(ill, 1)
    assert len(said) == 1 and len(monitor.warnings) == 1
    observe(HEALTHY, INTERVALS_IN_A_ROW)
    assert said[1:] == ["health: actor saturated is over"] and monitor.warnings == ()
    observe(ill, INTERVALS_IN_A_ROW)
    assert len(said) == 3


def test_what_is_not_known_changes_nothing() -> None:
    said: list[str] = []
    monitor = HealthMonitor(said.append)
    ill = {**HEALTHY, "saturated_share": 1.0}
    warm_up = {"q1_mean": 0.0, "q1_std": 0.0}
    for figures in (ill, warm_up, ill, warm_up, ill, *[warm_up] * 9):
        monitor.observe(figures, REWARDS)
    assert len(said) == 1 and [warning.check for warning in monitor.warnings] == [
        "actor_saturated"
    ]


def test_the_worst_layers_dead_channels_and_constant_features_are_counted() -> None:
    torch.manual_seed(0)
    spec = NetworkSpec((2, 36, 36), (1.0,), 1, (4, 4, 4), 8, (8,))
    encoder = Encoder(spec)
    blocks = torch.randint(0, 256, (16, 2, 4, 4), dtype=torch.uint8)
    images = blocks.repeat_interleave(9, dim=2).repeat_interleave(9, dim=3)
    seen = {"image": images, "vector": torch.zeros(16, 1)}
    for layer in (0, 2, 4):
        convolution: Any = encoder.convolutions[layer]
        convolution.bias.data[:] = 1.0  # all open
    assert float(dormant_share(encoder, seen)) < 1 / 4
    for dead in (1, 2, 3):
        convolution.bias.data[:dead] = -100.0  # this channel's ReLU never opens
        assert float(dormant_share(encoder, seen)) == dead / 4
    # Behind a dead layer every feature is the same for all images.
    convolution.bias.data[:] = -100.0
    assert float(dormant_share(encoder, seen)) == 1.0
    convolution.bias.data[:] = 1.0
    same = {"image": images[:1].expand(16, -1, -1, -1), "vector": torch.zeros(16, 1)}
    assert float(dormant_share(encoder, same)) == 1.0


def fill(parameter: Any, value: float) -> None:
    parameter.data.fill_(value)


def saturate(training: OnlineTraining) -> None:
    fill(training.trainer.learner.actor.head[-1].bias, 50.0)


def blind(training: OnlineTraining) -> None:
    fill(training.trainer.learner.critic.encoder.convolutions[4].bias, -100.0)


def exaggerate(training: OnlineTraining) -> None:
    """Let the critic believe in far more than the rewards allow, for any action."""
    for head in (training.trainer.learner.critic.q1, training.trainer.learner.critic.q2):
        fill(head[-1].bias, 1e3)


def fool(training: OnlineTraining) -> None:
    """Let the critic reward actions beyond 0.8, rare in the data, with much more than is true."""
    critic = training.trainer.learner.critic
    for head in (critic.q1, critic.q2):
        first, second, last = (head[index] for index in (0, 2, 4))
        fill(first.weight, 0.0)
        first.weight.data[:, -1] = 1.0  # the action's
        fill(first.bias, -0.8)
        for layer in (second, last):
            fill(layer.weight, 1.0)
            fill(layer.bias, 0.0)
    fill(training.trainer.learner.actor.head[-1].bias, 2.0)


@pytest.mark.long
@pytest.mark.parametrize(
    "make_ill, checks",
    [
        (saturate, {"actor_saturated", "actor_without_gradient"}),
        (blind, {"encoder_dormant"}),
        (exaggerate, {"policy_q_beyond_rewards"}),
        (fool, {"policy_q_leaves_data_q", "policy_q_beyond_rewards"}),
    ],
)
def test_a_learner_made_ill_is_named_in_the_log_and_the_table(
    tmp_path: Path, make_ill: Callable[[OnlineTraining], None], checks: set[str]
) -> None:
    heard = Heard()
    training = make(
        tmp_path,
        heard=heard,
        actor_learning_rate=1e-9,
        critic_learning_rate=1e-9,
        actor_encoder_learning_rate=1e-9,
        critic_encoder_learning_rate=1e-9,
        pre_tanh_penalty=0.0,
        actor_warmup_updates=0,
        random_steps=300,
        total_steps=330,
        updates_per_step=2.0,
    )
    make_ill(training)
    training.policy.follow(training.trainer.learner.actor)
    training.run()
    assert {warning.check for warning in training.trainer.health.warnings} == checks
    assert len([line for line in heard.lines if line.startswith("warning: ")]) == len(checks)
    counts = [int(row["health"]) for row in rows_of(tmp_path)]
    assert counts[: INTERVALS_IN_A_ROW - 1] == [0] * (INTERVALS_IN_A_ROW - 1)
    assert counts[-1] == len(checks)


@pytest.mark.long
def test_a_sound_run_warns_of_nothing_and_reports_every_row(tmp_path: Path) -> None:
    class Scenery(Bandit):
        """Shows a picture with things in it, as a camera does, rather than one even colour."""

        def _observation(self) -> dict[str, np.ndarray]:
            blocks = self.np_random.integers(0, 256, (2, 4, 4), np.uint8)
            return {**super()._observation(), "image": blocks.repeat(9, axis=1).repeat(9, axis=2)}

    heard = Heard()
    reported: list[float] = []
    settings = {
        "actor_learning_rate": 3e-4,
        "critic_learning_rate": 3e-4,
        "actor_encoder_learning_rate": 1e-4,
        "critic_encoder_learning_rate": 1e-4,
        "channels": (16, 16, 16),
    }
    training = make(
        tmp_path,
        Scenery(),
        heard=heard,
        report=lambda row, health: reported.append(row["updates"]),
        total_steps=160,
        **settings,
    )
    training.run()
    assert not [line for line in heard.lines if line.startswith("warning")]
    assert reported == list(range(10, 141, 10))
    assert {row["health"] for row in rows_of(tmp_path)} == {"0"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_tensors_that_are_not_finite_are_named(value: float) -> None:
    tensors = {
        "sound": torch.full((3,), 3e38),  # the sum of which overflows
        "ill": torch.tensor([1.0, value]),
        "bytes": torch.zeros(2, dtype=torch.uint8),
    }
    assert not_finite(tensors) == ["ill"]
    assert not_finite({"bytes": tensors["bytes"]}) == []


def poison_weight(training: OnlineTraining) -> None:
    weight: Any = training.trainer.learner.actor.head[0].weight
    weight.data[0, 0] = math.nan


def poison_critic(training: OnlineTraining) -> None:
    fill(training.trainer.learner.critic.q1[-1].bias, math.inf)  # type: ignore[union-attr]


def poison_moment(training: OnlineTraining) -> None:
    optimizer = training.trainer.learner.critic_optimizer
    next(iter(optimizer.state.values()))["exp_avg"][0] = math.nan


def poison_reward(training: OnlineTraining) -> None:
    training.trainer.replay.rewards[:] = math.nan


@pytest.mark.long
@pytest.mark.parametrize("synchronous", [True, False])
@pytest.mark.parametrize("poison", [poison_weight, poison_critic, poison_moment, poison_reward])
def test_nan_ends_the_run_and_reaches_no_checkpoint(
    tmp_path: Path, poison: Callable[[OnlineTraining], None], synchronous: bool
) -> None:
    training = make(tmp_path, synchronous_updates=synchronous, total_steps=10_000)
    plain = training.trainer.replay.sample

    def sample(*arguments: Any) -> Any:
        if training.trainer.learner.updates == 44:
            poison(training)
        return plain(*arguments)

    training.trainer.replay.sample = sample  # type: ignore[method-assign]
    with pytest.raises(NotFiniteError, match=r"NaN or infinity at step .* update 4\d in"):
        training.run()
    # The last checkpoint is from before, and sound.
    latest = checkpoint.latest(tmp_path / "checkpoints")
    assert latest.name == "000000050" or not synchronous
    assert json.loads((latest / "counters.json").read_text())["updates"] <= 44
    assert not_finite(load_file(latest / "learner.safetensors")) == []
    failure = json.loads((tmp_path / "failure" / "failure.json").read_text())
    assert failure["reason"].startswith("NaN or infinity")
    assert failure["figures"]["critic_loss"] and failure["warnings"] == []
    # The batch that brought it about is there.
    batch = load_file(tmp_path / "failure" / "batch-000000045.safetensors")
    assert batch["observations.image"].shape == (16, 2, 36, 36)
    assert bool(batch["rewards"].isnan().any()) == (poison is poison_reward)
    resumed = make(tmp_path, resume=True, total_steps=60)
    resumed.run()
    assert resumed.complete


def test_a_last_update_that_breaks_the_weights_is_noticed_before_saving(tmp_path: Path) -> None:
    training = make(tmp_path)
    plain = training.trainer.learner.update

    def update(*arguments: Any) -> Any:
        figures = plain(*arguments)
        # Two before the end, between two intervals' looks.
        if training.trainer.learner.updates == 59:
            poison_moment(training)
            training.stop()
        return figures

    training.trainer.learner.update = update  # type: ignore[method-assign]
    with pytest.raises(NotFiniteError, match=r"critic_optimizer\.0\.exp_avg"):
        training.run()
    assert checkpoint.latest(tmp_path / "checkpoints").name == "000000075"


@pytest.mark.parametrize("what", ["reward", "vector"])
def test_an_environment_that_gives_nan_ends_the_run(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Bandit()
    plain = env.step

    def step(action: np.ndarray) -> Any:
        observation, reward, *rest = plain(action)
        if env.steps == 30:
            if what == "reward":
                reward = math.nan
            else:
                observation["vector"][1] = math.inf
        return observation, reward, *rest

    monkeypatch.setattr(env, "step", step)
    training = make(tmp_path, env)
    with pytest.raises(NotFiniteError, match="the environment's reward or observation"):
        training.run()
    assert len(training.trainer.replay) == 29
    assert checkpoint.latest(tmp_path / "checkpoints").name == "000000025"


def train_to_nan() -> None:
    def train(node: object) -> None:
        raise NotFiniteError("NaN or infinity in critic_loss")

    trainer = importlib.import_module("td3_driver.nodes.trainer")
    trainer.train = train
    trainer.main()


@pytest.mark.ros
def test_the_trainers_process_ends_with_1_and_a_plain_line(forked: Callable[..., Any]) -> None:
    process = forked("test_learning_health:train_to_nan", stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=50.0)
    assert process.returncode == 1 and told is not None
    assert told.strip().splitlines()[-1] == "error: NaN or infinity in critic_loss"
    assert "Traceback" not in told
