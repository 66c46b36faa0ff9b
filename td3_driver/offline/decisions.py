"""The decisions of a bag: what was observed, commanded and earned, by the live task's own code.

`DrivingTask` makes the observations, the rewards and the ends, as it does in training and in the
driver; decisions begin and pause where the driver's do (`driving.pilot`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AckermannCommand
from td3_driver.driving.observation import Observation
from td3_driver.driving.pilot import MAX_GAP_S
from td3_driver.driving.reward import End, RewardTerms
from td3_driver.driving.route import Projection
from td3_driver.driving.task import DrivingTask
from td3_driver.driving.world import Collision, LaneInvasion, VehicleControl, WorldError
from td3_driver.offline.frames import BagFrame

# The action of standing still, where none was recorded: what an episode begins with.
NO_ACTION = np.array([0.0, -1.0], dtype=np.float32)


def action_of_ackermann(config: DrivingConfig, command: AckermannCommand) -> np.ndarray:
    """Return the action in [-1, 1]^2, float32, that asks for a command (`CommandLimiter`)."""
    steering = command.steering_angle / config.max_steering_angle_rad
    speed = 2.0 * command.speed / config.max_speed_mps - 1.0
    return np.clip(np.array([steering, speed], dtype=np.float32), -1.0, 1.0)


def action_of_control(
    config: DrivingConfig, control: VehicleControl, speed_reached: float
) -> np.ndarray:
    """Return the action of pedals and steering: the angle, and the speed that they led to.

    `speed_reached` (m/s) is that of the next decision: pedals say nothing of the speed wanted.
    """
    angle = -control.steer * config.vehicle_max_steer_rad
    return action_of_ackermann(config, AckermannCommand(angle, speed_reached))


@dataclass(frozen=True, eq=False)
class Decision:
    """One decision of a bag; what is None from `reward` on is not known."""

    source: BagFrame
    observation: Observation
    projection: Projection
    stretch: int
    """Number of the stretch without interruption that it belongs to, from 0."""
    action: np.ndarray | None
    """What was commanded, in [-1, 1]^2; None where nothing was recorded."""
    reward: RewardTerms | None = None
    next_observation: Observation | None = None
    end: End | None = None
    """How the decision would have ended an episode."""
    collisions: tuple[Collision, ...] = ()
    lane_invasions: tuple[LaneInvasion, ...] = ()
    completion: float = 0.0
    """Share of the route, from the stretch's beginning, that is driven after it."""


def decisions(
    frames: Iterable[BagFrame], config: DrivingConfig, fixed_delta_s: float
) -> Iterator[Decision]:
    """Yield the decisions of a bag's frames, in their order.

    A stretch begins with a new route, after a gap or a jump of more than `MAX_GAP_S`, and where
    the car comes near its route again. It goes on after a failure, as the driver does, and ends
    with its route.
    """
    under_way: _Stretch | None = None
    stretches = 0
    for source in frames:
        if under_way is not None and not under_way.continues(source):
            yield from under_way.finish()
            under_way = None
        if under_way is None:
            under_way = _begin(source, config, fixed_delta_s, stretches)
            stretches += under_way is not None
        else:
            yield from under_way.add(source)
    if under_way is not None:
        yield from under_way.finish()


def _begin(
    source: BagFrame, config: DrivingConfig, fixed_delta_s: float, number: int
) -> _Stretch | None:
    """Begin a stretch at a frame; None where there is no way to drive."""
    if not len(source.frame.route):
        return None
    try:
        stretch = _Stretch(source, config, fixed_delta_s, number)
    except WorldError:
        return None
    away_m = abs(stretch.task.projection.lateral_m)
    return stretch if away_m <= config.lateral_limit_m and stretch.remaining_m() > 0.0 else None


class _Stretch:
    """Frames that follow one another along one route."""

    def __init__(
        self, source: BagFrame, config: DrivingConfig, fixed_delta_s: float, number: int
    ) -> None:
        self.task = DrivingTask(config, fixed_delta_s)
        self._config = config
        self._number = number
        self._arrived = False
        self._latest = source
        self._collisions: list[Collision] = []
        self._lane_invasions: list[LaneInvasion] = []
        self._ticks = 0
        self._frames = 0
        self._decided = source
        self._answer = source
        self._observation = self.task.begin(source.frame)
        self._projection = self.task.projection

    def remaining_m(self) -> float:
        """Return how much of the route is left beyond the goal's tolerance."""
        summary = self.task.summary
        driven = summary.route_length_m * summary.route_completion
        return summary.route_length_m - driven - self._config.goal_tolerance_m

    def continues(self, source: BagFrame) -> bool:
        """Whether a frame belongs to this stretch."""
        elapsed_s = 1e-9 * (source.frame.stamp_ns - self._latest.frame.stamp_ns)
        same_route = source.frame.route is self._latest.frame.route
        return same_route and 0.0 < elapsed_s <= MAX_GAP_S

    def add(self, source: BagFrame) -> Iterator[Decision]:
        """Take a frame; yield the decision that it completes."""
        elapsed_ns = source.frame.stamp_ns - self._latest.frame.stamp_ns
        self._ticks += max(round(1e-9 * elapsed_ns / self.task.fixed_delta_s), 1)
        self._frames += 1
        self._latest = source
        if self._answer.ackermann is None and self._answer.command is None:
            self._answer = source
        self._collisions += source.frame.collisions
        self._lane_invasions += source.frame.lane_invasions
        if self._arrived or self._frames < self._config.action_repeat:
            return
        yield self._decide(source)

    def _decide(self, source: BagFrame) -> Decision:
        action = self._action(source)
        done = self._decision(action)
        outcome = self.task.judge(
            NO_ACTION if action is None else action,
            source.frame,
            done.collisions,
            done.lane_invasions,
            self._ticks,
        )
        self._arrived = outcome.end is End.ROUTE_END
        self._collisions, self._lane_invasions = [], []
        self._ticks = self._frames = 0
        self._decided = self._answer = source
        self._observation, self._projection = outcome.observation, self.task.projection
        end = None if outcome.end is End.TIME_LIMIT else outcome.end  # a bag has no such limit
        known = done.action is not None
        return Decision(
            source=done.source,
            observation=done.observation,
            projection=done.projection,
            stretch=done.stretch,
            action=done.action,
            reward=outcome.reward if known else None,
            next_observation=outcome.observation if known else None,
            end=end,
            collisions=done.collisions,
            lane_invasions=done.lane_invasions,
            completion=self.task.summary.route_completion,
        )

    def finish(self) -> Iterator[Decision]:
        """Yield the last decision, whose outcome nobody knows."""
        if not self._arrived:
            yield self._decision(self._action(None))

    def _decision(self, action: np.ndarray | None) -> Decision:
        return Decision(
            self._decided,
            self._observation,
            self._projection,
            self._number,
            action,
            collisions=tuple(self._collisions),
            lane_invasions=tuple(self._lane_invasions),
            completion=self.task.summary.route_completion,
        )

    def _action(self, following: BagFrame | None) -> np.ndarray | None:
        """Return what was commanded in answer to the frame decided on."""
        if self._answer.ackermann is not None:
            return action_of_ackermann(self._config, self._answer.ackermann)
        if following is None:
            return None
        # Nobody commanded a speed: what the car's status says was done about it.
        control = self._answer.command
        if control is None and following.status_known:
            control = following.frame.control
        if control is None:
            return None
        return action_of_control(self._config, control, following.frame.speed)
