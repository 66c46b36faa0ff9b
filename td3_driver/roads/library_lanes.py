# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Lanes as `carla.Map` has them, and which of them cannot be right."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from xml.etree import ElementTree

import carla
import networkx as nx
import numpy as np

from td3_driver.roads import checks
from td3_driver.roads.axes import ros_poses
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.lane_graph import Lane, LaneGraph
from td3_driver.roads.opendrive import FAR, FURTHEST_M, LaneKey, LaneSection, has_constant_spiral

_SAMPLE_M = 0.5
# `get_waypoint_xodr` at a section's very end answers for the next section.
_SECTION_MARGIN_M = 1e-3


class LibraryLanes:
    """Samples the lanes of a map of the library, and joins them."""

    def __init__(
        self,
        name: str,
        library_map: carla.Map,
        root: ElementTree.Element,
        sections: Sequence[LaneSection],
    ) -> None:
        """Take the library's map of a document, and the document's sections."""
        self._name = name
        self._map = library_map
        self._root = root
        self._sections = sections
        self._unfit: set[LaneKey] = set()
        self._wrong = 0
        self.left_hand: set[int] = set()
        """Roads whose lanes run on the left, as the library has them."""
        self.remarks: list[str] = []
        """Lanes and links that are left out, each with what is wrong with it."""

    def graph(self) -> LaneGraph:
        """Return the driving lanes that are fit to drive on, and the links that meet."""
        all_lanes = [
            self._lane(section, lane)
            for section in self._sections
            for lane, kind in section.lanes.items()
            if kind == "driving"
        ]
        lanes = [lane for lane in all_lanes if lane is not None]
        if not all_lanes:
            raise RoadMapError(f"map {self._name!r} has no driving lane longer than 2 cm")
        self._refuse_if_mostly_wrong(len(all_lanes), "driving lanes")
        links = nx.DiGraph()
        for pair in self._map.get_topology():
            one, other = ((w.road_id, w.section_id, w.lane_id) for w in pair)
            # A lane that ends is paired with itself.
            if one != other:
                links.add_edge(one, other)
        kept = {lane.key: lane for lane in lanes}
        short = set(links) - {lane.key for lane in all_lanes if lane} - self._unfit
        for key in short:
            # What leads into a section too short to be kept leads on to what follows it.
            links.add_edges_from(product(list(links.pred[key]), list(links.succ[key])))
            links.remove_node(key)
        links.remove_nodes_from(self._unfit)
        meeting = []
        self._wrong = 0
        for one, other in links.edges:
            problem = checks.link_problem(kept[one], kept[other])
            if problem is None:
                meeting.append((one, other))
            else:
                self._remark(one, problem)
        self._refuse_if_mostly_wrong(links.number_of_edges(), "links of lanes")
        return LaneGraph(lanes, meeting)

    def _remark(self, key: LaneKey, problem: str) -> None:
        self.remarks.append(f"{checks.lane_name(key)} {problem}")
        self._wrong += 1

    def _refuse_if_mostly_wrong(self, count: int, what: str) -> None:
        if self._wrong > 0.5 * count:
            raise RoadMapError(
                f"map {self._name!r}: {self._wrong} of its {count} {what} are wrong; the first: "
                f"{self.remarks[-self._wrong]}"
            )

    def _lane(self, section: LaneSection, lane: int) -> Lane | None:
        """Return a driving lane in its direction; None, with a remark, if it is unfit."""
        waypoints = self.waypoints(section, lane)
        poses = ros_poses(waypoint.transform for waypoint in waypoints)
        points, heights = poses[:, [0, 1, 3]].copy(), poses[:, 2].copy()
        if not np.isfinite(points).all() or not np.isfinite(heights).all():
            raise RoadMapError(self._nan_message(section.road))
        key = (section.road, section.index, lane)
        problem = checks.width_problem([waypoint.lane_width for waypoint in waypoints])
        if problem is not None:
            self._leave_out(key, problem)
            return None
        self._check_reach(section.road, points)
        points[:, 2] = np.unwrap(points[:, 2])
        if not _along_road(points):
            points, heights = points[::-1].copy(), heights[::-1].copy()
            if lane < 0:
                self.left_hand.add(section.road)
        elif lane > 0:
            self.left_hand.add(section.road)
        steps = np.hypot(*np.diff(points[:, :2], axis=0).T)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        found = Lane(key, points, along, heights, section.junction)
        problem = checks.course_problem(found)
        if problem is None:
            return found
        self._leave_out(key, problem)
        return None

    def _leave_out(self, key: LaneKey, problem: str) -> None:
        self._unfit.add(key)
        self._remark(key, problem)

    def _check_reach(self, road: int, points: np.ndarray) -> None:
        """Refuse what lies so far out that the library's single precision shows."""
        furthest = np.abs(points[:, :2]).max(axis=1)
        worst = int(np.argmax(furthest))
        if furthest[worst] > FURTHEST_M:
            x, y = points[worst, :2].tolist()
            raise RoadMapError(
                f"map {self._name!r}: road {road} leads to x={x:.0f}, y={y:.0f} by its "
                f"<geometry>, <laneOffset> and <width>, {FAR}"
            )

    def _nan_message(self, road: int) -> str:
        if has_constant_spiral(self._root, road):
            return (
                f"map {self._name!r}: carla.Map gives NaN on road {road}, whose <spiral> has the "
                "same curvature at both ends; write it as an <arc> (or a <line> if it is 0)"
            )
        return (
            f"map {self._name!r}: carla.Map gives NaN on road {road}; check the numbers of its "
            "<geometry>, <elevation> and <width> elements"
        )

    def waypoints(self, section: LaneSection, lane: int) -> list[carla.Waypoint]:
        """Return waypoints along a lane in the road's direction, both ends included."""
        start, end = section.start + _SECTION_MARGIN_M, section.end - _SECTION_MARGIN_M
        count = max(2, int(np.ceil((end - start) / _SAMPLE_M)) + 1)
        found = [
            self._map.get_waypoint_xodr(section.road, lane, float(s))
            for s in np.linspace(start, end, count)
        ]
        if any(waypoint is None for waypoint in found):
            raise RoadMapError(
                f"map {self._name!r}: carla.Map does not find lane {lane} on all of road "
                f"{section.road} between {section.start:.2f} and {section.end:.2f} m; check the "
                "order and the s of its lane sections"
            )
        return found


def _along_road(points: np.ndarray) -> bool:
    """Return whether the headings of a lane point the way that its points go, (n, 3)."""
    steps = np.diff(points[:, :2], axis=0)
    ahead = steps[:, 0] * np.cos(points[:-1, 2]) + steps[:, 1] * np.sin(points[:-1, 2])
    return bool(ahead.sum() >= 0.0)
