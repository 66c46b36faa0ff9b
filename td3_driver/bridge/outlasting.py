# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Nodes that end after others: Ctrl-C under `ros2 launch` reaches all of them at once.

A driver stops its car through a simulator that still answers, and a recorder takes that down, too.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rclpy.node import Node

OUTLASTING = ("recorder", "recording_tool", "simulator", "ackermann_controller")
"""The nodes that can."""
OWN_PARAMETERS = {
    "outlasts": (
        "",
        "Nodes, by their names and apart by blanks, that are served to their end after SIGINT.",
    ),
    "outlasts_timeout_s": (
        8.0,
        "Longest time for which their end is waited for; SIGTERM ends it.",
    ),
}
LOOK_PERIOD_S = 0.1


class Outlasted:
    """Looks in the graph for the nodes that a node is to outlast."""

    def __init__(self, node: Node) -> None:
        """Take them from the parameters of `node`, one with `OWN_PARAMETERS`."""
        self._node = node
        # A node's name resolves as a topic's does.
        self.names = {
            node.resolve_topic_name(name) for name in node.get_parameter("outlasts").value.split()
        }
        self._timeout_s: float = node.get_parameter("outlasts_timeout_s").value
        self._deadline_s = float("inf")
        self._look_s = 0.0
        self.begun = False
        """Whether this node was told to end, and waits for the others."""
        self._gone = False

    def begin(self) -> None:
        """Wait from now on, and log for what, if anything is there to wait for."""
        self.begun = True
        self._deadline_s = time.monotonic() + self._timeout_s
        if present := self._present():
            self._node.get_logger().info(
                f"goes on until {', '.join(sorted(present))} has ended, for at most "
                f"{self._timeout_s:g} s"
            )

    def have_ended(self) -> bool:
        """Return whether nothing is left to wait for, or the time is up."""
        now_s = time.monotonic()
        if now_s >= self._look_s:
            self._look_s = now_s + LOOK_PERIOD_S
            self._gone = now_s > self._deadline_s or not self._present()
        return self._gone

    def _present(self) -> set[str]:
        """Return the full names of those that are in the graph."""
        found = self._node.get_node_names_and_namespaces()
        return self.names & {f"{namespace.rstrip('/')}/{name}" for name, namespace in found}
