# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How a fleet is doing: ratios, idle shares, and how old the policies are that drive."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque

from td3_driver.fleet.chunk import Chunk
from td3_driver.learning.metrics import FLEET_COLUMNS
from td3_driver.learning.pacing import UpdatePacer

WINDOW_S = 60.0
"""Idle shares and lags are of at most this time."""


class FleetFigures:
    """Figures of a fleet; chunks may be noted in one thread while another asks."""

    def __init__(self, pacer: UpdatePacer, collectors: int) -> None:
        self._pacer = pacer
        self._collectors = collectors
        self._lock = threading.Lock()
        self._chunks: deque[tuple[float, int, float, float]] = deque()
        self._began_s = time.monotonic()
        self._learner: deque[tuple[float, float]] = deque([(self._began_s, pacer.busy_s)])
        self.running = 0
        """Collectors that are collecting."""

    def note(self, chunk: Chunk, updates: int) -> None:
        """Note a chunk that has arrived after that many updates."""
        now_s = time.monotonic()
        with self._lock:
            lag = max(updates - chunk.policy_version, 0)
            self._chunks.append((now_s, lag, chunk.busy_s, chunk.waited_s))
            self._learner.append((now_s, self._pacer.busy_s))
            while self._chunks[0][0] < now_s - WINDOW_S:
                self._chunks.popleft()
            while len(self._learner) > 2 and self._learner[1][0] < now_s - WINDOW_S:
                self._learner.popleft()

    def figures(self) -> dict[str, float]:
        """Return the figures of a row of metrics; those that are not known yet are left out."""
        with self._lock:
            now_s, busy_s = time.monotonic(), self._pacer.busy_s
            since_s, before_s = self._learner[0]
            busy = (busy_s - before_s) / max(now_s - since_s, 1e-6)
            row = {
                "ratio_wanted": self._pacer.ratio,
                "ratio_held": self._pacer.held_ratio,
                "learner_idle_share": min(max(1.0 - busy, 0.0), 1.0),
                "collectors": float(self.running),
            }
            if self._chunks:
                lags = [lag for _, lag, _, _ in self._chunks]
                drove_s = sum(chunk[2] for chunk in self._chunks)
                waited_s = sum(chunk[3] for chunk in self._chunks)
                row["collectors_idle_share"] = waited_s / max(drove_s + waited_s, 1e-6)
                row["policy_lag_median"] = statistics.median(lags)
                row["policy_lag_longest"] = max(lags)
        assert row.keys() <= set(FLEET_COLUMNS)
        return {name: value for name, value in row.items() if not math.isnan(value)}

    def in_words(self) -> str:
        """Return the figures for the live line."""
        row = self.figures()

        def share(name: str) -> str:
            return f"{row[name]:.0%}" if name in row else "-"

        held = f"{row['ratio_held']:.2f}" if "ratio_held" in row else "-"
        lag = f"{row['policy_lag_median']:.0f}" if "policy_lag_median" in row else "-"
        longest = f"{row['policy_lag_longest']:.0f}" if "policy_lag_longest" in row else "-"
        ratio = f"{held} of {self._pacer.ratio:g}"
        return (
            f"{self.running} of {self._collectors} collectors, ratio {ratio}, "
            f"idle: learner {share('learner_idle_share')}, collectors "
            f"{share('collectors_idle_share')}; lag {lag} (at most {longest}) updates"
        )
