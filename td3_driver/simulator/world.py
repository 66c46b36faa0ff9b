# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The embedded world: a car on a map with a camera, stepped in process."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.world import (
    FULL_BRAKE,
    Collision,
    Frame,
    LaneInvasion,
    Other,
    Pose,
    Start,
    VehicleControl,
    WorldError,
)
from td3_driver.looks import Look, Weather, episode_look, look_under
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.camera import Camera
from td3_driver.simulator.contacts import outline, resolve_contacts
from td3_driver.simulator.events import LaneWatch
from td3_driver.simulator.obstacles import Obstacle, Obstacles
from td3_driver.simulator.pinhole import Intrinsics
from td3_driver.simulator.traffic import Traffic, TrafficVehicle
from td3_driver.simulator.vehicle import Vehicle, sanitised

EGO_ACTOR_ID = 100
SPAWN_SPACING_M = 20.0
# Obstacles that may be in sight stay when a car that drives gets another route.
_IN_SIGHT_M = 60.0
_DRIVEN_M = 2.0
# Keep the draw of obstacles apart from that of the traffic.
_OBSTACLES = 1


@dataclass(frozen=True, eq=False)
class _Place:
    """A map with its camera and traffic, cached so that returning to it is fast."""

    road_map: RoadMap
    camera: Camera
    traffic: Traffic


