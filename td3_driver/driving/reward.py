# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The reward of one decision, term by term, and the ends of an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import Enum

from td3_driver.config import DrivingConfig
from td3_driver.driving.route import Projection
from td3_driver.driving.world import Collision, LaneInvasion

# CARLA's LaneMarking types with a solid line on one side at least.
SOLID_MARKINGS = frozenset({2, 3, 4, 5})


class End(str, Enum):
    """Why an episode ended; `terminated` separates failures from truncations, which bootstrap."""

    COLLISION = "collision"
    OFF_LANE = "off_lane"
    WRONG_WAY = "wrong_way"
    STUCK = "stuck"
    ROUTE_END = "route_end"
    TIME_LIMIT = "time_limit"
    UNCLEAN_STEP = "unclean_step"

    @property
    def terminated(self) -> bool:
        """True for a failure: no reward follows it."""
        return self in (End.COLLISION, End.OFF_LANE, End.WRONG_WAY, End.STUCK)


@dataclass(frozen=True)
class RewardTerms:
    """The parts of one decision's reward; factors are in [0, 1], costs are <= 0."""

    progress: float
    centring: float
    heading: float
    speed: float
    steering_change: float
    lane_invasion: float
    failure: float

    @property
    def total(self) -> float:
        """Progress, times the factors where it is forward, less the costs."""
        factors = self.centring * self.heading * self.speed if self.progress > 0.0 else 1.0
        return self.progress * factors + self.steering_change + self.lane_invasion + self.failure

    def as_dict(self) -> dict[str, float]:
        """Return the terms by name."""
        return asdict(self)


def _falling(value: float, full_until: float, zero_from: float) -> float:
    """Return 1 up to `full_until`, 0 from `zero_from`, and a straight line between."""
    if value <= full_until:
        return 1.0
    if value >= zero_from:
        return 0.0
    return (zero_from - value) / (zero_from - full_until)


def reward_terms(
    config: DrivingConfig,
    *,
    progress_m: float,
    duration_s: float,
    projection: Projection,
    speed: float,
    steering_change: float,
    lane_invasions: Sequence[LaneInvasion],
    end: End | None,
) -> RewardTerms:
    """Return the reward of one decision of `duration_s`.

    Progress along the route is measured against driving at the target speed, so full speed on
    the centre line earns 1. The factors multiply: none can pay for another, and standing still
    earns exactly 0 (the multiplicative form of bitsauce's Carla-ppo, on progress as in CaRL).
    `steering_change` is the change of the steering action, in [0, 2].
    """
    full_progress_m = config.target_speed_mps * duration_s
    limit = config.reward_speed_limit_mps / config.target_speed_mps
    solid = any(
        marking in SOLID_MARKINGS
        for event in lane_invasions
        for marking in event.crossed_lane_markings
    )
    return RewardTerms(
        progress=min(max(progress_m / full_progress_m, -limit), limit),
        centring=_falling(abs(projection.lateral_m), 0.0, config.lateral_limit_m),
        heading=_falling(abs(projection.heading_error_rad), 0.0, config.heading_limit_rad),
        speed=_falling(speed, config.target_speed_mps, config.reward_speed_limit_mps),
        steering_change=-config.steering_change_cost * steering_change,
        lane_invasion=-config.lane_invasion_cost if solid else 0.0,
        failure=-config.failure_cost if end is not None and end.terminated else 0.0,
    )


class EndDetector:
    """Watches one episode for its end; one `check` for each decision."""

    def __init__(self, config: DrivingConfig, route_length_m: float) -> None:
        self._config = config
        self._route_length_m = route_length_m
        self._off_lane = 0
        self._standing_s = 0.0

    def is_collision(self, contact: Collision) -> bool:
        """Distinguish a collision from a mere touch."""
        return contact.impulse_ns >= self._config.collision_impulse_ns

    def check(
        self,
        *,
        projection: Projection,
        speed: float,
        collisions: Sequence[Collision],
        elapsed_s: float,
        duration_s: float,
        clean: bool = True,
    ) -> End | None:
        """Return why the episode ends now, or None; failures come before truncations.

        An unclean step's outcome may not be due to the action, so it is checked first.
        """
        config = self._config
        if not clean:
            return End.UNCLEAN_STEP
        if any(map(self.is_collision, collisions)):
            return End.COLLISION
        off_lane = abs(projection.lateral_m) > config.lateral_limit_m
        self._off_lane = self._off_lane + 1 if off_lane else 0
        if self._off_lane >= config.off_lane_ticks:
            return End.OFF_LANE
        if abs(projection.heading_error_rad) > config.wrong_way_rad:
            return End.WRONG_WAY
        standing = abs(speed) < config.stuck_speed_mps and elapsed_s > config.stuck_grace_s
        self._standing_s = self._standing_s + duration_s if standing else 0.0
        if self._standing_s >= config.stuck_time_s - 1e-9:
            return End.STUCK
        if self._route_length_m - projection.progress_m <= config.goal_tolerance_m:
            return End.ROUTE_END
        if elapsed_s >= config.time_limit_s - 1e-9:
            return End.TIME_LIMIT
        return None
