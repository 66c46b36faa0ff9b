# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A scripted driver that is told where the others are: it passes, waits and follows.

It advises a policy that learns to see them. It cannot drive by itself, as no driver is told them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.baseline import WHEELBASE_M, RouteFollower
from td3_driver.driving.control import AckermannCommand, action_of
from td3_driver.driving.others import HALF_LENGTH_M, HALF_WIDTH_M, Nearby, nearby
from td3_driver.driving.route import Projection, RouteTracker
from td3_driver.driving.world import Other, Pose

BEHIND_M, AHEAD_M = 20.0, 40.0
"""Who is farther away on the route is no reason to do anything."""
STANDING_MPS = 0.1
PASSED_ASIDE_M = 0.8
"""One that stands so far beside the route can be passed."""
PASSING_ROOM_M = 0.6
"""Left to one that is passed."""
LEAST_ROOM_M, CREEPING_ROOM_M = 0.3, 0.1
"""With less left to one that is passed the car creeps, and then stops."""
PASSING_MPS, SLOWED_WITHIN_M, SLOWING_PER_S = 3.5, 8.0, 0.3
"""One is passed slowly: at this speed with so much room left before it, and faster by so much for
each metre more."""
TURN_OUT_RADIUS_M = 6.0
"""Of the arc by which it turns out where little room is left."""
TURN_OUT_HEADWAY_S = 0.8
"""Kept to where there would be no room to turn out."""
CREEPING_MPS = 0.8
"""While there is any room to turn out."""
NOSE_M = HALF_LENGTH_M + 0.5 * WHEELBASE_M
"""From the rear axle to the nose."""
FULLY_ASIDE_M, BEGINS_M = 7.0, 14.0
"""The way round one is as far aside as needed this near to it, and begins that far before it."""
IN_THE_WAY_M = 2.5
"""Who is farther beside the route is in another lane."""
CLEAR_M = 6.0
"""Who passes one that is parked has done so this far ahead of it."""
ROOM_TO_TURN_OUT_M = 6.0
"""Kept in addition behind one that cannot be passed yet."""
STANDING_GAP_M, HEADWAY_S = 3.0, 1.2
"""Kept behind one that stands or drives in the lane."""


class Adviser:
    """Pure pursuit along the route, or along a way round what stands beside it."""

    def __init__(self, config: DrivingConfig) -> None:
        self._config = config
        self._follower = RouteFollower(config)

    def act(
        self,
        tracker: RouteTracker,
        pose: Pose,
        projection: Projection,
        speed: float,
        others: Sequence[Other],
    ) -> np.ndarray:
        """Return the action, float32 (steering, speed) in [-1, 1]^2, of a car on its route."""
        config = self._config
        here_m = projection.progress_m
        apart_m = config.waypoint_spacing_m
        # From beside the car on, as a single point has no direction.
        points = tracker.ahead(pose, here_m - apart_m, config.waypoints + 1, apart_m)
        away_m = apart_m * np.arange(len(points))
        aside_m = np.zeros(len(points))
        gap_m, most_mps = AHEAD_M, config.max_speed_mps
        nose_m = projection.lateral_m - HALF_LENGTH_M * math.sin(projection.heading_error_rad)
        near = [
            each
            for each in nearby(tracker, here_m, others, BEHIND_M, AHEAD_M)
            if abs(each.lateral_m) < IN_THE_WAY_M
        ]
        for other in near:
            if _stands_aside(other):
                aside_m += _way_round_m(other, away_m)
                if other.gap_m >= 0.0:
                    most_mps = min(most_mps, _passing_mps(other, nose_m))
                if other.ahead_m > 0.0 and any(_is_beside(each, other) for each in near):
                    gap_m = min(gap_m, other.gap_m - ROOM_TO_TURN_OUT_M)
            elif other.ahead_m > 0.0:
                gap_m = min(gap_m, other.gap_m)
        command = self._follower.command(beside(points, aside_m)[1:], speed)
        most_mps = min(most_mps, max(0.0, (gap_m - STANDING_GAP_M) / HEADWAY_S))
        command = AckermannCommand(command.steering_angle, min(command.speed, most_mps))
        return np.clip(action_of(config, command), -1.0, 1.0)


def beside(points: np.ndarray, aside_m: np.ndarray) -> np.ndarray:
    """Return points of the route, (n, 2), moved to its left by so much each."""
    along = np.gradient(points, axis=0)
    along /= np.maximum(np.hypot(*along.T), 1e-6)[:, None]
    return points + aside_m[:, None] * np.column_stack([-along[:, 1], along[:, 0]])


def _stands_aside(other: Nearby) -> bool:
    """Whether it can be passed; others are waited for."""
    return abs(other.speed_mps) < STANDING_MPS and abs(other.lateral_m) > PASSED_ASIDE_M


def _passing_mps(other: Nearby, nose_m: float) -> float:
    """Return the speed at which to approach one that is passed, with the nose beside the route."""
    usual_mps = PASSING_MPS + SLOWING_PER_S * max(other.gap_m - SLOWED_WITHIN_M, 0.0)
    left, right = other.ways_round_m(nose_m)
    short_m = left if other.lateral_m < 0.0 else right
    if short_m + LEAST_ROOM_M <= 0.0:
        return usual_mps
    in_time_mps = (other.gap_m - _turning_out_m(short_m + LEAST_ROOM_M)) / TURN_OUT_HEADWAY_S
    creeps = other.gap_m >= _turning_out_m(short_m + CREEPING_ROOM_M)
    return min(usual_mps, max(in_time_mps, CREEPING_MPS if creeps else 0.0))


def _turning_out_m(aside_m: float) -> float:
    """Return the way on which the nose goes so far aside by an arc.

    On an arc of radius r the nose, which is f before the rear axle, has gone aside by
    s^2 / 2 r + f s / r where the car has gone s.
    """
    squared = NOSE_M * NOSE_M + 2.0 * TURN_OUT_RADIUS_M * max(aside_m, 0.0)
    return math.sqrt(squared) - NOSE_M


def _is_beside(other: Nearby, parked: Nearby) -> bool:
    """Whether another passes a parked one just now, or is about to, and is in the way there."""
    if other is parked:
        return False
    if _stands_aside(other) and other.lateral_m * parked.lateral_m > 0.0:
        return False
    return -BEGINS_M < other.ahead_m - parked.ahead_m < CLEAR_M


def _way_round_m(other: Nearby, away_m: np.ndarray) -> np.ndarray:
    """Return how far to the left of the route to drive, at distances ahead of the car."""
    room_m = other.half_width_m + HALF_WIDTH_M + PASSING_ROOM_M - abs(other.lateral_m)
    near = (BEGINS_M - abs(other.ahead_m - away_m)) / (BEGINS_M - FULLY_ASIDE_M)
    near = np.clip(near, 0.0, 1.0)
    # Smooth at both ends, as a car steers.
    return -np.sign(other.lateral_m) * max(room_m, 0.0) * near * near * (3.0 - 2.0 * near)
