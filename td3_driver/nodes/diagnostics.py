# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Statuses on /diagnostics for the usual robot tools, including the learner's health."""

from __future__ import annotations

import time
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from td3_driver.bridge.driver_topics import status_name
from td3_driver.bridge.topics import DIAGNOSTICS
from td3_driver.learning.health import CHECKS, HealthMonitor
from td3_driver.lockstep.counters import Counters

SIMULATION_PERIOD_S = 2.0


class Diagnostics:
    """Publishes statuses named after a node, from any thread."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(
            DiagnosticArray, DIAGNOSTICS.template, DIAGNOSTICS.client_qos.profile()
        )

    def status(
        self, name: str, level: bytes, message: str, values: Mapping[str, object] | None = None
    ) -> DiagnosticStatus:
        """Return a status; floats among its values are shortened."""
        return DiagnosticStatus(
            level=level,
            name=status_name(self._node.get_fully_qualified_name(), name.replace("_", " ")),
            message=message,
            values=[
                KeyValue(key=key, value=f"{value:.6g}" if isinstance(value, float) else str(value))
                for key, value in (values or {}).items()
            ],
        )

    def send(self, statuses: list[DiagnosticStatus]) -> None:
        """Publish statuses, stamped with the current time."""
        array = DiagnosticArray(status=statuses)
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)


class SimulationDiagnostics(Diagnostics):
    """Publishes the state of the lock-step: how many steps were not clean, and why."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self._published_s = -SIMULATION_PERIOD_S
        self._unclean_steps = 0

    def publish(self, counters: Counters, rivals: str) -> None:
        """Publish the counts, at most every `SIMULATION_PERIOD_S`; call this at every step.

        `rivals` says who else steps the simulator or commands the car, empty for nobody.
        """
        now = time.monotonic()
        if now - self._published_s < SIMULATION_PERIOD_S:
            return
        self._published_s = now
        fresh = counters.unclean_steps - self._unclean_steps
        self._unclean_steps = counters.unclean_steps
        level = DiagnosticStatus.WARN if fresh else DiagnosticStatus.OK
        message = f"{fresh} unclean steps" if fresh else "in step"
        self._publish(level, f"{message}; {rivals}" if fresh and rivals else message, counters)

    def publish_outage(self, line: str, counters: Counters) -> None:
        """Publish a line about a lost simulator; an empty one means that it is back."""
        level = DiagnosticStatus.ERROR if line else DiagnosticStatus.OK
        self._publish(level, line or "the simulator is back", counters)

    def _publish(self, level: bytes, message: str, counters: Counters) -> None:
        self.send([self.status("simulation", level, message, counters.as_dict())])


class HealthDiagnostics(Diagnostics):
    """Publishes a status for each check, and one for the training with its figures."""

    def publish(self, row: Mapping[str, float], health: HealthMonitor) -> None:
        """Publish an interval's figures and the warnings in force; any thread may call it."""
        warnings = {warning.check: warning for warning in health.warnings}
        training = self.status(
            "training",
            DiagnosticStatus.WARN if warnings else DiagnosticStatus.OK,
            f"{len(warnings)} warnings" if warnings else "healthy",
            {name: float(value) for name, value in row.items()},
        )
        statuses = [training]
        for check in CHECKS:
            if check.name in warnings:
                level, message = DiagnosticStatus.WARN, str(warnings[check.name])
            else:
                level, message = DiagnosticStatus.OK, "ok"
            statuses.append(self.status(check.name, level, message))
        self.send(statuses)

    def publish_failure(self, reason: str) -> None:
        """Publish why the training has failed."""
        self.send([self.status("training", DiagnosticStatus.ERROR, reason)])
