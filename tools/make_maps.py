# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Write the shipped OpenDRIVE maps: rings and street grids, from fixed seeds.

    python tools/make_maps.py [--output td3_driver/roads/maps]

Running it again gives the same bytes. Every ring is a closed two-lane road: a polygon whose
corners are rounded by clothoid, arc, clothoid, so it closes exactly. Every grid has streets at
right angles, three- and four-way junctions, and no dead ends. Traffic keeps to the right.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

DEFAULT_OUTPUT = Path(__file__).resolve().parent.parent / "td3_driver" / "roads" / "maps"

LANE_WIDTH_M = 3.5
SHOULDER_WIDTH_M = 1.0
MARK_WIDTH_M = 0.15
# From a junction's centre to where its streets begin. Lane centres turn right at a radius of
# JUNCTION_ARM_M - LANE_WIDTH_M / 2 and left at JUNCTION_ARM_M + LANE_WIDTH_M / 2.
JUNCTION_ARM_M = 10.5


# ---------------------------------------------------------------- reference line


@dataclass(frozen=True)
class Place:
    """A point of a reference line and its heading (radians, + = left)."""

    x: float
    y: float
    heading: float

    def ahead(self, distance: float) -> Place:
        """Return the place `distance` metres straight ahead."""
        return Place(
            self.x + distance * math.cos(self.heading),
            self.y + distance * math.sin(self.heading),
            self.heading,
        )


@dataclass(frozen=True)
class Piece:
    """A piece of reference line whose curvature (1/m, + = left) changes linearly.

    Equal curvatures make a line or an arc; only unequal ones are written as a spiral, because
    carla.Map gives NaN waypoints on a spiral of constant curvature.
    """

    length: float
    curvature_start: float = 0.0
    curvature_end: float = 0.0

    def end(self, start: Place) -> Place:
        """Return where the piece ends, by 16-point Gauss-Legendre integration."""
        nodes, weights = np.polynomial.legendre.leggauss(16)
        s = 0.5 * self.length * (nodes + 1.0)
        slope = (self.curvature_end - self.curvature_start) / self.length
        heading = start.heading + self.curvature_start * s + 0.5 * slope * s * s
        turned = 0.5 * (self.curvature_start + self.curvature_end) * self.length
        return Place(
            start.x + 0.5 * self.length * float(weights @ np.cos(heading)),
            start.y + 0.5 * self.length * float(weights @ np.sin(heading)),
            start.heading + turned,
        )

    def element(self) -> ElementTree.Element:
        """Return the OpenDRIVE element that describes the shape."""
        if self.curvature_start != self.curvature_end:
            return ElementTree.Element(
                "spiral",
                curvStart=_number(self.curvature_start),
                curvEnd=_number(self.curvature_end),
            )
        if self.curvature_start:
            return ElementTree.Element("arc", curvature=_number(self.curvature_start))
        return ElementTree.Element("line")


@dataclass(frozen=True)
class End:
    """One end of a road: `contact` is "start" or "end"."""

    road: int
    contact: str


@dataclass
class Road:
    """A road to write; `lanes` describes its cross-section."""

    id: int
    start: Place
    pieces: list[Piece]
    lanes: list[Lane]
    junction: int = -1
    before: End | None = None
    after: End | None = None
    junction_before: int | None = None
    junction_after: int | None = None

    @property
    def length(self) -> float:
        """Length of the reference line in metres."""
        return sum(piece.length for piece in self.pieces)


@dataclass(frozen=True)
class Mark:
    """A road mark as OpenDRIVE writes it."""

    type: str = "none"
    colour: str = "white"


@dataclass(frozen=True)
class Lane:
    """One lane; `mark` is on its outer edge, and lane 0 carries the centre line."""

    id: int
    type: str
    width: float = 0.0
    mark: Mark = field(default_factory=Mark)
    link_before: int | None = None
    link_after: int | None = None


