# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What stands beside the road, so that depth and speed can be seen: buildings, and marker posts.

Nothing can be hit there: an episode ends before the car is that far off its lane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.looks import Colour
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box

# Beyond, what is low is too small to be worth its time.
_SEEN_M, _SEEN_HEIGHTS = 90.0, 40.0
_WALLS: tuple[Colour, ...] = (
    (150.0, 176.0, 196.0),
    (112.0, 138.0, 180.0),
    (196.0, 200.0, 202.0),
    (92.0, 104.0, 148.0),
    (150.0, 148.0, 140.0),
)
# Points of the roads' borders are about a metre apart, so a box may be nearer than it seems.
_BETWEEN_POINTS_M = 0.5


@dataclass(frozen=True)
class _Kind:
    """How one kind of box is placed along each lane; metres, as ranges to draw from."""

    spacing: tuple[float, float]
    length: tuple[float, float]
    width: tuple[float, float]
    height: tuple[float, float]
    away: tuple[float, ...]
    """Distances to the right of the lane's centre, tried in this order."""
    clearance: float
    """Least distance from any road, and from other boxes."""
    colours: tuple[Colour, ...]


_BUILDINGS = _Kind(
    spacing=(16.0, 45.0),
    length=(7.0, 16.0),
    width=(6.0, 11.0),
    height=(3.0, 10.0),
    away=(14.0, 18.0, 24.0),
    clearance=4.0,
    colours=_WALLS,
)
_POSTS = _Kind(
    spacing=(25.0, 25.0),
    length=(0.16, 0.16),
    width=(0.16, 0.16),
    height=(1.0, 1.0),
    away=(3.0, 4.5, 6.0),
    clearance=0.3,
    colours=((225.0, 225.0, 225.0),),
)


class Roadside:
    """The boxes beside a map's roads; equal arguments give equal boxes."""

    def __init__(self, road_map: RoadMap, seed: int) -> None:
        rng = np.random.default_rng([seed, 3])
        borders = [line for s in road_map.surfaces for line in (s.left, s.right)]
        self._roads = np.concatenate(borders)
        self._road_map = road_map
        self.boxes: list[Box] = []
        for kind in (_BUILDINGS, _POSTS):
            self._line_roads(kind, rng)
        self._places = np.array([(box.pose.x, box.pose.y) for box in self.boxes]).reshape(-1, 2)
        heights = np.array([box.height for box in self.boxes])
        self._reach = np.minimum(_SEEN_M, _SEEN_HEIGHTS * heights)

    def near(self, pose: Pose) -> list[Box]:
        """Return the boxes that can be seen from a car at `pose`."""
        east, north = self._places[:, 0] - pose.x, self._places[:, 1] - pose.y
        ahead = east * math.cos(pose.yaw) + north * math.sin(pose.yaw)
        seen = (np.hypot(east, north) < self._reach) & (ahead > -10.0)
        return [self.boxes[index] for index in np.flatnonzero(seen).tolist()]

    def _line_roads(self, kind: _Kind, rng: np.random.Generator) -> None:
        for lane in self._road_map.graph.lanes.values():
            if lane.in_junction:
                continue
            along = float(rng.uniform(0.0, kind.spacing[0]))
            while along < lane.length:
                self._place(kind, lane.pose(along), rng)
                along += float(rng.uniform(*kind.spacing))

    def _place(self, kind: _Kind, beside: Pose, rng: np.random.Generator) -> None:
        """Put one box where there is room, if anywhere."""
        length, width, height = (
            float(rng.uniform(*sizes)) for sizes in (kind.length, kind.width, kind.height)
        )
        colour = kind.colours[int(rng.integers(len(kind.colours)))]
        for away in kind.away:
            x = beside.x + away * math.sin(beside.yaw)
            y = beside.y - away * math.cos(beside.yaw)
            if self._has_room(x, y, math.hypot(length, width) / 2.0 + kind.clearance):
                pose = Pose(x, y, beside.yaw)
                self.boxes.append(Box(pose, length, width, height, colour, vehicle=False))
                return

    def _has_room(self, x: float, y: float, reach_m: float) -> bool:
        free_m = np.hypot(self._roads[:, 0] - x, self._roads[:, 1] - y).min() - _BETWEEN_POINTS_M
        if free_m < reach_m or self._road_map.lane_at(x, y) is not None:
            return False
        return all(
            math.hypot(box.pose.x - x, box.pose.y - y)
            > reach_m + math.hypot(box.length, box.width) / 2.0
            for box in self.boxes
        )
