"""The learner's health on /diagnostics, for the robot's usual tools."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from td3_driver.carla.topics import DIAGNOSTICS
from td3_driver.learning.health import CHECKS, HealthMonitor


class HealthDiagnostics:
    """Publishes a status for each check, and one of the training with its figures."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(
            DiagnosticArray, DIAGNOSTICS.template, DIAGNOSTICS.client_qos.profile()
        )

    def publish(self, row: Mapping[str, float], health: HealthMonitor) -> None:
        """Publish an interval's figures and the warnings in force; any thread may call it."""
        warnings = {warning.check: warning for warning in health.warnings}
        training = self._status(
            "training",
            DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
            f"{len(warnings)} warnings" if warnings else "healthy",
        )
        training.values = [KeyValue(key=name, value=f"{value:.6g}") for name, value in row.items()]
        statuses = [training]
        for check in CHECKS:
            if check.name in warnings:
                level, message = DiagnosticStatus.WARN, str(warnings[check.name])
            else:
                level, message = DiagnosticStatus.OK, "ok"
            statuses.append(self._status(check.name, level, message))
        self._send(statuses)

    def publish_failure(self, reason: str) -> None:
        """Publish why the training has broken down."""
        self._send([self._status("training", DiagnosticStatus.ERROR, reason)])

    def _status(self, name: str, level: bytes, message: str) -> DiagnosticStatus:
        return DiagnosticStatus(
            level=level, name=f"{self._node.get_name()}: {name.replace('_', ' ')}", message=message
        )

    def _send(self, statuses: list[DiagnosticStatus]) -> None:
        array = DiagnosticArray(status=statuses)
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)
