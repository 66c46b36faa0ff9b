# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Lane markings crossed by the car, as CARLA's lane invasion sensor reports them."""

from __future__ import annotations

from td3_driver.roads.lane_finder import LanePoint
from td3_driver.roads.opendrive import LaneKey
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.shapes import Rectangle

_BEYOND_ROAD = 0
"""Lane number by which `RoadMap.markings_between` means the ground beyond the road."""


class LaneWatch:
    """Follows the car's four corners over the lanes.

    The first corner to cross a marking causes an event; the corners that follow do not cause
    another. Each type of marking is reported once until the whole car is within one lane again.
    As with CARLA's sensor, nothing is reported inside junctions.
    """

    def __init__(self, road_map: RoadMap) -> None:
        """Watch a car on `road_map`, whose position is not known yet."""
        self._map = road_map
        self._corners: list[LanePoint | None] | None = None
        self._told: set[int] = set()

    def reset(self) -> None:
        """Forget where the car was, for instance after a teleport."""
        self._corners = None
        self._told.clear()

    def update(self, outline: Rectangle) -> tuple[int, ...]:
        """Return the types of the markings crossed since the last update, in rising order."""
        before, now = self._corners, [self._map.lane_at(x, y) for x, y in outline.corners]
        self._corners = now
        if before is None:
            return ()
        crossed: set[int] = set()
        for old, new in zip(before, now, strict=True):
            crossed.update(self._between(old, new))
        crossed -= self._told
        self._told |= crossed
        if self._within_one_lane(now):
            self._told.clear()
        return tuple(sorted(crossed))

    def _between(self, old: LanePoint | None, new: LanePoint | None) -> tuple[int, ...]:
        """Return the markings between a corner's positions in two successive updates."""
        point = new or old
        if point is None or any(p is not None and p.in_junction for p in (old, new)):
            return ()
        if old is None or new is None:
            road, section, _ = point.key
            return self._map.markings_between(point.key, (road, section, _BEYOND_ROAD), point.s)
        if old.key == new.key:
            return ()
        origin = self._same_section(old.key, new.key)
        return () if origin is None else self._map.markings_between(origin, new.key, new.s)

    def _same_section(self, old: LaneKey, new: LaneKey) -> LaneKey | None:
        """Return the lane in `new`'s section that is `old` itself or connects to it."""
        for key in (old, *self._map.graph.neighbours(old)):
            if key[:2] == new[:2]:
                return key
        return None

    def _within_one_lane(self, corners: list[LanePoint | None]) -> bool:
        """Return whether all corners are in one lane and its continuation, or off the road."""
        keys = {corner.key if corner else None for corner in corners}
        first = keys.pop()
        return not keys or (first is not None and keys <= self._map.graph.neighbours(first))
