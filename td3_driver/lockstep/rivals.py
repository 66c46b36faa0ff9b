# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Other nodes that step the simulator or command the car: another trainer, a driver."""

from __future__ import annotations

import time

from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.endpoints import all_but_one, who_publishes
from td3_driver.config import CarlaConfig

LOOK_PERIOD_S = 2.0
DISTURBING = (topics.CONTROL, topics.VEHICLE_CONTROL)


class Rivals:
    """Looks in the graph for them, when a step has gone wrong."""

    def __init__(self, node: Node, config: CarlaConfig) -> None:
        self.line = ""
        """Who they are, in words; empty where there was nobody at the last look."""
        self._node = node
        self._config = config
        self._looked_s = -LOOK_PERIOD_S

    def look(self) -> None:
        """Look who is there, and log a change; call this at every step that was not clean."""
        now_s = time.monotonic()
        if now_s - self._looked_s < LOOK_PERIOD_S:
            return
        self._looked_s = now_s
        lines = []
        for topic in DISTURBING:
            name = topic.name(self._config)
            ends = self._node.get_publishers_info_by_topic(name)
            others = all_but_one(ends, self._node.get_fully_qualified_name())
            if others:
                lines.append(who_publishes(name, others))
        line = "; ".join(lines)
        if line and line != self.line:
            self._node.get_logger().warning(
                f"steps are lost to others: {line}. Keep only one, or give each a simulator and a "
                "ROS_DOMAIN_ID of its own"
            )
        self.line = line
