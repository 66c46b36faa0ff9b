# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Delays measured by tests that know whether the machine stood still meanwhile."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import node_process
import pytest

from td3_driver.safety.standstills import Standstills

TRIES = 5
BEAT_S = 0.01
LATE_S = 0.02
"""A test's thread that wakes so much later than it asked for did not get a core in time."""
LONG_S = 0.1
"""A standstill that a whole drive may notice: less is within every limit of its nodes."""

Result = TypeVar("Result")


class StoodStillWarning(UserWarning):
    """A measurement was taken again, as the machine stood still during the one before."""


class StandstillWatch:
    """A thread that notes, between `with` and its end, when this process did not run."""

    def __init__(self, late_s: float) -> None:
        self.noted = Standstills(late_s)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="standstill watch", daemon=True)

    def __enter__(self) -> StandstillWatch:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()
        # The thread may wake after whoever stood still with it.
        self._beat()

    def _beat(self) -> None:
        self.noted.beat("test", time.monotonic(), BEAT_S)

    def _run(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._beat()


def stand_still(duration_s: float) -> None:
    """Stop this whole process, and have another one let it go on."""
    subprocess.Popen(["sh", "-c", f"sleep {duration_s}; kill -CONT {os.getpid()}"])
    os.kill(os.getpid(), signal.SIGSTOP)


def time_to_end_s(process_id: int, timeout_s: float) -> float:
    """Return how long a process takes to end, without the time it waits for a core.

    That is its own work from now on, and the time in which none of its threads could run.
    Raises TimeoutError.
    """
    processor_s = _processor_s(process_id) or 0.0
    worked_s = idle_s = 0.0
    begin_s = last_s = time.monotonic()
    while (states := states_of(process_id)) - {"Z", "X"}:
        now_s = time.monotonic()
        if now_s - begin_s > timeout_s:
            raise TimeoutError(f"process {process_id} has not ended within {timeout_s} s")
        if "R" not in states:
            idle_s += now_s - last_s
        last_s = now_s
        worked_s = (_processor_s(process_id) or processor_s) - processor_s
        time.sleep(BEAT_S)
    return idle_s + worked_s


def states_of(process_id: int) -> set[str]:
    """Return the states of a process's threads, as /proc names them; none where it is gone."""
    states = set()
    for task in Path(f"/proc/{process_id}/task").glob("*/stat"):
        try:
            states.add(_fields(task)[0])
        except OSError:
            continue  # the thread has just ended
    return states


def _processor_s(process_id: int) -> float | None:
    """Return the processor time of a process; None where it is gone."""
    try:
        fields = _fields(Path(f"/proc/{process_id}/stat"))
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fields(path: Path) -> list[str]:
    """Return the fields of a stat file from the state on; the name before may hold blanks."""
    return path.read_text().rpartition(")")[2].split()


def measured(
    attempt: Callable[[], Result],
    prepare: Callable[[], object] = lambda: None,
    elsewhere: Callable[[float], int] = lambda since_s: 0,
    late_s: float | None = None,
) -> Result:
    """Take a measurement, and take one that failed again where something stood still meanwhile.

    That is this process, or one that `node_process` started. `attempt` asserts its bounds itself,
    or fails with another error. `prepare` comes before every attempt, and is not part of it.
    `elsewhere` counts the standstills of something else since a time on the steady clock.
    Standstills of up to `late_s`, by default `LATE_S`, are none.
    An attempt that fails while everything ran counts, and so does the last one.
    """
    late_s = LATE_S if late_s is None else late_s
    for number in range(1, TRIES + 1):
        prepare()
        begin_s = time.monotonic()
        with StandstillWatch(late_s) as watch:
            try:
                return attempt()
            # A node may say so in its own way; what pytest raises is no Exception.
            except (Exception, pytest.fail.Exception) as error:
                failure = error
        others = node_process.stood_still(begin_s, late_s) + elsewhere(begin_s)
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


def measurement(test: Callable[..., None]) -> Callable[..., None]:
    """Take a whole test again where it failed and something stood still for long meanwhile.

    What its fixtures have made stays, but for a `tmp_path`, which is a new folder every time: it
    must begin with a drive of its own.
    """

    @functools.wraps(test)
    def taken(**fixtures: Any) -> None:
        tries = itertools.count(1)

        def attempt() -> None:
            own = dict(fixtures)
            if "tmp_path" in own:
                own["tmp_path"] /= f"try {next(tries)}"
                own["tmp_path"].mkdir()
            test(**own)

        measured(attempt, late_s=LONG_S)

    return taken
