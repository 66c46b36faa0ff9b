# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What has arrived from the simulator: the latest messages of a tick, statuses, events, route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    collision_from_message,
    lane_invasion_from_message,
    ns_from_stamp,
    poses_from_path,
    route_from_path,
)
from td3_driver.bridge.runtime import take_waiting
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Collision, LaneInvasion, Pose

# A tick is complete only with all of these topics.
REQUIRED = (topics.IMAGE, topics.ODOMETRY, topics.SPEEDOMETER, topics.VEHICLE_STATUS)


class Inbox:
    """Subscriptions to everything the lock-step needs, and the messages received.

    `begin_tick` clears what belongs to one tick; events and the route stay until taken.
    """

    def __init__(self, node: Node, config: CarlaConfig) -> None:
        self.received = 0
        """Messages so far, on all topics."""
        self.statuses: list[Any] = []
        """Each `carla_msgs/CarlaStatus` since the tick began."""
        self.last_status: Any | None = None
        self.clock_ns: int | None = None
        self.messages: dict[Topic, Any] = {}
        """Latest message of each required topic since the tick began."""
        self.world_info: Any | None = None
        self.path: list[Pose] = []
        """The route, including the heights of its points."""
        self.route = np.zeros((0, 3))
        self.routes_received = 0
        self.speed_due = False
        """Whether a tick has ended without its speed, which may still arrive."""
        self._events: list[Collision | LaneInvasion] = []
        self._forgotten_until_ns = -1
        self._latest_clock_ns = -1
        self._node = node
        self._config = config
        self._names = {topic: topic.name(config) for topic in (topics.CLOCK, *REQUIRED)}
        handlers: dict[Topic, Callable[[Any], None]] = {
            topics.STATUS: self._on_status,
            topics.CLOCK: self._on_clock,
            topics.WORLD_INFO: self._on_world_info,
            topics.WAYPOINTS: self._on_path,
            topics.COLLISION: lambda message: self._on_event(collision_from_message(message)),
            topics.LANE_INVASION: lambda message: self._on_event(
                lane_invasion_from_message(message)
            ),
            **{topic: self._keep(topic) for topic in REQUIRED},
            topics.SPEEDOMETER: self._on_speed,
        }
        self._handlers = {topic: self._counting(handler) for topic, handler in handlers.items()}
        self._subscriptions = {topic: self._subscribe(topic) for topic in handlers}

    def destroy(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions.values():
            self._node.destroy_subscription(subscription)

    def renew_map(self) -> None:
        """Forget the map and request the currently published one again."""
        self._node.destroy_subscription(self._subscriptions[topics.WORLD_INFO])
        self.world_info = None
        self._subscriptions[topics.WORLD_INFO] = self._subscribe(topics.WORLD_INFO)

    def unpublished(self) -> list[str]:
        """Return the names of the required topics that nobody publishes."""
        names = [topic.name(self._config) for topic in (topics.STATUS, topics.CLOCK, *REQUIRED)]
        return [name for name in names if not self._node.count_publishers(name)]

    def take_statuses(self) -> None:
        """Take the statuses that have arrived without spinning."""
        take_waiting(self._subscriptions[topics.STATUS])

    def take_all(self) -> None:
        """Take everything that has arrived without spinning."""
        for subscription in self._subscriptions.values():
            take_waiting(subscription)

    def begin_tick(self) -> None:
        """Forget the previous tick's messages."""
        self.statuses.clear()
        self.clock_ns = None
        self.messages.clear()

    def missing(self, tolerance_ns: int, due_ns: int | None = None) -> list[str]:
        """Return the names of the required topics that have not arrived for the clock's time.

        `due_ns` is the time the clock should show, if known.
        """
        if self.clock_ns is None or (
            due_ns is not None and abs(self.clock_ns - due_ns) >= tolerance_ns
        ):
            return [self._names[topics.CLOCK]]
        return [
            self._names[topic] for topic in REQUIRED if not self._is_of_tick(topic, tolerance_ns)
        ]

    def take_events(self, until_ns: int) -> tuple[tuple[Collision, ...], tuple[LaneInvasion, ...]]:
        """Return and forget the events stamped up to `until_ns`."""
        if not self._events:
            return (), ()
        due = [event for event in self._events if event.stamp_ns <= until_ns]
        self._events = [event for event in self._events if event.stamp_ns > until_ns]
        return (
            tuple(event for event in due if isinstance(event, Collision)),
            tuple(event for event in due if isinstance(event, LaneInvasion)),
        )

    def forget_events(self, until_ns: int) -> None:
        """Drop all current events, and late ones stamped up to `until_ns`."""
        self._events.clear()
        self._forgotten_until_ns = until_ns

    def _subscribe(self, topic: Topic) -> Any:
        return topics.create_subscription(self._node, topic, self._config, self._handlers[topic])

    def _is_of_tick(self, topic: Topic, tolerance_ns: int) -> bool:
        message = self.messages.get(topic)
        if message is None or self.clock_ns is None:
            return False
        # The speedometer has no header: any message since the tick began belongs to the tick.
        if topic is topics.SPEEDOMETER:
            return True
        return abs(ns_from_stamp(message.header.stamp) - self.clock_ns) < tolerance_ns

    def _counting(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def handle(message: Any) -> None:
            self.received += 1
            handler(message)

        return handle

    def _keep(self, topic: Topic) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self.messages[topic] = message

        return keep

    def _on_speed(self, message: Any) -> None:
        self.speed_due = False
        self.messages[topics.SPEEDOMETER] = message

    def _on_status(self, message: Any) -> None:
        self.statuses.append(message)
        self.last_status = message

    def _on_clock(self, message: Any) -> None:
        self.clock_ns = ns_from_stamp(message.clock)
        if self.clock_ns < self._latest_clock_ns:
            # Time restarts: stamps from before no longer mean anything.
            self.forget_events(until_ns=-1)
        self._latest_clock_ns = self.clock_ns

    def _on_world_info(self, message: Any) -> None:
        self.world_info = message

    def _on_path(self, message: Any) -> None:
        self.path = poses_from_path(message)
        self.route = route_from_path(message)
        self.routes_received += 1

    def _on_event(self, event: Collision | LaneInvasion) -> None:
        if event.stamp_ns > self._forgotten_until_ns:
            self._events.append(event)
