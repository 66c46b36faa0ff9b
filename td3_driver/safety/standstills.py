# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""When a process did not run: gaps between the beats of threads that beat all the time.

A machine with more to do than it has cores, a collection of garbage, a library that holds
Python's interpreter lock: whoever measures time has to know when it stood still itself.
"""

from __future__ import annotations

from collections import deque

LATE_S = 0.05
"""A beat that comes so much later than due is a standstill."""
KEPT = 50


class Standstills:
    """Keeps the latest standstills of several threads, each by a name.

    It knows no clock: times are seconds of a steady one. Not safe for use from several threads
    without a lock.
    """

    def __init__(self, late_s: float = LATE_S) -> None:
        self.count = 0
        """Standstills so far, of any thread."""
        self.longest_s = 0.0
        """The longest so far."""
        self._late_s = late_s
        self._due_s: dict[str, float] = {}
        self._gaps: deque[tuple[str, float, float]] = deque(maxlen=KEPT)

    def beat(self, thread: str, now_s: float, period_s: float) -> None:
        """Note that a thread runs, and will do so again after a period."""
        due_s = self._due_s.get(thread)
        if due_s is not None and now_s - due_s > self._late_s:
            self._gaps.append((thread, due_s, now_s))
            self.count += 1
            self.longest_s = max(self.longest_s, now_s - due_s)
        self._due_s[thread] = now_s + period_s

    def rest(self) -> None:
        """Forget when the next beats are due: the threads pause on purpose."""
        self._due_s.clear()

    def between(self, begin_s: float, now_s: float) -> float:
        """Return for how long, since `begin_s`, the thread stood still that did so the most."""
        gaps = list(self._gaps)
        # What goes on now is no gap yet.
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