def two_way_lanes(centre: Mark, flip_before: bool = False, flip_after: bool = False) -> list[Lane]:
    """Return one lane each way between solid edges and shoulders.

    `flip_before` and `flip_after`: the neighbouring road runs the other way, so lane 1 there
    continues lane -1 here.
    """
    before, after = (-1 if flip_before else 1), (-1 if flip_after else 1)
    edge = Mark("solid")
    lanes = [Lane(0, "none", mark=centre)]
    for side in (1, -1):
        for lane, kind, width, mark in (
            (side, "driving", LANE_WIDTH_M, edge),
            (2 * side, "shoulder", SHOULDER_WIDTH_M, Mark()),
        ):
            links = {"link_before": lane * before, "link_after": lane * after}
            lanes.append(Lane(lane, kind, width, mark, **links))
    return lanes


# ---------------------------------------------------------------- rings


@dataclass(frozen=True)
class RingPlan:
    """The shape of a ring; metres and radians."""

    name: str
    seed: int
    corners: int
    size: float
    stretch: float
    centre: Mark


@dataclass(frozen=True)
class Corner:
    """A polygon corner to round: its place, how far it turns, and its smallest radius."""

    x: float
    y: float
    turn: float
    radius: float

    @property
    def spiral(self) -> float:
        """Length of each clothoid: each makes a quarter of the turn, the arc makes half."""
        return self.radius * abs(self.turn) / 2.0

    @property
    def tangent(self) -> float:
        """Distance from the corner to where the rounding begins.

        T = (R + p) tan(turn / 2) + k, with p and k the clothoid's shift.
        """
        end = Piece(self.spiral, 0.0, 1.0 / self.radius).end(Place(0.0, 0.0, 0.0))
        shift = end.y - self.radius * (1.0 - math.cos(end.heading))
        forward = end.x - self.radius * math.sin(end.heading)
        return (self.radius + shift) * math.tan(abs(self.turn) / 2.0) + forward

    def pieces(self) -> list[Piece]:
        """Return clothoid, arc, clothoid."""
        curvature = math.copysign(1.0 / self.radius, self.turn)
        arc = self.radius * abs(self.turn) / 2.0
        return [
            Piece(self.spiral, 0.0, curvature),
            Piece(arc, curvature, curvature),
            Piece(self.spiral, curvature, 0.0),
        ]


def ring_roads(plan: RingPlan) -> list[Road]:
    """Return the first ring from the plan's seed that meets every requirement."""
    rng = np.random.default_rng(plan.seed)
    for _ in range(100_000):
        corners = _draw_corners(rng, plan)
        if corners is None:
            continue
        roads = _roads_through(corners, plan.centre)
        if 350.0 <= sum(road.length for road in roads) <= 700.0 and _keeps_clear(roads):
            return roads
    raise RuntimeError(f"no ring found for {plan}: choose another seed")


