# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Drives frame by frame, along routes or by the camera alone, as the policy was trained to."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import Command
from td3_driver.driving.observation import VECTOR, Observation
from td3_driver.driving.reward import End
from td3_driver.driving.task import DrivingTask, Handling
from td3_driver.driving.world import Frame, WorldError

# A longer gap between images makes a stack that no policy was trained on.
MAX_GAP_S = 0.5


@dataclass(frozen=True)
class Halt:
    """There is nowhere to drive; the car has to stand."""

    reason: str


ARRIVED = Halt("the route is driven to its end")


class Pilot:
    """Turns every frame into a command, or into a reason to stand."""

    def __init__(
        self,
        config: DrivingConfig,
        fixed_delta_s: float,
        act: Callable[[Observation], np.ndarray],
    ) -> None:
        """Take the run's task, the time between two frames, and its policy."""
        self.off_course: End | None = None
        """How the latest decision would have failed an episode; None if it would not."""
        self.inference_s = 0.0
        """Wall-clock time of the latest decision."""
        self.decisions = 0
        self.observation: Observation = {}
        """The observation of the latest decision."""
        self.action = np.zeros(2, dtype=np.float32)
        """The latest decision."""
        self._config = config
        self._fixed_delta_s = fixed_delta_s
        self._act = act
        self._task = DrivingTask(config, fixed_delta_s)
        self._free = Handling(config, fixed_delta_s)
        """Drives where the policy needs no route; the task is not used then."""
        self._route: np.ndarray | None = None
        self._arrived = False
        self._stamp_ns = 0
        self._ticks_held = 0
        self._driving = False
        self._away: Halt | None = None
        """Why the present route is not driven, if it lies elsewhere."""

    @property
    def needs_route(self) -> bool:
        """Whether the policy drives along routes; others are ignored."""
        return self._config.needs_route

    @property
    def task(self) -> DrivingTask:
        """The task for the current route."""
        return self._task

    def drive(self, frame: Frame) -> Command | Halt:
        """Return what to do at a frame; raise ValueError if either is not finite."""
        observation = self._observe(frame) if self.needs_route else self._observe_freely(frame)
        self._stamp_ns = frame.stamp_ns
        if isinstance(observation, Halt):
            self._driving = False
            return observation
        if observation is not None:
            if not np.all(np.isfinite(observation[VECTOR])):
                raise ValueError(f"the observation is not finite: {observation[VECTOR]}")
            self.observation = observation
            self.decisions += 1
            begin = time.perf_counter()
            self.action = self._act(observation)
            self.inference_s = time.perf_counter() - begin
            self._ticks_held = 0
        self._ticks_held += 1
        handling = self._task if self.needs_route else self._free
        return Command(*handling.command(self.action, frame.speed))

    def restart(self) -> None:
        """Start over with the next frame: something else has stopped the car."""
        self._driving = False

    def _observe_freely(self, frame: Frame) -> Observation | None:
        """Return what to decide on without a route; None while an action is held."""
        if not self._driving or self._time_breaks(frame):
            self._free.reset(frame.speed)
            self._driving = True
        elif self._ticks_held < self._config.action_repeat:
            return None
        else:
            self._free.acted(self.action)
        return self._free.observe(frame)

    def _observe(self, frame: Frame) -> Observation | Halt | None:
        """Return what to decide on; None while an action is held."""
        if frame.route is not self._route:
            self._arrived = False
        if self._arrived:
            return ARRIVED
        observation: Observation | Halt
        if self._must_begin(frame):
            observation = self._begin(frame)
        elif self._ticks_held < self._config.action_repeat:
            return None
        else:
            outcome = self._task.judge(self.action, frame, (), (), self._config.action_repeat)
            observation, end = outcome.observation, outcome.end
            self.off_course = end if end is not None and end.terminated else None
        if isinstance(observation, Halt):
            return observation
        if self._remaining_m() <= self._config.goal_tolerance_m:
            self._arrived = True
            return ARRIVED
        return observation

    def _must_begin(self, frame: Frame) -> bool:
        """Whether the frame does not continue the one before."""
        return not self._driving or frame.route is not self._route or self._time_breaks(frame)

    def _time_breaks(self, frame: Frame) -> bool:
        elapsed_s = 1e-9 * (frame.stamp_ns - self._stamp_ns)
        return not 0.0 < elapsed_s <= MAX_GAP_S

    def _begin(self, frame: Frame) -> Observation | Halt:
        """Begin to drive along the frame's route."""
        task = DrivingTask(self._config, self._fixed_delta_s)
        new_route = frame.route is not self._route
        self._route = frame.route
        self.off_course = None
        if not len(frame.route):
            return Halt("there is no route")
        try:
            observation = task.begin(frame)
        except WorldError as error:
            return Halt(str(error))
        away_m = abs(task.projection.lateral_m)
        if away_m > self._config.lateral_limit_m:
            # One reason for one route, or every frame's distance would be news.
            if new_route or self._away is None:
                self._away = Halt(f"the route is {away_m:.1f} m away")
            return self._away
        self._away = None
        if new_route and self._driving:
            # With a new route while driving, the car does not jerk its wheels straight.
            task.limiter, task.pedals = self._task.limiter, self._task.pedals
        self._task = task
        self._driving = True
        return observation

    def _remaining_m(self) -> float:
        summary = self._task.summary
        return summary.route_length_m * (1.0 - summary.route_completion)
