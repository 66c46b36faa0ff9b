# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Other vehicles: they follow lanes, keep their distance and take junctions one at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.looks import Colour
from td3_driver.roads.lane_graph import Lane, LaneGraph, LanePlace
from td3_driver.roads.opendrive import NO_JUNCTION, LaneKey
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box
from td3_driver.simulator.shapes import Rectangle

FIRST_ACTOR_ID = 101

_EGO, _OBSTACLE = 0, -1
"""The ids of the ego and of what stands in the way, among the road users."""
LENGTH_M, WIDTH_M, HEIGHT_M, MASS_KG = 4.5, 1.85, 1.5, 1500.0
"""Of every other vehicle."""
_SPAWN_SPACING_M = 8.0
_SPAWN_CLEARANCE_M = 14.0
_EGO_CLEARANCE_M = 20.0
_LOOK_AHEAD_M = 45.0
# How often a driver decides on an acceleration.
_DECIDES_EVERY_S = 0.1
# A vehicle is in the way on a lane if its centre is this close to the lane's centre line.
_IN_THE_WAY_M = 2.0
# Along a lane, the other lanes that a vehicle obstructs are computed once per this distance.
_PLACE_STEP_M = 0.5
_LATERAL_MPS2 = 2.0
_JUNCTION_CLAIM_M = 20.0
_EXIT_ROOM_M = 9.0
_STANDS_AFTER_HIT_S = 3.0
# Who hesitates does not notice the ego before it is this near.
_NEAR_M = 20.0
_STANDING_MPS = 0.1
# Beside what stands partly in the lane: how much room is left, and where one begins to steer.
_PASSING_ROOM_M = 0.4
_PASSING_FULL_M, _PASSING_BEGINS_M = 6.0, 18.0

# The intelligent driver model (Treiber, Hennecke, Helbing, Physical Review E 62, 2000).
_ACCELERATION_MPS2 = 1.5
_BRAKING_MPS2 = 2.0
_HARDEST_BRAKING_MPS2 = 7.0
_HEADWAY_S = 1.3
_STANDSTILL_GAP_M = 2.5
_COMFORTABLE_MPS2 = 2.0 * math.sqrt(_ACCELERATION_MPS2 * _BRAKING_MPS2)
# Before a bend, the square of the speed falls by this a metre.
_SLOWING_MPS2 = 2.0 * _ACCELERATION_MPS2
# A bend counts until it is this far behind the middle of the vehicle.
_TAIL_M = 1.0

COLOURS: tuple[Colour, ...] = (
    (48.0, 44.0, 180.0),
    (160.0, 96.0, 42.0),
    (215.0, 215.0, 215.0),
    (60.0, 60.0, 60.0),
    (60.0, 150.0, 210.0),
    (70.0, 120.0, 60.0),
)


@dataclass
class Hesitation:
    """A vehicle stands or drives slowly at first, for a while after somebody comes near."""

    speed: float
    """m/s; 0 = it stands."""
    left_s: float
    """For how long it goes on like that once the ego is near, or somebody waits behind it."""
    noticed: bool = False


@dataclass(eq=False)
class TrafficVehicle:
    """One other vehicle, on the centre line of its lane but for what it passes."""

    actor_id: int
    path: list[LaneKey]
    """The lane that it is on, and those that it will take."""
    offset: float
    """Metres along the first lane of the path."""
    speed: float
    desired_speed: float
    colour: Colour
    pose: Pose
    mass_kg: float = MASS_KG
    stands_for_s: float = 0.0
    """How much longer it stands after being hit."""
    claims: set[int] = field(default_factory=set)
    """Junctions reserved for it."""
    behind: LaneKey | None = None
    """The lane that it left most recently."""
    hesitation: Hesitation | None = None
    acceleration: float | None = None
    """m/s^2, until it decides anew; None = it does so at once."""

    @property
    def outline(self) -> Rectangle:
        """Its rectangle on the ground."""
        return Rectangle(self.pose, LENGTH_M, WIDTH_M)

    @property
    def box(self) -> Box:
        """The box that the camera draws."""
        return Box(self.pose, LENGTH_M, WIDTH_M, HEIGHT_M, self.colour)

    @property
    def velocity(self) -> tuple[float, float]:
        """Velocity in map axes, m/s."""
        return self.speed * math.cos(self.pose.yaw), self.speed * math.sin(self.pose.yaw)

    def hit(self, speed: float) -> None:
        """Take the speed after a hit (m/s, never backwards), then stop and stand for a while."""
        self.speed = max(0.0, speed)
        self.stands_for_s, self.acceleration = _STANDS_AFTER_HIT_S, None


class RoadUser(NamedTuple):
    """Something that may be in the way: its places on lanes, its speed and its length."""

    actor_id: int
    places: list[LanePlace]
    speed: float
    length: float


