# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Assembles a training run: devices, networks, replay buffer, and the state it starts from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from td3_driver.config import ConfigError, LearningConfig, TrainingConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import Replay, replay_spec
from td3_driver.learning.counters import SavedCounters, checked
from td3_driver.learning.devices import (
    ReplayMemoryError,
    available_bytes,
    check_memory,
    choose_device,
)
from td3_driver.learning.execution import choose_precision, describe
from td3_driver.learning.health import HealthMonitor
from td3_driver.learning.manifest import CHECKPOINTS, CheckpointError
from td3_driver.learning.metrics import FLEET_COLUMNS, MetricsWriter, RunLogger
from td3_driver.learning.mixed_replay import MixedReplay
from td3_driver.learning.networks import NOTHING, NetworkSpec, network_spec
from td3_driver.learning.offline import OfflineTraining
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.td3 import TD3
from td3_driver.learning.trainer import Progress, Standing, Trainer
from td3_driver.learning.validation import Validation
from td3_driver.learning.warm_start import (
    WARM_START,
    has_warm_start,
    load_warm_start,
    recorded_replay,
    restored,
)

Say = Callable[[str], object]
Report = Callable[[Mapping[str, float], HealthMonitor], object]


def _ignore(*_: object) -> None:
    """Do nothing, as the default hook."""


def online_training(
    env: gymnasium.Env[Any, Any],
    vector_scale: np.ndarray,
    learning: LearningConfig,
    training: TrainingConfig,
    folder: Path,
    *,
    privileged_scale: np.ndarray = NOTHING,
    validation: Validation | None = None,
    resume: bool = False,
    say: Say = print,
    show: Callable[[Progress], object] = _ignore,
    report: Report = _ignore,
) -> OnlineTraining:
    """Return a run in an environment, from the start, a warm start or its newest checkpoint.

    `vector_scale` is the usual magnitude of each entry of the observations' vector, and
    `privileged_scale` of what only the critic sees. `say` logs a line, `show` is called after
    every step, and `report` with every row of figures, from the thread that updates.
    Raises ConfigError, ReplayMemoryError or CheckpointError.
    """
    spec = network_spec(
        learning, env.observation_space, env.action_space, vector_scale, privileged_scale
    )
    validation = validation or Validation.none()
    assembled = assemble_online(
        spec,
        learning,
        training,
        folder,
        env.unwrapped.np_random,
        validation,
        resume=resume,
        say=say,
        report=report,
    )
    return OnlineTraining(
        assembled.trainer,
        env,
        resumed=resume,
        first_updated_step=assembled.first_updated_step,
        show=show,
        validation=validation,
    )


@dataclass(frozen=True)
class Assembled:
    """A run that lacks only what collects."""

    trainer: Trainer
    first_updated_step: int
    """There are no updates before it."""


def assemble_online(
    spec: NetworkSpec,
    learning: LearningConfig,
    training: TrainingConfig,
    folder: Path,
    starts: np.random.Generator,
    validation: Validation,
    *,
    rings: int = 0,
    resume: bool,
    say: Say,
    report: Report,
) -> Assembled:
    """Return what learns from worlds, from the start, a warm start or its newest checkpoint.

    `starts` is the random stream of episodes. `rings` is the number of collectors; 0 = there are
    none, as the trainer steps its world itself. Raises as `online_training` does.
    """
    learner = _make_learner(spec, learning, training, say)
    warm = has_warm_start(folder)
    replay = _online_replay(spec, learning, folder, learner.device, max(rings, 1), say)
    generators = _random_streams(training.seed, replay.device)
    health = HealthMonitor(say)
    standing = Standing()
    if resume:
        used, counters = _resume(folder, learner, replay, generators, say)
        if counters.get("warm_start") and not warm:
            raise CheckpointError(
                f"{folder / WARM_START} has gone, with the transitions that the run started from: "
                "put it back"
            )
        standing = restore_counters(used, counters, health, starts, validation)
        say(f"resumed {used} at step {standing.step:,} with {len(replay):,} transitions")
    elif warm:
        assert isinstance(replay, MixedReplay)
        load_warm_start(folder, learner, replay.recorded, training.seed)
        say(
            f"starting from {learner.updates:,} updates, with {len(replay.recorded):,} recorded "
            "transitions"
        )
    more_columns = FLEET_COLUMNS if rings else ()
    resumed_step = standing.step if resume else None
    metrics = MetricsWriter(folder, resumed_step, learner.updates, more_columns)
    logger = RunLogger(metrics, say, report)
    trainer = Trainer(learner, replay, logger, health, training, folder, generators, standing)
    say(describe(trainer.take_update))
    # After a warm start, the policy first collects enough new transitions that a batch's share of
    # them does not consist of the same few.
    least = learning.batch_size if warm else 0
    return Assembled(trainer, max(training.random_steps, least))


