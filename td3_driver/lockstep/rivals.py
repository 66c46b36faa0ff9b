# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Who comes in the way: another trainer or driver, or another simulator."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.endpoints import all_but_one, who_publishes
from td3_driver.config import CarlaConfig

LOOK_PERIOD_S = 2.0
OURS = (topics.CONTROL, topics.VEHICLE_CONTROL)
THE_SIMULATORS = (topics.STATUS, topics.IMAGE)


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
        line = "; ".join(self._lines())
        if line and line != self.line:
            self._node.get_logger().warning(
                f"steps may be lost to others: {line}. Keep only one, or give each a simulator "
                "and a ROS_DOMAIN_ID of its own (one that was killed is seen for up to 20 s)"
            )
        self.line = line

    def _lines(self) -> Iterator[str]:
        own = self._node.get_fully_qualified_name()
        for topic in (*OURS, *THE_SIMULATORS):
            name = topic.name(self._config)
            ends = self._node.get_publishers_info_by_topic(name)
            if topic in OURS:
                ends = all_but_one(ends, own)
            if len(ends) > (0 if topic in OURS else 1):
                yield who_publishes(name, ends)
