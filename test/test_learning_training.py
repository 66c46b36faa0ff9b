# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Whole training runs on a task that takes seconds."""

from __future__ import annotations

import errno
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bandit_training import (
    GOAL,
    LEARNING,
    Bandit,
    Heard,
    assert_same_state,
    make,
    rows_of,
)

from td3_driver.config import ConfigError, LearningConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.devices import ReplayMemoryError
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.manifest import seal
from td3_driver.learning.metrics import COLUMNS, MetricsWriter, in_words
from td3_driver.learning.networks import network_spec
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.policy import CheckpointError, Policy
from td3_driver.learning.trainer import EPISODES_AVERAGED, Progress

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


@pytest.mark.parametrize("synchronous", [True, False])
def test_a_run_takes_its_steps_and_updates_and_writes_its_record(
    tmp_path: Path, synchronous: bool
) -> None:
    env, heard = Bandit(), Heard()
    training = make(tmp_path, env, heard=heard, synchronous_updates=synchronous)
    saved = training.run()
    assert env.steps == training.trainer.standing.step == 80
    assert training.trainer.learner.updates == 60
    # Of 4 steps; a checkpoint every 25 ends the one under way.
    assert training.trainer.standing.episodes == 19
    assert len(training.trainer.replay) == 80
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path / "checkpoints")] == [
        "000000075",
        "000000080",
    ]
    assert saved.name == "000000080"

    rows = rows_of(tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        assert file.readline().strip() == ",".join(COLUMNS)
    assert [int(row["updates"]) for row in rows] == [10, 20, 30, 40, 50, 60]
    if synchronous:
        assert [int(row["step"]) for row in rows] == [30, 40, 50, 60, 70, 80]
    for row in rows[2:]:  # from when the actor learns
        assert all(row[name] != "" for name in COLUMNS if name != "validation_completion")
        assert float(row["route_completion_mean"]) == 0.25
    assert rows[0]["actor_loss"] == "" and float(rows[0]["critic_loss"]) > 0
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))

    assert [progress.step for progress in heard.progress] == list(range(1, 81))
    last = heard.progress[-1]
    assert (last.total_steps, last.ended_by) == (80, "limit")
    assert last.remaining_s == 0.0
    assert any("replay buffer: 500 slots" in line for line in heard.lines)


def test_a_row_in_words_names_every_figure_and_what_is_not_known() -> None:
    row = {name: float(index) for index, name in enumerate(COLUMNS, start=100)}
    line = in_words({**row, "updates": 1200})
    assert line.startswith("updates 1,200: ")
    told = set(COLUMNS) - {"step", "updates", "episodes", "wall_s"}
    assert all(f"{row[name]:.3g}" in line for name in told)
    del row["actor_loss"]
    assert "actor -;" in in_words({**row, "updates": 1200})


def test_rows_hold_the_actors_figures_whatever_the_interval(tmp_path: Path) -> None:
    make(tmp_path, log_interval_updates=7, policy_freq=2, actor_warmup_updates=0).run()
    rows = rows_of(tmp_path)
    assert [int(row["updates"]) for row in rows] == [7, 14, 21, 28, 35, 42, 49, 56]
    assert all(row["actor_loss"] != "" for row in rows)
    # Each row has figures of its own interval.
    assert len({row["actor_loss"] for row in rows}) == len({row["q1_mean"] for row in rows}) == 8


def test_first_steps_are_random_and_later_ones_the_policys_with_noise(tmp_path: Path) -> None:
    env = Bandit()
    training = make(
        tmp_path, env, random_steps=200, total_steps=300, updates_per_step=0.02, batch_size=2
    )
    training.trainer.learner.actor.head[-1].bias.data.fill_(-0.5)  # type: ignore[operator, union-attr]
    training.policy.follow(training.trainer.learner.actor)
    training.run()
    random, acted = np.array(env.actions[:200]), np.array(env.actions[200:])
    # Uniform over the whole range, then about one action with a deviation of 0.1.
    assert random.min() < -0.9 and random.max() > 0.9
    assert np.std(random) == pytest.approx(2 / np.sqrt(12), rel=0.15)
    assert 0.07 < np.std(acted) < 0.2
    assert np.all(np.abs(env.actions) <= 1.0)


