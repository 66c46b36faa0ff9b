# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks that what elements of an OpenDRIVE document refer to is there.

A reference to nothing ends the process in `carla.Map`, or raises an error that names no element.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from xml.etree import ElementTree

from td3_driver.roads.elements import ElementError, cut, finite, whole

Lanes = Mapping[int, list[set[int]]]
"""Lane ids of each section, by road id."""


def check_links(road: ElementTree.Element, lanes: Lanes) -> None:
    """Check that every lane link to a road that is there leads to a lane of it."""
    own = lanes[whole(road, "id")]
    number = whole(road, "id")
    elements = road.findall("lanes/laneSection")
    for direction, first in (("predecessor", True), ("successor", False)):
        beyond = _neighbour(road, direction, lanes)
        inner = [(number, ids) for ids in (own[:-1] if first else own[1:])]
        neighbours = [beyond, *inner] if first else [*inner, beyond]
        for element, neighbour in zip(elements, neighbours, strict=True):
            for link in element.iterfind(f"*/lane/link/{direction}"):
                lane = whole(link, "id")
                if neighbour is not None and lane != 0 and lane not in neighbour[1]:
                    raise ElementError(
                        f"a lane whose {direction} is lane {lane} of road {neighbour[0]}, "
                        "which has no such lane there; correct or remove the <link>"
                    )


def _neighbour(
    road: ElementTree.Element, direction: str, lanes: Lanes
) -> tuple[int, set[int]] | None:
    """Return the road and the lanes that a road's end meets; None if there are none."""
    links = road.findall(f"link/{direction}")
    if not links:
        return None
    link = links[0]
    kind = link.get("elementType")
    if kind not in ("road", "junction"):
        raise ElementError(
            f"elementType={cut(kind)!r} in <{direction}>; write 'road' or 'junction', or remove it"
        )
    other = whole(link, "elementId", least=0)
    if kind == "junction":
        return None
    if other not in lanes:
        # Cut out of a larger map: the lanes end here.
        return None
    contact = link.get("contactPoint")
    if contact not in ("start", "end"):
        raise ElementError(
            f"contactPoint={cut(contact)!r} in <{direction}>; write 'start' or 'end'"
        )
    return other, lanes[other][-1 if contact == "end" else 0]


def check_junctions_of(road: ElementTree.Element, junctions: Set[str]) -> None:
    """Check that the junctions that a road belongs to or leads to are there."""
    belongs = road.get("junction", "-1").strip()
    if belongs != "-1" and belongs not in junctions:
        raise ElementError(
            f"junction={cut(belongs)!r}, which is not there; correct it, or write -1"
        )
    for direction in ("predecessor", "successor"):
        for link in road.iterfind(f"link/{direction}"):
            other = link.get("elementId", "").strip()
            if link.get("elementType") == "junction" and other not in junctions:
                raise ElementError(
                    f"a <{direction}> of elementId={cut(other)!r}, a junction that is not there; "
                    "correct or remove it"
                )


def check_junction(junction: ElementTree.Element, lanes: Lanes) -> None:
    """Check that a junction's connections join lanes of roads that are there."""
    whole(junction, "id", least=0)
    for connection in junction.iterfind("connection"):
        whole(connection, "id", least=0)
        incoming, connecting = (
            _road_of(connection, attribute, lanes)
            for attribute in ("incomingRoad", "connectingRoad")
        )
        contact = connection.get("contactPoint")
        if contact not in ("start", "end"):
            raise ElementError(
                f"contactPoint={cut(contact)!r} in <connection>; write 'start' or 'end'"
            )
        entered, left = (set().union(*lanes[road]) for road in (connecting, incoming))
        for link in connection.iterfind("laneLink"):
            for attribute, road, ids in (("from", incoming, left), ("to", connecting, entered)):
                lane = whole(link, attribute)
                if lane not in ids:
                    raise ElementError(
                        f"a <laneLink> of {attribute}='{lane}', which is no lane of road "
                        f"{road}; correct or remove it"
                    )


def _road_of(connection: ElementTree.Element, attribute: str, lanes: Lanes) -> int:
    number = whole(connection, attribute, least=0)
    if number not in lanes:
        raise ElementError(
            f"a <connection> of {attribute}='{number}', a road that is not there; correct or "
            "remove it"
        )
    return number


def check_signals(road: ElementTree.Element, signals: Set[str | None]) -> None:
    """Check that signals stand on their road, and that references lead to signals."""
    length = finite(road, "length")
    for element in road.iterfind("signals/*"):
        if element.tag not in ("signal", "signalReference"):
            continue
        at = finite(element, "s")
        if not -1e-3 <= at <= length + 1.0:
            raise ElementError(
                f"a <{element.tag}> of s={cut(element.get('s'))!r} and "
                f"id={cut(element.get('id'))!r}, off its {length:g} m; correct or remove it"
            )
        if element.tag == "signalReference" and element.get("id") not in signals:
            raise ElementError(
                f"a <signalReference> of id={cut(element.get('id'))!r}, a signal that is not "
                "there; correct or remove it"
            )
