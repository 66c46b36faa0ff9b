# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Delays measured by tests that know whether the machine stood still meanwhile."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from typing import TypeVar

from td3_driver.safety.standstills import Standstills

TRIES = 5
BEAT_S = 0.01
LATE_S = 0.02
"""A test's thread that wakes so much later than it asked for did not get a core in time."""

Result = TypeVar("Result")


class StoodStillWarning(UserWarning):
    """A measurement was taken again, as the machine stood still during the one before."""


class StandstillWatch:
    """A thread that notes, between `with` and its end, when this process did not run."""

    def __init__(self) -> None:
        self.noted = Standstills(LATE_S)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standstill watch", daemon=True)

    def __enter__(self) -> StandstillWatch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            self.noted.beat("test", time.monotonic(), BEAT_S)


def measured(
    attempt: Callable[[], Result],
    prepare: Callable[[], object] = lambda: None,
    elsewhere: Callable[[float], int] = lambda since_s: 0,
) -> Result:
    """Take a measurement, and take one that failed again where something stood still meanwhile.

    `attempt` asserts its bounds itself. `prepare` comes before every attempt, and is not part of
    it. `elsewhere` counts the standstills of another process since a time on the steady clock.
    An attempt that fails while everything ran counts, and so does the last one.
    """
    for number in range(1, TRIES + 1):
        prepare()
        begin_s = time.monotonic()
        with StandstillWatch() as watch:
            try:
                return attempt()
            except AssertionError as error:
                failure = error
        others = elsewhere(begin_s)
        if not (watch.noted.count or others) or number == TRIES:
            raise failure
        warnings.warn(
            f"try {number} of {TRIES} is taken again: the test stood still {watch.noted.count} "
            f"times, up to {watch.noted.longest_s:.3f} s, and what it measures {others} times "
            f"({str(failure).splitlines()[0] if str(failure) else 'no reason given'})",
            StoodStillWarning,
            stacklevel=2,
        )
    raise AssertionError("not reached")
