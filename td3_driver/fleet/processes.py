# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Collectors in processes on this machine."""

from __future__ import annotations

import queue
from dataclasses import replace

from td3_driver.fleet.child import Child
from td3_driver.fleet.chunk import Grant
from td3_driver.fleet.collector import Event, Weights, drained
from td3_driver.fleet.gathering import Brief


class ProcessEngine:
    """Starts a process for each collector."""

    name = "process"

    def __init__(self) -> None:
        self._events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
        self._collectors: dict[int, ProcessCollector] = {}

    def collector(self, number: int) -> ProcessCollector:
        """Return the collector of a number, which has not begun."""
        self._collectors[number] = ProcessCollector(number, self._events)
        return self._collectors[number]

    def receive(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Return what collectors have said since, by number; wait for something that long."""
        return drained(self._events, timeout_s)

    def warnings(self) -> list[str]:
        """Return nothing: there is nothing but the processes."""
        return []

    def close(self) -> None:
        """End all collectors."""
        for collector in self._collectors.values():
            collector.stop()


class ProcessCollector:
    """A collector in a process."""

    def __init__(self, number: int, events: queue.SimpleQueue[tuple[int, Event]]) -> None:
        self._number = number
        self._events = events
        self.child: Child | None = None
        self._version = -1

    def start(self, brief: Brief) -> None:
        """Begin, anew where it has ended."""
        self.stop()
        self._version = -1
        self.child = Child(brief, lambda event: self._events.put((self._number, event)))

    def grant(self, grant: Grant, weights: Weights) -> None:
        """Give leave for a chunk, with the policy where it does not have it yet."""
        assert self.child is not None
        if grant.version != self._version:
            self._version = grant.version
            grant = replace(grant, weights=weights)
        self.child.grant(grant)

    def stop(self) -> None:
        """End it now; it says no more."""
        if self.child is not None:
            self.child.stop()
            self.child = None