class SimulatedWorld:
    """A `World` stepped in process, with a few extras for the simulator node.

    Equal settings and equal calls give bit-identical frames. Ticks work as in CARLA: a frame shows
    the state after the current command has acted for `fixed_delta_s`.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        """Load the configured map and put the car on it; raise RoadMapError if it is unusable."""
        self.config = config
        self.vehicle = Vehicle()
        self._frame = 0
        self._places: dict[str, _Place] = {}
        self.obstacles = Obstacles(config)
        self.load_map(config.map)

    @property
    def fixed_delta_s(self) -> float:
        """Simulated time of one tick, seconds."""
        return self.config.fixed_delta_s

    @property
    def road_map(self) -> RoadMap:
        """The map that the car is on."""
        return self._place.road_map

    @property
    def intrinsics(self) -> Intrinsics:
        """The camera's intrinsics."""
        return self._place.camera.intrinsics

    @property
    def traffic(self) -> Traffic:
        """The other vehicles that drive."""
        return self._place.traffic

    @property
    def others(self) -> list[TrafficVehicle | Obstacle]:
        """All that the car can hit."""
        return [*self.traffic.vehicles, *self.obstacles.bodies]

    @property
    def goal(self) -> Pose:
        """Where the route leads."""
        return self._goal

    @property
    def route(self) -> np.ndarray:
        """float64 (n, 3) as in `Frame.route`."""
        return self._route

    @property
    def frame(self) -> int:
        """Number of the latest tick."""
        return self._frame

    @property
    def stamp_ns(self) -> int:
        """Simulation time since the map was loaded, nanoseconds."""
        return round(self._ticks * self.fixed_delta_s * 1e9)

    @property
    def acceleration(self) -> tuple[float, float, float]:
        """Acceleration of the car over the latest tick in map axes, m/s^2."""
        return self._acceleration

    def reset(self, start: Start) -> Frame:
        """Put the car at rest at `start.pose`, with a route from there to `start.goal`.

        New traffic, obstacles and the look are drawn from the world's and the start's seeds. One
        tick passes under full brake. Raises WorldError if the map or the route is unavailable.
        """
        try:
            if start.map_name != self._map_name:
                self.load_map(start.map_name)
            route = start.route
            if route is None:
                route = self.road_map.route(start.pose, start.goal)
        except RoadMapError as error:
            raise WorldError(f"cannot start an episode: {error}") from error
        self._goal, self._route = start.goal, _read_only(np.array(route))
        self._put(start.pose)
        self.vehicle.set_motion(0.0, 0.0)
        self.vehicle.straighten()
        self._populate(start.seed)
        self._wear(self._episode_look(start.seed))
        return self.step(FULL_BRAKE)

    def step(self, control: VehicleControl) -> Frame:
        """Apply `control` for one tick and return the state after it."""
        self.apply(control)
        return self.tick()

    def close(self) -> None:
        """Stop the car."""
        self.apply(FULL_BRAKE)

    def load_map(self, name_or_path: str | Path) -> None:
        """Put the car on a map; simulation time restarts, the frame counter continues.

        The goal is the bridge's default, the first spawn place; the car stands at another one.
        Raises RoadMapError if the map is unusable.
        """
        name = str(name_or_path)
        if name not in self._places:
            road_map = RoadMap.load(name)
            look = episode_look(self.config, 0, road_map.name)
            camera = Camera(road_map, self.config, look)
            self._places[name] = _Place(road_map, camera, Traffic(road_map))
        spawns = self._places[name].road_map.spawn_poses(SPAWN_SPACING_M)
        if not spawns:
            raise RoadMapError(f"map {name!r} has no lane long enough to start on")
        self._place, self._map_name = self._places[name], name
        self._ticks = 0
        self._lanes = LaneWatch(self.road_map)
        self._goal = spawns[0]
        self.vehicle.set_motion(0.0, 0.0)
        self.vehicle.straighten()
        self.apply(FULL_BRAKE)
        self._put(self._spawn_leading_to_goal(spawns))
        self._plan()
        self._populate(0)
        self._wear(self._episode_look(0))

    def apply(self, control: VehicleControl) -> None:
        """Set the command that acts until the next one."""
        self.vehicle.control = sanitised(control)

    def teleport(self, pose: Pose) -> None:
        """Move the car, which keeps its velocity as in CARLA, and plan the route again.

        Other vehicles in the way are moved. If no path leads to the goal, the route becomes empty.
        """
        self._put(pose)
        self._remove_obstacles()
        self.traffic.make_room(pose)
        self._plan()
        self._renew_obstacles()

    def set_velocity(self, forward: float, yaw_rate: float = 0.0) -> None:
        """Give the car a forward speed (m/s) and a yaw rate (rad/s, + = left) at once.

        A lateral speed cannot be set: the rear tyres do not slip. From the next tick on, the
        wheels and tyres act as usual again, and a standing car does not turn.
        """
        self.vehicle.set_motion(forward, yaw_rate)

    def set_goal(self, pose: Pose) -> None:
        """Plan a route to `pose`; if there is none, raise RoadMapError and keep the old route."""
        self._route = _read_only(self.road_map.route(self.vehicle.pose, pose))
        self._goal = pose
        # While it drives, nothing may vanish before its eyes.
        driven = _distance(self.vehicle.pose, self._put_at) > _DRIVEN_M
        self._remove_obstacles(_IN_SIGHT_M if driven else 0.0)
        self._renew_obstacles()

    def set_weather(self, weather: Weather) -> None:
        """Change the weather, until the next episode or map.

        What a weather says nothing about, such as the colours beside the road, follows from the
        settings: it is the map's own, drawn for each weather, or that of the named look.
        """
        own = replace(self._place.camera.own_look, weather=weather.bounded())
        self._wear(look_under(self.config, weather, self.road_map.name) or own)

    def shown_others(self) -> tuple[Other, ...]:
        """Return the other vehicles and the obstacles, as they are now."""
        outlines = [(other.outline, other.velocity) for other in self.others]
        return tuple(
            Other(outline.pose, outline.length, outline.width, velocity)
            for outline, velocity in outlines
        )

    def tick(self) -> Frame:
        """Simulate one tick under the current command; return the state after it."""
        before, dt = self.vehicle.velocity, self.fixed_delta_s
        self.vehicle.step(dt)
        self._frame += 1
        self._ticks += 1
        ego, obstacles = outline(self.vehicle), self.obstacles
        obstacles.step(dt, ego)
        self.traffic.step(dt, ego, self.vehicle.speed, obstacles.in_the_way, obstacles.to_pass)
        collisions = resolve_contacts(self.vehicle, self.others, self.stamp_ns)
        after = self.vehicle.velocity
        self._acceleration = (after[0] - before[0]) / dt, (after[1] - before[1]) / dt, 0.0
        return self._look(collisions)

    def _spawn_leading_to_goal(self, spawns: list[Pose]) -> Pose:
        """Return the spawn place half the list away from the goal, or the next that leads there.

        On a ring, half of them do not: their lane runs the other way.
        """
        half = len(spawns) // 2
        for pose in spawns[half:] + spawns[1:half]:
            try:
                self.road_map.route(pose, self._goal)
            except RoadMapError:
                continue
            return pose
        return self._goal

    def _put(self, pose: Pose) -> None:
        """Put the car on the ground at `pose`; the jump there does not count as an event."""
        if not all(map(math.isfinite, (pose.x, pose.y, pose.yaw))):
            raise WorldError(f"the car cannot be put at {pose}: x, y and yaw must be finite")
        self.vehicle.pose = self._put_at = replace(pose, yaw=wrap_angle(pose.yaw), z=0.0)
        self._lanes.reset()
        self._acceleration = 0.0, 0.0, 0.0

    def _plan(self) -> None:
        """Plan the route to the goal again; it becomes empty if no path leads there."""
        try:
            self._route = _read_only(self.road_map.route(self.vehicle.pose, self._goal))
        except RoadMapError:
            self._route = _read_only(np.empty((0, 3)))

    def _populate(self, seed: int) -> None:
        """Draw new traffic and obstacles, independent of everything that happened before."""
        self.traffic.vehicles = []
        self.obstacles.remove()
        self._place_obstacles(np.random.default_rng([self.config.seed, seed, _OBSTACLES]))
        hesitating = self.traffic.vehicles
        rng = np.random.default_rng([self.config.seed, seed])
        count = self.config.traffic_vehicles
        self.traffic.populate(count, rng, self.vehicle.pose, self.obstacles.poses)
        self.traffic.vehicles += hesitating

    def _remove_obstacles(self, beyond_m: float = 0.0) -> None:
        """Remove the obstacles that are at least this far away."""
        gone = self.obstacles.remove(self.vehicle.pose, beyond_m)
        self.traffic.vehicles = [each for each in self.traffic.vehicles if each not in gone]

    def _renew_obstacles(self) -> None:
        """Place obstacles on a route that came without a start's seed: its ends take its place."""
        if len(self._route):
            ends = np.rint(self._route[[0, -1], :2].ravel()).astype(np.int64).view(np.uint64)
            seeds = [self.config.seed, *ends.tolist(), _OBSTACLES]
            self._place_obstacles(np.random.default_rng(seeds))

    def _place_obstacles(self, rng: np.random.Generator) -> None:
        taken = [vehicle.pose for vehicle in self.traffic.vehicles] + self.obstacles.poses
        self.traffic.vehicles += self.obstacles.place(
            self.road_map, self._route, self._goal, rng, taken
        )

    def _episode_look(self, seed: int) -> Look | None:
        return episode_look(self.config, seed, self.road_map.name)

    def _wear(self, look: Look | None) -> None:
        """Show the world under a look; its noise starts over, whatever happened before."""
        self._place.camera.wear(look)
        self._worn_since = self._frame

    def _look(self, collisions: tuple[Collision, ...]) -> Frame:
        """Return the frame of the latest tick."""
        crossed = self._lanes.update(outline(self.vehicle))
        boxes = [other.box for other in self.others]
        return Frame(
            frame=self._frame,
            stamp_ns=self.stamp_ns,
            image=self._place.camera.render(
                self.vehicle.pose, boxes, self._frame - self._worn_since
            ),
            pose=self.vehicle.pose,
            speed=self.vehicle.speed,
            yaw_rate=self.vehicle.yaw_rate,
            route=self._route,
            collisions=collisions,
            lane_invasions=(LaneInvasion(self.stamp_ns, crossed),) if crossed else (),
            control=self.vehicle.control,
        )


def _read_only(route: np.ndarray) -> np.ndarray:
    """Make a route read-only, because many frames share it."""
    route.flags.writeable = False
    return route


def _distance(one: Pose, other: Pose) -> float:
    return math.hypot(one.x - other.x, one.y - other.y)
