# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks an OpenDRIVE document before `carla.Map` reads it.

`carla.Map` does not check its input: it throws, misreads, returns an empty map or ends the
process. Nor does it say which lane sections a road has or where they begin, so they are read here.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from xml.etree import ElementTree

from td3_driver.roads import references
from td3_driver.roads.document import SHAPES
from td3_driver.roads.elements import ElementError, cut, finite, optional_finite, whole
from td3_driver.roads.errors import RoadMapError

LaneKey = tuple[int, int, int]
"""(road id, section index, lane id), the way `carla.Waypoint` numbers them."""

NO_JUNCTION = -1

_CUBIC = ("a", "b", "c", "d")
# Attributes that carla.Map reads as numbers, and as 0 where there is a word.
_NUMBERS = {
    "arc": ("curvature",),
    "spiral": ("curvStart", "curvEnd"),
    "poly3": _CUBIC,
    "paramPoly3": tuple(f"{k}{axis}" for k in _CUBIC for axis in "UV"),
}
_OPTIONAL_NUMBERS = {
    "width": ("sOffset", *_CUBIC),
    "laneOffset": ("s", *_CUBIC),
    "elevation": ("s", *_CUBIC),
    "superelevation": ("s", *_CUBIC),
    "crossfall": ("s", *_CUBIC),
    "shape": ("s", "t", *_CUBIC),
    "roadMark": ("sOffset",),
}
# carla.Map ends the process, or finds nothing, before the first of these.
_FROM_ZERO = {"laneOffset": "s", "elevation": "s", "width": "sOffset", "geometry": "s"}
_ZERO_M = 1e-3
_MOST_LANES = 100
FURTHEST_M = 1e5
"""carla.Map has single precision: here its places lie on a grid of 8 mm, further on of 16."""
FAR = (
    f"more than {FURTHEST_M / 1e3:.0f} km from the origin, where carla.Map is not exact to the "
    "centimetre; subtract an offset from every x and y, and give it in the header's <offset>"
)
# Sampling this many takes a minute and 1.5 GB.
_LONGEST_LANES_M = 1.5e6
# Roads of real maps end up to this much after their geometry.
_LONGER_M = 1.0
_GEO_NUMBERS = r"\+(lat_[0-2]|lon_0|k|k_0|x_0|y_0|zone|a|b|f|rf)=(\S*)"


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


def read_sections(name: str, root: ElementTree.Element) -> list[LaneSection]:
    """Return the sections of all roads, in the document's order.

    Raises RoadMapError if the document has no driving lane, or contains something that
    `carla.Map` misreads or that would make it end the process.
    """
    _check_geo_reference(name, root)
    by_road: dict[int, list[LaneSection]] = {}
    for road in root.iterfind("road"):
        with _naming(name, f"road {cut(road.get('id', '?'))}"):
            sections = _sections(road)
            if sections[0].road in by_road:
                raise ElementError("the same id as another road; give each its own")
            by_road[sections[0].road] = sections
    found = [section for sections in by_road.values() for section in sections]
    if not any(kind == "driving" for section in found for kind in section.lanes.values()):
        raise RoadMapError(f"map {name!r} has no driving lane: give a map that cars can drive on")
    metres = sum((section.end - section.start) * len(section.lanes) for section in found)
    if metres > _LONGEST_LANES_M:
        raise RoadMapError(
            f"map {name!r} has {metres / 1e3:.0f} km of lanes, more than the "
            f"{_LONGEST_LANES_M / 1e3:.0f} that are read; check each road's length, or cut the map"
        )
    lanes = {road: [set(s.lanes) for s in sections] for road, sections in by_road.items()}
    for road in root.iterfind("road"):
        with _naming(name, f"road {cut(road.get('id'))}"):
            references.check_links(road, lanes)
    for junction in root.iterfind("junction"):
        with _naming(name, f"junction {cut(junction.get('id', '?'))}"):
            references.check_junction(junction, lanes)
    junctions = {junction.get("id", "").strip() for junction in root.iterfind("junction")}
    signals = {signal.get("id") for signal in root.iterfind("road/signals/signal")}
    for road in root.iterfind("road"):
        with _naming(name, f"road {cut(road.get('id'))}"):
            references.check_junctions_of(road, junctions)
            references.check_signals(road, signals)
    return found


def has_constant_spiral(root: ElementTree.Element, road: int) -> bool:
    """Return whether a road has a <spiral> of constant curvature."""
    spirals = root.iterfind(f"./road[@id='{road}']/planView/geometry/spiral")
    return any(finite(spiral, "curvStart") == finite(spiral, "curvEnd") for spiral in spirals)


@contextmanager
def _naming(name: str, owner: str) -> Iterator[None]:
    """Turn what is wrong inside into an error that names the map and the road."""
    try:
        yield
    except ElementError as error:
        number = f" on {owner}" if "would be" in str(error) else ""
        raise RoadMapError(f"map {name!r}: {owner} has {error}{number}") from None


def _check_geo_reference(name: str, root: ElementTree.Element) -> None:
    """Refuse what ends CARLA's own reading of a geographic reference."""
    text = root.findtext("header/geoReference") or ""
    for key, value in re.findall(_GEO_NUMBERS, text):
        try:
            float(value)
        except ValueError:
            raise RoadMapError(
                f"map {name!r}: its header has <geoReference> with +{key}={cut(value)}, no "
                "number; write one, or leave the element out"
            ) from None


