# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Obstacles on the route: vehicles that stand, hesitate or cross, and pedestrians.

Those that drive along a lane are vehicles of the traffic that hesitate at first. The others are
bodies of their own: they stand, or cross the lane in a straight line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from td3_driver.config import ObstacleKind, SimulatorConfig
from td3_driver.driving.world import Pose
from td3_driver.looks import Colour
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.lane_graph import LaneGraph
from td3_driver.roads.opendrive import LaneKey
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box
from td3_driver.simulator.shapes import Rectangle, overlap
from td3_driver.simulator.traffic import (
    COLOURS,
    HEIGHT_M,
    LENGTH_M,
    MASS_KG,
    WIDTH_M,
    Hesitation,
    TrafficVehicle,
)

FIRST_ACTOR_ID = 201

# Beside the lane's centre line. A car of 1.9 m passes a parked one of 1.85 m with its own centre
# 0.5 to 0.9 m off the line, to which it has to add some room; an episode ends at 2 m.
_PARKED_ASIDE_M = (1.0, 1.4)
_STANDS_S = (2.0, 5.0)
_SLOW_MPS, _SLOW_S = (1.0, 3.0), (8.0, 15.0)
# Faster than a car that follows is to drive.
_DRIVES_ON_MPS = (6.5, 7.5)
# Who crosses comes from beyond the shoulder on the right, or beyond the oncoming lane.
_FROM_RIGHT_M, _FROM_LEFT_M = 3.3, 6.8
_CROSSING_MPS2 = 2.0
_BRAKING_MPS2 = 7.0
_STOPS_BEFORE_M = 1.0
# One that crosses is in the middle of the lane when a car of this speed would arrive there.
_ARRIVING_MPS, _NOSE_M = 6.0, 2.4
# Left free: of other vehicles where an obstacle is placed, and before the route's end.
_CLEAR_M = 12.0
_LAST_M = 10.0
_JUNCTION_STEP_M = 5.0


@dataclass(frozen=True)
class Body:
    """Size and mass of what stands or crosses."""

    length: float
    width: float
    height: float
    mass_kg: float


CAR = Body(LENGTH_M, WIDTH_M, HEIGHT_M, MASS_KG)
PEDESTRIAN = Body(0.4, 0.5, 1.75, 75.0)
_PEDESTRIANS_MPS = 1.4
_CARS_MPS = 4.0


@dataclass
class Crossing:
    """How a body crosses the lane: straight on, once the car is near."""

    speed: float
    left_m: float
    """How far it has still to go."""
    begins_at_m: float
    """Distance of the car at which it sets off."""
    begun: bool = False


@dataclass(eq=False)
class Obstacle:
    """A body that stands, or crosses the lane."""

    actor_id: int
    kind: ObstacleKind
    pose: Pose
    body: Body
    colour: Colour
    crossing: Crossing | None = None
    speed: float = 0.0

    @property
    def mass_kg(self) -> float:
        """Its mass."""
        return self.body.mass_kg

    @property
    def outline(self) -> Rectangle:
        """Its rectangle on the ground."""
        return Rectangle(self.pose, self.body.length, self.body.width)

    @property
    def box(self) -> Box:
        """The box that the camera draws."""
        body = self.body
        return Box(
            self.pose, body.length, body.width, body.height, self.colour, vehicle=body is CAR
        )

    @property
    def velocity(self) -> tuple[float, float]:
        """Velocity in map axes, m/s."""
        return self.speed * math.cos(self.pose.yaw), self.speed * math.sin(self.pose.yaw)

    def hit(self, speed: float) -> None:
        """Take the speed after a hit (m/s, never backwards), then stop and stand."""
        self.speed, self.crossing = max(0.0, speed), None

    def step(self, dt: float, ego: Rectangle) -> None:
        """Move for `dt` seconds."""
        self.speed = self._speed_after(dt, ego)
        if self.speed > 0.0:
            way = self.speed * dt
            self.pose = _moved(self.pose, way)
            if self.crossing is not None:
                self.crossing.left_m -= way

    def _speed_after(self, dt: float, ego: Rectangle) -> float:
        crossing = self.crossing
        if crossing is None or crossing.left_m <= 0.0:
            return max(0.0, self.speed - _BRAKING_MPS2 * dt)
        if not crossing.begun:
            crossing.begun = _distance(ego.pose, self.pose) < crossing.begins_at_m
            return 0.0
        # It does not walk or drive into a car that stands before it.
        before = Rectangle(_moved(self.pose, _STOPS_BEFORE_M), self.body.length, self.body.width)
        if overlap(before, ego) is not None:
            return max(0.0, self.speed - _BRAKING_MPS2 * dt)
        return min(self.speed + _CROSSING_MPS2 * dt, crossing.speed)


@dataclass(frozen=True)
class _Place:
    """Where an obstacle is to be, and everything that chance decides about it."""

    kind: ObstacleKind
    pose: Pose
    """On the centre line of the lane, along it."""
    left: bool
    share: float
    """In [0, 1): where between the bounds of its kind its quantities are."""
    colour: Colour


