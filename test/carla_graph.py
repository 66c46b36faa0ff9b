"""Runs the simulator's node and a client in one process, each in a ROS context of its own."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter

from td3_driver.carla.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Pose, Start
from td3_driver.nodes.simulator import SimulatorNode
from td3_driver.roads.road_map import RoadMap

MAP = "ring_meadow"
OTHER_MAP = "ring_harbour"
CONFIG = CarlaConfig(startup_timeout_s=10.0, step_timeout_s=3.0)

_domains = itertools.count(os.getpid() % 40)


def set_domain(monkeypatch: Any) -> None:
    """Give the test a ROS domain of its own."""
    monkeypatch.setenv("ROS_DOMAIN_ID", str(20 + next(_domains) % 80))


@contextmanager
def ros_node(name: str) -> Iterator[Node]:
    """A node in a context of its own, in the domain of the environment."""
    context = Context()
    context.init(args=[])
    node = Node(name, context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


@contextmanager
def simulator_node(**settings: Any) -> Iterator[SimulatorNode]:
    """The simulator's node, running in a thread; settings are of its section `simulator`."""
    context = Context()
    context.init(args=[])
    overrides = [Parameter(f"simulator.{name}", value=value) for name, value in settings.items()]
    node = SimulatorNode(context=context, parameter_overrides=overrides)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        yield node
    finally:
        context.try_shutdown()
        thread.join()
        node.destroy_node()


class Observer:
    """An independent client: collects messages, publishes others."""

    def __init__(self, node: Node, config: CarlaConfig = CONFIG) -> None:
        self.node = node
        self.config = config
        self.received: dict[Topic, list[Any]] = {}
        self._publishers: dict[Topic, Any] = {}
        self._executor = SingleThreadedExecutor(context=node.context)
        self._executor.add_node(node)

    def listen(self, *topics: Topic) -> None:
        """Collect the messages of some topics, from now on and in order."""
        for topic in topics:
            messages = self.received.setdefault(topic, [])
            self.node.create_subscription(
                topic.message_type,
                topic.name(self.config),
                messages.append,
                topic.client_qos.profile(),
            )

    def publish(self, topic: Topic, **fields: Any) -> None:
        """Publish a message once somebody listens."""
        if topic not in self._publishers:
            self._publishers[topic] = self.node.create_publisher(
                topic.message_type, topic.name(self.config), topic.client_qos.profile()
            )
        publisher = self._publishers[topic]
        self.wait(lambda: publisher.get_subscription_count() > 0)
        publisher.publish(topic.message_type(**fields))

    def wait(self, condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
        """Spin until something holds; fail if it does not."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self._executor.spin_once(timeout_sec=0.05)

    def spin(self, duration_s: float) -> None:
        """Spin for a while."""
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            self._executor.spin_once(timeout_sec=0.01)


def make_start(map_name: str = MAP, seed: int = 0, length_m: float = 60.0) -> Start:
    """Return a start drawn from a map."""
    pose, goal = RoadMap.load(map_name).random_start(np.random.default_rng(seed), length_m)
    return Start(map_name, pose, goal)


def close_to(first: Pose, second: Pose, tolerance_m: float = 0.3) -> bool:
    """Return whether two poses are at the same place."""
    return bool(np.hypot(first.x - second.x, first.y - second.y) < tolerance_m)
