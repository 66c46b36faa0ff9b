# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What one episode was like, tick by tick, and the quantities that figures are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

NEAR_S = 2.0
"""A time to collision below this counts as a near miss."""
PENALTIES = {"pedestrian": 0.5, "vehicle": 0.6, "static": 0.65}
"""Factor of each collision in CARLA's driving score, by what was hit."""


def driving_score(completion: float, collisions: Mapping[str, int]) -> float:
    """Return CARLA's driving score of one route, in [0, 100], as far as topics give it.

    It is 100 times the completed share, times 0.5 for each collision with a pedestrian, 0.6 with a
    vehicle and 0.65 with anything else (leaderboard.carla.org/evaluation_v2_1). Lane invasions
    cost nothing there. What is missing here: red lights, stop signs, yielding to emergency
    vehicles, the minimum speed, and completion lost off the road.
    """
    score = 100.0 * completion
    for kind, count in collisions.items():
        score *= PENALTIES[kind] ** count
    return score


@dataclass
class Trace:
    """The ticks of one episode after its first frame; each list has one entry for each tick."""

    dt_s: float
    speeds_mps: list[float] = field(default_factory=list)
    """Forward speed, signed; as of the speedometer's topic."""
    steering_rad: list[float] = field(default_factory=list)
    """Commanded angle of the front wheels, + = left; as of the vehicle status's topic."""
    off_lane: list[bool] = field(default_factory=list)
    """Whether a part of the car is beyond the edge of the lane that its route follows."""
    time_to_collision_s: list[float] = field(default_factory=list)
    """Infinite where nothing is in the way."""
    lane_invasions: int = 0
    """Events of the lane invasion sensor."""
    hit: dict[int, str] = field(default_factory=dict)
    """Actors collided with, each once, and what they are: a key of `PENALTIES`."""

    @property
    def duration_s(self) -> float:
        """Simulated time."""
        return self.dt_s * len(self.speeds_mps)

    @property
    def distance_m(self) -> float:
        """Length of the driven path: the integral of the speed's magnitude."""
        return self.dt_s * float(np.abs(self.speeds_mps).sum())

    @property
    def off_lane_s(self) -> float:
        """Time with a part of the car beyond its lane's edge."""
        return self.dt_s * sum(self.off_lane)

    @property
    def near_s(self) -> float:
        """Time with a time to collision below `NEAR_S` (Minderhoud and Bovy, 2001: exposed)."""
        return self.dt_s * sum(time_s < NEAR_S for time_s in self.time_to_collision_s)

    @property
    def least_time_to_collision_s(self) -> float | None:
        """The shortest time to collision; None where there never was one."""
        least = min(self.time_to_collision_s, default=math.inf)
        return least if math.isfinite(least) else None

    @property
    def squared_jerk(self) -> float:
        """Sum of the squares of the jerk, m^2/s^6.

        Jerk is the change of the forward acceleration, which is that of the forward speed: for
        three speeds in a row, (v2 - 2 v1 + v0) / dt^2. The tick of a collision, which ends an
        episode, is left out: that is no style of driving.
        """
        return float((np.diff(self._speeds_before_a_hit, n=2) ** 2).sum()) / self.dt_s**4

    @property
    def jerks(self) -> int:
        """The number of values of the jerk."""
        return max(len(self._speeds_before_a_hit) - 2, 0)

    @property
    def _speeds_before_a_hit(self) -> list[float]:
        return self.speeds_mps[:-1] if self.hit else self.speeds_mps

    @property
    def steering_travel_rad(self) -> float:
        """How far the commanded angle moved altogether, to and fro."""
        return float(np.abs(np.diff(self.steering_rad)).sum())

    def blocked_s(self, below_mps: float, grace_s: float) -> float:
        """Return the time at less than a speed, but for the first `grace_s`, when cars start."""
        first = round(grace_s / self.dt_s)
        return self.dt_s * int((np.abs(self.speeds_mps[first:]) < below_mps).sum())

    def collisions(self) -> dict[str, int]:
        """Return how many actors of each kind were hit."""
        kinds = list(self.hit.values())
        return {kind: kinds.count(kind) for kind in PENALTIES if kind in kinds}
