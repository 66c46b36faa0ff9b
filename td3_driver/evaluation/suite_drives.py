# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Drives the episodes of a suite, each as if it were the only one, and notes what happens."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch

from td3_driver.config import SimulatorConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.reward import End
from td3_driver.driving.route import Projection, RouteTracker
from td3_driver.driving.task import EpisodeSummary
from td3_driver.driving.world import Frame, Start, VehicleControl
from td3_driver.evaluation.contenders import Contender
from td3_driver.evaluation.figures import Quantities
from td3_driver.evaluation.near_misses import Mover, time_to_collision
from td3_driver.evaluation.rollout import Act, drive_episode, seeded_starts
from td3_driver.evaluation.side_by_side import side_by_side
from td3_driver.evaluation.suite import Group, Suite
from td3_driver.evaluation.trace import Trace, driving_score
from td3_driver.pages import jpeg, scaled
from td3_driver.roads.outlines import spaced
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.contacts import outline
from td3_driver.simulator.world import SimulatedWorld

CLIP_S = 6.0
"""The last seconds before a failure are kept as a clip."""
CLIP_FRAMES_PER_S = 10.0
CLIP_SIDE_PX = 240
"""Width or height of a clip, whichever is larger: one JPEG of all frames holds 65,535 rows."""
CLIP_QUALITY = 70
PATH_SPACING_M = 1.0
ROUTE_SPACING_M = 2.0
USUAL_LANE_M = 3.5
"""Width of a lane where the map gives none."""


@dataclass(frozen=True)
class Task:
    """One episode: who drives it, in which group, from which start."""

    contender: int
    group: int
    start: Start


@dataclass(frozen=True)
class Clip:
    """The last seconds of an episode: one picture with its frames from top to bottom."""

    url: str
    """A data URL."""
    frames: int
    frames_per_s: float


@dataclass(frozen=True, eq=False)
class Drive:
    """What is kept of one episode."""

    task: Task
    ended_by: str
    quantities: Quantities
    path: list[list[float]]
    """x, y in metres."""
    route: list[list[float]]
    clip: Clip | None
    """Of a failure; None for a success."""


def plan(suite: Suite, contenders: Sequence[Contender]) -> list[Task]:
    """Return the episodes of all contenders: all drive from the same starts.

    Those of a map are in a row, as a process reads it once. Raises RoadMapError.
    """
    tasks = []
    for number, group in enumerate(suite.groups):
        sampler = StartSampler(group.maps, group.route_length_m)
        drawn = seeded_starts(group.maps, group.episodes, group.seed, sampler.on_map)
        starts = [replace(start, opendrive="") for start in drawn]
        starts.sort(key=lambda start: group.maps.index(start.map_name))
        tasks += [
            Task(contender, number, start)
            for contender in range(len(contenders))
            for start in starts
        ]
    return tasks


def drive_tasks(
    suite: Suite, contenders: Sequence[Contender], tasks: Sequence[Task], jobs: int
) -> Generator[tuple[int, Drive], None, None]:
    """Yield each task's number and its drive, in the order in which they are done.

    What a drive is like does not depend on `jobs`. Raises ConfigError, RoadMapError, WorldError or
    OSError.
    """
    make = partial(SuiteDriver, suite, tuple(contenders))
    yield from side_by_side(make, tasks, jobs)


class SuiteDriver:
    """Drives one task after another; keeps the latest world, as the next one is often the same."""

    def __init__(self, suite: Suite, contenders: Sequence[Contender]) -> None:
        _use_one_core()
        self._suite = suite
        self._contenders = contenders
        self._acts: dict[int, Act] = {}
        self._world: SimulatedWorld | None = None

    def __call__(self, task: Task) -> Drive:
        """Drive an episode from its start to its end."""
        contender, group = self._contenders[task.contender], self._suite.groups[task.group]
        driving = self._suite.driving_for(contender.driving)
        if task.contender not in self._acts:
            self._acts[task.contender] = contender.act()
        world = ObservedWorld(
            self._world_for(contender, group, task.start.map_name), driving.collision_impulse_ns
        )
        env = DrivingEnv(world, lambda _: task.start, driving)
        summary = drive_episode(env, self._acts[task.contender], task.start).summary
        success = summary.ended_by == End.ROUTE_END.value
        return Drive(
            task,
            summary.ended_by,
            quantities(
                world.trace, summary, success, driving.stuck_speed_mps, driving.stuck_grace_s
            ),
            spaced(np.array(world.path), PATH_SPACING_M),
            spaced(env.frame.route[:, :2], ROUTE_SPACING_M),
            None if success else world.clip(),
        )

    def _world_for(self, contender: Contender, group: Group, map_name: str) -> SimulatedWorld:
        settings = group.simulator_for(contender.simulator)
        world = self._world
        if world is None or _but_for_map(world.config) != _but_for_map(settings):
            world = SimulatedWorld(settings.model_copy(update={"map": map_name}))
            self._world = world
        return world