@dataclass
class Obstacles:
    """The obstacles of one world."""

    config: SimulatorConfig
    bodies: list[Obstacle] = field(default_factory=list)
    """Those that are not part of the traffic."""
    hesitating: list[TrafficVehicle] = field(default_factory=list)
    """Those that are part of the traffic."""

    @property
    def poses(self) -> list[Pose]:
        """Where they all are."""
        return [each.pose for each in self.bodies] + [each.pose for each in self.hesitating]

    def place(
        self,
        road_map: RoadMap,
        route: np.ndarray,
        goal: Pose,
        rng: np.random.Generator,
        taken: Sequence[Pose],
    ) -> list[TrafficVehicle]:
        """Draw obstacles along a route, float64 (n, 3) of points 1 m apart, to `goal`.

        What would be near a pose that is `taken` is left out. Returns those for the traffic.
        """
        ids = [each.actor_id for each in self.bodies] + [each.actor_id for each in self.hesitating]
        first_id = max(ids, default=FIRST_ACTOR_ID - 1) + 1
        new = []
        for number, place in enumerate(_places(self.config, road_map.graph, route, rng)):
            if any(_distance(place.pose, pose) < _CLEAR_M for pose in taken):
                continue
            if place.kind in ("standing", "slow"):
                new.append(_hesitating(first_id + number, place, road_map.graph, goal))
            else:
                self.bodies.append(_body(first_id + number, place))
        self.hesitating += new
        return new

    def remove(self, seen_from: Pose | None = None, beyond_m: float = 0.0) -> list[TrafficVehicle]:
        """Remove those at least `beyond_m` from a pose, or all; return those of the traffic."""

        def stays(pose: Pose) -> bool:
            return seen_from is not None and _distance(pose, seen_from) < beyond_m

        gone = [vehicle for vehicle in self.hesitating if not stays(vehicle.pose)]
        self.hesitating = [vehicle for vehicle in self.hesitating if stays(vehicle.pose)]
        self.bodies = [body for body in self.bodies if stays(body.pose)]
        return gone

    def step(self, dt: float, ego: Rectangle) -> None:
        """Move those that cross for `dt` seconds."""
        for body in self.bodies:
            body.step(dt, ego)

    @property
    def in_the_way(self) -> list[Rectangle]:
        """What other vehicles wait for."""
        return [body.outline for body in self.bodies if body.kind != "parked"]

    @property
    def to_pass(self) -> list[Pose]:
        """What other vehicles steer round."""
        return [body.pose for body in self.bodies if body.kind == "parked"]


def _places(
    config: SimulatorConfig, graph: LaneGraph, route: np.ndarray, rng: np.random.Generator
) -> list[_Place]:
    """Draw the obstacles' places: outside junctions, apart by at least the least spacing."""
    places: list[_Place] = []
    along = 0.0
    for _ in range(config.obstacles):
        along += rng.uniform(config.obstacle_spacing_min_m, config.obstacle_spacing_max_m)
        kind = config.obstacle_kinds[int(rng.integers(len(config.obstacle_kinds)))]
        left, share = bool(rng.random() < 0.5), float(rng.random())
        colour = COLOURS[int(rng.integers(len(COLOURS)))]
        last = len(route) - 1 - _LAST_M
        while along <= last and graph.lanes[_lane_at(graph, route, along)].in_junction:
            along += _JUNCTION_STEP_M
        if along > last:
            break
        places.append(_Place(kind, Pose(*route[int(along)].tolist()), left, share, colour))
    return places


def _lane_at(graph: LaneGraph, route: np.ndarray, along: float) -> LaneKey:
    return graph.project(Pose(*route[int(along)].tolist())).key


def _hesitating(actor_id: int, place: _Place, graph: LaneGraph, goal: Pose) -> TrafficVehicle:
    """Return a vehicle that stands in the lane or drives slowly, on its way to the goal."""
    lane = graph.project(place.pose)
    try:
        path, _ = graph.path(lane, graph.project(goal))
    except RoadMapError:
        path = [lane.key]
    stands = place.kind == "standing"
    hesitation = (
        Hesitation(0.0, _between(_STANDS_S, place.share))
        if stands
        else Hesitation(_between(_SLOW_MPS, place.share), _between(_SLOW_S, 1.0 - place.share))
    )
    return TrafficVehicle(
        actor_id,
        list(path),
        lane.offset,
        speed=hesitation.speed,
        desired_speed=_between(_DRIVES_ON_MPS, place.share),
        colour=place.colour,
        pose=graph.lanes[lane.key].pose(lane.offset),
        hesitation=hesitation,
    )


def _body(actor_id: int, place: _Place) -> Obstacle:
    """Return what is parked, or is about to cross."""
    if place.kind == "parked":
        away = _between(_PARKED_ASIDE_M, place.share)
        pose = _moved(place.pose, 0.0, away if place.left else -away)
        return Obstacle(actor_id, "parked", pose, CAR, place.colour)
    walks = place.kind == "pedestrian"
    body, speed = (PEDESTRIAN, _PEDESTRIANS_MPS) if walks else (CAR, _CARS_MPS)
    half = 0.5 * body.length
    from_right, from_left = _FROM_RIGHT_M + half, _FROM_LEFT_M + half
    away = from_left if place.left else from_right
    pose = _moved(place.pose, 0.0, away if place.left else -away)
    turned = -0.5 * math.pi if place.left else 0.5 * math.pi
    pose = Pose(pose.x, pose.y, math.remainder(pose.yaw + turned, math.tau), pose.z)
    # From rest, it needs speed / acceleration / 2 longer than at full speed.
    arrives_s = away / speed + 0.5 * speed / _CROSSING_MPS2
    before_m = _ARRIVING_MPS * arrives_s + _NOSE_M
    crossing = Crossing(speed, from_left + from_right, math.hypot(before_m, away))
    return Obstacle(actor_id, place.kind, pose, body, place.colour, crossing)


def _between(bounds: tuple[float, float], share: float) -> float:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _moved(pose: Pose, forward: float, left: float = 0.0) -> Pose:
    """Return a pose moved in its own axes."""
    cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
    return Pose(
        pose.x + forward * cosine - left * sine,
        pose.y + forward * sine + left * cosine,
        pose.yaw,
        pose.z,
    )


def _distance(one: Pose, other: Pose) -> float:
    return math.hypot(one.x - other.x, one.y - other.y)
