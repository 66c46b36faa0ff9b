# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Simulator faults, injected on purpose: carla-ros-bridge is known for each of them.

The embedded simulator's node injects them (`simulator.faults`) to test how a client handles them.
Nothing here needs ROS.
"""

from __future__ import annotations

import heapq
import itertools
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from td3_driver.bridge import topics
from td3_driver.bridge.topics import Topic
from td3_driver.config import ConfigError

# The bridge waits this long for a sensor before it continues without it.
BRIDGE_SENSOR_TIMEOUT_S = 1.0

KINDS: dict[str, str] = {
    "lost_step": "STEP_ONCE is not received",
    "late_step": "STEP_ONCE is received SECONDS late",
    "lost_command": "the vehicle command for the tick is not received",
    "late_command": "the vehicle command for the tick is received after it",
    "hang": "the simulator hangs for SECONDS before the tick",
    "dead_thread": "there are no more ticks, while services and subscriptions still work",
    "extra_tick": "another client ticks the simulator too, unseen by the bridge",
    "foreign_step": "another client sends STEP_ONCE after the tick",
    "foreign_play": "another client sends PLAY after the tick",
    "map_load": "another client reloads the map before the tick: the clock restarts",
    "missing": "TOPIC has no message; the bridge waits SECONDS (1) for it first",
    "late": "TOPIC's message is SECONDS late, and later ones on it wait for it",
    "collision": "a collision is reported that did not happen, as after a teleport",
    "autopilot": "switching the autopilot on or off holds commands and teleports for SECONDS",
}
TIMED = frozenset({"late_step", "hang", "late", "autopilot"})
OF_A_TOPIC = frozenset({"missing", "late"})
TOPICS: dict[str, Topic] = {
    key: topic
    for key, topic in topics.BY_KEY.items()
    if topic.direction is topics.Direction.FROM_SIMULATOR
}

_FORM = "KIND[:TOPIC][=SECONDS]@TICK[xTICKS][/PERIOD]"
_FAULT = re.compile(
    r"(?P<kind>\w+)(:(?P<topic>\w+))?(=(?P<seconds>\d+(\.\d*)?))?"
    r"@(?P<first>\d+)(x(?P<count>\d+))?(/(?P<period>\d+))?"
)


@dataclass
class BridgeFault:
    """A fault and the ticks it strikes in; tick 1 is the first after it was set."""

    kind: str
    first: int
    count: int = 1
    """Ticks in a row."""
    period: int = 0
    """Ticks after which it repeats; 0 = never."""
    topic: Topic | None = None
    seconds: float | None = None
    _struck: int = field(default=0, init=False)

    def strikes(self, tick: int) -> bool:
        """Return whether it strikes in a tick; it does so at most once per tick."""
        since = tick - self.first
        if since < 0 or tick == self._struck:
            return False
        if self.period:
            since %= self.period
        if since >= self.count:
            return False
        self._struck = tick
        return True


def parse(text: str) -> list[BridgeFault]:
    """Return the comma-separated faults in `text`; raises ConfigError naming an invalid one."""
    return [_parse_one(part.strip()) for part in text.split(",") if part.strip()]


def _parse_one(text: str) -> BridgeFault:
    match = _FAULT.fullmatch(text)
    if match is None:
        raise ConfigError(f"simulator.faults: {text!r} is not of the form {_FORM}")
    kind, topic, seconds = match["kind"], match["topic"], match["seconds"]
    if kind not in KINDS:
        raise ConfigError(f"simulator.faults: {kind!r} is not one of {', '.join(KINDS)}")
    if (kind in OF_A_TOPIC) != (topic in TOPICS):
        raise ConfigError(
            f"simulator.faults: {text!r}: only {' and '.join(sorted(OF_A_TOPIC))} take a topic, "
            f"which must be one of {', '.join(TOPICS)}"
        )
    if kind in TIMED and seconds is None:
        raise ConfigError(f"simulator.faults: {text!r} needs a duration: {kind}=SECONDS@...")
    return BridgeFault(
        kind,
        first=int(match["first"]),
        count=int(match["count"] or 1),
        period=int(match["period"] or 0),
        topic=TOPICS[topic] if topic else None,
        seconds=float(seconds) if seconds else None,
    )


class Faults:
    """The faults that are set, and the current tick."""

    def __init__(self, text: str = "") -> None:
        """Set the faults in `text`; raises ConfigError."""
        self._faults = parse(text)
        self._tick = 0

    def begin_tick(self) -> None:
        """Start the next tick."""
        self._tick += 1

    def now(self, kind: str, topic: Topic | None = None) -> BridgeFault | None:
        """Return the fault of a kind that strikes in the current tick, if any."""
        return self._find(kind, topic, self._tick)

    def next(self, kind: str) -> BridgeFault | None:
        """Return the fault of a kind that strikes before or in the next tick, if any."""
        return self._find(kind, None, self._tick + 1)

    def _find(self, kind: str, topic: Topic | None, tick: int) -> BridgeFault | None:
        for fault in self._faults:
            if fault.kind == kind and fault.topic is topic and fault.strikes(tick):
                return fault
        return None


class Agenda:
    """Actions to run later, by the steady clock; those for one topic keep their order."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._entries: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()
        self._busy_until_s: dict[Topic, float] = {}

    @property
    def idle_s(self) -> float:
        """Wall-clock time until the next action is due; infinite if there is none."""
        return self._entries[0][0] - self._clock() if self._entries else float("inf")

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Run `action` after a delay."""
        self._add(self._clock() + delay_s, action)

    def in_order(self, topic: Topic, delay_s: float, action: Callable[[], object]) -> None:
        """Run `action` now or after a delay, but after everything waiting for `topic`."""
        now = self._clock()
        due_s = max(now + delay_s, self._busy_until_s.get(topic, 0.0))
        if due_s <= now:
            action()
            return
        self._busy_until_s[topic] = due_s
        self._add(due_s, action)

    def do_what_is_due(self) -> None:
        """Run every action that is due."""
        while self.idle_s <= 0.0:
            heapq.heappop(self._entries)[2]()

    def _add(self, due_s: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._entries, (due_s, next(self._numbers), action))
