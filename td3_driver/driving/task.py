# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driving task of one episode: frames in; observations, commands, rewards and ends out.

The environment and the driver share it, so both see and command exactly the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.adviser import Adviser
from td3_driver.driving.control import AckermannCommand, CommandLimiter, PedalController
from td3_driver.driving.observation import Course, Observation, Observer
from td3_driver.driving.reward import End, EndDetector, RewardTerms, reward_terms
from td3_driver.driving.route import NO_ERROR, RouteError, RouteTracker
from td3_driver.driving.world import (
    Collision,
    Frame,
    LaneInvasion,
    VehicleControl,
    WorldError,
)

AT_STANDSTILL = np.array([0.0, -1.0], dtype=np.float32)
"""The action that an episode's first observation follows: straight on, no speed."""


@dataclass
class EpisodeSummary:
    """The outcome of one episode."""

    route_length_m: float
    route_completion: float = 0.0
    distance_m: float = 0.0
    duration_s: float = 0.0
    collisions: int = 0
    lane_invasions: int = 0
    steering_change_mean: float = 0.0
    """Mean change of the steering action from one decision to the next, of a range of 2."""
    episode_return: float = 0.0
    ended_by: str = ""


@dataclass(frozen=True)
class Outcome:
    """The result of one decision."""

    observation: Observation
    reward: RewardTerms
    end: End | None


class Handling:
    """What decisions need besides a route: the limits of commands, the pedals, and the images."""

    def __init__(self, config: DrivingConfig, fixed_delta_s: float) -> None:
        self.config = config
        self.fixed_delta_s = fixed_delta_s
        self.limiter = CommandLimiter(config)
        self.pedals = PedalController(config.vehicle_max_steer_rad)
        self._observer = Observer(config)
        self._previous_action = AT_STANDSTILL

    def reset(self, speed: float) -> None:
        """Start over with a car of this speed, m/s."""
        self._observer.reset()
        self.limiter.reset(speed)
        self.pedals.reset()
        self._previous_action = AT_STANDSTILL

    def command(self, action: np.ndarray, speed: float) -> tuple[AckermannCommand, VehicleControl]:
        """Return the Ackermann command and the pedals for one tick of an action."""
        ackermann = self.limiter.command(action, self.fixed_delta_s)
        return ackermann, self.pedals.control(ackermann, speed, self.fixed_delta_s)

    def observe(
        self, frame: Frame, course: Course | None = None, truth: Course | None = None
    ) -> Observation:
        """Return what is observed at a frame; see `Observer.observe`."""
        previous = self._previous_action
        return self._observer.observe(frame.image, frame.speed, previous, course, truth)

    def acted(self, action: np.ndarray) -> None:
        """Note the decision that the next observation follows."""
        self._previous_action = np.array(action, dtype=np.float32)


class DrivingTask(Handling):
    """One episode at a time, from `begin` through decisions to its end."""

    def __init__(self, config: DrivingConfig, fixed_delta_s: float) -> None:
        super().__init__(config, fixed_delta_s)
        self._adviser = Adviser(config)
        self._route_error = NO_ERROR

    def begin(self, frame: Frame, route_error: RouteError = NO_ERROR) -> Observation:
        """Start an episode at `frame`, whose route is the one to follow.

        It is observed with a `route_error` that reward and ends do not have. Raises WorldError if
        there is no route.
        """
        try:
            self._tracker = RouteTracker(frame.route)
            self._observed_tracker = RouteTracker(frame.route) if route_error else self._tracker
        except ValueError as error:
            raise WorldError(f"the episode cannot start: {error}") from error
        self.reset(frame.speed)
        self._route_error = route_error
        self.projection = self._tracker.project(frame.pose)
        self._ends = EndDetector(self.config, self._tracker.length_m)
        self._decisions = 0
        self._begin_progress_m = self.projection.progress_m
        self.summary = EpisodeSummary(
            route_length_m=self._tracker.length_m - self._begin_progress_m
        )
        return self._observe(frame)

    def judge(
        self,
        action: np.ndarray,
        frame: Frame,
        collisions: tuple[Collision, ...],
        lane_invasions: tuple[LaneInvasion, ...],
        ticks: int,
    ) -> Outcome:
        """Return the result of the decision `action`, held for `ticks`, which led to `frame`."""
        duration_s = ticks * self.fixed_delta_s
        before = self.projection
        self.projection = self._tracker.project(frame.pose)
        summary = self.summary
        progress_m = self.projection.progress_m - before.progress_m
        summary.duration_s += duration_s
        summary.distance_m += abs(frame.speed) * duration_s
        summary.collisions += any(map(self._ends.is_collision, collisions))
        summary.lane_invasions += len(lane_invasions)
        steering_change = abs(float(action[0] - self._previous_action[0]))
        self._decisions += 1
        summary.steering_change_mean += (
            steering_change - summary.steering_change_mean
        ) / self._decisions
        end = self._ends.check(
            projection=self.projection,
            speed=frame.speed,
            collisions=collisions,
            elapsed_s=summary.duration_s,
            duration_s=duration_s,
            clean=frame.clean,
        )
        terms = reward_terms(
            self.config,
            progress_m=progress_m,
            duration_s=duration_s,
            projection=self.projection,
            speed=frame.speed,
            steering_change=steering_change,
            lane_invasions=lane_invasions,
            end=end,
        )
        self.acted(action)
        driven_m = self.projection.progress_m - self._begin_progress_m
        summary.route_completion = max(
            summary.route_completion,
            1.0
            if end is End.ROUTE_END
            else min(driven_m / max(summary.route_length_m, 1e-6), 1.0),
        )
        summary.episode_return += terms.total
        summary.ended_by = end.value if end is not None else ""
        return Outcome(self._observe(frame), terms, end)

    def _advice(self, frame: Frame) -> np.ndarray | None:
        """Return what the adviser would do, if it is to be asked and is told the others."""
        if not self.config.advice or frame.others is None:
            return None
        place = self.projection
        return self._adviser.act(self._tracker, frame.pose, place, frame.speed, frame.others)

    def _observe(self, frame: Frame) -> Observation:
        truth = Course(
            self._tracker, frame.pose, self.projection, frame.others, self._advice(frame)
        )
        if not self._route_error:
            return self.observe(frame, truth)
        pose = self._route_error.misplaced(frame.pose)
        projection = self._observed_tracker.project(pose)
        return self.observe(frame, Course(self._observed_tracker, pose, projection), truth)
