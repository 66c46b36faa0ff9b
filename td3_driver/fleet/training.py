# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Training from collectors: grants leave by the ratio, takes chunks in, and sends the policy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from td3_driver.config import Config
from td3_driver.deployment.task_networks import networks_of
from td3_driver.fleet.chunk import Chunk, Intake
from td3_driver.fleet.collector import Engine
from td3_driver.fleet.figures import FleetFigures
from td3_driver.fleet.fleet import IN_FLIGHT, Fleet, Post
from td3_driver.fleet.gathering import EMBEDDED, Brief
from td3_driver.learning.assembly import Assembled, Report, Say, assemble_online
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.online import Collecting
from td3_driver.learning.pacing import UpdatePacer
from td3_driver.learning.threads import use_one_thread
from td3_driver.learning.trainer import Progress
from td3_driver.learning.validation import Validation

LOOK_S = 0.02
"""Longest wait for a chunk: updates that are done meanwhile may allow another one."""


class FleetTraining(Collecting):
    """One run with a fleet of collectors, whose `show` is called after every chunk."""

    def __init__(
        self,
        assembled: Assembled,
        config: Config,
        engine: Engine,
        starts: np.random.Generator,
        *,
        show: Callable[[Progress], object],
        validation: Validation,
        say: Say,
        world: str = EMBEDDED,
    ) -> None:
        """Take what learns, and what the collectors run on."""
        trainer = assembled.trainer
        super().__init__(
            trainer,
            first_updated_step=assembled.first_updated_step,
            show=show,
            validation=validation,
        )
        self._settings = config.fleet
        self._config = config
        self._world = world
        self._starts = starts
        self._version = self.policy_updates
        self._weights = self.policy.weights()
        self._published_s = time.monotonic()
        count = config.fleet.collectors
        self.intakes = [Intake(trainer.replay, ring) for ring in range(count)]
        self.fleet = Fleet(engine, count, config.fleet, self._brief, say)
        self.figures: FleetFigures | None = None

    def _brief(self, number: int) -> Brief:
        # Drawn anew for each start, so that none repeats what another has driven.
        seed = int(self._starts.integers(2**31))
        spec = self.trainer.learner.spec
        return Brief(number, len(self.intakes), seed, self._config, spec, self._world)

    def _collect(self, pacer: UpdatePacer) -> None:
        use_one_thread()  # examinations would wait for a core that the updates are using
        self.figures = FleetFigures(pacer, len(self.intakes))
        self.trainer.collection = self.figures
        try:
            while not self._over():
                pacer.check()
                self._publish()
                self._grant(pacer)
                for post, chunk in self.fleet.look(LOOK_S):
                    self._take(post, chunk, pacer)
                self.figures.running = self.fleet.running
        finally:
            self.fleet.close()
            for post, intake in zip(self.fleet.posts, self.intakes, strict=True):
                intake.give_up(post.sequence)

    def _publish(self) -> None:
        """Have the collectors drive with the present policy, now and then."""
        now_s = time.monotonic()
        if now_s - self._published_s < self._settings.weights_period_s:
            return
        self._published_s = now_s
        if self.policy_updates != self._version:
            self._version, self._weights = self.policy_updates, self.policy.weights()

    def _grant(self, pacer: UpdatePacer) -> None:
        """Give leave for further chunks while the ratio allows it."""
        settings, standing = self._settings, self.trainer.standing
        ahead = self._ahead(pacer)
        for _ in range(IN_FLIGHT):
            for post in self.fleet.free():
                step = standing.step + self.fleet.outstanding
                decisions = min(settings.chunk_decisions, self.trainer.settings.total_steps - step)
                if decisions <= 0 or not pacer.allows(step + decisions, ahead):
                    return
                self.fleet.grant(post, step, decisions, self._version, self._weights)

    def _ahead(self, pacer: UpdatePacer) -> int:
        """Return the decisions that may have been begun and not been learnt from.

        A learner that is slower than the collectors needs no more of them than it learns from
        until the next chunk comes; twice that, as the times of both vary. One that is faster has
        all of them at work: a chunk of each may wait, beside the two that each has leave for.
        """
        chunk = self._settings.chunk_decisions
        most = (IN_FLIGHT + 1) * chunk * len(self.intakes)
        if self.fleet.turnaround_s is None:
            return most
        learnt_per_s = pacer.updates_per_busy_s / pacer.ratio
        return min(chunk + int(2.0 * self.fleet.turnaround_s * learnt_per_s), most)

    def _take(self, post: Post, chunk: Chunk, pacer: UpdatePacer) -> None:
        trainer, standing = self.trainer, self.trainer.standing
        if not chunk.is_finite():
            trainer.fail([f"the reward or observation of collector {post.number}"])
        before = standing.step
        taken = self.intakes[post.number].take(chunk)
        assert self.figures is not None
        self.figures.note(chunk, trainer.learner.updates)
        if not taken:
            return
        standing.step += taken
        standing.episodes += chunk.ended - len(chunk.episodes)
        for episode in chunk.episodes:
            standing.episode_ended({"summary": episode})
        pacer.step_taken(standing.step, wait=False)
        self._show(trainer.progress())
        if self._over():
            return  # `run` saves
        if self.validation.due(standing.step) and trainer.learner.updates:
            self._examine()
        interval = trainer.settings.checkpoint_interval_steps
        if not self._over() and standing.step // interval > before // interval:
            trainer.save(self._counters())

    def _starts_state(self) -> dict[str, Any]:
        return dict(self._starts.bit_generator.state)


def fleet_training(
    config: Config,
    folder: Path,
    engine: Engine,
    *,
    validation: Validation | None = None,
    resume: bool = False,
    say: Say = print,
    show: Callable[[Progress], object] = lambda progress: None,
    report: Report = lambda row, health: None,
    spec: NetworkSpec | None = None,
    world: str = EMBEDDED,
) -> FleetTraining:
    """Return a run with `fleet.collectors` collectors, as `online_training` does with one world.

    Raises ConfigError, ReplayMemoryError or CheckpointError.
    """
    starts = np.random.default_rng(config.training.seed)
    validation = validation or Validation.none()
    assembled = assemble_online(
        networks_of(config) if spec is None else spec,
        config.learning,
        config.training,
        folder,
        starts,
        validation,
        rings=config.fleet.collectors,
        resume=resume,
        say=say,
        report=report,
    )
    return FleetTraining(
        assembled,
        config,
        engine,
        starts,
        show=show,
        validation=validation,
        say=say,
        world=world,
    )
