# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The trainer: takes updates, checks them, logs their figures and saves checkpoints.

`OnlineTraining` and `OfflineTraining` are the loops that call it.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch

from td3_driver.config import TrainingConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import Batch, Replay
from td3_driver.learning.counters import SavedCounters
from td3_driver.learning.execution import make_updates
from td3_driver.learning.health import (
    HealthMonitor,
    NotFiniteError,
    Rewards,
    not_finite,
    write_failure,
)
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.manifest import CHECKPOINTS
from td3_driver.learning.metrics import RunLogger
from td3_driver.learning.settling import Settling
from td3_driver.learning.td3 import TD3

EPISODES_AVERAGED = 5

FAILURE = "failure"
"""Folder in the run's folder for what led to a failure."""
LOSSES_AND_GRADIENTS = ("_loss", "gradient_norm")


@dataclass(frozen=True)
class Progress:
    """How far a run has come, for display."""

    step: int
    total_steps: int
    updates: int
    episodes: int
    return_mean: float
    route_completion_mean: float
    steps_per_s: float
    updates_per_s: float
    remaining_s: float
    ended_by: str
    """Why the latest episode ended."""
    validation_completion: float
    """Route completion of the latest examination; NaN before the first."""
    collection: str = ""
    """How collectors are doing, where there are any."""


class Collection(Protocol):
    """What a run knows of its collectors."""

    def figures(self) -> dict[str, float]:
        """Return the figures of a row of metrics."""

    def in_words(self) -> str:
        """Return the figures for the live line."""


def _recent() -> deque[float]:
    return deque(maxlen=EPISODES_AVERAGED)


@dataclass
class Standing:
    """How far a run has come, as saved in its checkpoints."""

    step: int = 0
    """Decisions in the world; in offline training, updates."""
    episodes: int = 0
    returns: deque[float] = field(default_factory=_recent)
    """Of the latest episodes."""
    completions: deque[float] = field(default_factory=_recent)
    """Route completions of the latest episodes."""
    ended_by: str = ""
    """Why the latest episode ended."""
    validation_completion: float = math.nan
    """Route completion of the latest examination."""
    settling: Settling = field(default_factory=Settling)

    @classmethod
    def from_counters(cls, counters: SavedCounters) -> Standing:
        """Return what `counters` returned, as a checkpoint holds it."""
        standing = cls(counters.step, counters.episodes)
        standing.returns.extend(counters.returns)
        standing.completions.extend(counters.completions)
        if counters.settling is not None:
            standing.settling = Settling(counters.settling.shares, counters.settling.settled)
        return standing

    def counters(self) -> dict[str, Any]:
        """Return the state that a resumed run continues from."""
        return {
            "episodes": self.episodes,
            "returns": list(self.returns),
            "completions": list(self.completions),
            **self.settling.counters(),
        }

    def episode_ended(self, info: Mapping[str, Any]) -> None:
        """Count an episode, and keep its summary if the environment gives one."""
        self.episodes += 1
        if "summary" in info:
            summary = info["summary"]
            self.returns.append(summary.episode_return)
            self.completions.append(summary.route_completion)
            self.ended_by = summary.ended_by