def test_it_learns_the_rewarded_actions_from_the_picture(tmp_path: Path) -> None:
    training = make(
        tmp_path,
        total_steps=300,
        random_steps=60,
        batch_size=32,
        discount=0.0,  # an action has no say in what follows
        tau=0.1,
        actor_learning_rate=6e-3,
        critic_learning_rate=6e-3,
        actor_encoder_learning_rate=6e-3,
        critic_encoder_learning_rate=6e-3,
        channels=(8, 8, 8),
        image_features=16,
        hidden=(32, 32),
        checkpoint_interval_steps=10_000,
    )
    saved = training.run()
    policy = Policy.load(saved)
    random = np.random.default_rng(0)
    errors = []
    for level, wanted in ((220, GOAL), (40, -GOAL)) * 10:
        image = np.full((2, 36, 36), level, np.uint8)
        vector = random.uniform(-1, 1, 2).astype(np.float32)
        errors.append(abs(float(policy.act({"image": image, "vector": vector})[0]) - wanted))
    # Acting at random errs by 0.68 on average; one action for both pictures by 0.6 at best.
    assert np.mean(errors) < 0.25
    rows = rows_of(tmp_path)
    assert float(rows[-1]["return_mean"]) > float(rows[1]["return_mean"]) + 1.0


def test_the_same_seed_in_turn_gives_the_same_run_bit_for_bit(tmp_path: Path) -> None:
    runs, envs = [], [Bandit(), Bandit(), Bandit()]
    for env, name, seed in zip(envs, ("one", "again", "other"), (3, 3, 4), strict=True):
        (tmp_path / name).mkdir()
        runs.append(make(tmp_path / name, env, total_steps=50, seed=seed))
        runs[-1].run()
    assert envs[0].actions == envs[1].actions
    assert not set(envs[0].actions) & set(envs[2].actions)
    assert_same_state(runs[0], runs[1])
    one, other = runs[0].trainer.learner.actor, runs[2].trainer.learner.actor
    assert not torch.equal(next(one.parameters()), next(other.parameters()))


def test_resuming_goes_on_from_the_checkpoint_and_repeats_no_row(tmp_path: Path) -> None:
    first = make(tmp_path, total_steps=60)
    first.run()
    heard = Heard()
    env = Bandit()
    second = make(tmp_path, env, resume=True, heard=heard, total_steps=90)
    standing = second.trainer.standing
    assert (standing.step, second.trainer.learner.updates, standing.episodes) == (60, 40, 14)
    assert_same_state(first, second)
    second.run()
    assert env.steps == 30
    assert (second.trainer.standing.step, second.trainer.learner.updates) == (90, 70)
    rows = rows_of(tmp_path)
    assert [int(row["updates"]) for row in rows] == [10, 20, 30, 40, 50, 60, 70]
    assert [int(row["step"]) for row in rows] == [30, 40, 50, 60, 70, 80, 90]
    assert any("resumed" in line and "step 60" in line for line in heard.lines)
    assert heard.progress[0].step == 61


def note_batches(training: OnlineTraining, noted: list[bytes]) -> None:
    """Note every batch that the run samples."""
    plain = training.trainer.replay.sample

    def sample(*arguments: Any) -> Any:
        batch = plain(*arguments)
        tensors = (*batch.observations.values(), *batch.next_observations.values())
        tensors += (batch.actions, batch.rewards, batch.terminated, batch.steps)
        noted.append(b"".join(tensor.numpy().tobytes() for tensor in tensors))
        return batch

    training.trainer.replay.sample = sample  # type: ignore[method-assign]


