# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The topics of the running system, as one node sees them: their ends and their messages."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from td3_driver.bridge import runtime, topics
from td3_driver.bridge.conversion import ns_from_stamp
from td3_driver.bridge.endpoints import UNKNOWN_NAME
from td3_driver.bridge.topics import Direction, Topic
from td3_driver.config import Config

NODE_NAME = "td3_driver_doctor"
MATCH_S = 5.0
"""Longest wait for a subscriber before publishing on a topic."""
SETTLE_S = 1.5
"""The search ends once nothing new has been found for this long."""
EACH_TICK = (topics.CLOCK, topics.STATUS, topics.ODOMETRY, topics.IMAGE)


@dataclass
class Record:
    """What has arrived on one topic."""

    count: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    stamps_ns: list[int] | None = None
    message: Any = None

    def note(self, message: Any) -> None:
        """Record a message."""
        now = time.monotonic()
        self.first_s = self.first_s if self.count else now
        self.last_s = now
        self.count += 1
        self.message = message
        stamp_ns = _stamp_ns(message)
        if stamp_ns is not None:
            self.stamps_ns = [*(self.stamps_ns or ()), stamp_ns]

    @property
    def rate_hz(self) -> float:
        """Messages per second of wall-clock time."""
        return (self.count - 1) / (self.last_s - self.first_s) if self.count > 1 else 0.0


def _stamp_ns(message: Any) -> int | None:
    """Return a message's simulation time; None if it has none."""
    if hasattr(message, "clock"):
        return ns_from_stamp(message.clock)
    return ns_from_stamp(message.header.stamp) if hasattr(message, "header") else None


class Graph:
    """The topics as one node sees them."""

    def __init__(self, node: Node, config: Config) -> None:
        """Subscribe, on `node`, to everything that the simulator publishes."""
        self.node = node
        self.config = config
        self.records: dict[Topic, Record] = {}
        self.watched_s = 0.0
        """Duration of the latest watch."""
        self._spinner = runtime.Spinner(node)
        self._publishers: dict[Topic, Any] = {}
        for topic in topics.TOPICS:
            if topic.direction is Direction.FROM_SIMULATOR or topic is topics.MANUAL_OVERRIDE:
                self._subscribe(topic)

    def _subscribe(self, topic: Topic) -> None:
        # The callback looks its record up, because each watch replaces the records.
        self.records[topic] = Record()
        topics.create_subscription(
            self.node,
            topic,
            self.config.carla,
            lambda message: self.records[topic].note(message),
        )

    def close(self) -> None:
        """Leave the graph."""
        self._spinner.close()
        self.node.destroy_node()

    def name(self, topic: Topic) -> str:
        """Return a topic's full name, with the configured role name and so on filled in."""
        return topic.name(self.config.carla)

    def spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Receive messages until a condition holds; return whether it does in time."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            left_s = deadline - time.monotonic()
            if left_s <= 0.0:
                return False
            self._spinner.once(min(left_s, 0.02))
        return True

    def spin(self, duration_s: float) -> None:
        """Receive messages for a while."""
        self.spin_until(lambda: False, duration_s)

    def settle(self, timeout_s: float) -> None:
        """Receive messages until the graph has stopped growing."""
        deadline = time.monotonic() + timeout_s
        before, ends = -1, self.ends()
        while ends != before and time.monotonic() < deadline:
            self.spin(SETTLE_S)
            before, ends = ends, self.ends()

    def watch(self, duration_s: float) -> None:
        """Receive messages for a while; the checks then judge them."""
        self.forget()
        self.spin(duration_s)
        self.watched_s = duration_s

    def is_ticking(self) -> bool:
        """Return whether ticks have arrived since the watch began."""
        return any(self.records[topic].count > 1 for topic in EACH_TICK)

    def tick_rate_hz(self) -> float:
        """Return the ticks per second of wall-clock time."""
        return max(self.records[topic].rate_hz for topic in EACH_TICK)

    def forget(self) -> None:
        """Start a new watch; latched messages are kept, because they arrive only once."""
        for topic in self.records:
            if not topic.client_qos.latched:
                self.records[topic] = Record()

    def publish(self, topic: Topic, message: Any) -> None:
        """Publish a message, after waiting for a subscriber on the first use of the topic."""
        if topic not in self._publishers:
            self._publishers[topic] = topics.create_publisher(self.node, topic, self.config.carla)
            publisher = self._publishers[topic]
            self.spin_until(lambda: publisher.get_subscription_count() > 0, MATCH_S)
        self._publishers[topic].publish(message)

    def publisher(self, topic: Topic) -> Any:
        """Return our publisher of a topic on which `publish` has been used."""
        return self._publishers[topic]

    def others_publishing(self, topic: Topic) -> list[Any]:
        """Return a topic's publishers, except our own."""
        return self._others(self.node.get_publishers_info_by_topic(self.name(topic)))

    def others_subscribing(self, topic: Topic) -> list[Any]:
        """Return a topic's subscriptions, except our own."""
        return self._others(self.node.get_subscriptions_info_by_topic(self.name(topic)))

    @staticmethod
    def _others(endpoints: Iterable[Any]) -> list[Any]:
        return [endpoint for endpoint in endpoints if endpoint.node_name != NODE_NAME]

    def ends(self) -> int:
        """Return how many ends of our topics belong to other nodes whose names are known."""
        return sum(
            end.node_name != UNKNOWN_NAME
            for topic in topics.TOPICS
            for end in (*self.others_publishing(topic), *self.others_subscribing(topic))
        )

    def roles(self) -> list[str]:
        """Return the role names for which topics exist."""
        parts = [name.split("/") for name in self.topic_names()]
        return sorted({part[2] for part in parts if len(part) > 3 and part[1] == "carla"})

    def topic_names(self) -> list[str]:
        """Return the names of all topics that another node publishes or subscribes to."""
        return [
            name
            for name, _ in self.node.get_topic_names_and_types()
            if self._others(self.node.get_publishers_info_by_topic(name))
            or self._others(self.node.get_subscriptions_info_by_topic(name))
        ]
