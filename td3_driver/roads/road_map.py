# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Roads of one OpenDRIVE map: lanes, routes, spawn places, surfaces and markings.

Everything is in the ROS map frame (x, y left, yaw counter-clockwise); `axes` is where CARLA's
left-handed frame is converted.

Lanes may end: a route never leads beyond such an end, and a lane from which too little road lies
ahead is no spawn place. The shipped maps have no such lanes.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import carla
import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.roads import trial
from td3_driver.roads.axes import ros_poses
from td3_driver.roads.document import LARGEST_BYTES, decode, geometry_text, parse
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.lane_finder import LaneFinder, LanePoint, LaneStrip
from td3_driver.roads.lane_graph import Lane, LanePlace
from td3_driver.roads.library_lanes import LibraryLanes
from td3_driver.roads.map_files import MAPS_FOLDER, map_file, plain_name, shipped_maps
from td3_driver.roads.opendrive import (
    NO_JUNCTION,
    LaneKey,
    LaneSection,
    read_sections,
)

_log = logging.getLogger(__name__)

# CARLA's towns have sections of micrometres, in which no waypoint can be asked for.
_SHORTEST_SECTION_M = 0.02
# Half the width of what is indexed for finding lanes.
_WIDEST_M = 100.0
# Road that must lie ahead of a spawn place: a shorter route is none.
_SPAWN_ROOM_M = 20.0
# No route of the wanted length after so many starts means that the map has none.
_START_TRIES = 200


@dataclass(frozen=True, eq=False)
class Surface:
    """A stretch of lane of any type between its two borders, each float64 (n, 2) of x, y."""

    type: str
    left: np.ndarray
    right: np.ndarray


@dataclass(frozen=True, eq=False)
class MarkedLine:
    """A painted line: float64 (n, 2) of x, y; type and colour named as `carla` names them."""

    points: np.ndarray
    type: str
    colour: str
    width: float


