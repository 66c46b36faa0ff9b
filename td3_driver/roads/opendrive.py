"""What has to be read from an OpenDRIVE document before `carla.Map` may see it.

`carla.Map` does not check its input: it throws, returns an empty map or ends the process. It also
tells neither which lane sections a road has nor where they begin.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.etree import ElementTree

from td3_driver.roads.errors import RoadMapError

LaneKey = tuple[int, int, int]
"""(road id, section index, lane id), the way `carla.Waypoint` numbers them."""

NO_JUNCTION = -1


@dataclass(frozen=True)
class Section:
    """A stretch of a road with the same lanes all along; `start` and `end` in metres along it."""

    road: int
    index: int
    start: float
    end: float
    lanes: dict[int, str]
    """Lane types by lane id, lane 0 left out."""
    junction: int
    """Id of the junction whose connecting road this is; `NO_JUNCTION` elsewhere."""


def read_sections(name: str, text: str) -> list[Section]:
    """Return the sections of all roads, in the document's order.

    Raises RoadMapError where the document is not OpenDRIVE or has no driving lane.
    """
    try:
        root = ElementTree.fromstring(text.encode())
    except ElementTree.ParseError as error:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it is not XML ({error})") from None
    if root.tag != "OpenDRIVE":
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: its root element is <{root.tag}>")
    if root.find("header") is None:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: it has no <header>")
    sections = [section for road in root.iter("road") for section in _sections(name, road)]
    if not any(kind == "driving" for section in sections for kind in section.lanes.values()):
        raise RoadMapError(f"map {name!r} has no driving lane: give a map that cars can drive on")
    return sections


def has_constant_spiral(text: str, road: int) -> bool:
    """Return whether a road has a <spiral> of constant curvature."""
    root = ElementTree.fromstring(text.encode())
    spirals = root.iterfind(f"./road[@id='{road}']/planView/geometry/spiral")
    return any(
        float(spiral.get("curvStart")) == float(spiral.get("curvEnd")) for spiral in spirals
    )


def _sections(name: str, road: ElementTree.Element) -> list[Section]:
    road_id = road.get("id", "?")
    try:
        number, length = int(road_id), _finite(road, "length")
        junction = int(road.get("junction", NO_JUNCTION))
        for geometry in road.iterfind("planView/geometry"):
            for attribute in ("s", "x", "y", "hdg", "length"):
                _finite(geometry, attribute)
            if _finite(geometry, "length") <= 0.0:
                raise ValueError("a <geometry> whose length is not above 0")
        starts = [_finite(section, "s") for section in road.iterfind("lanes/laneSection")]
        lanes = [
            {
                int(lane.get("id", "")): lane.get("type", "none")
                for side in ("left", "right")
                for lane in section.iterfind(f"{side}/lane")
            }
            for section in road.iterfind("lanes/laneSection")
        ]
    except ValueError as error:
        raise RoadMapError(
            f"map {name!r} is not OpenDRIVE: road {road_id} has a missing or wrong number ({error})"
        ) from None
    if not starts or road.find("planView/geometry") is None:
        raise RoadMapError(f"map {name!r} is not OpenDRIVE: road {road_id} has no shape or lanes")
    ends = [*starts[1:], length]
    return [
        Section(number, index, start, end, of_section, junction)
        for index, (start, end, of_section) in enumerate(zip(starts, ends, lanes, strict=True))
    ]


def _finite(element: ElementTree.Element, attribute: str) -> float:
    text = element.get(attribute, "")
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{attribute}={text!r}")
    return value