def _draw_corners(rng: np.random.Generator, plan: RingPlan) -> list[Corner] | None:
    """Draw a random star-shaped polygon and radii; None if the bends do not fit."""
    count = plan.corners
    angles = (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * 2.0 * np.pi / count
    reach = plan.size * rng.uniform(0.5, 1.35, count)
    x, y = plan.stretch * reach * np.cos(angles), reach * np.sin(angles)
    heading = np.arctan2(np.roll(y, -1) - y, np.roll(x, -1) - x)
    turn = (heading - np.roll(heading, 1) + np.pi) % (2.0 * np.pi) - np.pi
    radius = rng.uniform(15.0, 40.0, count)
    lefts, rights = np.flatnonzero(turn > 0.9), np.flatnonzero(turn < -0.6)
    if len(lefts) < 2 or len(rights) < 2 or np.abs(turn).min() < 0.3 or np.abs(turn).max() > 2.2:
        return None
    # There is a tight bend each way, so either direction of travel meets one to each side.
    radius[lefts[0]], radius[rights[0]], radius[lefts[-1]] = 11.0, 11.0, 13.0
    corners = [Corner(*map(float, values)) for values in zip(x, y, turn, radius, strict=True)]
    if min(_straight(one, other) for one, other in _around(corners)) < 6.0:
        return None
    return corners


def _around(items: Sequence) -> Iterator[tuple]:
    """Yield each item with the next one, and the last with the first."""
    yield from zip(items, [*items[1:], items[0]], strict=True)


def _roads_through(corners: Sequence[Corner], centre: Mark) -> list[Road]:
    """Return one road per corner, from the middle of one straight to the middle of the next."""
    count = len(corners)
    headings = [math.atan2(two.y - one.y, two.x - one.x) for one, two in _around(corners)]
    halves = [0.5 * _straight(one, two) for one, two in _around(corners)]
    roads = []
    for index, corner in enumerate(corners):
        apex = Place(corner.x, corner.y, headings[index - 1])
        roads.append(
            Road(
                id=index,
                start=apex.ahead(-corner.tangent - halves[index - 1]),
                pieces=[Piece(halves[index - 1]), *corner.pieces(), Piece(halves[index])],
                lanes=two_way_lanes(centre),
                before=End((index - 1) % count, "end"),
                after=End((index + 1) % count, "start"),
            )
        )
    return roads


def _straight(one: Corner, other: Corner) -> float:
    """Return the straight length left between two corners; negative if they do not fit."""
    return math.hypot(other.x - one.x, other.y - one.y) - one.tangent - other.tangent


def _keeps_clear(roads: Sequence[Road]) -> bool:
    """Return whether stretches far apart along the ring are 20 m apart (12 m between verges)."""
    points, along = [], []
    travelled = 0.0
    for road in roads:
        place = road.start
        for piece in road.pieces:
            points.append((place.x, place.y))
            along.append(travelled)
            half = Piece(
                piece.length / 2.0,
                piece.curvature_start,
                0.5 * (piece.curvature_start + piece.curvature_end),
            ).end(place)
            points.append((half.x, half.y))
            along.append(travelled + piece.length / 2.0)
            place = piece.end(place)
            travelled += piece.length
    return _far_enough(_densified(np.array(points)), 20.0, 60.0)


def _densified(points: np.ndarray) -> np.ndarray:
    """Return points (n, 2) about 2 m apart along the closed polyline through `points`."""
    closed = np.vstack([points, points[:1]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    wanted = np.arange(0.0, along[-1], 2.0)
    return np.stack([np.interp(wanted, along, closed[:, axis]) for axis in (0, 1)], axis=1)


def _far_enough(points: np.ndarray, clearance: float, apart: float) -> bool:
    """Return whether points more than `apart` metres along the loop keep `clearance` metres."""
    index = np.arange(len(points))
    steps = np.abs(index[:, None] - index[None, :])
    steps = np.minimum(steps, len(points) - steps)
    distance = np.hypot(*(points[:, None] - points[None, :]).transpose(2, 0, 1))
    return bool(distance[steps * 2.0 > apart].min() > clearance)


# ---------------------------------------------------------------- grids


@dataclass(frozen=True)
class GridPlan:
    """The shape of a street grid; metres and radians."""

    name: str
    seed: int
    columns: int
    rows: int
    block: tuple[float, float]
    removed: int
    bent: int
    rotation: float
    centre: Mark


Node = tuple[int, int]


@dataclass(frozen=True)
class Arm:
    """Where a street meets a node: the street's end, and the heading away from the node."""

    end: End
    place: Place

    @property
    def lane_in(self) -> int:
        """The street's lane that leads to the node."""
        return -1 if self.end.contact == "end" else 1

    @property
    def lane_out(self) -> int:
        """The street's lane that leads away from the node."""
        return -self.lane_in


def grid_roads(plan: GridPlan) -> tuple[list[Road], dict[int, list[Road]]]:
    """Return all roads, and the connecting roads of each junction."""
    rng = np.random.default_rng(plan.seed)
    xs = np.cumsum([0.0, *rng.uniform(*plan.block, plan.columns - 1)])
    ys = np.cumsum([0.0, *rng.uniform(*plan.block, plan.rows - 1)])
    streets = _draw_streets(rng, plan)
    bent = {streets[i] for i in rng.permutation(len(streets))[: plan.bent]}

    roads: list[Road] = []
    arms: dict[Node, list[Arm]] = {}
    for a, b in streets:
        start, end = (_rotated(xs[i], ys[j], plan.rotation) for i, j in (a, b))
        heading = math.atan2(end[1] - start[1], end[0] - start[0])
        place = Place(*start, heading).ahead(JUNCTION_ARM_M)
        length = math.hypot(end[0] - start[0], end[1] - start[1]) - 2.0 * JUNCTION_ARM_M
        pieces = _bump(length, rng) if (a, b) in bent else [Piece(length)]
        road = Road(len(roads), place, pieces, two_way_lanes(plan.centre))
        roads.append(road)
        arms.setdefault(a, []).append(Arm(End(road.id, "start"), place))
        away = Place(*end, heading + math.pi).ahead(JUNCTION_ARM_M)
        arms.setdefault(b, []).append(Arm(End(road.id, "end"), away))

    junctions: dict[int, list[Road]] = {}
    for node in sorted(arms):
        if len(arms[node]) == 2:
            one, other = arms[node]
            _join_two(roads, one, other, plan.centre)
        else:
            junction = 1000 + len(junctions)
            junctions[junction] = _connect(roads, arms[node], junction)
    return roads, junctions


def _rotated(x: float, y: float, angle: float) -> tuple[float, float]:
    cosine, sine = math.cos(angle), math.sin(angle)
    return float(cosine * x - sine * y), float(sine * x + cosine * y)


def _draw_streets(rng: np.random.Generator, plan: GridPlan) -> list[tuple[Node, Node]]:
    """Return the streets left after removing some, with at least two at each node."""
    nodes = [(i, j) for i in range(plan.columns) for j in range(plan.rows)]
    streets = [
        ((i, j), (i + di, j + dj))
        for i, j in nodes
        for di, dj in ((1, 0), (0, 1))
        if i + di < plan.columns and j + dj < plan.rows
    ]
    degree = {node: sum(node in street for street in streets) for node in nodes}
    gone: set[int] = set()
    for index in rng.permutation(len(streets)).tolist():
        one, other = streets[index]
        if len(gone) < plan.removed and degree[one] == 4 and degree[other] >= 3:
            gone.add(index)
            degree[one] -= 1
            degree[other] -= 1
    return [street for index, street in enumerate(streets) if index not in gone]


def _bump(length: float, rng: np.random.Generator) -> list[Piece]:
    """Return a street that swerves to one side and returns to its own line.

    Arcs of +a, -2a, +a at radius R advance 4 R sin a and end where a straight line would.
    """
    radius = 22.0
    angle = min(float(rng.uniform(0.3, 0.42)), math.asin((length - 4.0) / (4.0 * radius)))
    curvature = (1.0 if rng.random() < 0.5 else -1.0) / radius
    straight = (length - 4.0 * radius * math.sin(angle)) / 2.0
    return [
        Piece(straight),
        Piece(radius * angle, curvature, curvature),
        Piece(2.0 * radius * angle, -curvature, -curvature),
        Piece(radius * angle, curvature, curvature),
        Piece(straight),
    ]


def _turn(arm: Arm, other: Arm) -> float:
    """Return how far a car turns from one arm to another: 0 straight on, + = left."""
    turn = other.place.heading - (arm.place.heading + math.pi)
    return (turn + math.pi) % (2.0 * math.pi) - math.pi


def _crossing(turn: float) -> list[Piece]:
    """Return the reference line across a node: straight on, or a quarter circle."""
    if abs(turn) < 0.1:
        return [Piece(2.0 * JUNCTION_ARM_M)]
    curvature = math.copysign(1.0 / JUNCTION_ARM_M, turn)
    return [Piece(JUNCTION_ARM_M * math.pi / 2.0, curvature, curvature)]


def _entering(arm: Arm) -> Place:
    """Return the arm's place, with the heading of a car that drives to the node."""
    return Place(arm.place.x, arm.place.y, arm.place.heading + math.pi)


def _attach(road: Road, contact: str, neighbour: End | None, junction: int | None) -> None:
    """Set what `road` meets at its `contact` end."""
    if contact == "start":
        road.before, road.junction_before = neighbour, junction
    else:
        road.after, road.junction_after = neighbour, junction


def _join_two(roads: list[Road], one: Arm, other: Arm, centre: Mark) -> None:
    """Join two streets with a two-lane road, as at a grid's corner."""
    flip_before, flip_after = one.end.contact == "start", other.end.contact == "end"
    road = Road(
        id=len(roads),
        start=_entering(one),
        pieces=_crossing(_turn(one, other)),
        lanes=two_way_lanes(centre, flip_before, flip_after),
        before=one.end,
        after=other.end,
    )
    roads.append(road)
    for arm, contact in ((one, "start"), (other, "end")):
        street = roads[arm.end.road]
        _attach(street, arm.end.contact, End(road.id, contact), None)
        if arm.end.contact == contact:
            _flip_links(street, contact)


def _flip_links(road: Road, contact: str) -> None:
    """Flip the signs of the lane links at one end: the neighbour runs the other way."""
    link = "link_before" if contact == "start" else "link_after"
    road.lanes = [
        replace(lane, **{link: -getattr(lane, link)}) if lane.id else lane for lane in road.lanes
    ]


def _connect(roads: list[Road], arms: list[Arm], junction: int) -> list[Road]:
    """Add the connecting roads of a junction, one lane each; return them."""
    connecting = []
    for arm, other in permutations(arms, 2):
        turn = _turn(arm, other)
        # Nothing crosses the right edge of a right turn, or of going straight if no street leaves
        # to the right: there, the edge line and the verge continue.
        closed = turn < -0.1 or (
            abs(turn) < 0.1
            and not any(
                _turn(arm, third) < -0.1
                for third in arms
                if third is not arm and third is not other
            )
        )
        lanes = [
            Lane(0, "none"),
            Lane(
                -1,
                "driving",
                LANE_WIDTH_M,
                Mark("solid" if closed else "none"),
                arm.lane_in,
                other.lane_out,
            ),
        ]
        if closed:
            lanes.append(
                Lane(-2, "shoulder", SHOULDER_WIDTH_M, Mark(), 2 * arm.lane_in, 2 * other.lane_out)
            )
        road = Road(
            id=len(roads),
            start=_entering(arm),
            pieces=_crossing(turn),
            lanes=lanes,
            junction=junction,
            before=arm.end,
            after=other.end,
        )
        roads.append(road)
        connecting.append(road)
    for arm in arms:
        _attach(roads[arm.end.road], arm.end.contact, None, junction)
    return connecting


# ---------------------------------------------------------------- OpenDRIVE


def _number(value: float) -> str:
    """Format a number to a nanometre, which hides differences in the last bits between libms."""
    return f"{value + 0.0:.9f}"


def opendrive(name: str, roads: Sequence[Road], junctions: dict[int, list[Road]]) -> str:
    """Return an OpenDRIVE 1.4 document."""
    root = ElementTree.Element("OpenDRIVE")
    xs, ys = [road.start.x for road in roads], [road.start.y for road in roads]
    header = ElementTree.SubElement(
        root, "header", revMajor="1", revMinor="4", name=name, version="1.00",
        date="2024-01-01T00:00:00", north=_number(max(ys)), south=_number(min(ys)),
        east=_number(max(xs)), west=_number(min(xs)), vendor="td3_driver",
    )  # fmt: skip
    ElementTree.SubElement(
        header, "geoReference"
    ).text = "+proj=tmerc +lat_0=0 +lon_0=0 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
    for road in roads:
        _write_road(root, road)
    for junction, connecting in junctions.items():
        _write_junction(root, junction, connecting)
    ElementTree.indent(root, " ")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"
    )


def _write_road(root: ElementTree.Element, road: Road) -> None:
    element = ElementTree.SubElement(
        root, "road", name="", length=_number(road.length), id=str(road.id),
        junction=str(road.junction),
    )  # fmt: skip
    _write_links(ElementTree.SubElement(element, "link"), road)
    kind = ElementTree.SubElement(element, "type", s="0.0", type="town")
    ElementTree.SubElement(kind, "speed", max="30", unit="mph")
    view = ElementTree.SubElement(element, "planView")
    place, along = road.start, 0.0
    for piece in road.pieces:
        geometry = ElementTree.SubElement(
            view, "geometry", s=_number(along), x=_number(place.x), y=_number(place.y),
            hdg=_number(place.heading), length=_number(piece.length),
        )  # fmt: skip
        geometry.append(piece.element())
        place, along = piece.end(place), along + piece.length
    flat = {"s": "0.0", "a": "0.0", "b": "0.0", "c": "0.0", "d": "0.0"}
    ElementTree.SubElement(ElementTree.SubElement(element, "elevationProfile"), "elevation", flat)
    ElementTree.SubElement(element, "lateralProfile")
    lanes = ElementTree.SubElement(element, "lanes")
    ElementTree.SubElement(lanes, "laneOffset", flat)
    section = ElementTree.SubElement(lanes, "laneSection", s="0.0")
    for side, belongs in (("left", 1), ("center", 0), ("right", -1)):
        of_side = [lane for lane in road.lanes if (lane.id > 0) - (lane.id < 0) == belongs]
        if of_side:
            group = ElementTree.SubElement(section, side)
            for lane in sorted(of_side, key=lambda lane: -lane.id):
                _write_lane(group, lane)


def _write_links(link: ElementTree.Element, road: Road) -> None:
    ends = (
        ("predecessor", road.before, road.junction_before),
        ("successor", road.after, road.junction_after),
    )
    for name, neighbour, junction in ends:
        if neighbour is not None:
            ElementTree.SubElement(
                link, name, elementType="road", elementId=str(neighbour.road),
                contactPoint=neighbour.contact,
            )  # fmt: skip
        elif junction is not None:
            ElementTree.SubElement(link, name, elementType="junction", elementId=str(junction))


def _write_lane(group: ElementTree.Element, lane: Lane) -> None:
    element = ElementTree.SubElement(group, "lane", id=str(lane.id), type=lane.type, level="false")
    link = ElementTree.SubElement(element, "link")
    if lane.link_before is not None:
        ElementTree.SubElement(link, "predecessor", id=str(lane.link_before))
    if lane.link_after is not None:
        ElementTree.SubElement(link, "successor", id=str(lane.link_after))
    if lane.id:
        ElementTree.SubElement(
            element, "width", sOffset="0.0", a=_number(lane.width), b="0.0", c="0.0", d="0.0"
        )
    ElementTree.SubElement(
        element, "roadMark", sOffset="0.0", type=lane.mark.type, weight="standard",
        color=lane.mark.colour, width=_number(MARK_WIDTH_M), laneChange="none",
    )  # fmt: skip


def _write_junction(root: ElementTree.Element, junction: int, connecting: list[Road]) -> None:
    element = ElementTree.SubElement(root, "junction", id=str(junction), name="")
    for index, road in enumerate(connecting):
        assert road.before is not None
        connection = ElementTree.SubElement(
            element, "connection", id=str(index), incomingRoad=str(road.before.road),
            connectingRoad=str(road.id), contactPoint="start",
        )  # fmt: skip
        for lane in road.lanes:
            if lane.id:
                ElementTree.SubElement(
                    connection,
                    "laneLink",
                    attrib={"from": str(lane.link_before), "to": str(lane.id)},
                )


# ---------------------------------------------------------------- the shipped maps

YELLOW, WHITE = Mark("broken", "yellow"), Mark("broken", "white")

RINGS = (
    RingPlan("ring_meadow", 1, 8, 75.0, 1.2, WHITE),
    RingPlan("ring_harbour", 2, 9, 85.0, 1.3, YELLOW),
    RingPlan("ring_orchard", 3, 8, 70.0, 1.1, WHITE),
    RingPlan("ring_quarry", 4, 10, 95.0, 1.1, YELLOW),
    RingPlan("ring_lakeside", 5, 9, 85.0, 1.2, YELLOW),
    RingPlan("ring_vineyard", 6, 8, 78.0, 1.3, WHITE),
    RingPlan("ring_hillside", 7, 9, 80.0, 1.2, WHITE),
    RingPlan("ring_riverside", 8, 8, 82.0, 1.3, YELLOW),
)
GRIDS = (
    GridPlan("grid_old_town", 7, 4, 4, (52.0, 78.0), 1, 6, 0.35, WHITE),
    GridPlan("grid_market_town", 10, 4, 4, (50.0, 76.0), 2, 6, 1.2, YELLOW),
    GridPlan("grid_new_town", 8, 5, 4, (55.0, 82.0), 4, 7, -0.6, YELLOW),
    GridPlan("grid_mill_town", 9, 4, 4, (54.0, 80.0), 2, 6, 0.9, WHITE),
)


def documents() -> Iterator[tuple[str, str]]:
    """Yield the name and the OpenDRIVE text of every shipped map."""
    for ring in RINGS:
        yield ring.name, opendrive(ring.name, ring_roads(ring), {})
    for grid in GRIDS:
        yield grid.name, opendrive(grid.name, *grid_roads(grid))


def main() -> None:
    """Write the maps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write to")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in documents():
        (folder / f"{name}.xodr").write_text(text)
        print(f"{name}: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
