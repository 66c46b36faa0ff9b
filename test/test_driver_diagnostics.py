# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driver's status of its own threads on /diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from td3_driver.nodes.driver.diagnostics import DriverDiagnostics
from td3_driver.nodes.driver.live_frames import Counts
from td3_driver.workers import Failure


class Statuses:
    """Stands for a node, and keeps the statuses that are published."""

    def __init__(self) -> None:
        self.latest: dict[str, Any] = {}

    def create_publisher(self, *_: object) -> Statuses:
        return self

    def publish(self, array: Any) -> None:
        self.latest = {status.name: status for status in array.status}

    def get_fully_qualified_name(self) -> str:
        return "/driver"

    def get_clock(self) -> Any:
        from builtin_interfaces.msg import Time

        return SimpleNamespace(now=lambda: SimpleNamespace(to_msg=Time))


def process_status(failures: Sequence[Failure], stalls: int = 0) -> Any:
    node = Statuses()
    DriverDiagnostics(node).publish(  # type: ignore[arg-type]
        standing=None,
        fault_counts={},
        standstills=(stalls, 0.25),
        counts=Counts(),
        camera_rate_hz=20.0,
        ages_s=[],
        inferences_s=[],
        policy="the baseline",
        saturated_share=0.0,
        commands_limited=0,
        sensors="",
        commanders="",
        failures=failures,
    )
    return node.latest["driver: process"]


def test_a_thread_that_has_failed_is_told_until_the_end() -> None:
    status = process_status([Failure("reloader", "RecursionError: too deep", 3)], stalls=2)
    assert (
        status.level == b"\x01" and "stalled 2 times; thread reloader has failed" in status.message
    )
    values = {pair.key: pair.value for pair in status.values}
    assert values["failures_reloader"] == "3" and values["standstills"] == "2"


def test_without_failures_the_process_runs() -> None:
    status = process_status([])
    assert status.level == b"\x00" and status.message == "running"
