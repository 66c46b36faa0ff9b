# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The learner's health as others on ROS see it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node

from td3_driver.learning.health import CHECKS, HealthMonitor, Rewards
from td3_driver.nodes.diagnostics import HealthDiagnostics

SATURATED = {"updates": 200, "saturated_share": 1.0}


@pytest.fixture
def node() -> Iterator[Node]:
    rclpy.init(args=[])
    node = rclpy.create_node("trainer")
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def test_every_check_has_a_status_and_a_failure_is_an_error(node: Node) -> None:
    heard: list[DiagnosticArray] = []
    node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
    diagnostics = HealthDiagnostics(node)

    def next_heard() -> dict[str, DiagnosticStatus]:
        count = len(heard)
        for _ in range(100):
            rclpy.spin_once(node, timeout_sec=0.1)
            if len(heard) > count:
                assert heard[-1].header.stamp.sec > 0
                return {status.name: status for status in heard[-1].status}
        raise AssertionError("nothing came on /diagnostics")

    monitor = HealthMonitor(lambda line: None)
    diagnostics.publish(SATURATED, monitor)
    statuses = next_heard()
    assert len(statuses) == 1 + len(CHECKS)
    assert {status.level for status in statuses.values()} == {DiagnosticStatus.OK}
    values = {pair.key: pair.value for pair in statuses["trainer: training"].values}
    assert values == {"updates": "200", "saturated_share": "1"}

    for _ in range(5):
        monitor.observe(SATURATED, Rewards(0.0, 1.0, 0.9))
    diagnostics.publish(SATURATED, monitor)
    statuses = next_heard()
    wrong = {name for name, status in statuses.items() if status.level != DiagnosticStatus.OK}
    assert wrong == {"trainer: training", "trainer: actor saturated"}
    assert statuses["trainer: actor saturated"].level == DiagnosticStatus.WARN
    assert "learning.pre_tanh_penalty" in statuses["trainer: actor saturated"].message

    diagnostics.publish_failure("NaN in critic_loss")
    statuses = next_heard()
    assert [(status.level, status.message) for status in statuses.values()] == [
        (DiagnosticStatus.ERROR, "NaN in critic_loss")
    ]