@dataclass(frozen=True, eq=False)
class _Bends:
    """The speeds that the bends of a lane allow, as squares, m^2/s^2."""

    lane: Lane
    squares: list[float]
    """At each point: there the lateral acceleration is as high as it may be."""
    before: list[float]
    """At the lane's beginning, for the sake of each point and all that follow it."""
    least: float

    def allowed(self, begins: float) -> float:
        """Return the square of the speed allowed now, `begins` metres before the lane's beginning.

        Negative = on the lane.
        """
        if begins >= 0.0:
            return self.before[0] + _SLOWING_MPS2 * begins
        behind, ahead = self.lane.between(-_TAIL_M - begins, -begins)
        here = min(self.squares[behind:ahead], default=math.inf)
        if ahead == len(self.before):
            return here
        return min(here, self.before[ahead] + _SLOWING_MPS2 * begins)


OnLanes = dict[LaneKey, list[tuple[float, RoadUser]]]
"""For each lane, who is in the way on it, and how far along (m)."""


class Traffic:
    """All other vehicles of one map."""

    def __init__(self, road_map: RoadMap) -> None:
        """Start with empty roads."""
        self._graph: LaneGraph = road_map.graph
        self._places = road_map.spawn_poses(_SPAWN_SPACING_M)
        self._rng = np.random.default_rng(0)
        self._crossed: dict[tuple[LaneKey, int], list[LanePlace]] = {}
        self._bends: dict[LaneKey, _Bends] = {}
        self._ticks = 0
        self.vehicles: list[TrafficVehicle] = []

    def populate(
        self, count: int, rng: np.random.Generator, ego: Pose, keep_clear: Sequence[Pose] = ()
    ) -> None:
        """Put `count` new vehicles on the road, clear of each other, of `ego` and of `keep_clear`.

        There are fewer if the road has no room for all. `rng` decides everything that follows.
        """
        self._rng, self._ticks = rng, 0
        self.vehicles = []
        for number in range(count):
            place = self._free_place(ego, keep_clear)
            if place is None:
                break
            self.vehicles.append(self._spawned(FIRST_ACTOR_ID + number, place))

    def make_room(self, ego: Pose) -> None:
        """Move vehicles away from where the ego has been put."""
        for index, vehicle in enumerate(self.vehicles):
            if _distance(vehicle.pose, ego) < _EGO_CLEARANCE_M:
                place = self._free_place(ego)
                if place is not None:
                    self.vehicles[index] = self._spawned(vehicle.actor_id, place)

    def step(
        self,
        dt: float,
        ego: Rectangle,
        ego_speed: float,
        in_the_way: Sequence[Rectangle] = (),
        to_pass: Sequence[Pose] = (),
    ) -> None:
        """Drive all vehicles for `dt` seconds; the ego may be in their way as well.

        They wait for what stands `in_the_way`, and steer round the vehicles `to_pass`.
        """
        if not self.vehicles:
            return
        near_ego = self._graph.places_near(ego.pose.x, ego.pose.y, _IN_THE_WAY_M)
        users = [RoadUser(_EGO, near_ego, ego_speed, ego.length)]
        for body in in_the_way:
            places = self._graph.places_near(body.pose.x, body.pose.y, _IN_THE_WAY_M)
            users.append(RoadUser(_OBSTACLE, places, 0.0, body.length))
        for vehicle in self.vehicles:
            places = self._places_crossed(vehicle.path[0], vehicle.offset)
            users.append(RoadUser(vehicle.actor_id, places, vehicle.speed, LENGTH_M))
        taken = self._taken_junctions(users[0])
        on_lanes: OnLanes = {}
        for user in users:
            for place in user.places:
                on_lanes.setdefault(place.key, []).append((place.offset, user))
        for vehicle in self._deciding(dt):
            vehicle.acceleration = self._acceleration(vehicle, on_lanes, taken)
        for vehicle in self.vehicles:
            self._advance(vehicle, dt)
            if vehicle.hesitation is not None:
                self._hesitate(vehicle, vehicle.hesitation, ego.pose, dt)
            for other in to_pass:
                vehicle.pose = _passing(vehicle.pose, other)

    def _deciding(self, dt: float) -> list[TrafficVehicle]:
        """Return who decides on an acceleration now: all in turn, and those that have none."""
        turns = max(1, round(_DECIDES_EVERY_S / dt))
        self._ticks += 1
        return [
            vehicle
            for number, vehicle in enumerate(self.vehicles, self._ticks)
            if number % turns == 0 or vehicle.acceleration is None
        ]

    def _hesitate(
        self, vehicle: TrafficVehicle, hesitation: Hesitation, ego: Pose, dt: float
    ) -> None:
        """Let time pass for one that is in the way, once somebody is near."""
        # Before a junction, one waits that far behind for room beyond it.
        hesitation.noticed |= _distance(vehicle.pose, ego) < _NEAR_M or any(
            other.hesitation is None
            and other.speed < _STANDING_MPS
            and vehicle.path[0] in other.path
            and _distance(vehicle.pose, other.pose) < _LOOK_AHEAD_M
            for other in self.vehicles
        )
        if hesitation.noticed:
            hesitation.left_s -= dt
            if hesitation.left_s <= 0.0:
                vehicle.hesitation = vehicle.acceleration = None

    def _free_place(self, ego: Pose, keep_clear: Sequence[Pose] = ()) -> Pose | None:
        for index in self._rng.permutation(len(self._places)).tolist():
            place = self._places[index]
            taken = [*(other.pose for other in self.vehicles), *keep_clear]
            if _distance(place, ego) >= _EGO_CLEARANCE_M and all(
                _distance(place, other) >= _SPAWN_CLEARANCE_M for other in taken
            ):
                return place
        return None

    def _spawned(self, actor_id: int, place: Pose) -> TrafficVehicle:
        lane = self._graph.project(place)
        return TrafficVehicle(
            actor_id,
            [lane.key],
            lane.offset,
            speed=0.0,
            desired_speed=float(self._rng.uniform(4.5, 7.5)),
            colour=COLOURS[int(self._rng.integers(len(COLOURS)))],
            pose=place,
        )

    def _places_crossed(self, key: LaneKey, offset: float) -> list[LanePlace]:
        """Return the places on lanes where a vehicle on this lane's centre line is in the way."""
        step = round(offset / _PLACE_STEP_M)
        if (key, step) not in self._crossed:
            place = self._graph.lanes[key].pose(step * _PLACE_STEP_M)
            self._crossed[key, step] = self._graph.places_near(place.x, place.y, _IN_THE_WAY_M)
        return self._crossed[key, step]

    def _taken_junctions(self, ego: RoadUser) -> dict[int, int]:
        """Return the vehicle that each junction is reserved for."""
        taken = {
            junction: vehicle.actor_id for vehicle in self.vehicles for junction in vehicle.claims
        }
        for place in ego.places:
            junction = self._graph.lanes[place.key].junction
            if junction != NO_JUNCTION:
                taken.setdefault(junction, ego.actor_id)
        return taken

    def _ahead(self, vehicle: TrafficVehicle) -> Iterator[tuple[LaneKey, float]]:
        """Yield each lane of the path and how far ahead it begins; extend the path as needed."""
        begins, index = -vehicle.offset, 0
        while begins < _LOOK_AHEAD_M:
            if index == len(vehicle.path):
                following = self._graph.successors(vehicle.path[-1])
                if not following:
                    return
                vehicle.path.append(following[int(self._rng.integers(len(following)))])
            key = vehicle.path[index]
            yield key, begins
            begins += self._graph.lanes[key].length
            index += 1

    def _acceleration(
        self, vehicle: TrafficVehicle, on_lanes: OnLanes, taken: dict[int, int]
    ) -> float:
        """Return the IDM acceleration behind the nearest obstacle ahead, m/s^2."""
        if vehicle.stands_for_s > 0.0 or (
            vehicle.hesitation is not None and vehicle.hesitation.speed == 0.0
        ):
            return -_HARDEST_BRAKING_MPS2
        lanes = list(self._ahead(vehicle))
        gap, leader_speed = self._leader(vehicle, lanes, on_lanes)
        nose = LENGTH_M / 2.0
        for key, begins in lanes:
            junction = self._graph.lanes[key].junction
            if junction == NO_JUNCTION or begins <= 0.0 or junction in vehicle.claims:
                continue
            exit_at = begins + self._graph.lanes[key].length
            if (
                begins < _JUNCTION_CLAIM_M
                and junction not in taken
                and nose + gap > exit_at + _EXIT_ROOM_M
            ):
                vehicle.claims.add(junction)
                taken[junction] = vehicle.actor_id
            elif begins - nose < gap:
                gap, leader_speed = max(begins - nose, 0.0), 0.0
            break
        last_key, last_begins = lanes[-1]
        end = last_begins + self._graph.lanes[last_key].length
        if end < min(gap, _LOOK_AHEAD_M):
            # The road ends here: the vehicle stops at its end and stays there.
            gap, leader_speed = max(end - nose, 0.0), 0.0
        return _idm(vehicle.speed, self._wanted_speed(vehicle, lanes), gap, leader_speed)

    def _leader(
        self,
        vehicle: TrafficVehicle,
        lanes: list[tuple[LaneKey, float]],
        on_lanes: OnLanes,
    ) -> tuple[float, float]:
        """Return the gap to the next user on the path (metres) and its speed (m/s)."""
        best = math.inf, 0.0
        # A lane that the path takes twice counts where it comes first.
        for key, begins in dict(reversed(lanes)).items():
            for offset, user in on_lanes.get(key, ()):
                ahead = begins + offset
                if ahead > 0.0 and user.actor_id != vehicle.actor_id:
                    gap = ahead - (LENGTH_M + user.length) / 2.0
                    if gap <= best[0]:
                        best = min(best, (max(gap, 0.0), max(user.speed, 0.0)))
        return best

    def _wanted_speed(self, vehicle: TrafficVehicle, lanes: list[tuple[LaneKey, float]]) -> float:
        """Return the highest speed from which it can slow down in time for every bend ahead."""
        wanted = vehicle.desired_speed
        if vehicle.hesitation is not None:
            wanted = min(wanted, vehicle.hesitation.speed)
        for key, begins in lanes:
            bends = self._bends_of(key)
            if bends.least < wanted * wanted:
                wanted = min(wanted, math.sqrt(bends.allowed(begins)))
        return wanted

    def _bends_of(self, key: LaneKey) -> _Bends:
        if key not in self._bends:
            lane = self._graph.lanes[key]
            curvature = np.abs(np.gradient(lane.points[:, 2], lane.along))
            squares = _LATERAL_MPS2 / np.maximum(curvature, 1e-3)
            before = squares + _SLOWING_MPS2 * lane.along
            self._bends[key] = _Bends(
                lane,
                squares.tolist(),
                np.minimum.accumulate(before[::-1])[::-1].tolist(),
                float(squares.min()),
            )
        return self._bends[key]

    def _advance(self, vehicle: TrafficVehicle, dt: float) -> None:
        vehicle.stands_for_s = max(0.0, vehicle.stands_for_s - dt)
        vehicle.speed = max(0.0, vehicle.speed + (vehicle.acceleration or 0.0) * dt)
        vehicle.offset += vehicle.speed * dt
        while vehicle.offset > self._graph.lanes[vehicle.path[0]].length:
            if len(vehicle.path) == 1:
                vehicle.offset, vehicle.speed = self._graph.lanes[vehicle.path[0]].length, 0.0
                break
            vehicle.behind = vehicle.path.pop(0)
            vehicle.offset -= self._graph.lanes[vehicle.behind].length
        vehicle.pose = self._graph.lanes[vehicle.path[0]].pose(vehicle.offset)
        if not vehicle.claims:
            return
        needed = set(vehicle.path)
        if vehicle.behind is not None and vehicle.offset < LENGTH_M / 2.0 + 1.0:
            needed.add(vehicle.behind)
        vehicle.claims &= {self._graph.lanes[key].junction for key in needed}


