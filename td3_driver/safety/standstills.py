# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Detects when a process did not run, from gaps between the regular beats of its threads.

An overloaded machine, a garbage collection or a library that holds Python's interpreter lock can
stall a process. Code that measures timeouts has to know when it stalled itself.
"""

from __future__ import annotations

from collections import deque

LATE_S = 0.05
"""A beat that is overdue by more than this is a standstill."""
KEPT = 50


class Standstills:
    """Keeps the latest standstills of several threads, by name.

    It has no clock of its own: times are seconds of a steady clock. It is not thread-safe.
    """

    def __init__(self, late_s: float = LATE_S) -> None:
        self.count = 0
        """Number of standstills so far, in all threads."""
        self.longest_s = 0.0
        """The longest standstill so far, s."""
        self._late_s = late_s
        self._due_s: dict[str, float] = {}
        self._gaps: deque[tuple[str, float, float]] = deque(maxlen=KEPT)

    def beat(self, thread: str, now_s: float, period_s: float) -> None:
        """Note that a thread is running, and that its next beat is due after `period_s`."""
        due_s = self._due_s.get(thread)
        if due_s is not None and now_s - due_s > self._late_s:
            self._gaps.append((thread, due_s, now_s))
            self.count += 1
            self.longest_s = max(self.longest_s, now_s - due_s)
        self._due_s[thread] = now_s + period_s

    def rest(self) -> None:
        """Forget when the next beats are due, because the threads pause on purpose."""
        self._due_s.clear()

    def between(self, begin_s: float, now_s: float) -> float:
        """Return how long the thread that stalled most has stood still since `begin_s`, s."""
        gaps = list(self._gaps)
        # A standstill that is still under way is not among the gaps yet.
        gaps += [
            (thread, due_s, now_s)
            for thread, due_s in self._due_s.items()
            if now_s - due_s > self._late_s
        ]
        stood_s: dict[str, float] = dict.fromkeys(self._due_s, 0.0)
        for thread, gap_begin_s, gap_end_s in gaps:
            overlap_s = min(gap_end_s, now_s) - max(gap_begin_s, begin_s)
            stood_s[thread] = stood_s.get(thread, 0.0) + max(overlap_s, 0.0)
        return max(stood_s.values(), default=0.0)
