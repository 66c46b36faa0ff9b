"""Lane markings crossed by the car, as CARLA's lane invasion sensor tells them."""

from __future__ import annotations

from td3_driver.roads.opendrive import LaneKey
from td3_driver.roads.road_map import LanePoint, RoadMap
from td3_driver.simulator.shapes import Rectangle

_BEYOND_ROAD = 0
"""Lane number that `RoadMap.markings_between` takes for the ground beyond the road."""


class LaneWatch:
    """Follows the car's four corners over the lanes.

    A corner that comes into a lane where no other corner was crosses the marking between; the
    corners that follow cross it again without another event. As with CARLA's sensor nothing is
    told inside junctions.
    """

    def __init__(self, road_map: RoadMap) -> None:
        """Watch a car on `road_map`; nothing is known of it yet."""
        self._map = road_map
        self._corners: list[LanePoint | None] | None = None

    def reset(self) -> None:
        """Forget where the car was, as after a teleport."""
        self._corners = None

    def update(self, outline: Rectangle) -> tuple[int, ...]:
        """Return the types of the markings crossed since the last update, in rising order."""
        before, now = self._corners, [self._map.lane_at(x, y) for x, y in outline.corners]
        self._corners = now
        if before is None:
            return ()
        occupied = {point.key if point else None for point in before}
        crossed: set[int] = set()
        for old, new in zip(before, now, strict=True):
            if (new.key if new else None) not in occupied:
                crossed.update(self._between(old, new))
        return tuple(sorted(crossed))

    def _between(self, old: LanePoint | None, new: LanePoint | None) -> tuple[int, ...]:
        point = new or old
        if point is None or any(p is not None and p.in_junction for p in (old, new)):
            return ()
        if old is None or new is None:
            road, section, _ = point.key
            return self._map.markings_between(point.key, (road, section, _BEYOND_ROAD), point.s)
        origin = self._same_section(old.key, new.key)
        return () if origin is None else self._map.markings_between(origin, new.key, new.s)

    def _same_section(self, old: LaneKey, new: LaneKey) -> LaneKey | None:
        """Return the lane of `new`'s section that `old` is, continues or leads into."""
        for key in (old, *self._map.graph.neighbours(old)):
            if key[:2] == new[:2]:
                return key
        return None
