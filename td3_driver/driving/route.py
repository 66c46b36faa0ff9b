# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Where the car is along its route, and what lies ahead of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.navigator import Turn, find_turns
from td3_driver.driving.world import Pose, Start

# The search for the nearest stretch stays near the last one, so a route that crosses or passes
# itself is followed in order.
SEARCH_BACK_M = 3.0
SEARCH_AHEAD_M = 12.0


@dataclass(frozen=True)
class Projection:
    """The car's position relative to its route."""

    progress_m: float
    """Distance along the route from its start."""
    lateral_m: float
    """Distance from the route, + = left of it."""
    heading_error_rad: float
    """The route's heading minus the car's: + = the car has to turn left."""


@dataclass(frozen=True)
class RouteError:
    """How a car misjudges where it is on its route, as by an error of GPS or of the map."""

    offset_m: float = 0.0
    """How far left of its place the car takes itself to be."""
    turn_rad: float = 0.0
    """How far left of its heading it takes itself to face."""

    def __bool__(self) -> bool:
        """Return whether there is any error."""
        return bool(self.offset_m or self.turn_rad)

    @classmethod
    def drawn(cls, start: Start, config: DrivingConfig) -> RouteError:
        """Return the error of an episode, uniform within the settings; the same for one start."""
        if not (config.route_offset_m or config.route_turn_rad):
            return NO_ERROR
        place = np.array([start.pose.x, start.pose.y], np.float64).view(np.uint64).tolist()
        sideways, turn = np.random.default_rng([start.seed, *place]).uniform(-1.0, 1.0, 2)
        return cls(
            float(sideways) * config.route_offset_m,
            float(turn) * config.route_turn_rad,
        )

    def misplaced(self, pose: Pose) -> Pose:
        """Return where a car at `pose` takes itself to be."""
        return replace(
            pose,
            x=pose.x - self.offset_m * math.sin(pose.yaw),
            y=pose.y + self.offset_m * math.cos(pose.yaw),
            yaw=wrap_angle(pose.yaw + self.turn_rad),
        )


NO_ERROR = RouteError()


class RouteTracker:
    """Follows a pose along one route, in the route's order.

    `route` is float (n, 3), x, y, yaw in the map frame, n >= 2. Raises ValueError otherwise.
    """

    def __init__(self, route: np.ndarray) -> None:
        if route.ndim != 2 or route.shape[1] != 3 or len(route) < 2:
            raise ValueError(f"a route needs at least two points (x, y, yaw), got {route.shape}")
        points = np.asarray(route[:, :2], dtype=np.float64)
        lengths = np.hypot(*np.diff(points, axis=0).T)
        keep = np.concatenate([[True], lengths > 1e-6])
        points, lengths = points[keep], lengths[lengths > 1e-6]
        if len(points) < 2:
            raise ValueError("all points of the route are the same")
        self._points = points
        self._lengths = lengths
        self._along = np.concatenate([[0.0], np.cumsum(lengths)])
        self._directions = np.diff(points, axis=0) / lengths[:, None]
        self._yaws = np.arctan2(self._directions[:, 1], self._directions[:, 0])
        self._segment: int | None = None

    @property
    def length_m(self) -> float:
        """Length of the route."""
        return float(self._along[-1])

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """The route's turns, in order."""
        return find_turns(self._points, self._along)

    def pose_at(self, progress_m: float) -> Pose:
        """Return the pose on the route at a distance from its start, at either end at most."""
        segment = int(np.searchsorted(self._along, progress_m, side="right")) - 1
        segment = min(max(segment, 0), len(self._lengths) - 1)
        along = min(max(progress_m - self._along[segment], 0.0), self._lengths[segment])
        x, y = self._points[segment] + along * self._directions[segment]
        return Pose(float(x), float(y), wrap_angle(self._yaw_at(segment, along)))

    def project(self, pose: Pose) -> Projection:
        """Return the car's place on the route; the first call searches all of it."""
        first, last = 0, len(self._lengths)
        if self._segment is not None:
            here = self._along[self._segment]
            first, last = self._segments(here - SEARCH_BACK_M, here + SEARCH_AHEAD_M)
        self._segment, place = self._nearest(pose, first, last)
        return place

    def place_between(self, pose: Pose, from_m: float, to_m: float) -> Projection:
        """Return the place of any pose on a stretch of the route; the car's stays what it was."""
        return self._nearest(pose, *self._segments(from_m, to_m))[1]

    def _segments(self, from_m: float, to_m: float) -> tuple[int, int]:
        """Return the first segment of a stretch of the route, and the one behind its last."""
        first = max(int(np.searchsorted(self._along, from_m, side="right")) - 1, 0)
        first = min(first, len(self._lengths) - 1)
        last = int(np.searchsorted(self._along, to_m)) + 1
        return first, min(max(last, first + 1), len(self._lengths))

    def _nearest(self, pose: Pose, first: int, last: int) -> tuple[int, Projection]:
        """Return the nearest of some segments, and the pose's place on it."""
        offsets = np.array([pose.x, pose.y]) - self._points[first:last]
        directions = self._directions[first:last]
        along = np.clip(np.sum(offsets * directions, axis=1), 0.0, self._lengths[first:last])
        errors = offsets - along[:, None] * directions
        nearest = int(np.argmin(np.sum(errors**2, axis=1)))
        segment = first + nearest
        direction, offset = directions[nearest], offsets[nearest]
        # The perpendicular component is signed and stays exact beyond the ends of the route.
        lateral = float(direction[0] * offset[1] - direction[1] * offset[0])
        return segment, Projection(
            progress_m=float(self._along[segment] + along[nearest]),
            lateral_m=lateral,
            heading_error_rad=wrap_angle(self._yaw_at(segment, along[nearest]) - pose.yaw),
        )

    def _yaw_at(self, segment: int, along_m: float) -> float:
        """Interpolate the heading between the middles of neighbouring segments."""
        share = along_m / self._lengths[segment] - 0.5
        other = min(max(segment + (1 if share > 0 else -1), 0), len(self._yaws) - 1)
        return float(
            self._yaws[segment] + abs(share) * wrap_angle(self._yaws[other] - self._yaws[segment])
        )

    def ahead(self, pose: Pose, progress_m: float, count: int, spacing_m: float) -> np.ndarray:
        """Return the next points of the route in the car's frame, float64 (count, 2).

        The first lies `spacing_m` beyond `progress_m`. Past its end the route continues straight.
        """
        wanted = progress_m + spacing_m * np.arange(1, count + 1)
        x = np.interp(wanted, self._along, self._points[:, 0])
        y = np.interp(wanted, self._along, self._points[:, 1])
        beyond = np.maximum(wanted - self.length_m, 0.0)
        x += beyond * self._directions[-1, 0] - pose.x
        y += beyond * self._directions[-1, 1] - pose.y
        cos, sin = np.cos(pose.yaw), np.sin(pose.yaw)
        return np.stack([cos * x + sin * y, -sin * x + cos * y], axis=1)
