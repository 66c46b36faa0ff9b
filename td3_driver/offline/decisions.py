# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The decisions in a bag: observations, commands and rewards, computed by the live task's code.

`DrivingTask` computes observations, rewards and ends, as in training and in the driver; decisions
start and pause where the driver's do (`driving.pilot`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AckermannCommand, PedalReader, action_of
from td3_driver.driving.observation import Observation
from td3_driver.driving.pilot import MAX_GAP_S
from td3_driver.driving.reward import End, RewardTerms
from td3_driver.driving.route import Projection
from td3_driver.driving.task import DrivingTask
from td3_driver.driving.world import Collision, Frame, LaneInvasion, WorldError
from td3_driver.offline.frames import BagFrame

# Standing still, as at the start of an episode; used where no action was recorded.
NO_ACTION = np.array([0.0, -1.0], dtype=np.float32)
ACTION_TOLERANCE = 1.05
"""An action beyond this, of a range of 1, no longer represents the command."""
JUMP_M = 1.0
"""A car that has moved this much further than its speed allows has not driven there."""
ARRIVED = "at the end of the route"


@dataclass(frozen=True, eq=False)
class Decision:
    """One decision in a bag; from `reward` on, None means that the value is not known."""

    source: BagFrame
    observation: Observation
    projection: Projection
    stretch: int
    """Number of the uninterrupted stretch that it belongs to, from 0."""
    action: np.ndarray | None
    """What was commanded, in [-1, 1]^2; None if nothing was recorded."""
    within_reach: bool = True
    """Whether an action can command this: speeds and angles can be out of range, or backwards."""
    reward: RewardTerms | None = None
    next_observation: Observation | None = None
    end: End | None = None
    """How an episode would have ended after the decision."""
    collisions: tuple[Collision, ...] = ()
    lane_invasions: tuple[LaneInvasion, ...] = ()
    completion: float = 0.0
    """Share of the route, from the start of the stretch, that has been driven afterwards."""
    ticks: int = 0
    """Simulation ticks that it lasted."""
    cut_by: str = ""
    """What ended the stretch before the outcome was known."""


def decisions(
    frames: Iterable[BagFrame],
    config: DrivingConfig,
    fixed_delta_s: float,
    leave_out: Callable[[BagFrame, str], object] = lambda source, reason: None,
) -> Iterator[Decision]:
    """Yield the decisions in a bag's frames, in order.

    A stretch starts with a new route, after a gap or a jump of more than `MAX_GAP_S`, and where
    the car returns to its route. It continues after a failure, as the driver does, and ends with
    its route. `leave_out` is called with each frame that belongs to no decision, and why.
    """
    under_way: _Stretch | None = None
    stretches = 0
    for source in frames:
        interruption = under_way.interruption(source) if under_way is not None else ""
        if under_way is not None and interruption:
            yield from under_way.finish(interruption)
            under_way = None
        if under_way is not None:
            if under_way.arrived:
                leave_out(source, ARRIVED)
            yield from under_way.add(source)
            continue
        begun = _begin(source, config, fixed_delta_s, stretches)
        if isinstance(begun, str):
            leave_out(source, begun)
        else:
            under_way = begun
            stretches += 1
    if under_way is not None:
        yield from under_way.finish("end of the recording")


def _begin(
    source: BagFrame, config: DrivingConfig, fixed_delta_s: float, number: int
) -> _Stretch | str:
    """Start a stretch at a frame, or return why there is no route to drive."""
    if not len(source.frame.route):
        return "no route"
    try:
        stretch = _Stretch(source, config, fixed_delta_s, number)
    except WorldError:
        return "no route"
    if not abs(stretch.task.projection.lateral_m) <= config.lateral_limit_m:
        return "away from the route"
    return stretch if stretch.remaining_m() > 0.0 else ARRIVED