class ObservedWorld:
    """A simulated world that notes each tick in `trace`, `path` and the latest images.

    A contact is a collision from `collision_impulse_ns` on, N s.
    """

    def __init__(self, world: SimulatedWorld, collision_impulse_ns: float) -> None:
        self._world = world
        self._collision_impulse_ns = collision_impulse_ns
        self._stride = max(round(1.0 / (CLIP_FRAMES_PER_S * world.fixed_delta_s)), 1)

    @property
    def fixed_delta_s(self) -> float:
        """Simulated time of one step, seconds."""
        return self._world.fixed_delta_s

    def reset(self, start: Start) -> Frame:
        """Begin an episode, and its trace."""
        frame = self._world.reset(start)
        self.trace = Trace(self.fixed_delta_s)
        self.path = [(frame.pose.x, frame.pose.y)]
        self._tracker = RouteTracker(frame.route)
        kept = round(CLIP_S / (self._stride * self.fixed_delta_s))
        self._images: deque[np.ndarray] = deque(maxlen=max(kept, 1))
        self._latest_image = frame.image
        return frame

    def step(self, control: VehicleControl) -> Frame:
        """Simulate one tick, and note it."""
        frame = self._world.step(control)
        self._note(frame)
        return frame

    def close(self) -> None:
        """Stop the car."""
        self._world.close()

    def clip(self) -> Clip:
        """Return the latest images, with that of the end."""
        images = [*self._images, clip_frame(self._latest_image)]
        per_s = 1.0 / (self._stride * self.fixed_delta_s)
        return Clip(jpeg(np.vstack(images), CLIP_QUALITY), len(images), per_s)

    def _note(self, frame: Frame) -> None:
        trace, vehicle = self.trace, self._world.vehicle
        ego = Mover(outline(vehicle), vehicle.velocity)
        others = [Mover(other.outline, other.velocity) for other in self._world.others]
        trace.speeds_mps.append(frame.speed)
        trace.steering_rad.append(-frame.control.steer * vehicle.parameters.max_steering_angle_rad)
        trace.off_lane.append(self._beyond_lane_m(frame) > 0.0)
        # The contact has pushed them apart again.
        trace.time_to_collision_s.append(
            0.0 if frame.collisions else time_to_collision(ego, others)
        )
        trace.lane_invasions += len(frame.lane_invasions)
        for contact in frame.collisions:
            if contact.impulse_ns >= self._collision_impulse_ns:
                trace.hit[contact.other_actor_id] = self._kind_of(contact.other_actor_id)
        self.path.append((frame.pose.x, frame.pose.y))
        if len(trace.speeds_mps) % self._stride == 0:
            self._images.append(clip_frame(self._latest_image))
        self._latest_image = frame.image

    def _kind_of(self, actor_id: int) -> str:
        """Return what an actor is: a key of `trace.PENALTIES`."""
        walks = any(
            body.actor_id == actor_id and body.kind == "pedestrian"
            for body in self._world.obstacles.bodies
        )
        return "pedestrian" if walks else "vehicle"

    def _beyond_lane_m(self, frame: Frame) -> float:
        """Return how far the car reaches beyond the edge of the lane that it is to follow."""
        found = self._tracker.project(frame.pose)
        yaw = frame.pose.yaw + found.heading_error_rad
        x = frame.pose.x + found.lateral_m * math.sin(yaw)
        y = frame.pose.y - found.lateral_m * math.cos(yaw)
        lane = self._world.road_map.lane_at(x, y)
        width_m = USUAL_LANE_M if lane is None else lane.width
        car = self._world.vehicle.parameters
        return beyond_lane_m(found, car.length_m, car.width_m, width_m)


def clip_frame(image: np.ndarray) -> np.ndarray:
    """Return a camera's image as a clip shows it: no side is above `CLIP_SIDE_PX`."""
    height, width = image.shape[:2]
    return scaled(image, max(CLIP_SIDE_PX * width // max(width, height), 1))


def beyond_lane_m(found: Projection, length_m: float, width_m: float, lane_m: float) -> float:
    """Return how far a car reaches beyond the edge of its lane, negative within it.

    The car is a rectangle, the lane is taken as straight along the car.
    """
    turned = found.heading_error_rad
    half_m = 0.5 * (width_m * abs(math.cos(turned)) + length_m * abs(math.sin(turned)))
    return abs(found.lateral_m) + half_m - 0.5 * lane_m


def quantities(
    trace: Trace, summary: EpisodeSummary, success: bool, below_mps: float, grace_s: float
) -> Quantities:
    """Return the outcome of an episode in numbers."""
    collisions = trace.collisions()
    return Quantities(
        success=success,
        route_completion=summary.route_completion,
        driving_score=driving_score(summary.route_completion, collisions),
        distance_m=trace.distance_m,
        duration_s=trace.duration_s,
        collisions=sum(collisions.values()),
        lane_invasions=trace.lane_invasions,
        off_lane_s=trace.off_lane_s,
        blocked_s=trace.blocked_s(below_mps, grace_s),
        near_s=trace.near_s,
        least_time_to_collision_s=trace.least_time_to_collision_s,
        squared_jerk=trace.squared_jerk,
        jerks=trace.jerks,
        steering_travel_rad=trace.steering_travel_rad,
    )


def _but_for_map(settings: SimulatorConfig) -> dict[str, Any]:
    return settings.model_dump(exclude={"map"})


def _use_one_core() -> None:
    """Have this process compute on one core: the others drive side by side with it."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