EVERY_OPTION: dict[str, Any] = {
    "n_step": 3,
    "replay_sampling": "lap",
    "huber_threshold": 0.05,
    "gradient_clip_norm": 1.0,
    "learning_rate_decay_updates": 50,
    "exploration_noise_decay_steps": 100,
    "normalize_rewards": True,
    "image_jitter": 0.3,
    "priority_half_life_steps": 40,
}
CATEGORICAL = {"critic": "categorical", "normalize_rewards": False}
PREDICTING = {"self_prediction": 1.0, "self_prediction_steps": 2, "self_prediction_of": "both"}


# 26 and 40 updates; an episode is under way at both.
RANDOM, HALFWAY, END = 84, 110, 124


@pytest.mark.parametrize(
    "stopped_by, options",
    [
        ("its total steps", {"replay_capacity": 500}),
        ("a signal", {"replay_capacity": 500}),
        ("its total steps", {"replay_capacity": 100}),  # the ring is full
        ("a signal", {"replay_capacity": 100}),
        ("a signal", {"replay_capacity": 100, **EVERY_OPTION, **PREDICTING}),
        ("a signal", {"replay_capacity": 100, **EVERY_OPTION, **CATEGORICAL}),
        ("a signal", {"replay_capacity": 100, **EVERY_OPTION, "encoders": "critic"}),
        ("its total steps", {"image_key": "", "replay_sampling": "lap"}),
        ("its total steps", {"replay_capacity": 120}),  # it fills up after resuming
    ],
)
def test_a_run_stopped_and_resumed_is_the_run_that_was_not_bit_for_bit(
    tmp_path: Path, stopped_by: str, options: dict[str, Any]
) -> None:
    settings: dict[str, Any] = {
        "random_steps": RANDOM,
        "checkpoint_interval_steps": HALFWAY,
        "seed": 3,
        **options,
    }
    batches: dict[str, list[bytes]] = {"whole": [], "halves": []}
    envs = {name: Bandit() for name in ("whole", "first", "second")}
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    whole = make(tmp_path / "whole", envs["whole"], total_steps=END, **settings)
    note_batches(whole, batches["whole"])
    whole.run()

    by_signal = stopped_by == "a signal"
    steps = END if by_signal else HALFWAY

    def show(progress: Progress) -> None:
        if by_signal and progress.step == HALFWAY:
            first.stop()

    first = make(tmp_path / "halves", envs["first"], show=show, total_steps=steps, **settings)
    note_batches(first, batches["halves"])
    first.run()
    assert first.trainer.standing.step == HALFWAY
    second = make(tmp_path / "halves", envs["second"], resume=True, total_steps=END, **settings)
    note_batches(second, batches["halves"])
    second.run()

    updates = END - RANDOM
    assert whole.trainer.learner.updates == second.trainer.learner.updates == updates
    assert envs["whole"].actions == envs["first"].actions + envs["second"].actions
    assert len(batches["whole"]) == updates and batches["whole"] == batches["halves"]
    assert_same_state(whole, second)
    counters = [
        json.loads((checkpoint.latest(folder / "checkpoints") / "counters.json").read_text())
        for folder in (tmp_path / "whole", tmp_path / "halves")
    ]
    assert counters[0] == counters[1] and len(counters[0]["returns"]) == EPISODES_AVERAGED
    clock = {"wall_s", "steps_per_s", "updates_per_s"}
    tables = [
        [{key: value for key, value in row.items() if key not in clock} for row in rows_of(folder)]
        for folder in (tmp_path / "whole", tmp_path / "halves")
    ]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("halfway", [45, 55])  # before and after the share has settled
