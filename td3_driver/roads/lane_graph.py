# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Lanes as polylines joined into a directed graph: projection, shortest routes, random walks."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx
import numpy as np

from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.world import Pose
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.opendrive import NO_JUNCTION, LaneKey

# Lanes whose centres are this much further than the nearest one still compete by heading.
_AMBIGUOUS_M = 1.0


@dataclass(frozen=True, eq=False)
class Lane:
    """One driving lane of one road section, in driving direction and the ROS frame."""

    key: LaneKey
    points: np.ndarray
    """float64 (n, 3): x, y, yaw of its centre; yaw is unwrapped."""
    along: np.ndarray
    """float64 (n,): distance of each point from the lane's beginning, metres."""
    heights: np.ndarray
    """float64 (n,): z of each point, metres."""
    junction: int
    """Id of the junction that the lane crosses; `NO_JUNCTION` elsewhere."""

    @property
    def in_junction(self) -> bool:
        """Whether the lane crosses a junction."""
        return self.junction != NO_JUNCTION

    @cached_property
    def length(self) -> float:
        """Length of the centre line, metres."""
        return float(self.along[-1])

    def at(self, offsets: np.ndarray | float) -> np.ndarray:
        """Return x, y, yaw (unwrapped) at distances along the lane, (..., 3)."""
        columns = [np.interp(offsets, self.along, self.points[:, i]) for i in range(3)]
        return np.stack(columns, axis=-1)

    def pose(self, offset: float) -> Pose:
        """Return the pose of a car on the centre line, `offset` metres along the lane."""
        # As `at` does, but for one place plain numbers are ten times quicker than arrays.
        along, values = self._columns
        right = min(max(bisect.bisect_right(along, offset), 1), len(along) - 1)
        left = right - 1
        span = along[right] - along[left]
        share = min(max((offset - along[left]) / span, 0.0), 1.0) if span > 0.0 else 0.0
        (x, y, yaw, z), (to_x, to_y, to_yaw, to_z) = values[left], values[right]
        return Pose(
            x + (to_x - x) * share,
            y + (to_y - y) * share,
            wrap_angle(yaw + (to_yaw - yaw) * share),
            z + (to_z - z) * share,
        )

    def between(self, first: float, last: float) -> tuple[int, int]:
        """Return which points lie within a stretch of the lane: the first, and after the last."""
        along, _ = self._columns
        return bisect.bisect_left(along, first), bisect.bisect_left(along, last)

    @cached_property
    def _columns(self) -> tuple[list[float], list[list[float]]]:
        """Distances along the lane, and x, y, yaw, z there, as plain numbers."""
        return self.along.tolist(), np.column_stack([self.points, self.heights]).tolist()


@dataclass(frozen=True)
class LanePlace:
    """A point on a lane's centre line, `offset` metres along it."""

    key: LaneKey
    offset: float


