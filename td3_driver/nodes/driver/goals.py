# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Random goals for a car that has no route."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import make_header, pose_to_message
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Frame, Pose
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.goals import goal_ahead
from td3_driver.roads.road_map import RoadMap

# Time to wait for a route, an existing one or a new one, before trying another goal.
GOAL_RETRY_S = 5.0
# The same once a new route has come that cannot be driven, as one that begins elsewhere.
ROUTE_RETRY_S = 0.5


class RandomGoals:
    """Asks for routes to random goals ahead of the car."""

    def __init__(
        self,
        node: Node,
        names: CarlaConfig,
        length_m: float,
        seed: int,
        before_reading: Callable[[], None],
    ) -> None:
        """Subscribe to the map, and publish goals `length_m` ahead, on `node`.

        `before_reading` is called before a map is read, which can take seconds and blocks
        everything else.
        """
        self._logger = node.get_logger()
        self._map_frame = topics.map_frame(names)
        self._length_m = length_m
        self._rng = np.random.default_rng(seed)
        self._before_reading = before_reading
        self._read = ("", "")
        self._road_map: RoadMap | None = None
        self._requested_s = time.monotonic()
        self._route_before: np.ndarray | None = None
        """The route there was when the latest goal was published."""
        topics.create_subscription(node, topics.WORLD_INFO, names, self._on_world_info)
        self._publisher = topics.create_publisher(node, topics.GOAL, names)

    def request(self, frame: Frame) -> None:
        """Publish a goal ahead of the car, unless one has just been published."""
        now = time.monotonic()
        wait_s = GOAL_RETRY_S if frame.route is self._route_before else ROUTE_RETRY_S
        if self._road_map is None or now - self._requested_s < wait_s:
            return
        if not self._publisher.get_subscription_count():
            return
        self._requested_s, self._route_before = now, frame.route
        try:
            goal = goal_ahead(self._road_map, self._rng, frame.pose, self._length_m)
        except RoadMapError as error:
            self._logger.warning(str(error))
            return
        self._publish(goal, frame.stamp_ns)

    def _publish(self, goal: Pose, stamp_ns: int) -> None:
        header = make_header(stamp_ns, self._map_frame)
        message = PoseStamped(header=header, pose=pose_to_message(goal))
        self._publisher.publish(message)
        self._logger.info(f"new goal: x {goal.x:.1f}, y {goal.y:.1f}")

    def _on_world_info(self, message: Any) -> None:
        if self._read == (message.map_name, message.opendrive):
            return
        self._read = (message.map_name, message.opendrive)
        self._before_reading()
        try:
            self._road_map = RoadMap.from_opendrive(message.map_name, message.opendrive)
        except RoadMapError as error:
            self._road_map = None
            self._logger.warning(f"no random goals, because the map cannot be used: {error}")