def _idm(speed: float, wanted: float, gap: float, leader_speed: float) -> float:
    """Return the intelligent driver model's acceleration, m/s^2."""
    closing = speed * (speed - leader_speed)
    desired_gap = _STANDSTILL_GAP_M + max(0.0, speed * _HEADWAY_S + closing / _COMFORTABLE_MPS2)
    free = (speed / max(wanted, 0.1)) ** 4
    acceleration = _ACCELERATION_MPS2 * (1.0 - free - (desired_gap / max(gap, 0.1)) ** 2)
    return max(acceleration, -_HARDEST_BRAKING_MPS2)


def _passing(pose: Pose, other: Pose) -> Pose:
    """Return a vehicle's pose beside another one that it passes, if it is in its lane."""
    along = abs(_ahead(pose, other))
    if along >= _PASSING_BEGINS_M:
        return pose
    left = _aside(pose, other)
    missing = WIDTH_M + _PASSING_ROOM_M - abs(left)
    if missing <= 0.0:
        return pose
    share = min((_PASSING_BEGINS_M - along) / (_PASSING_BEGINS_M - _PASSING_FULL_M), 1.0)
    # Smooth at both ends, as a car steers.
    shift = math.copysign(missing * share * share * (3.0 - 2.0 * share), -left)
    return replace(
        pose, x=pose.x - shift * math.sin(pose.yaw), y=pose.y + shift * math.cos(pose.yaw)
    )


def _ahead(pose: Pose, other: Pose) -> float:
    """Return how far ahead of a pose another one is, metres."""
    return (other.x - pose.x) * math.cos(pose.yaw) + (other.y - pose.y) * math.sin(pose.yaw)


def _aside(pose: Pose, other: Pose) -> float:
    """Return how far to the left of a pose another one is, metres."""
    return (other.y - pose.y) * math.cos(pose.yaw) - (other.x - pose.x) * math.sin(pose.yaw)


def _distance(one: Pose, other: Pose) -> float:
    return math.hypot(one.x - other.x, one.y - other.y)
