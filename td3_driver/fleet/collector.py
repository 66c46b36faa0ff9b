# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The interface of collectors: what is sent to them, what comes back, whatever carries it."""

from __future__ import annotations

import queue
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

from td3_driver.fleet.chunk import Chunk, Grant
from td3_driver.fleet.gathering import Brief

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Placed:
    """There is room for a collector, and it starts now."""

    place: str


@dataclass(frozen=True)
class Ready:
    """A collector has begun and waits for leave."""


@dataclass(frozen=True)
class Alive:
    """A collector has taken further decisions of its chunk."""


@dataclass(frozen=True)
class Ended:
    """A collector is no more, with all that it had leave for."""

    reason: str


Event = Placed | Ready | Alive | Chunk | Ended


Item = TypeVar("Item")


def drained(waiting: queue.SimpleQueue[Item], timeout_s: float) -> list[Item]:
    """Return all that is in a queue, after at most that long a wait for the first."""
    found: list[Item] = []
    try:
        found.append(waiting.get(timeout=timeout_s))
        while True:
            found.append(waiting.get_nowait())
    except queue.Empty:
        return found


def counted(collectors: int) -> str:
    """Return a number of collectors in words."""
    return "1 collector" if collectors == 1 else f"{collectors} collectors"


class Collector(Protocol):
    """One collector, wherever it is. No call waits for it."""

    def start(self, brief: Brief) -> None:
        """Begin, anew where it has ended."""

    def grant(self, grant: Grant, weights: Weights) -> None:
        """Give leave for a chunk, with the policy of `grant.version`.

        It is sent only where the collector does not have that version yet.
        """

    def stop(self) -> None:
        """End it now, with every process of its own; it says no more."""


class Engine(Protocol):
    """What collectors run on."""

    name: str

    def collector(self, number: int) -> Collector:
        """Return the collector of a number, which has not begun."""

    def receive(self, timeout_s: float) -> list[tuple[int, Event]]:
        """Return what collectors have said since, by number; wait for something that long."""

    def warnings(self) -> list[str]:
        """Return what is wrong with the engine itself, said once each."""

    def close(self) -> None:
        """End all collectors."""
