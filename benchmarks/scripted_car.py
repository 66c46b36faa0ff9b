# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A scripted car on the bridge's topics, for tests and measurements of a driver.

It publishes camera, odometry, speedometer and a straight route, and receives the commands. Each
topic that it publishes can be silenced or tampered with.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Bool, Float32

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    image_to_message,
    make_header,
    odometry_to_message,
    route_to_path,
)
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Pose

TICK_S = 0.05
SENSORS = (topics.IMAGE, topics.ODOMETRY, topics.SPEEDOMETER)
HEARD = (topics.ACKERMANN, topics.VEHICLE_CONTROL)


def straight_route(length_m: int) -> np.ndarray:
    """Return a route along the x axis, (n, 3)."""
    along = np.arange(length_m + 1.0)
    return np.stack([along, np.zeros_like(along), np.zeros_like(along)], axis=1)


def is_stop(message: Any) -> bool:
    """Return whether a command, in either form, stops the car."""
    if hasattr(message, "brake"):
        return (message.throttle, message.brake) == (0.0, 1.0)
    return bool(message.speed == 0.0)


class Script:
    """Makes the messages of every tick; each topic can be silenced or tampered with."""

    def __init__(
        self,
        publish: Callable[[Topic, Any], None],
        width_px: int = 160,
        height_px: int = 120,
        route_length_m: int = 200,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take a function that publishes a message on a topic, and the clock to note times by."""
        self.speed_mps = 3.0
        self.stamp_ns = 1_000_000_000
        self.silent: set[Topic] = set()
        """Topics on which nothing is published."""
        self.tamper: dict[Topic, Callable[[Any], None]] = {}
        """Changes made to a topic's messages before they are published."""
        self.route_every_tick = False
        self.published_s: dict[Topic, float] = {}
        """Times at which the last message of each topic was published."""
        self.images_s: dict[int, float] = {}
        """Times at which images were published, by stamp."""
        shape = (height_px, width_px, 4)
        self.clock = clock
        self._publish = publish
        self._pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self._route = straight_route(route_length_m)

    def heal(self) -> None:
        """Publish everything as it should be."""
        self.silent.clear()
        self.tamper.clear()
        self.speed_mps = 3.0
        self.override(False)

    def tick(self) -> None:
        """Publish one tick, the image first."""
        self.stamp_ns += round(TICK_S * 1e9)
        # Each message has its own header, because one of them may be tampered with.
        image = image_to_message(self._pixels, make_header(self.stamp_ns))
        velocity = (self.speed_mps, 0.0, 0.0)
        odometry = odometry_to_message(
            Pose(1.0, 0.0, 0.0), velocity, make_header(self.stamp_ns), "ego"
        )
        self.publish(topics.IMAGE, image)
        self.images_s[self.stamp_ns] = self.published_s.get(topics.IMAGE, 0.0)
        self.publish(topics.ODOMETRY, odometry)
        self.publish(topics.SPEEDOMETER, Float32(data=self.speed_mps))
        if self.route_every_tick:
            self.send_route()

    def send_route(self) -> None:
        """Publish the route."""
        message = route_to_path(self._route, make_header(self.stamp_ns))
        self.publish(topics.WAYPOINTS, message)

    def override(self, on: bool) -> None:
        """Publish whether somebody drives by hand."""
        self.publish(topics.MANUAL_OVERRIDE, Bool(data=on))

    def publish(self, topic: Topic, message: Any) -> None:
        """Publish a message, unless its topic is silent."""
        if topic in self.silent:
            return
        if topic in self.tamper:
            self.tamper[topic](message)
        # Before publishing, so that times measured from here are never too short.
        self.published_s[topic] = self.clock()
        self._publish(topic, message)


class ScriptedCar(Script):
    """Publishes every tick from a thread; `spin` receives the driver's commands."""

    def __init__(self, node: Node, width_px: int = 160, height_px: int = 120) -> None:
        self.node = node
        self.config = CarlaConfig()
        self.commands: dict[Topic, list[tuple[float, Any]]] = {topic: [] for topic in HEARD}
        """The commands received, with their times of arrival."""
        publishers = {
            topic: node.create_publisher(
                topic.message_type, topic.name(self.config), topic.bridge_qos.profile()
            )
            for topic in (*SENSORS, topics.WAYPOINTS, topics.MANUAL_OVERRIDE)
        }
        super().__init__(
            lambda topic, message: publishers[topic].publish(message), width_px, height_px
        )
        for topic in HEARD:
            node.create_subscription(
                topic.message_type,
                topic.name(self.config),
                self._hears(topic),
                topic.bridge_qos.profile(),
            )
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Start ticking."""
        self.send_route()
        self._thread.start()

    def end(self) -> None:
        """Stop ticking and receiving; the node can then be destroyed."""
        self._ended.set()
        self._thread.join()
        self._executor.remove_node(self.node)
        self._executor.shutdown()

    def spin(self, duration_s: float) -> None:
        """Receive commands for a while."""
        self.wait(lambda: False, duration_s)

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Receive commands until a condition holds; return whether it does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._executor.spin_once(timeout_sec=0.02)
        return True

    def told_to_stop(self, since_s: float) -> bool:
        """Return whether the last commands, in both forms, are stops that arrived since then."""
        return all(
            bool(commands) and commands[-1][0] >= since_s and is_stop(commands[-1][1])
            for commands in self.commands.values()
        )

    def told_to_drive(self, since_s: float = 0.0) -> bool:
        """Return whether the last command moves the car and arrived since then."""
        commands = self.commands[topics.ACKERMANN]
        return bool(commands) and commands[-1][0] >= since_s and commands[-1][1].speed > 0.0

    def _hears(self, topic: Topic) -> Callable[[Any], None]:
        return lambda message: self.commands[topic].append((time.monotonic(), message))

    def _run(self) -> None:
        next_s = time.monotonic()
        while not self._ended.wait(max(next_s - time.monotonic(), 0.0)):
            next_s = max(next_s + TICK_S, time.monotonic())
            self.tick()
