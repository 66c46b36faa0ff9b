# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Training in worlds: what collects decisions, and the updates that go with them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from td3_driver.learning.exploration import Exploration
from td3_driver.learning.following import Follower
from td3_driver.learning.mixed_replay import MixedReplay
from td3_driver.learning.pacing import UpdatePacer
from td3_driver.learning.policy import Policy
from td3_driver.learning.schedules import linear
from td3_driver.learning.threads import use_one_thread
from td3_driver.learning.trainer import Progress, Trainer
from td3_driver.learning.validation import Validation

POLICY_REFRESH_UPDATES = 10
"""Updates between refreshes of the acting copy of the policy, if updates run in a thread."""


class Collecting(ABC):
    """One run that learns from what it collects: `run()` trains until done or stopped, then saves.

    `show` is called with the progress as it is made.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        first_updated_step: int,
        show: Callable[[Progress], object],
        validation: Validation,
    ) -> None:
        """Take a trainer; there are no updates before `first_updated_step`."""
        self.trainer = trainer
        self.validation = validation
        self.policy = Policy.like(trainer.learner.spec)
        """The acting copy of the policy."""
        self._follower = Follower(self.policy, trainer.learner.actor)
        self.policy_updates = trainer.learner.updates
        """Updates that the acting copy had."""
        self._first_updated_step = first_updated_step
        self._show = show
        self._stopped = False
        self._pacer: UpdatePacer | None = None

    @property
    def complete(self) -> bool:
        """Whether all steps have been taken, or the policy drives well enough to stop."""
        return self.trainer.complete or self.validation.passed

    def stop(self) -> None:
        """Ask `run` to end after the current step; may be called from a signal handler."""
        self._stopped = True

    def run(self) -> Path:
        """Train, then save; return the last checkpoint's path.

        If an error ends the training, it saves as well, unless the weights are not finite: then
        what led to that is written to the run's failure folder.
        """
        trainer, settings = self.trainer, self.trainer.settings
        trainer.begin()
        pacer = self._pacer = UpdatePacer(
            self._update,
            ratio=trainer.updates_per_step,
            first_step=self._first_updated_step,
            steps_taken=trainer.standing.step,
            updates_done=trainer.learner.updates,
            threaded=not settings.synchronous_updates,
        )
        try:
            self._collect(pacer)
            if not self._stopped:
                pacer.finish()
                if self.validation.wanted and not self.validation.passed:
                    self._examine()  # the last policy, too
        finally:
            pacer.stop()
            saved = trainer.finish(self._counters())
        assert saved is not None
        return saved

    @abstractmethod
    def _collect(self, pacer: UpdatePacer) -> None:
        """Put decisions into the replay buffer until the run is over."""

    @abstractmethod
    def _starts_state(self) -> dict[str, Any]:
        """Return the state of the random stream that starts are drawn from, as numpy has it."""

    def _examine(self) -> None:
        """Drive without noise, and keep the policy if none was better."""
        trainer, validation = self.trainer, self.validation
        candidate = trainer.candidate()
        policy = Policy.like(trainer.learner.spec)
        policy.follow(candidate.actor)
        completion, is_best = validation.examine(policy, candidate.step)
        trainer.examined(candidate, completion, is_best)

    def _over(self) -> bool:
        return self.complete or self._stopped

    def _update(self) -> None:
        """Take one update, and refresh the acting copy of the policy if due."""
        learner = self.trainer.learner
        self.trainer.update(self._bc_weight())
        if self._pacer is not None:
            self._pacer.hold(self.trainer.updates_per_step)
        synchronous = self.trainer.settings.synchronous_updates
        if synchronous or learner.updates % POLICY_REFRESH_UPDATES == 0:
            self._follower.follow(at_once=synchronous)
            self.policy_updates = learner.updates

    def _bc_weight(self) -> float:
        """Return the weight of the recorded actions, which decays with the decisions."""
        settings = self.trainer.learner.settings
        return linear(
            1.0, settings.bc_weight_final, settings.bc_decay_steps, self.trainer.standing.step
        )

    def _counters(self) -> dict[str, Any]:
        """Return the rest of the state that a resumed run continues from."""
        return {
            "environment": self._starts_state(),
            "online": True,
            "validation": self.validation.counters(),
            "warm_start": isinstance(self.trainer.replay, MixedReplay),
        }


class OnlineTraining(Collecting):
    """One run in an environment, whose `show` is called after every step.

    The environment's starts are seeded by `training.seed` unless the run is `resumed`.
    """

    def __init__(
        self,
        trainer: Trainer,
        env: gymnasium.Env[Any, Any],
        *,
        resumed: bool,
        first_updated_step: int,
        show: Callable[[Progress], object],
        validation: Validation,
    ) -> None:
        """Take a trainer and an environment; there are no updates before `first_updated_step`."""
        super().__init__(
            trainer, first_updated_step=first_updated_step, show=show, validation=validation
        )
        self._env = env
        self._resumed = resumed
        self._exploration = Exploration(
            trainer.learner.settings,
            trainer.settings.random_steps,
            trainer.generators["exploration"],
        )

    def _collect(self, pacer: UpdatePacer) -> None:
        """Step the environment and store transitions until the run is over.

        A checkpoint ends the current episode, because environments cannot be saved. So a run that
        stops there and is resumed continues exactly like one that does not stop.
        """
        trainer, settings, standing = self.trainer, self.trainer.settings, self.trainer.standing
        if not settings.synchronous_updates:
            use_one_thread()  # acting would wait for a core that the updates are using
        observation = self._begin_episode(None if self._resumed else settings.seed)
        while not self._over():
            action = self.explore(observation)
            observation, reward, terminated, truncated, info = self._env.step(action)
            seen = trainer.learner.spec.select(observation)
            if not (math.isfinite(reward) and all(np.isfinite(v).all() for v in seen.values())):
                trainer.fail(["the environment's reward or observation"])
            trainer.replay.add(
                action,
                float(reward),
                seen,
                terminated=terminated,
                truncated=truncated,
                clean=info.get("clean", True),
            )
            standing.step += 1
            pacer.step_taken(standing.step)
            self._show(trainer.progress())
            ended = terminated or truncated
            if ended:
                standing.episode_ended(info)
            if self._over():
                break  # `run` saves
            due = standing.step % settings.checkpoint_interval_steps == 0
            if not (ended or due):
                continue
            if self.validation.due(standing.step) and trainer.learner.updates:
                self._examine()
            if self._over():
                break
            if due:
                trainer.save(self._counters())
            observation = self._begin_episode()

    def _begin_episode(self, seed: int | None = None) -> dict[str, np.ndarray]:
        """Reset the environment, with a seed if given; return the first observation."""
        self._exploration.begin()
        observation, _ = self._env.reset(seed=seed)
        self.trainer.replay.begin(self.trainer.learner.spec.select(observation))
        return observation

    def explore(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return a random action at first, then the policy's with Gaussian noise.

        The result is float32 (actions,) in [-1, 1].
        """
        return self._exploration.act(self.policy, observation, self.trainer.standing.step)

    def _starts_state(self) -> dict[str, Any]:
        return dict(self._env.unwrapped.np_random.bit_generator.state)