class RoadMap:
    """One OpenDRIVE map, answering questions about its roads."""

    def __init__(self, name: str, opendrive: str, tried: bool = False) -> None:
        """Parse `opendrive` (the document's text); raise RoadMapError if it is unusable.

        A map that is not `tried` is read in another process first, as `carla.Map` may end it.
        """
        self.name = name
        self.opendrive = opendrive
        self._root = parse(name, opendrive)
        sections = read_sections(name, self._root)
        if not tried and not _is_shipped(opendrive):
            trial.check(name, opendrive)
        self._lane_ids = {(s.road, s.index): sorted(s.lanes) for s in sections}
        self._sections = [s for s in sections if s.end - s.start > _SHORTEST_SECTION_M]
        self._starts: dict[float, list[tuple[Lane, float]]] = {}
        try:
            # The name is of no use to the library, and not every name is text to it.
            self._map = carla.Map("map", geometry_text(self._root))
            self._lanes = LibraryLanes(name, self._map, self._root, self._sections)
            self.graph = self._lanes.graph()
        except RoadMapError:
            raise
        # Boost.Python turns C++ exceptions, such as that of a failed look-up, into these.
        except (RuntimeError, LookupError, ValueError, OverflowError) as error:
            raise RoadMapError(
                f"map {name!r}: carla.Map refuses it: {error}; check the links of its roads, "
                "lanes and junctions"
            ) from None
        if not tried:
            for remark in self.remarks:
                _log.warning("map %r: %s; it is left out", name, remark)

    @classmethod
    def load(cls, name_or_path: str | Path) -> RoadMap:
        """Read a shipped map by name, or any `.xodr` file by path."""
        path = map_file(name_or_path)
        if path is None:
            raise RoadMapError(
                f"no map {str(name_or_path)[:200]!r}: not a file, nor one of "
                f"{', '.join(shipped_maps())}"
            )
        try:
            with path.open("rb") as file:
                data = file.read(LARGEST_BYTES + 1)
        except OSError as error:
            raise RoadMapError(f"map {str(path)!r} cannot be read: {error.strerror}") from None
        name = plain_name(str(path))
        try:
            return cls(name, decode(name, data))
        except RoadMapError as error:
            # One of several maps of that name, perhaps.
            message = str(error).replace(f"map {name!r}", f"map {str(path)!r}", 1)
            raise RoadMapError(message) from None

    @classmethod
    def from_opendrive(cls, name: str, text: str) -> RoadMap:
        """Make a map from OpenDRIVE text, such as that of `/carla/world_info`."""
        return cls(name, text)

    def spawn_poses(self, spacing_m: float) -> list[Pose]:
        """Return poses on driving lanes outside junctions, `spacing_m` apart, in a fixed order."""
        if spacing_m <= 0.0:
            raise ValueError(f"spacing_m is {spacing_m}, but must be above 0")
        return [
            lane.pose(float(offset))
            for lane, last in self._start_lanes(_SPAWN_ROOM_M)
            for offset in np.arange(0.0, last, spacing_m)
        ]

    def route(self, start: Pose, goal: Pose) -> np.ndarray:
        """Return the shortest path along lane centres, float64 (n, 3) of x, y, yaw, 1 m apart.

        It leads in driving direction, without lane changes, from the projection of `start` to
        less than 1 m before the projection of `goal`. Where lanes overlap or lie side by side,
        the headings of `start` and `goal` choose. Raises RoadMapError if no path leads there.
        """
        place = self.graph.project(start)
        keys, length = self.graph.path(place, self.graph.project(goal))
        return self.graph.polyline(keys, place.offset, length)

    def on_lane(self, pose: Pose) -> Pose:
        """Return the nearest pose on a lane's centre line, with the height of the road there.

        Where lanes overlap or lie side by side, the heading of `pose` chooses.
        """
        place = self.graph.project(pose)
        return self.graph.lanes[place.key].pose(place.offset)

    def random_start(self, rng: np.random.Generator, length_m: float) -> tuple[Pose, Pose]:
        """Return a random start outside junctions and a goal `length_m` further on.

        The goal lies on a random walk that is also the shortest path, so `route(start, goal)` has
        that length. Where the map has no such route, as on a ring shorter than `length_m`, the
        route is the longest of 0.8, 0.8^2, ... of it that is found. Raises RoadMapError if the
        map has no route of even 20 m (or `length_m`, if less).
        """
        length = float(length_m)
        while length >= min(_SPAWN_ROOM_M, length_m):
            found = self._try_start(rng, length)
            if found is not None:
                return found
            length *= 0.8
        raise RoadMapError(
            f"map {self.name!r} has no route of {length_m:.0f} m, nor a shorter one of "
            f"{_SPAWN_ROOM_M:.0f} m: its lanes are too short or end too soon"
        )

    def lane_at(self, x: float, y: float) -> LanePoint | None:
        """Return the lane (of any type) that covers a point; None off the road."""
        return self._finder.find(x, y)

    def markings_between(self, key: LaneKey, other: LaneKey, s: float) -> tuple[int, ...]:
        """Return the marking types crossed from lane `key` to `other` of the same section.

        `s` is where on the road, metres. Lane 0 as `other` means off the road, beyond the
        outermost lane. Types are CARLA's LaneMarking numbers.
        """
        road, section, lane = key
        ids = self._lane_ids[road, section]
        if other[2] == 0:
            side = [i for i in ids if (i > 0) == (lane > 0)]
            return (self._border(road, lane, s, outer=True),) if lane in _outermost(side) else ()
        low, high = sorted((lane, other[2]))
        passed = [i for i in ids if low <= i <= high]
        borders = []
        for right, left in itertools.pairwise(passed):
            if right < 0 < left:
                borders.append(self._border(road, left, s, outer=False))
            else:
                borders.append(self._border(road, left if left < 0 else right, s, outer=True))
        return tuple(borders)

    @cached_property
    def surfaces(self) -> list[Surface]:
        """Every lane of every type, in the document's order."""
        return [
            Surface(strip.type, strip.centre + strip.to_left, strip.centre - strip.to_left)
            for _, _, strip in self._strips
        ]

    @cached_property
    def marked_lines(self) -> list[MarkedLine]:
        """Every painted line, split where its type, colour or width changes."""
        found = []
        for section, lane, strip in self._strips:
            waypoints = self._lanes.waypoints(section, lane)
            right = [waypoint.right_lane_marking for waypoint in waypoints]
            left = [waypoint.left_lane_marking for waypoint in waypoints]
            sides = (
                (strip.centre - strip.to_left, right),
                (strip.centre + strip.to_left, left),
            )
            outer, inner = sides[::-1] if section.road in self._lanes.left_hand else sides
            found += _runs(*outer)
            # The centre line belongs to both sides: it is drawn once, from the right side, or
            # from the left one on a road that has no right side.
            if lane == -1 or (lane == 1 and -1 not in section.lanes):
                found += _runs(*inner)
        return found

    @property
    def remarks(self) -> list[str]:
        """Lanes and links that are left out of `graph`, each with what is wrong with it."""
        return self._lanes.remarks

    @property
    def left_hand(self) -> set[int]:
        """Roads on which one drives on the left."""
        return self._lanes.left_hand

    def use_all(self) -> None:
        """Ask everything that is ever asked of a map, as a trial of it."""
        _ = self.marked_lines, self.surfaces, self.bounds, self.spawn_poses(25.0)
        self.lane_at(0.0, 0.0)
        for section in self._sections:
            middle = 0.5 * (section.start + section.end)
            for one, other in itertools.pairwise([0, *sorted(section.lanes)]):
                if other:
                    key = section.road, section.index, other
                    self.markings_between(key, (*key[:2], one), middle)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Smallest x, smallest y, largest x, largest y of all lanes, metres."""
        borders = np.concatenate([np.vstack([s.left, s.right]) for s in self.surfaces])
        return (*borders.min(axis=0).tolist(), *borders.max(axis=0).tolist())

    def _start_lanes(self, length: float) -> list[tuple[Lane, float]]:
        """Return lanes outside junctions and how far along them `length` metres still fit."""
        if length in self._starts:
            return self._starts[length]
        room = self.graph.room_ahead(length)
        lanes = [lane for lane in self.graph.lanes.values() if not lane.in_junction]
        lasts = [min(lane.length, lane.length + room[lane.key] - length) for lane in lanes]
        found = [(lane, last) for lane, last in zip(lanes, lasts, strict=True) if last > 0.0]
        self._starts[length] = found
        return found

    def _try_start(self, rng: np.random.Generator, length: float) -> tuple[Pose, Pose] | None:
        choices = self._start_lanes(length)
        if not choices:
            return None
        edges = np.cumsum([last for _, last in choices])
        for _ in range(_START_TRIES):
            drawn = float(rng.random()) * float(edges[-1])
            index = min(int(np.searchsorted(edges, drawn, side="right")), len(choices) - 1)
            lane, last = choices[index]
            start = LanePlace(lane.key, max(0.0, last - (float(edges[index]) - drawn)))
            goal, walked = self.graph.walk(rng, start, length)
            if walked < length:
                continue
            if abs(self.graph.path(start, goal)[1] - length) < 0.1:
                return lane.pose(start.offset), self.graph.lanes[goal.key].pose(goal.offset)
        return None

    @cached_property
    def _strips(self) -> list[tuple[LaneSection, int, LaneStrip]]:
        """Every lane of every type, with its section and its number there."""
        return [
            (section, lane, self._strip(section, lane))
            for section in self._sections
            for lane in section.lanes
        ]

    @cached_property
    def _finder(self) -> LaneFinder:
        return LaneFinder([strip for _, _, strip in self._strips])

    def _strip(self, section: LaneSection, lane: int) -> LaneStrip:
        waypoints = self._lanes.waypoints(section, lane)
        poses = ros_poses(waypoint.transform for waypoint in waypoints)
        yaw = poses[:, 3]
        half = 0.5 * np.array([waypoint.lane_width for waypoint in waypoints])
        if not np.abs(half).max() <= _WIDEST_M:
            raise RoadMapError(
                f"map {self.name!r}: road {section.road}, lane {lane} is "
                f"{2.0 * np.abs(half).max():.4g} m wide; correct its <width>"
            )
        return LaneStrip(
            (section.road, section.index, lane),
            _lane_type(section.lanes[lane]),
            section.junction != NO_JUNCTION,
            np.array([waypoint.s for waypoint in waypoints]),
            poses[:, :2].copy(),
            half[:, None] * np.stack([-np.sin(yaw), np.cos(yaw)], axis=1),
        )

    def _border(self, road: int, lane: int, s: float, outer: bool) -> int:
        waypoint = self._map.get_waypoint_xodr(road, lane, s)
        if waypoint is None:
            return int(carla.LaneMarkingType.NONE)
        on_right = outer != (road in self._lanes.left_hand)
        marking = waypoint.right_lane_marking if on_right else waypoint.left_lane_marking
        return int(marking.type if marking is not None else carla.LaneMarkingType.NONE)


def _is_shipped(text: str) -> bool:
    """Return whether a document is one of the maps that come with the package."""
    size = len(text)
    return any(
        path.stat().st_size == size and path.read_text() == text
        for path in MAPS_FOLDER.glob("*.xodr")
    )


def _outermost(ids: list[int]) -> tuple[int, ...]:
    """Return the id furthest from the road's centre among ids of one side."""
    return (max(ids, key=abs),)


def _lane_type(opendrive_type: str) -> str:
    """Return OpenDRIVE's lane type in the spelling of carla.LaneType."""
    return opendrive_type[:1].upper() + opendrive_type[1:]


def _runs(points: np.ndarray, markings: list[carla.LaneMarking | None]) -> list[MarkedLine]:
    """Split a border into lines of one type, colour and width; leave out what is not painted."""
    looks = [
        None if mark is None else (str(mark.type), str(mark.color), mark.width)
        for mark in markings
    ]
    lines, begin = [], 0
    for index in range(1, len(looks) + 1):
        if index < len(looks) and looks[index] == looks[begin]:
            continue
        look = looks[begin]
        if look is not None and look[0] != "NONE" and index - begin > 1:
            lines.append(MarkedLine(points[begin : min(index + 1, len(points))], *look))
        begin = index
    return lines