def test_a_ratio_that_has_risen_stays_so_when_resumed(tmp_path: Path, halfway: int) -> None:
    """It has after 30 updates, at 50 decisions: three rows, and no share can differ by over 1."""
    settings: dict[str, Any] = {
        "updates_per_step_final": 2.0,
        "settled_rows": 3,
        "settled_spread": 1.0,
        "checkpoint_interval_steps": halfway,
    }
    for name in ("whole", "halves"):
        (tmp_path / name).mkdir()
    heard = Heard()
    whole = make(tmp_path / "whole", heard=heard, total_steps=60, **settings)
    whole.run()
    make(tmp_path / "halves", total_steps=halfway, **settings).run()
    second = make(tmp_path / "halves", resume=True, total_steps=60, **settings)
    second.run()
    assert whole.trainer.learner.updates == 30 + 2 * 10
    assert_same_state(whole, second)
    assert sum("2 updates for each decision" in line for line in heard.lines) == 1


def test_a_checkpoint_with_other_counters_is_refused(tmp_path: Path) -> None:
    saved = make(tmp_path, checkpoints_kept=1, total_steps=30).run()
    counters = json.loads((saved / "counters.json").read_text())
    for change in ({"environment": {"bit_generator": "MT19937"}}, {"returns": 3}, {"step": None}):
        (saved / "counters.json").write_text(json.dumps({**counters, **change}))
        seal(saved)
        with pytest.raises(CheckpointError, match=r"counters\.json cannot be used"):
            make(tmp_path, resume=True)


def test_a_killed_run_resumes_from_its_last_checkpoint(tmp_path: Path) -> None:
    env = Bandit()
    env.fails_at = 64
    with pytest.raises(ConnectionError):
        make(tmp_path, env).run()
    # Where it fails it saves; a kill would leave the checkpoint of step 50.
    assert checkpoint.latest(tmp_path / "checkpoints").name == "000000063"
    (tmp_path / "checkpoints" / "000000063").rename(tmp_path / "lost")
    second = make(tmp_path, resume=True)
    assert (second.trainer.standing.step, second.trainer.learner.updates) == (50, 30)
    assert [int(row["updates"]) for row in rows_of(tmp_path)] == [10, 20, 30]
    second.run()
    assert [int(row["updates"]) for row in rows_of(tmp_path)] == [10, 20, 30, 40, 50, 60]