def _sections(road: ElementTree.Element) -> list[LaneSection]:
    number, length = whole(road, "id", least=0), finite(road, "length")
    junction = whole(road, "junction", least=-1) if "junction" in road.attrib else NO_JUNCTION
    _check_shape(road)
    for profile in ("elevationProfile", "lateralProfile", "lanes"):
        for parent in road.iterfind(profile):
            _check_numbers(parent)
    elements = road.findall("lanes/laneSection")
    if len(road.findall("lanes")) > 1:
        raise ElementError("more than one <lanes>; put its lane sections into one")
    if not elements:
        raise ElementError("no <laneSection>; describe its lanes")
    starts = [finite(element, "s") for element in elements]
    edges = [*starts, length]
    if abs(starts[0]) > 0.0 or any(end <= start for start, end in itertools.pairwise(edges)):
        raise ElementError(
            f"lane sections that do not go from 0 to its length of {length} m in order: "
            f"s={', '.join(f'{start:g}' for start in starts[:5])}"
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
        raise ElementError("no <geometry>; describe its reference line")
    for geometry in geometries:
        for attribute in ("s", "hdg"):
            finite(geometry, attribute)
        for attribute in ("x", "y"):
            if abs(finite(geometry, attribute)) > FURTHEST_M:
                raise ElementError(
                    f"{attribute}={cut(geometry.get(attribute))!r} in <geometry>, {FAR}"
                )
        if finite(geometry, "length") <= 0.0:
            raise ElementError(
                f"a <geometry> whose length is not above 0: length={cut(geometry.get('length'))!r}"
            )
        if not len(geometry):
            raise ElementError(f"a <geometry> without any of {', '.join(sorted(SHAPES))}")
        shape = geometry[0]
        for attribute in _NUMBERS.get(shape.tag, ()):
            finite(shape, attribute)
        if shape.tag == "arc" and finite(shape, "curvature") == 0.0:
            raise ElementError(
                f"an <arc> of curvature={cut(shape.get('curvature'))!r}; write it as a <line>"
            )
    _check_order(geometries)
    end = max(finite(geometry, "s") + finite(geometry, "length") for geometry in geometries)
    if finite(road, "length") > end + _LONGER_M:
        raise ElementError(
            f"length={cut(road.get('length'))!r} in <road>, but its <geometry> ends at {end:g} m; "
            "correct one of them"
        )


def _check_numbers(parent: ElementTree.Element) -> None:
    """Check all that `carla.Map` reads as numbers below a part of a road, and where it begins."""
    for element in parent.iter():
        for attribute in _OPTIONAL_NUMBERS.get(element.tag, ()):
            optional_finite(element, attribute)
        for tag in _FROM_ZERO:
            _check_order([child for child in element if child.tag == tag])


def _check_order(elements: list[ElementTree.Element]) -> None:
    """Check that elements of one kind begin at 0 and do not go back."""
    if not elements:
        return
    tag = elements[0].tag
    attribute = _FROM_ZERO[tag]
    starts = [optional_finite(element, attribute) for element in elements]
    if abs(starts[0]) > _ZERO_M:
        raise ElementError(
            f"a first <{tag}> that begins at {attribute}="
            f"{cut(elements[0].get(attribute))!r}; let it begin at 0"
        )
    for start, following in itertools.pairwise(starts):
        if following < start:
            raise ElementError(
                f"a <{tag}> of {attribute}={following:g} after one of {start:g}; "
                "write them in order"
            )


def _lanes(section: ElementTree.Element) -> dict[int, str]:
    """Return the lane types of a section by lane id."""
    centre = section.findall("center/lane")
    if not centre:
        raise ElementError("a <laneSection> without a centre lane")
    if len(centre) > 1 or whole(centre[0], "id") != 0:
        raise ElementError("a <center> whose only lane is not id='0'")
    found: dict[int, str] = {}
    for side, sign in (("left", 1), ("right", -1)):
        lanes = section.findall(f"{side}/lane")
        numbers = [whole(lane, "id") for lane in lanes]
        if sorted(sign * number for number in numbers) != list(range(1, len(lanes) + 1)):
            raise ElementError(
                f"lanes {', '.join(map(str, numbers[:9]))} in <{side}>; number them "
                f"{sign}, {2 * sign}, {3 * sign} ... from the centre, without a hole"
            )
        if len(lanes) > _MOST_LANES:
            raise ElementError(f"{len(lanes)} lanes in <{side}>, more than {_MOST_LANES}")
        for number, lane in zip(numbers, lanes, strict=True):
            kind = lane.get("type", "none")
            # The library does not mind how it is written.
            found[number] = kind.lower() if kind.lower() == "driving" else kind
            if found[number] == "driving" and lane.find("width") is None:
                _refuse_without_width(lane)
    return found


def _refuse_without_width(lane: ElementTree.Element) -> None:
    what = "without <width>"
    if lane.find("border") is not None:
        what = "described by <border>, which carla.Map does not read"
    raise ElementError(f"driving lane {cut(lane.get('id'))} {what}; give it a <width>")
