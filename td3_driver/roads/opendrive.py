# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks an OpenDRIVE document before `carla.Map` reads it.

`carla.Map` does not check its input: it throws, returns an empty map or ends the process. Nor does
it say which lane sections a road has or where they begin, so they are read here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

from td3_driver.roads.errors import RoadMapError

LaneKey = tuple[int, int, int]
"""(road id, section index, lane id), the way `carla.Waypoint` numbers them."""

NO_JUNCTION = -1

_SHAPES = {"line", "arc", "spiral", "poly3", "paramPoly3"}


@dataclass(frozen=True)
class LaneSection:
    """A stretch of a road with the same lanes all along; `start` and `end` in metres along it."""

    road: int
    index: int
    start: float
    end: float
    lanes: dict[int, str]
    """Lane types by lane id, lane 0 left out."""
    junction: int
    """Id of the junction whose connecting road this is; `NO_JUNCTION` elsewhere."""


class _RoadError(ValueError):
    """What is wrong with a road, in words that follow `road 7 has `."""


def read_sections(name: str, text: str) -> list[LaneSection]:
    """Return the sections of all roads, in the document's order.

    Raises RoadMapError if the document is not OpenDRIVE, has no driving lane, or contains
    something that would make `carla.Map` end the process.
    """
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it is not XML ({error})") from None
    if root.tag != "OpenDRIVE":
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: its root element is <{root.tag}>")
    if root.find("header") is None:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it has no <header>")
    by_road: dict[int, list[LaneSection]] = {}
    for road in root.iterfind("road"):
        with _naming(name, road):
            sections = _sections(road)
            if sections[0].road in by_road:
                raise _RoadError("the same id as another road")
            by_road[sections[0].road] = sections
    for road in root.iterfind("road"):
        with _naming(name, road):
            _check_links(road, by_road)
    found = [section for sections in by_road.values() for section in sections]
    if not any(kind == "driving" for section in found for kind in section.lanes.values()):
        raise RoadMapError(f"map {name!r} has no driving lane: give a map that cars can drive on")
    return found


def has_constant_spiral(text: str, road: int) -> bool:
    """Return whether a road has a <spiral> of constant curvature."""
    root = ElementTree.fromstring(text.encode())
    spirals = root.iterfind(f"./road[@id='{road}']/planView/geometry/spiral")
    return any(
        float(spiral.get("curvStart", "nan")) == float(spiral.get("curvEnd", "nan"))
        for spiral in spirals
    )


@contextmanager
def _naming(name: str, road: ElementTree.Element) -> Iterator[None]:
    """Turn what is wrong inside into an error that names the map and the road."""
    try:
        yield
    except _RoadError as error:
        raise RoadMapError(f"map {name!r}: road {road.get('id', '?')} has {error}") from None


def _sections(road: ElementTree.Element) -> list[LaneSection]:
    number, length = _whole(road, "id"), _finite(road, "length")
    junction = _whole(road, "junction") if "junction" in road.attrib else NO_JUNCTION
    _check_shape(road)
    elements = road.findall("lanes/laneSection")
    if not elements:
        raise _RoadError("no <laneSection>")
    starts = [_finite(element, "s") for element in elements]
    edges = [*starts, length]
    if starts[0] != 0.0 or any(end <= start for start, end in itertools.pairwise(edges)):
        raise _RoadError(
            f"lane sections that do not go from 0 to its length of {length} m in order"
        )
    return [
        LaneSection(number, index, start, end, _lanes(element), junction)
        for index, ((start, end), element) in enumerate(
            zip(itertools.pairwise(edges), elements, strict=True)
        )
    ]


def _check_shape(road: ElementTree.Element) -> None:
    """Check the numbers of a road's reference line."""
    geometries = road.findall("planView/geometry")
    if not geometries:
        raise _RoadError("no <geometry>")
    for geometry in geometries:
        for attribute in ("s", "x", "y", "hdg"):
            _finite(geometry, attribute)
        if _finite(geometry, "length") <= 0.0:
            raise _RoadError("a <geometry> whose length is not above 0")
        if not any(shape.tag in _SHAPES for shape in geometry):
            raise _RoadError(f"a <geometry> without any of {', '.join(sorted(_SHAPES))}")


def _lanes(section: ElementTree.Element) -> dict[int, str]:
    """Return the lane types of a section by lane id."""
    if section.find("center/lane") is None:
        raise _RoadError("a <laneSection> without a centre lane")
    return {
        _whole(lane, "id"): lane.get("type", "none")
        for side in ("left", "right")
        for lane in section.iterfind(f"{side}/lane")
    }


def _check_links(road: ElementTree.Element, by_road: dict[int, list[LaneSection]]) -> None:
    """Check that every lane link leads to a lane that exists."""
    sections = by_road[_whole(road, "id")]
    elements = road.findall("lanes/laneSection")
    for direction, first in (("predecessor", True), ("successor", False)):
        beyond = _neighbour(road, direction, by_road)
        neighbours = [beyond, *sections[:-1]] if first else [*sections[1:], beyond]
        for element, neighbour in zip(elements, neighbours, strict=True):
            for link in element.iterfind(f"*/lane/link/{direction}"):
                lane = _whole(link, "id")
                if neighbour is not None and lane != 0 and lane not in neighbour.lanes:
                    raise _RoadError(
                        f"a lane whose {direction} is lane {lane} of road {neighbour.road}, "
                        "which has no such lane there"
                    )


def _neighbour(
    road: ElementTree.Element, direction: str, by_road: dict[int, list[LaneSection]]
) -> LaneSection | None:
    """Return the section of another road that a road's end meets; None if there is none."""
    link = road.find(f"link/{direction}")
    if link is None or link.get("elementType") != "road":
        return None
    sections = by_road.get(_whole(link, "elementId"))
    return sections[-1 if link.get("contactPoint") == "end" else 0] if sections else None


def _whole(element: ElementTree.Element, attribute: str) -> int:
    text = element.get(attribute, "")
    try:
        return int(text)
    except ValueError:
        raise _RoadError(f"{attribute}={text!r} in <{element.tag}>, no whole number") from None


def _finite(element: ElementTree.Element, attribute: str) -> float:
    text = element.get(attribute, "")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise _RoadError(f"{attribute}={text!r} in <{element.tag}>, no number")
    return value
