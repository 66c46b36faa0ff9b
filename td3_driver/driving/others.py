# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Others on the road, as a route passes them: for training alone, as no driver is told them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from td3_driver.driving.route import RouteTracker
from td3_driver.driving.world import CAR_LENGTH_M, CAR_WIDTH_M, Other

ASIDE_M = 10.0
"""Who is farther beside the route does not count."""
BEYOND_M = 0.5
HALF_LENGTH_M, HALF_WIDTH_M = 0.5 * CAR_LENGTH_M, 0.5 * CAR_WIDTH_M
"""Of the car on the route."""


@dataclass(frozen=True, order=True)
class Nearby:
    """Another body beside, behind or ahead of the car on its route; ordered along it."""

    ahead_m: float
    """Distance along the route from the car's middle to its own."""
    lateral_m: float
    """Distance of its middle from the route, + = left."""
    half_length_m: float
    """Half its extent along the route."""
    half_width_m: float
    """Half its extent across the route."""
    speed_mps: float
    """Along the route."""
    sideways_mps: float
    """Across it, + = to the left."""

    @property
    def gap_m(self) -> float:
        """Room along the route between its box and the car's: 0 beside it, negative behind."""
        room_m = max(abs(self.ahead_m) - self.half_length_m - HALF_LENGTH_M, 0.0)
        return math.copysign(room_m, self.ahead_m)

    def ways_round_m(self, lateral_m: float) -> tuple[float, float]:
        """Return how far a car at `lateral_m` must move to the left, or to the right, to pass."""
        reach_m, aside_m = self.half_width_m + HALF_WIDTH_M, self.lateral_m - lateral_m
        return reach_m + aside_m, reach_m - aside_m


def nearby(
    tracker: RouteTracker,
    progress_m: float,
    others: Iterable[Other],
    behind_m: float,
    ahead_m: float,
) -> list[Nearby]:
    """Return the others on a stretch of the route round `progress_m`, in the route's order."""
    here = tracker.pose_at(progress_m)
    found = []
    for other in others:
        away_m = math.hypot(other.pose.x - here.x, other.pose.y - here.y)
        if away_m > max(behind_m, ahead_m) + ASIDE_M:
            continue
        place = tracker.place_between(other.pose, progress_m - behind_m, progress_m + ahead_m)
        foot = tracker.pose_at(place.progress_m)
        along_m = place.progress_m - progress_m
        off_m = math.hypot(other.pose.x - foot.x, other.pose.y - foot.y)
        # Who is beyond the stretch's ends, or the route's, projects to them.
        beyond = off_m > abs(place.lateral_m) + BEYOND_M or not -behind_m <= along_m < ahead_m
        if beyond or abs(place.lateral_m) > ASIDE_M:
            continue
        sine, cosine = math.sin(place.heading_error_rad), math.cos(place.heading_error_rad)
        road = other.pose.yaw + place.heading_error_rad
        vx, vy = other.velocity
        found.append(
            Nearby(
                along_m,
                place.lateral_m,
                0.5 * (other.length * abs(cosine) + other.width * abs(sine)),
                0.5 * (other.length * abs(sine) + other.width * abs(cosine)),
                vx * math.cos(road) + vy * math.sin(road),
                vy * math.cos(road) - vx * math.sin(road),
            )
        )
    return sorted(found)
