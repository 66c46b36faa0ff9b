# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Turns the decisions in bags into transitions to learn from, and reports what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.observation import VECTOR, Observation
from td3_driver.driving.reward import End
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.offline.decisions import Decision, decisions
from td3_driver.offline.frames import BagFrame

NO_COMMAND = "no command recorded"
BEYOND_ACTION_RANGE = "a command beyond the actions' range"
MISSING_IMAGES = "images missing, or at another rate"
NOT_FINITE = "numbers that are not finite"
AFTER_FAILURE = "after a failure, until the car drives again"
UNCLEAN = "an unclean step"


class Rejections:
    """Counts what cannot be learnt from, by reason: the number of stretches and their time."""

    def __init__(self) -> None:
        self.stretches: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self._latest = ""

    def reject(self, reason: str, duration_s: float) -> None:
        """Count a piece; consecutive pieces with the same reason are one stretch."""
        self.stretches[reason] += reason != self._latest
        self.seconds[reason] += duration_s  # type: ignore[assignment]
        self._latest = reason

    def accept(self) -> None:
        """Note that the current stretch has ended."""
        self._latest = ""

    def table(self) -> str:
        """Return a line for each reason, the longest first; empty if nothing was left out."""
        return "\n".join(
            f"  {reason:<44}{self.stretches[reason]:>6} stretches{seconds:>9.1f} s"
            for reason, seconds in self.seconds.most_common()
        )


class TransitionBuilder:
    """Fills a replay buffer with recorded drives, using the live task's rewards and ends.

    A failure ends an episode, as in training. A new one starts once the car drives again, and
    after any interruption of the drive.
    """

    def __init__(
        self,
        replay: ReplayBuffer,
        config: DrivingConfig,
        select: Callable[[Observation], Observation] = lambda observation: observation,
    ) -> None:
        """Take the buffer; `select` returns the parts of an observation to store."""
        self.rejections = Rejections()
        self.transitions = 0
        self.episodes = 0
        self.seconds = 0.0
        """Total duration of the transitions."""
        self.ends: Counter[str] = Counter()
        """How the task's episodes would have ended."""
        self._replay = replay
        self._config = config
        self._select = select

    def add(self, frames: Iterable[BagFrame], fixed_delta_s: float) -> None:
        """Add the transitions of one bag, whose ticks last `fixed_delta_s`."""
        self._stretch = -1
        self._in_episode = self._failed = False
        self._action_known = True
        self.rejections.accept()

        def leave_out(source: BagFrame, reason: str) -> None:
            self.rejections.reject(reason, fixed_delta_s)

        for decision in decisions(frames, self._config, fixed_delta_s, leave_out):
            self._take(decision, fixed_delta_s)

    def _take(self, decision: Decision, fixed_delta_s: float) -> None:
        if decision.stretch != self._stretch:
            self._stretch = decision.stretch
            self._in_episode = self._failed = False
            self._action_known = True
        duration_s = max(decision.ticks, 1) * fixed_delta_s
        reason = self._objection(decision)
        self._action_known = decision.action is not None
        if reason:
            self.rejections.reject(reason, duration_s)
            self._pass_over(decision)
            return
        self.rejections.accept()
        self._store(decision)
        self.transitions += 1
        self.seconds += duration_s

    def _objection(self, decision: Decision) -> str:
        """Return why a decision cannot be learnt from; empty if it can."""
        end, following = decision.end, decision.next_observation
        failing = end is not None and end.terminated
        self._failed = self._failed and failing
        if self._failed:
            return AFTER_FAILURE
        if decision.action is None or not self._action_known:
            return NO_COMMAND  # nor the one after: its reward depends on the change of steering
        if following is None or decision.reward is None:
            return decision.cut_by
        if not decision.within_reach:
            return BEYOND_ACTION_RANGE
        if end is End.UNCLEAN_STEP:
            return UNCLEAN
        if decision.ticks != self._config.action_repeat:
            return MISSING_IMAGES
        numbers = (decision.observation[VECTOR], following[VECTOR], decision.action)
        if not all(np.isfinite(values).all() for values in (*numbers, decision.reward.total)):
            return NOT_FINITE
        return ""

    def _pass_over(self, decision: Decision) -> None:
        """Continue the episode without this decision if possible, or else end it."""
        following = decision.next_observation
        if not self._in_episode:
            return
        if following is None or self._failed:
            self._in_episode = False
            return
        assert decision.action is not None
        self._replay.add(
            decision.action, 0.0, self._select(following), terminated=False, clean=False
        )

    def _store(self, decision: Decision) -> None:
        following, reward, end = decision.next_observation, decision.reward, decision.end
        assert decision.action is not None and following is not None and reward is not None
        if not self._in_episode:
            self._replay.begin(self._select(decision.observation))
            self.episodes += 1
        failed = end is not None and end.terminated
        self._replay.add(
            decision.action,
            reward.total,
            self._select(following),
            terminated=failed,
            truncated=end is not None and not failed,
        )
        self._in_episode = end is None
        self._failed = failed
        if end is not None:
            self.ends[end.value] += 1