def test_rows_of_updates_after_the_checkpoint_are_dropped_whatever_their_step(
    tmp_path: Path,
) -> None:
    # Beside the steps, updates can go on while the step stays the same.
    writer = MetricsWriter(tmp_path)
    for updates in (10, 20, 30):
        writer.write({"step": 50, "updates": updates})
    writer.close()
    writer = MetricsWriter(tmp_path, 50, 20)
    writer.write({"step": 51, "updates": 30})
    writer.close()
    assert [(row["step"], row["updates"]) for row in rows_of(tmp_path)] == [
        ("50", "10"),
        ("50", "20"),
        ("51", "30"),
    ]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for 60 steps, in a folder that nobody changes."""
    folder = tmp_path_factory.mktemp("ended")
    make(folder, total_steps=60).run()
    return folder


@pytest.mark.parametrize("torn", ["61,4", "61", ",,,", '"'])
def test_a_torn_row_of_figures_does_not_keep_a_run_from_resuming(
    ended: Path, tmp_path: Path, torn: str
) -> None:
    shutil.copytree(ended, tmp_path, symlinks=True, dirs_exist_ok=True)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    make(tmp_path, resume=True, total_steps=80).run()
    assert [int(row["updates"]) for row in rows_of(tmp_path)] == [10, 20, 30, 40, 50, 60]


def test_figures_that_cannot_be_written_are_said_once_and_the_run_continues(
    tmp_path: Path,
) -> None:
    heard, in_the_way = Heard(), tmp_path / "metrics.csv"
    in_the_way.mkdir()

    def show(progress: Progress) -> None:
        if progress.step == 55:  # after three rows
            in_the_way.rmdir()

    saved = make(tmp_path, heard=heard, show=show).run()
    assert saved.name == "000000080"
    said = [line for line in heard.lines if "cannot be written" in line]
    assert len(said) == 1 and "training continues without them" in said[0]
    assert [int(row["updates"]) for row in rows_of(tmp_path)] == [40, 50, 60]


def test_a_checkpoint_on_a_full_disk_says_what_is_safe_and_the_run_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = checkpoint.save_file

    def full(tensors: Any, path: Path) -> None:
        if tensors and "000000025" in {
            one.name for one in checkpoint.list_checkpoints(tmp_path / "checkpoints")
        }:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        plain(tensors, path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(CheckpointError, match=r"No space left.*000000025 is safe: make room"):
            make(tmp_path).run()
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["000000025", "latest"]
    resumed = make(tmp_path, resume=True)
    assert resumed.trainer.standing.step == 25
    resumed.run()
    assert resumed.complete


def test_whoever_may_read_a_run_may_read_its_checkpoints(tmp_path: Path) -> None:
    saved = make(tmp_path, total_steps=30).run()
    assert {path.stat().st_mode & 0o777 for path in saved.iterdir()} == {0o644}
    assert saved.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path, total_steps=30).run()
    for name in ("9x", "99", "000000099x"):
        (tmp_path / "checkpoints" / name).mkdir()
    assert checkpoint.latest(tmp_path / "checkpoints").name == "000000030"


@pytest.mark.parametrize("synchronous", [True, False])
def test_stopping_ends_early_and_saves(tmp_path: Path, synchronous: bool) -> None:
    env = Bandit()

    def show(progress: Progress) -> None:
        if progress.step == 33:
            training.stop()

    training = make(tmp_path, env, show=show, synchronous_updates=synchronous, total_steps=10_000)
    saved = training.run()
    assert env.steps == training.trainer.standing.step == 33
    assert saved.name == "000000033"
    assert not training.complete
    resumed = make(tmp_path, resume=True, total_steps=40)
    assert resumed.trainer.standing.step == 33
    resumed.run()
    assert resumed.trainer.standing.step == 40 and resumed.complete


@pytest.mark.parametrize("synchronous", [True, False])
def test_an_error_in_an_update_ends_the_run_and_keeps_what_was_learnt(
    tmp_path: Path, synchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make(tmp_path, synchronous_updates=synchronous)
    plain = training.trainer.learner.update

    def update(*arguments: Any) -> Any:
        if training.trainer.learner.updates == 20:
            raise ArithmeticError("not a number")
        return plain(*arguments)

    monkeypatch.setattr(training.trainer.learner, "update", update)
    with pytest.raises(ArithmeticError):
        training.run()
    resumed = make(tmp_path, resume=True)
    assert resumed.trainer.learner.updates == 20


def test_a_checkpoint_is_copied_between_two_updates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make(tmp_path, total_steps=30, log_interval_updates=1000)
    training.run()
    trainer = training.trainer
    begun, permit = threading.Event(), threading.Semaphore(0)
    plain_update, plain_take = trainer.learner.update, checkpoint.take
    copied_at: list[tuple[int, int]] = []
    before = trainer.learner.updates

    def update(*arguments: Any) -> Any:
        begun.set()
        assert permit.acquire(timeout=10.0)
        return plain_update(*arguments)

    def take(*arguments: Any) -> Any:
        permit.release()  # the next update could run, if nothing held it
        first = trainer.learner.updates
        time.sleep(0.05)
        copied_at.append((first, trainer.learner.updates))
        return plain_take(*arguments)

    monkeypatch.setattr(trainer.learner, "update", update)
    monkeypatch.setattr(checkpoint, "take", take)
    with ThreadPoolExecutor() as threads:
        updated = threads.submit(trainer.update)
        assert begun.wait(10.0)
        saved = threads.submit(trainer.save, {"online": True})
        updated_again = threads.submit(trainer.update)
        time.sleep(0.05)
        assert copied_at == [] and trainer.learner.updates == before
        permit.release()
        updated.result(20.0)
        permit.release()  # either of the two may come next
        for future in (saved, updated_again):
            future.result(20.0)
    ((first, last),) = copied_at
    assert first == last and first in (before + 1, before + 2)
    assert trainer.learner.updates == before + 2


def test_an_unclean_step_is_never_sampled(tmp_path: Path) -> None:
    env = Bandit()
    env.unclean_at = 30
    training = make(tmp_path, env, total_steps=40)
    training.run()
    assert training.trainer.standing.step == 40 and len(training.trainer.replay) == 39


def test_too_little_memory_is_said_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(ReplayMemoryError, match="replay_capacity"):
        make(tmp_path, replay_capacity=10**9)
    assert list(tmp_path.iterdir()) == []


def test_the_networks_follow_the_environments_spaces() -> None:
    scale, env = np.array([2.0, 0.5], np.float32), Bandit()
    spec = network_spec(LearningConfig(**LEARNING), env.observation_space, env.action_space, scale)
    assert spec.image == (2, 36, 36) and spec.actions == 1
    assert spec.vector_scale == (2.0, 0.5) and spec.channels == (4, 4, 4)


def test_a_key_that_the_environment_has_not_is_said_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learning\.image_key is 'camera'.* image, vector"):
        make(tmp_path, image_key="camera")
    with pytest.raises(ConfigError, match=r"learning\.vector_key is 'state'"):
        make(tmp_path, vector_key="state")


@pytest.mark.parametrize("left_out", ["image_key", "vector_key"])
def test_a_key_can_be_left_out(tmp_path: Path, left_out: str) -> None:
    training = make(tmp_path, total_steps=45, **{left_out: ""})
    training.run()
    assert training.trainer.standing.step == 45 and training.trainer.learner.updates == 25
    key = left_out.removesuffix("_key")
    batch = training.trainer.replay.sample(3, training.trainer.generators["sampling"])
    assert key not in batch.observations
    resumed = make(tmp_path, resume=True, total_steps=55, **{left_out: ""})
    resumed.run()
    assert resumed.trainer.learner.updates == 35


def test_the_noise_of_exploration_goes_down_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = make(
        tmp_path,
        exploration_noise=0.8,
        exploration_noise_final=0.2,
        exploration_noise_decay_steps=30,
    )
    monkeypatch.setattr(torch, "randn", lambda size, generator: torch.ones(size))
    monkeypatch.setattr(training.policy, "act", lambda seen: np.zeros(1, np.float32))
    steps = {20: 0.8, 35: 0.5, 50: 0.2, 70: 0.2}
    for step, deviation in steps.items():
        training.trainer.standing.step = step
        assert training.explore({})[0] == pytest.approx(deviation)


def test_the_limits_of_q_follow_the_scale_of_the_rewards(tmp_path: Path) -> None:
    training = make(tmp_path, reward_scale=4.0, total_steps=30)
    training.run()
    least, greatest = training.trainer.replay.reward_range()
    rewards = training.trainer.scaled_rewards()
    assert (rewards.least, rewards.greatest) == (4.0 * least, 4.0 * greatest)


def test_where_and_how_it_learns_is_said(tmp_path: Path) -> None:
    heard = Heard()
    make(tmp_path, heard=heard, precision="bfloat16")
    assert "learning on cpu, bfloat16, eager; batches of 16 from cpu" in heard.lines


def test_bfloat16_learns_the_rewarded_actions_as_well(tmp_path: Path) -> None:
    training = make(tmp_path, precision="bfloat16", total_steps=60)
    training.run()
    assert training.trainer.learner.precision == torch.bfloat16
    tensors = learner_tensors(training.trainer.learner, {})
    assert {t.dtype for n, t in tensors.items() if n.startswith("critic.")} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in tensors.values())