def restore_counters(
    used: Path,
    counters: Mapping[str, Any],
    health: HealthMonitor,
    starts: np.random.Generator,
    validation: Validation,
) -> Standing:
    """Restore what a checkpoint's counters hold, except the learner's; return the standing.

    `starts` is the environment's random stream. Raises CheckpointError.
    """
    try:
        saved = checked(SavedCounters, counters)
        health.restore(saved.health)
        if saved.validation is not None:
            validation.restore(saved.validation)
        _restore_stream(starts, saved.environment)
    except ValueError as error:
        raise CheckpointError(f"{used / checkpoint.COUNTERS} cannot be used: {error}") from None
    return Standing.from_counters(saved)


def _restore_stream(stream: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Restore a random stream of numpy; raises ValueError."""
    try:
        stream.bit_generator.state = state
    except (LookupError, TypeError, ValueError, OverflowError, AttributeError):
        raise ValueError("environment is no state of the environment's random stream") from None


def offline_training(
    recorded: ReplayBuffer,
    spec: NetworkSpec,
    learning: LearningConfig,
    training: TrainingConfig,
    folder: Path,
    *,
    say: Say = print,
    show: Callable[[Progress], object] = _ignore,
    report: Report = _ignore,
) -> OfflineTraining:
    """Return a run of `training.offline_updates` updates on recorded transitions."""
    training = training.model_copy(update={"total_steps": training.offline_updates})
    learner = _make_learner(spec, learning, training, say)
    device = _replay_device(learning, learner.device)
    replay = restored(recorded.state(), spec, learning, device)
    generators = _random_streams(training.seed, device)
    logger = RunLogger(MetricsWriter(folder), say, report)
    trainer = Trainer(
        learner, replay, logger, HealthMonitor(say), training, folder, generators, Standing()
    )
    say(describe(trainer.take_update))
    return OfflineTraining(trainer, show)


def _make_learner(
    spec: NetworkSpec, learning: LearningConfig, training: TrainingConfig, say: Say
) -> TD3:
    if training.torch_threads:
        torch.set_num_threads(training.torch_threads)
    device = choose_device(learning.device, say=say)
    precision = choose_precision(learning, spec, device)
    return TD3(spec, learning, device, training.seed, precision)


def _replay_device(learning: LearningConfig, learners: torch.device) -> torch.device:
    wanted = learning.replay_device
    return learners if wanted == "auto" else choose_device(wanted, "learning.replay_device")


def _online_replay(
    spec: NetworkSpec,
    learning: LearningConfig,
    folder: Path,
    learners: torch.device,
    rings: int,
    say: Say,
) -> Replay:
    """Return an empty replay buffer, combined with the recorded transitions of a warm start."""
    device = _replay_device(learning, learners)
    recorded = None
    if has_warm_start(folder):  # loaded first, so that its memory no longer counts as available
        recorded = recorded_replay(folder, spec, learning, device)
    device = _with_room(device, spec, learning, say)
    if recorded is not None and recorded.device.type != device.type:
        recorded = recorded_replay(folder, spec, learning, device)
    try:
        replay = make_replay(spec, learning, device, rings=rings)
    except ValueError as error:
        raise ConfigError(f"learning.replay_capacity is too small: {error}") from None
    return replay if recorded is None else MixedReplay(recorded, replay, learning.offline_share)


def _with_room(
    device: torch.device, spec: NetworkSpec, learning: LearningConfig, say: Say
) -> torch.device:
    """Return where the buffer has room: on the GPU, or with `auto` in this machine's memory.

    Raises ReplayMemoryError.
    """

    def check(where: torch.device) -> None:
        capacity, fraction = learning.replay_capacity, learning.replay_memory_fraction
        say(check_memory(replay_spec(spec), capacity, available_bytes(where), fraction))

    try:
        check(device)
    except ReplayMemoryError as error:
        if device.type == "cpu" or learning.replay_device != "auto":
            raise
        say(f"warning: {error}; it is kept in this machine's memory instead, which is slower")
        device = torch.device("cpu")
        check(device)
    return device


def _random_streams(seed: int, replay_device: torch.device) -> dict[str, torch.Generator]:
    """Return one stream for each purpose, so that none affects the numbers of another."""
    return {
        "exploration": torch.Generator().manual_seed(seed + 1),
        "sampling": torch.Generator(replay_device).manual_seed(seed + 2),
    }


def _resume(
    folder: Path,
    learner: TD3,
    replay: Replay,
    generators: dict[str, torch.Generator],
    say: Say,
) -> tuple[Path, dict[str, Any]]:
    """Load the newest usable checkpoint of an online run; return its path and counters."""
    used, counters = checkpoint.resume(
        folder / CHECKPOINTS,
        learner,
        replay,
        generators,
        lambda line: say(f"warning: {line}"),
    )
    if not counters.get("online", True):
        raise CheckpointError(
            f"{used} was made by pretraining and cannot be resumed: start a new run from it, with "
            "--from"
        )
    return used, counters
