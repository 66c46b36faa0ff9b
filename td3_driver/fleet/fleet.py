# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Looks after collectors: leave, signs of life, restarts, and what is set aside."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from td3_driver.config import FleetConfig
from td3_driver.driving.world import WorldError
from td3_driver.fleet.chunk import Chunk, Grant
from td3_driver.fleet.collector import Alive, Collector, Ended, Engine, Placed, Ready, Weights
from td3_driver.fleet.gathering import Brief

IN_FLIGHT = 2
"""Chunks that a collector may have leave for: it drives one, and never waits for the next."""
DEATHS_IN_A_ROW = 5
"""A collector that has ended so often without a chunk in between is set aside."""
LONGEST_PAUSE_S = 8.0
"""Before a collector is started again; the first time half a second, then twice as long."""


LONG_PAUSE_S = 1.0
"""If nobody listened for so long, collectors were not silent meanwhile."""


TURNAROUND_SHARE = 0.1
"""Of the latest chunk in the running mean."""


@dataclass
class Post:
    """A collector, and how it stands with it."""

    number: int
    collector: Collector
    state: str = "new"
    """new, waiting (for room), starting, ready, ended or aside."""
    sequence: int = 0
    """Of its next grant."""
    in_flight: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Decisions of each grant that is to come back, and when it was given, by sequence."""
    deaths: int = 0
    """Ends since its last chunk."""
    heard_s: float = 0.0
    again_s: float = 0.0
    """When it is to be started again."""


class Fleet:
    """The collectors of a run. `brief` makes a collector's brief; `say` logs a line."""

    def __init__(
        self,
        engine: Engine,
        collectors: int,
        settings: FleetConfig,
        brief: Callable[[int], Brief],
        say: Callable[[str], object],
        sequences: dict[int, int] | None = None,
    ) -> None:
        self.engine = engine
        self._settings = settings
        self._brief = brief
        self._say = say
        self._looked_s = time.monotonic()
        self.turnaround_s: float | None = None
        """How long it takes from leave to a chunk, lately; None before the first."""
        self.posts = [
            Post(number, engine.collector(number), sequence=(sequences or {}).get(number, 0))
            for number in range(collectors)
        ]

    @property
    def outstanding(self) -> int:
        """Decisions that are to come back."""
        return sum(_decisions(post) for post in self.posts)

    @property
    def running(self) -> int:
        """Collectors that have begun."""
        return sum(post.state == "ready" for post in self.posts)

    def free(self) -> list[Post]:
        """Return those that may have leave for another chunk.

        The least busy come first, and of these who has had leave least often: rings fill alike.
        """
        free = [
            post
            for post in self.posts
            if post.state == "ready" and len(post.in_flight) < IN_FLIGHT
        ]
        return sorted(free, key=lambda post: (len(post.in_flight), post.sequence))

    def grant(self, post: Post, step: int, decisions: int, version: int, weights: Weights) -> None:
        """Give a collector leave for a chunk."""
        if not post.in_flight:
            post.heard_s = time.monotonic()  # It was not to say anything before.
        post.in_flight[post.sequence] = (decisions, time.monotonic())
        post.collector.grant(Grant(post.sequence, step, decisions, version), weights)
        post.sequence += 1

    def look(self, timeout_s: float) -> list[tuple[Post, Chunk]]:
        """Return the chunks that have arrived, after at most that long; start what has ended.

        Raises WorldError where every collector has been set aside.
        """
        self._leave_out_pause()
        chunks = []
        for number, event in self.engine.receive(timeout_s):
            post = self.posts[number]
            post.heard_s = time.monotonic()
            if isinstance(event, Chunk):
                if granted := post.in_flight.pop(event.sequence, None):
                    self._note_turnaround(time.monotonic() - granted[1])
                post.deaths = 0
                chunks.append((post, event))
            elif isinstance(event, Placed):
                post.state = "starting"
            elif isinstance(event, Ready):
                post.state = "ready"
            elif isinstance(event, Ended):
                self._ended(post, event.reason)
            else:
                assert isinstance(event, Alive)
        for line in self.engine.warnings():
            self._say(f"warning: {line}")
        self._care()
        self._looked_s = time.monotonic()
        return chunks

    def _note_turnaround(self, seconds: float) -> None:
        before = self.turnaround_s
        share = TURNAROUND_SHARE if before is not None else 1.0
        self.turnaround_s = share * seconds + (1.0 - share) * (before or 0.0)

    def _leave_out_pause(self) -> None:
        """Do not count against collectors that nobody listened, as during an examination."""
        pause_s = time.monotonic() - self._looked_s
        if pause_s > LONG_PAUSE_S:
            for post in self.posts:
                post.heard_s += pause_s

    def _care(self) -> None:
        """Start collectors, and end those that hang."""
        now_s = time.monotonic()
        for post in self.posts:
            if post.state == "new" or (post.state == "ended" and now_s >= post.again_s):
                post.state, post.heard_s = "waiting", now_s
                post.collector.start(self._brief(post.number))
            silent_s = now_s - post.heard_s
            limit_s = {
                "starting": self._settings.start_timeout_s,
                "ready": self._settings.silence_timeout_s,
            }.get(post.state)
            hangs = post.state == "starting" or bool(post.in_flight)
            if limit_s is not None and hangs and silent_s > limit_s:
                post.collector.stop()
                self._ended(post, f"it said nothing for {silent_s:.0f} s")

    def _ended(self, post: Post, reason: str) -> None:
        if post.state in ("ended", "aside"):
            return
        post.deaths += 1
        lost = _decisions(post)
        post.in_flight.clear()
        line = f"warning: collector {post.number} has ended ({reason})"
        if lost:
            line += f"; up to {lost} decisions under way are lost"
        if post.deaths >= DEATHS_IN_A_ROW:
            post.state = "aside"
            self._say(f"{line}; after {post.deaths} ends in a row it is set aside")
            if all(other.state == "aside" for other in self.posts):
                raise WorldError(
                    f"every collector has been set aside; the last one ended with: {reason}"
                )
            return
        pause_s = min(0.5 * 2.0 ** (post.deaths - 1), LONGEST_PAUSE_S)
        post.state, post.again_s = "ended", time.monotonic() + pause_s
        self._say(f"{line}; it is started again in {pause_s:g} s")

    def close(self) -> None:
        """End all collectors."""
        self.engine.close()


def _decisions(post: Post) -> int:
    """Return the decisions of a collector that are to come back."""
    return sum(decisions for decisions, _ in post.in_flight.values())