class Trainer:
    """Updates a learner from a replay buffer, and keeps a run's record.

    One thread may update while another saves. NaN or infinity raises NotFiniteError and is never
    saved; what led to it is written to the run's failure folder.
    """

    def __init__(
        self,
        learner: TD3,
        replay: Replay,
        logger: RunLogger,
        health: HealthMonitor,
        settings: TrainingConfig,
        folder: Path,
        generators: dict[str, torch.Generator],
        standing: Standing,
    ) -> None:
        """Take everything a run needs; the generator "sampling" draws the batches."""
        self.learner = learner
        self.replay = replay
        self.health = health
        self.settings = settings
        self.generators = generators
        self.standing = standing
        self.collection: Collection | None = None
        self.take_update = make_updates(learner, replay, generators["sampling"], logger.say)
        self._logger = logger
        self._folder = folder
        self._writer = checkpoint.Writer(folder / CHECKPOINTS, settings.checkpoints_kept)
        # On the CPU, checking costs nothing; on other devices it means waiting for the device.
        interval = settings.log_interval_updates
        self._updates_between_looks = 1 if learner.device.type == "cpu" else interval
        self._updating = threading.Lock()
        self._latest_batches: dict[int, Batch] = {}
        self._figures: dict[str, float] = {}
        self._failed = False
        self._first_step = standing.step
        self._first_updates = learner.updates
        self.begin()

    def begin(self) -> None:
        """Start the clock for speeds and remaining time."""
        self._began = time.monotonic()

    @property
    def complete(self) -> bool:
        """Whether all steps have been taken."""
        return self.standing.step >= self.settings.total_steps

    @property
    def updates_per_step(self) -> float:
        """The ratio that is wanted now."""
        settings = self.settings
        final = settings.updates_per_step_final
        return final if final and self.standing.settling.settled else settings.updates_per_step

    def update(self, bc_weight: float = 1.0) -> None:
        """Take one update, and log a row of figures at the end of each interval.

        `bc_weight` scales the pull towards recorded actions, if `learning.bc_alpha` is set.
        """
        with self._updating:
            self._update(bc_weight)

    def _update(self, bc_weight: float) -> None:
        learner = self.learner
        interval = self.settings.log_interval_updates
        number = learner.updates + 1
        # Whatever policy_freq is, the interval's last updates include one of the actor.
        measure = -number % interval < learner.settings.policy_freq
        if learner.settings.bc_alpha:
            learner.bc_weight.fill_(bc_weight)
        learner.reward_norm.follow(self.replay.returns)
        figures = self.take_update(measure)
        assert self.take_update.batch is not None
        # A loss can be the first sign of what the previous update did to the weights.
        self._latest_batches = {
            update: kept for update, kept in self._latest_batches.items() if update == number - 1
        } | {number: self.take_update.batch}
        if measure:
            self._figures |= {name: float(value) for name, value in figures.items()}
        if number % self._updates_between_looks == 0 and not learner.finite:
            self._check_finite(learner_tensors(learner, {}))
            self.fail(["a loss"])
        if number % interval == 0:
            self._check_finite(dict(learner.actor.named_parameters(prefix="actor")))
            self._check_finite(dict(learner.critic.named_parameters(prefix="critic")))
            self._write_row()

    def _write_row(self) -> None:
        progress = self.progress()
        row = {
            "step": progress.step,
            "updates": progress.updates,
            "episodes": progress.episodes,
            "wall_s": time.monotonic() - self._began,
            "steps_per_s": progress.steps_per_s,
            "updates_per_s": progress.updates_per_s,
        }
        if self.standing.returns:
            row["return_mean"] = progress.return_mean
            row["route_completion_mean"] = progress.route_completion_mean
        if not math.isnan(progress.validation_completion):
            row["validation_completion"] = progress.validation_completion
        if self.collection is not None:
            row |= self.collection.figures()
        self.health.observe(self._figures, self.scaled_rewards())
        self._observe_settling()
        row |= self._figures | {"health": len(self.health.warnings)}
        self._logger.row(row, self.health)

    def _observe_settling(self) -> None:
        settings, settling = self.settings, self.standing.settling
        share = self._figures.get("critic_dormant_share")
        if share is None or settling.settled or not settings.updates_per_step_final:
            return
        if settling.observe(share, settings.settled_rows, settings.settled_spread):
            self._logger.say(
                f"the critic's dormant share has settled at {share:.2f}: from now on "
                f"{self.updates_per_step:g} updates for each decision"
            )

    def scaled_rewards(self) -> Rewards:
        """Return the limits of the rewards as the critic sees them."""
        scale = float(self.learner.reward_norm.scale())
        least, greatest = self.replay.reward_range()
        return Rewards(scale * least, scale * greatest, self.learner.settings.discount)

    def save(self, counters: Mapping[str, Any]) -> None:
        """Start writing a checkpoint; one with NaN or infinity is never written.

        Updates wait only while the state is copied. `counters` are those of the training loop.
        """
        self._writer.wait()
        kept = {**self.standing.counters(), "health": self.health.state(), **counters}
        with self._updating:
            snapshot = checkpoint.take(
                self.standing.step, self.learner, self.replay, kept, self.generators
            )
            self._check_finite(snapshot.learner)
        self._writer.start(snapshot)

    def candidate(self) -> checkpoint.Snapshot:
        """Return a copy of the policy and its critics as they are now, without the replay."""
        with self._updating:
            snapshot = checkpoint.take(self.standing.step, self.learner, None, {}, {})
            self._check_finite(snapshot.learner)
        return snapshot

    def examined(self, candidate: checkpoint.Snapshot, completion: float, is_best: bool) -> None:
        """Log the result of an examination, and keep the candidate if it is the best so far."""
        self.standing.validation_completion = completion
        best = ", the best so far" if is_best else ""
        self._logger.say(
            f"examination at step {candidate.step:,}: completion {completion:.2f}{best}"
        )
        if is_best:
            self._writer.wait()  # it removes what is unfinished
            checkpoint.keep_best(self._folder / CHECKPOINTS, candidate)

    def finish(self, counters: Mapping[str, Any]) -> Path | None:
        """Close the logs, and save a checkpoint unless the run failed.

        Returns the last checkpoint's path once it is written; None if there is none.
        """
        self._logger.close()
        try:
            if not self._failed:
                self.save(counters)
        finally:
            saved = self._writer.wait()
        return saved

    def _check_finite(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """End the run if a tensor or one of the latest figures is NaN or infinite."""
        wrong = not_finite(tensors)
        wrong += [
            name
            for name, value in self._figures.items()
            if name.endswith(LOSSES_AND_GRADIENTS) and not math.isfinite(value)
        ]
        if wrong:
            self.fail(wrong)

    def fail(self, wrong: Iterable[str]) -> NoReturn:
        """Save what led to NaN or infinity in `wrong`, and raise NotFiniteError."""
        self._failed = True
        folder = self._folder / FAILURE
        names = list(wrong)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        reason = (
            f"NaN or infinity at step {self.standing.step:,}, update {self.learner.updates:,} in "
            f"{', '.join(names[:3])}{more}"
        )
        warnings = self.health.warnings
        write_failure(folder, reason, self._figures, warnings, self._latest_batches)
        raise NotFiniteError(
            f"{reason}. What led to it is in {folder}. The last checkpoint is from before: resume "
            "from it, with a lower learning.critic_learning_rate if this happens again"
        )

    def progress(self) -> Progress:
        """Return how far the run has come."""
        standing = self.standing
        elapsed_s = max(time.monotonic() - self._began, 1e-6)
        steps_per_s = (standing.step - self._first_step) / elapsed_s
        missing = self.settings.total_steps - standing.step
        return Progress(
            step=standing.step,
            total_steps=self.settings.total_steps,
            updates=self.learner.updates,
            episodes=standing.episodes,
            return_mean=_mean(standing.returns),
            route_completion_mean=_mean(standing.completions),
            steps_per_s=steps_per_s,
            updates_per_s=(self.learner.updates - self._first_updates) / elapsed_s,
            remaining_s=missing / steps_per_s if steps_per_s else float("inf"),
            ended_by=standing.ended_by,
            validation_completion=standing.validation_completion,
            collection="" if self.collection is None else self.collection.in_words(),
        )


def _mean(values: deque[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