class _Stretch:
    """Consecutive frames along one route."""

    def __init__(
        self, source: BagFrame, config: DrivingConfig, fixed_delta_s: float, number: int
    ) -> None:
        self.task = DrivingTask(config, fixed_delta_s)
        self._config = config
        self._number = number
        self.arrived = False
        """Whether the route has been driven to its end."""
        self._latest = source
        self._collisions: list[Collision] = []
        self._lane_invasions: list[LaneInvasion] = []
        self._ticks = 0
        self._frames = 0
        self._decided = source
        self._pedals = PedalReader(config.vehicle_max_steer_rad)
        self._commanded: AckermannCommand | None = None
        self._observation = self.task.begin(source.frame)
        self._projection = self.task.projection

    def remaining_m(self) -> float:
        """Return how much of the route is left, up to the goal's tolerance."""
        summary = self.task.summary
        driven = summary.route_length_m * summary.route_completion
        return summary.route_length_m - driven - self._config.goal_tolerance_m

    def interruption(self, source: BagFrame) -> str:
        """Return why a frame does not belong to this stretch; empty if it does."""
        before, after = self._latest.frame, source.frame
        elapsed_s = 1e-9 * (after.stamp_ns - before.stamp_ns)
        if after.route is not before.route:
            return "a new route"
        if not 0.0 < elapsed_s <= MAX_GAP_S:
            return "a gap in time"
        return "a jump of the car" if _has_jumped(before, after, elapsed_s) else ""

    def add(self, source: BagFrame) -> Iterator[Decision]:
        """Take a frame; yield the decision that it completes."""
        elapsed_s = 1e-9 * (source.frame.stamp_ns - self._latest.frame.stamp_ns)
        self._note_command(source, elapsed_s)
        self._ticks += max(round(elapsed_s / self.task.fixed_delta_s), 1)
        self._frames += 1
        self._latest = source
        self._collisions += source.frame.collisions
        self._lane_invasions += source.frame.lane_invasions
        if self.arrived or self._frames < self._config.action_repeat:
            return
        yield self._decide(source)

    def _note_command(self, following: BagFrame | None, elapsed_s: float) -> None:
        """Note what was commanded in answer to the latest frame.

        The last command of a decision reveals its action: the limiter may have held back the
        earlier ones on the way to it.
        """
        answered = self._latest
        control = answered.command
        if control is None and following is not None and following.status_known:
            control = following.frame.control
        if control is not None:
            # Read always: the meaning of the next pedals depends on these.
            read = self._pedals.command(control, answered.frame.speed, elapsed_s)
            # A pedal pressed far asks for a speed beyond the range; that is out of reach only if
            # the car itself gets there.
            most_mps = max(self._config.max_speed_mps, answered.frame.speed)
            self._commanded = replace(read, speed=min(read.speed, most_mps))
        if answered.ackermann is not None:
            self._commanded = answered.ackermann

    def _decide(self, source: BagFrame) -> Decision:
        done = self._decision()
        outcome = self.task.judge(
            NO_ACTION if done.action is None else done.action,
            source.frame,
            done.collisions,
            done.lane_invasions,
            self._ticks,
        )
        self.arrived = outcome.end is End.ROUTE_END
        self._collisions, self._lane_invasions = [], []
        self._ticks = self._frames = 0
        self._commanded = None
        self._decided = source
        self._observation, self._projection = outcome.observation, self.task.projection
        end = None if outcome.end is End.TIME_LIMIT else outcome.end  # a bag has no time limit
        known = done.action is not None
        return replace(
            done,
            reward=outcome.reward if known else None,
            next_observation=outcome.observation if known else None,
            end=end,
            completion=self.task.summary.route_completion,
        )

    def finish(self, interruption: str) -> Iterator[Decision]:
        """Yield the last decision, whose outcome is not known."""
        if not self.arrived:
            self._note_command(None, self.task.fixed_delta_s)
            yield replace(self._decision(), cut_by=interruption)

    def _decision(self) -> Decision:
        wanted = None if self._commanded is None else action_of(self._config, self._commanded)
        return Decision(
            self._decided,
            self._observation,
            self._projection,
            self._number,
            None if wanted is None else np.clip(wanted, -1.0, 1.0),
            within_reach=wanted is None or bool(np.abs(wanted).max() <= ACTION_TOLERANCE),
            collisions=tuple(self._collisions),
            lane_invasions=tuple(self._lane_invasions),
            completion=self.task.summary.route_completion,
            ticks=self._ticks,
        )


def _has_jumped(before: Frame, after: Frame, elapsed_s: float) -> bool:
    """Return whether the car has moved further than it can have driven."""
    moved_m = np.hypot(after.pose.x - before.pose.x, after.pose.y - before.pose.y)
    fastest = max(abs(before.speed), abs(after.speed))
    return bool(moved_m > JUMP_M + 1.5 * fastest * elapsed_s)
