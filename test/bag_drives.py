# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Bags for tests: a drive in the embedded world, stepped in process, as the bridge tells it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ackermann_msgs.msg import AckermannDrive
from carla_msgs.msg import CarlaStatus, CarlaWorldInfo
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float32

from td3_driver.bridge import conversion, topics
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig, DrivingConfig, SimulatorConfig
from td3_driver.driving.control import AT_REST, Command, stopping
from td3_driver.driving.pilot import Halt, Pilot
from td3_driver.driving.world import Frame, Start
from td3_driver.offline.writer import BagWriter
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.world import SimulatedWorld

CARLA = CarlaConfig()
MAP = "ring_meadow"
# Recorded time has nothing to do with simulation time: nanoseconds since 1970.
EPOCH_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Recorded:
    """A message as a recorder gets it."""

    topic: Topic
    log_ns: int
    message: Any

    @cached_property
    def data(self) -> bytes:
        """The message serialised, once: what lies between its fields is not always the same."""
        return serialize_message(self.message)


@dataclass(frozen=True)
class Drive:
    """What was driven: frames, commands, and the messages that told of them."""

    frames: list[Frame]
    commands: list[Command]
    messages: list[Recorded]


def drive(
    ticks: int = 60,
    config: DrivingConfig | None = None,
    simulator: SimulatorConfig | None = None,
    act: Callable[[dict[str, np.ndarray]], np.ndarray] | None = None,
    tick_log_ns: int = 50_000_000,
) -> Drive:
    """Drive along a route for some ticks, recorded `tick_log_ns` apart."""
    config, simulator = config or DrivingConfig(), simulator or SimulatorConfig(map=MAP)
    world = SimulatedWorld(simulator)
    road_map = RoadMap.load(simulator.map)
    pose, goal = road_map.random_start(np.random.default_rng(0), 150.0)
    frame = world.reset(Start(simulator.map, pose, goal))
    pilot = Pilot(config, simulator.fixed_delta_s, act or follow_lane)
    world_info = CarlaWorldInfo(map_name=road_map.name, opendrive=road_map.opendrive)
    messages = [Recorded(topics.WORLD_INFO, EPOCH_NS, world_info)]
    header = conversion.make_header(frame.stamp_ns)
    path = conversion.route_to_path(frame.route, header)
    messages.append(Recorded(topics.WAYPOINTS, EPOCH_NS + 1, path))
    frames: list[Frame] = []
    commands: list[Command] = []
    for tick in range(ticks):
        begin_ns = EPOCH_NS + 1_000_000 + tick * tick_log_ns
        decision = pilot.drive(frame)
        last = commands[-1] if commands else AT_REST
        command = stopping(last) if isinstance(decision, Halt) else decision
        frames.append(frame)
        commands.append(command)
        # All within a fifth of a tick, as a simulator publishes them in one go.
        step_ns = tick_log_ns // 100
        for place, (topic, message) in enumerate([*told(frame), *answered(frame, command)]):
            messages.append(Recorded(topic, begin_ns + place * step_ns, message))
        frame = world.step(command.control)
    return Drive(frames, commands, messages)


def follow_lane(observation: dict[str, np.ndarray]) -> np.ndarray:
    """Steer back to the middle of the lane, at a moderate speed."""
    _, lateral_m, heading_error_rad = observation["vector"][:3]
    steering = np.clip(1.5 * heading_error_rad - 0.4 * lateral_m, -1.0, 1.0)
    return np.array([steering, 0.3], dtype=np.float32)


def told(frame: Frame) -> Iterable[tuple[Topic, Any]]:
    """Yield what the bridge publishes of a tick."""
    header = conversion.make_header(frame.stamp_ns)
    yield (
        topics.STATUS,
        CarlaStatus(frame=frame.frame, fixed_delta_seconds=0.05, synchronous_mode=True),
    )
    yield topics.CLOCK, Clock(clock=conversion.stamp_from_ns(frame.stamp_ns))
    yield (
        topics.VEHICLE_STATUS,
        conversion.vehicle_status_to_message(
            frame.pose, frame.speed, (0.0, 0.0, 0.0), frame.control, header
        ),
    )
    yield topics.IMAGE, conversion.image_to_message(frame.image, header)
    for collision in frame.collisions:
        yield topics.COLLISION, conversion.collision_to_message(collision, "c")
    for invasion in frame.lane_invasions:
        yield topics.LANE_INVASION, conversion.lane_invasion_to_message(invasion, "l")
    velocity = (frame.speed, 0.0, frame.yaw_rate)
    yield topics.ODOMETRY, conversion.odometry_to_message(frame.pose, velocity, header, "ego")
    yield topics.SPEEDOMETER, Float32(data=frame.speed)


def answered(frame: Frame, command: Command) -> Iterable[tuple[Topic, Any]]:
    """Yield what the driver publishes for a frame."""
    ackermann = command.ackermann
    yield (
        topics.ACKERMANN,
        AckermannDrive(steering_angle=ackermann.steering_angle, speed=ackermann.speed),
    )
    yield topics.VEHICLE_CONTROL, conversion.control_to_message(command.control, frame.stamp_ns)


def write(
    path: Path,
    messages: Sequence[Recorded],
    names: CarlaConfig = CARLA,
    leave_out: Sequence[Topic] = (),
) -> Path:
    """Write messages into a bag, as they come."""
    with BagWriter(path) as writer:
        known: set[Topic] = set()
        for recorded in messages:
            topic = recorded.topic
            if topic in leave_out:
                continue
            if topic not in known:
                known.add(topic)
                writer.add_topic(topic.name(names), topic.type_name)
            writer.write(topic.name(names), recorded.log_ns, recorded.data)
    return path
