# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Who else is there: other nodes that publish the driver's sensors, or command its car."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rclpy.clock import Clock, ClockType

from td3_driver.bridge import topics
from td3_driver.bridge.endpoints import all_but_one, who_publishes
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.bridge.topics import Topic
from td3_driver.nodes.driver.live_frames import REQUIRED, LiveFrames
from td3_driver.safety.guard import Guard

LOOK_PERIOD_S = 1.0


class Company:
    """Looks in the graph now and then, logs what changes, and informs the guard and the frames.

    A node that was killed stays in the graph until the middleware gives it up, so several
    publishers are no fault yet: the guard takes them for the cause of one.
    """

    def __init__(self, node: ConfiguredNode, guard: Guard, frames: LiveFrames) -> None:
        """Look at once, and from then on by a timer of `node`."""
        self.sensors = ""
        """Which nodes publish the same sensor; empty while it is one, or none."""
        self.commanders = ""
        """Which other nodes command the car; empty while nobody does."""
        self._node = node
        self._guard = guard
        self._frames = frames
        driver = node.config.driver
        pedals = (topics.VEHICLE_CONTROL,) if driver.publish_vehicle_control else ()
        # A shadow commands nothing, so that others may.
        self._commands: Sequence[Topic] = () if driver.shadow else (topics.ACKERMANN, *pedals)
        self._cameras: frozenset[bytes] = frozenset()
        """Ids of the publishers of images."""
        # Simulation time stops when the simulator dies.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(LOOK_PERIOD_S, self.look, clock=steady)
        self.look()

    def look(self) -> None:
        """Look who is there."""
        sensors = {topic: self._publishers(topic) for topic in REQUIRED}
        self._note_cameras(sensors[topics.IMAGE])
        lines = (self._line(topic, ends) for topic, ends in sensors.items() if len(ends) > 1)
        several = next(lines, "")
        if several != self.sensors:
            self.sensors = several
            self._guard.note_publishers(several or None)
            self._log(several, "the sensors have one publisher each again")
        others = {topic: self._others(self._publishers(topic)) for topic in self._commands}
        lines = (self._line(topic, ends) for topic, ends in others.items() if ends)
        commanders = next(lines, "")
        if commanders != self.commanders:
            self.commanders = commanders
            self._log(f"not alone: {commanders}" if commanders else "", "alone with the car again")

    def _note_cameras(self, ends: Sequence[Any]) -> None:
        """Have another camera's images be of another size, once it is the only one."""
        cameras = frozenset(bytes(end.endpoint_gid) for end in ends)
        if cameras != self._cameras and len(cameras) <= 1:
            self._frames.expect_another_size()
        self._cameras = cameras

    def _publishers(self, topic: Topic) -> list[Any]:
        return self._node.get_publishers_info_by_topic(topic.name(self._node.config.carla))

    def _others(self, ends: Sequence[Any]) -> list[Any]:
        return all_but_one(ends, self._node.get_fully_qualified_name())

    def _line(self, topic: Topic, ends: Sequence[Any]) -> str:
        return who_publishes(topic.name(self._node.config.carla), ends)

    def _log(self, several: str, alone: str) -> None:
        logger = self._node.get_logger()
        if several:
            logger.warning(f"{several}: keep only one")
        else:
            logger.info(alone)
