# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of one map, and a picture of what is driven on."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from td3_driver.doctor.findings import Finding, Group
from td3_driver.files import replacing
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.lane_graph import Lane
from td3_driver.roads.opendrive import FURTHEST_M
from td3_driver.roads.road_map import RoadMap

_SPAWN_SPACING_M = 20.0
_ARROWS_M = 25.0
_COLOURS = {"Driving": "#b8bcc4", "Shoulder": "#e3dccb", "Sidewalk": "#d4e0d0"}
_OTHER_COLOUR = "#ececec"
_CORRECT = "correct the file there, or drive where it is right"


def examine(name_or_path: str, picture: Path) -> list[Finding]:
    """Return the findings on a map, and draw it to `picture` if it can be read."""
    group = Group(f"map {name_or_path}")
    try:
        road_map = RoadMap.load(name_or_path)
    except RoadMapError as error:
        found, _, remedy = str(error).rpartition("; ")
        if not found:
            return [group.failed("reading", str(error), "correct the file")]
        return [group.failed("reading", found, remedy)]
    graph = road_map.graph
    lanes = list(graph.lanes.values())
    findings = [
        group.ok("reading", f"{len(lanes)} driving lanes, {_kilometres(lanes):.2f} km"),
        *(group.warning("left out", remark, _CORRECT) for remark in road_map.remarks),
        _joins(group, road_map),
        _width(group, road_map),
        _traffic(group, road_map),
        _ends(group, road_map),
        _reach(group, lanes),
        _starts(group, road_map),
    ]
    try:
        draw(road_map, picture)
    except OSError as error:
        remedy = "choose another file with --picture"
        findings.append(group.warning("picture", f"not written: {error}", remedy))
    else:
        findings.append(group.ok("picture", str(picture)))
    return findings


def draw(road_map: RoadMap, path: Path) -> None:
    """Draw lanes, their direction and where they end to a picture; raises OSError."""
    figure = Figure(figsize=(10.0, 10.0), layout="constrained")
    axes = figure.add_subplot(aspect="equal", xlabel="x, m", ylabel="y, m")
    axes.set_title(road_map.name, parse_math=False)
    surfaces = road_map.surfaces
    axes.add_collection(
        PolyCollection(
            [np.concatenate([s.left, s.right[::-1]]) for s in surfaces],
            facecolors=[_COLOURS.get(s.type, _OTHER_COLOUR) for s in surfaces],
        )
    )
    for lane in road_map.graph.lanes.values():
        axes.plot(*lane.points[:, :2].T, color="#3366aa", linewidth=0.6)
        x, y, yaw = lane.at(np.arange(0.5 * min(lane.length, _ARROWS_M), lane.length, _ARROWS_M)).T
        axes.quiver(
            *(x, y, np.cos(yaw), np.sin(yaw)),
            angles="xy",
            pivot="mid",
            scale=60.0,
            width=0.002,
            color="#224488",
        )
    ends = [lane.points[-1, :2] for lane in _ending(road_map)]
    if ends:
        axes.plot(*np.array(ends).T, "x", color="#cc3311", label="the lane ends")
        axes.legend(loc="upper right")
    axes.autoscale_view()
    with replacing(path) as new:
        figure.savefig(new, format="png", dpi=120)


def _kilometres(lanes: list[Lane]) -> float:
    return sum(lane.length for lane in lanes) / 1e3


def _joins(group: Group, road_map: RoadMap) -> Finding:
    graph = road_map.graph
    gap = turn = 0.0
    count = 0
    for key, lane in graph.lanes.items():
        for other in (graph.lanes[following] for following in graph.successors(key)):
            end, begin = lane.points[-1], other.points[0]
            gap = max(gap, math.dist(end[:2], begin[:2]))
            turn = max(turn, abs(math.remainder(end[2] - begin[2], math.tau)))
            count += 1
    found = f"{count} links, {gap:.2f} m and {math.degrees(turn):.1f} degrees apart at most"
    return group.ok("joined lanes", found)


def _width(group: Group, road_map: RoadMap) -> Finding:
    widths = [
        np.hypot(*(surface.left - surface.right).T)
        for surface in road_map.surfaces
        if surface.type == "Driving"
    ]
    low, high = min(w.min() for w in widths), max(w.max() for w in widths)
    return group.ok("width", f"driving lanes are {low:.2f} to {high:.2f} m wide")


def _traffic(group: Group, road_map: RoadMap) -> Finding:
    left, roads = len(road_map.left_hand), len({key[0] for key in road_map.graph.lanes})
    if left == 0:
        return group.ok("traffic", "on the right")
    return group.ok("traffic", "on the left" + (f" on {left} of {roads} roads" * (left < roads)))


def _ending(road_map: RoadMap) -> list[Lane]:
    graph = road_map.graph
    return [lane for key, lane in graph.lanes.items() if not graph.successors(key)]


def _ends(group: Group, road_map: RoadMap) -> Finding:
    ends = _ending(road_map)
    if not ends:
        return group.ok("dead ends", "none: every lane leads on")
    x, y = ends[0].points[-1, :2]
    found = f"{len(ends)} lanes lead to no other, the first at x {x:.1f}, y {y:.1f}"
    return group.warning("dead ends", found, "routes end before them; link them if they go on")


def _reach(group: Group, lanes: list[Lane]) -> Finding:
    furthest = max(float(np.abs(lane.points[:, :2]).max()) for lane in lanes)
    grid = float(np.spacing(np.float32(furthest)))
    found = f"{furthest:.0f} m from the origin at most, exact to {1e3 * grid:.2g} mm"
    if furthest < 0.3 * FURTHEST_M:
        return group.ok("coordinates", found)
    remedy = "subtract an offset from every x and y, and give it in the header's <offset>"
    return group.warning("coordinates", found, remedy)


def _starts(group: Group, road_map: RoadMap) -> Finding:
    count = len(road_map.spawn_poses(_SPAWN_SPACING_M))
    if count:
        return group.ok("starts", f"{count}, {_SPAWN_SPACING_M:.0f} m apart")
    remedy = "give it lanes outside junctions with 20 m of road ahead"
    return group.failed("starts", "none", remedy)
