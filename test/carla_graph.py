# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs the simulator's node and a client in one process, each in a ROS context of its own."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from node_process import NodeProcess, start_node
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import route_from_path
from td3_driver.bridge.runtime import BEAT_S, Spinner
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Pose, Start
from td3_driver.nodes.simulator.node import SimulatorNode
from td3_driver.roads.road_map import RoadMap

MAP = "ring_meadow"
OTHER_MAP = "ring_harbour"
CONFIG = CarlaConfig(startup_timeout_s=10.0, step_timeout_s=3.0, outage_timeout_s=0.0)


def own_domain() -> int:
    """Return the ROS domain that conftest has given the test."""
    return int(os.environ["ROS_DOMAIN_ID"])


@contextmanager
def ros_node(name: str, domain: int) -> Iterator[Node]:
    """A node in a context of its own."""
    context = Context()
    context.init(args=[], domain_id=domain)
    node = Node(name, context=context)
    try:
        yield node
    finally:
        # First, as in every node's process: its guard conditions are the context's.
        if node.executor is not None:
            node.executor.shutdown()
        node.destroy_node()
        context.try_shutdown()


@contextmanager
def simulator_node(domain: int, **settings: Any) -> Iterator[SimulatorNode]:
    """The simulator's node, running in a thread and a context of its own.

    `settings` are those of the section `carla`.
    """
    context = Context()
    context.init(args=[], domain_id=domain)
    overrides = [Parameter(f"carla.{name}", value=value) for name, value in settings.items()]
    node = SimulatorNode(context=context, parameter_overrides=overrides)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join()
        node.destroy_node()
        context.try_shutdown()


def simulator_process(domain: int, *parameters: str) -> NodeProcess:
    """Start the simulator's process, with `name:=value` parameters."""
    return start_node("simulator", *parameters, domain=domain, stderr=subprocess.PIPE)


class Observer:
    """An independent client: collects messages, publishes others."""

    def __init__(self, node: Node, config: CarlaConfig = CONFIG) -> None:
        self.node = node
        self.config = config
        self.received: dict[Topic, list[Any]] = {}
        self.latest: dict[Topic, Any] = {}
        """Last message of each topic, whatever was forgotten."""
        self._publishers: dict[Topic, Any] = {}
        self._spinner = Spinner(node, SingleThreadedExecutor(context=node.context))

    def listen(self, *wanted: Topic) -> None:
        """Collect the messages of some topics, from now on and in order."""
        for topic in wanted:
            if topic in self.received:
                continue
            self.received[topic] = []
            topics.create_subscription(self.node, topic, self.config, partial(self._keep, topic))

    def _keep(self, topic: Topic, message: Any) -> None:
        self.received[topic].append(message)
        self.latest[topic] = message

    def route(self) -> np.ndarray:
        """Return the route that is in force."""
        self.listen(topics.WAYPOINTS)
        self.wait(lambda: topics.WAYPOINTS in self.latest)
        return route_from_path(self.latest[topics.WAYPOINTS])

    def forget(self) -> None:
        """Drop what has been collected."""
        for messages in self.received.values():
            messages.clear()

    def listen_and_hear(self, *wanted: Topic) -> None:
        """Collect the messages of some topics that are published all the time."""
        self.listen(*wanted)
        self.forget()
        self.wait(lambda: all(self.received[topic] for topic in wanted))

    def have_publishers(self, *wanted: Topic) -> None:
        """Create the publishers of some topics, so that others can find them."""
        for topic in wanted:
            if topic not in self._publishers:
                self._publishers[topic] = topics.create_publisher(self.node, topic, self.config)

    def publish(self, topic: Topic, **fields: Any) -> None:
        """Publish a message once somebody listens."""
        self.have_publishers(topic)
        publisher = self._publishers[topic]
        self.wait(lambda: publisher.get_subscription_count() > 0)
        publisher.publish(topic.message_type(**fields))

    def wait(self, condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
        """Spin until something holds; fail if it does not while this process runs."""
        deadline_s = self._spinner.now_s() + timeout_s
        while not condition():
            assert self._spinner.now_s() < deadline_s, "it did not happen"
            self._spinner.once(BEAT_S)

    def spin(self, duration_s: float) -> None:
        """Spin for a while, in which this process runs."""
        deadline_s = self._spinner.now_s() + duration_s
        while self._spinner.now_s() < deadline_s:
            self._spinner.once(0.01)


def make_start(map_name: str = MAP, seed: int = 0, length_m: float = 60.0) -> Start:
    """Return a start drawn from a map."""
    pose, goal = RoadMap.load(map_name).random_start(np.random.default_rng(seed), length_m)
    return Start(map_name, pose, goal)


def close_to(first: Pose, second: Pose, tolerance_m: float = 0.3) -> bool:
    """Return whether two poses are at the same place."""
    return bool(np.hypot(first.x - second.x, first.y - second.y) < tolerance_m)