class LaneGraph:
    """The driving lanes of a map and the links between them."""

    def __init__(self, lanes: Sequence[Lane], links: Sequence[tuple[LaneKey, LaneKey]]) -> None:
        """Join `lanes` by `links`, pairs of a lane and one that continues it."""
        self.lanes = {lane.key: lane for lane in lanes}
        self._graph = nx.DiGraph()
        self._graph.add_nodes_from(self.lanes)
        # An edge weighs as much as the lane it leaves, so a path's weight is the distance
        # between the two lanes' beginnings.
        self._graph.add_weighted_edges_from(
            (one, other, self.lanes[one].length) for one, other in links
        )
        self._points = np.concatenate([lane.points for lane in lanes])
        self._along = np.concatenate([lane.along for lane in lanes])
        self._owners = np.repeat(np.arange(len(lanes)), [len(lane.points) for lane in lanes])
        self._keys = [lane.key for lane in lanes]
        self._by_x = np.argsort(self._points[:, 0], kind="stable")
        """Numbers of the points in the order of x."""
        self._sorted_x, self._sorted_y = self._points[self._by_x, :2].T.copy()

    def successors(self, key: LaneKey) -> list[LaneKey]:
        """Return the lanes that continue a lane, in a fixed order."""
        return list(self._graph.successors(key))

    def neighbours(self, key: LaneKey) -> set[LaneKey]:
        """Return the lanes before and after a lane."""
        if key not in self._graph:
            return set()
        return {*self._graph.successors(key), *self._graph.predecessors(key)}

    def project(self, pose: Pose) -> LanePlace:
        """Return the nearest place on a lane; the heading decides between similarly near lanes."""
        distance = np.hypot(self._points[:, 0] - pose.x, self._points[:, 1] - pose.y)
        near = np.flatnonzero(distance <= distance.min() + _AMBIGUOUS_M)
        turned = np.abs(wrap_angle(self._points[near, 2] - pose.yaw))
        best = near[np.argmin(distance[near] + turned)]
        # All points of that lane compete again, now by distance alone.
        lane = self.lanes[self._keys[self._owners[best]]]
        nearest = int(np.argmin(np.hypot(lane.points[:, 0] - pose.x, lane.points[:, 1] - pose.y)))
        x, y, yaw = lane.points[nearest]
        forward = (pose.x - x) * np.cos(yaw) + (pose.y - y) * np.sin(yaw)
        return LanePlace(lane.key, float(np.clip(lane.along[nearest] + forward, 0, lane.length)))

    def places_near(self, x: float, y: float, radius: float) -> list[LanePlace]:
        """Return the nearest place on every lane whose centre passes within `radius` metres."""
        # Only the points between two values of x can be near enough.
        first, last = self._sorted_x.searchsorted((x - radius, x + radius)).tolist()
        ahead, aside = self._sorted_x[first:last] - x, self._sorted_y[first:last] - y
        squared = ahead * ahead + aside * aside
        near = (squared <= radius * radius).nonzero()[0]
        nearest: dict[int, tuple[float, int]] = {}
        for found in zip(squared[near].tolist(), self._by_x[near + first].tolist(), strict=True):
            owner = int(self._owners[found[1]])
            nearest[owner] = min(nearest.get(owner, found), found)
        return [
            LanePlace(self._keys[owner], float(self._along[index]))
            for owner, (_, index) in sorted(nearest.items())
        ]

    def path(self, start: LanePlace, goal: LanePlace) -> tuple[list[LaneKey], float]:
        """Return the lanes of the shortest path and its length in metres.

        Raises RoadMapError if no path leads there.
        """
        if start.key == goal.key and goal.offset >= start.offset:
            return [start.key], goal.offset - start.offset
        best: tuple[float, list[LaneKey]] | None = None
        for first in self._graph.successors(start.key):
            try:
                weight, keys = nx.single_source_dijkstra(self._graph, first, goal.key)
            except nx.NetworkXNoPath:
                continue
            if best is None or weight < best[0]:
                best = weight, keys
        if best is None:
            raise RoadMapError(
                f"no route: lane {start.key} (road, section, lane) does not lead to {goal.key}"
            )
        return [start.key, *best[1]], self.lanes[start.key].length - start.offset + (
            best[0] + goal.offset
        )

    def polyline(self, keys: Sequence[LaneKey], start: float, length: float) -> np.ndarray:
        """Return points 1 m apart along joined lanes, float64 (n, 3) of x, y, yaw in [-pi, pi).

        `start` is the offset on the first lane; the last point is less than 1 m before `length`.
        """
        # A route of 200 m keeps its 201 points although lengths are summed from short chords.
        wanted = start + np.arange(int(np.floor(length + 0.01)) + 1.0)
        begins = np.concatenate([[0.0], np.cumsum([self.lanes[key].length for key in keys])])
        lane_of = np.searchsorted(begins, wanted, side="right") - 1
        lane_of = np.clip(lane_of, 0, len(keys) - 1)
        points = np.empty((len(wanted), 3))
        for index in np.unique(lane_of):
            chosen = lane_of == index
            points[chosen] = self.lanes[keys[index]].at(wanted[chosen] - begins[index])
        points[:, 2] = wrap_angle(points[:, 2])
        return points

    def walk(
        self, rng: np.random.Generator, start: LanePlace, length: float
    ) -> tuple[LanePlace, float]:
        """Go `length` metres, turning at random; return where it ended and how far it got."""
        key, offset, left = start.key, start.offset, length
        while offset + left > self.lanes[key].length:
            left -= self.lanes[key].length - offset
            following = self.successors(key)
            if not following:
                return LanePlace(key, self.lanes[key].length), length - left
            key, offset = following[int(rng.integers(len(following)))], 0.0
        return LanePlace(key, offset + left), length

    def room_ahead(self, limit: float) -> dict[LaneKey, float]:
        """Return how far one can drive on from each lane's end, metres, `limit` at most."""
        room = dict.fromkeys(self.lanes, 0.0)
        growing = True
        while growing:
            growing = False
            for key in self.lanes:
                beyond = max(
                    (self.lanes[k].length + room[k] for k in self._graph.successors(key)),
                    default=0.0,
                )
                if min(beyond, limit) > room[key]:
                    room[key] = min(beyond, limit)
                    growing = True
        return room
