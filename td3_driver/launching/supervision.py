# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs a command's processes together where there is no `ros2 launch`.

The processes share the terminal but not its Ctrl-C: each is in a session of its own, so that they
can be stopped one after the other, the last started first. A trainer or driver so stops the car
through a simulator that is still alive.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

from td3_driver.launching import fastdds
from td3_driver.launching.parts import Process

POLL_INTERVAL_S = 0.05
KILL_TIMEOUT_S = 3.0
"""Time to end after SIGTERM, before SIGKILL."""

EXIT_INTERRUPTED = 128 + signal.SIGINT
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(processes: Sequence[Process]) -> int:
    """Start `processes` in their order, wait for an end and stop the rest; return an exit code.

    The code is that of the essential process that ended first (128 + its number for a signal), 1
    where one that serves the last process ended cleanly before it, and 128 + the number of the
    stop signal that this process received: 130 after Ctrl-C. A second Ctrl-C does not wait for
    processes to end in their own time.
    """
    with _StopRequests() as requests:
        running: list[_Running] = []
        try:
            for process in processes:
                running.append(_Running(process))
            ended = _first_end(running, requests)
        finally:
            for child in reversed(running):
                child.stop(requests)
    if ended is None:
        return 128 + requests.received[0]
    _report_end(ended)
    if ended is not running[-1] and ended.exit_code == 0:
        return 1
    return ended.exit_code


def _first_end(running: Sequence[_Running], requests: _StopRequests) -> _Running | None:
    """Wait for an essential process to end and return it; None for a stop signal."""
    signalled: list[_Running] = []
    while not requests.received:
        for child in running:
            if not child.has_ended():
                continue
            if child.process.essential:
                return child
            if child not in signalled:
                signalled.append(child)
                if child.exit_code != 0:
                    name, code = child.process.name, child.exit_code
                    _say(f"{name} has died (exit code {code}); the rest goes on without it")
        time.sleep(POLL_INTERVAL_S)
    return None


def _report_end(child: _Running) -> None:
    if child.exit_code != 0:
        _say(f"{child.process.name} has died (exit code {child.exit_code}); the rest is stopped")


def _say(message: str) -> None:
    print(f"td3-driver: {message}", file=sys.stderr, flush=True)


class _StopRequests:
    """Collects stop signals instead of dying of them."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self._previous: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> _StopRequests:
        for number in STOP_SIGNALS:
            # nohup ignores the hang-up, and that is then meant.
            if signal.getsignal(number) is not signal.SIG_IGN or number != signal.SIGHUP:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.received.append(number)


class _Running:
    """A started process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        supervisor = os.getpid()

        def die_with_supervisor() -> None:
            # SIGTERM and not SIGKILL: a driver still has to stop the car.
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != supervisor:  # it died before the line above
                os._exit(1)

        self._popen = subprocess.Popen(
            process.command_line(),
            env={**os.environ, **fastdds.environment(os.environ)},
            start_new_session=True,
            preexec_fn=die_with_supervisor,
        )

    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    @property
    def exit_code(self) -> int:
        """The code as a shell would report it, once the process has ended."""
        code = self._popen.returncode
        return 128 - code if code < 0 else code

    def stop(self, requests: _StopRequests) -> None:
        """End the process: SIGINT, after its time SIGTERM, and then SIGKILL."""
        steps = (
            (signal.SIGINT, self.process.stop_timeout_s),
            (signal.SIGTERM, KILL_TIMEOUT_S),
            (signal.SIGKILL, float("inf")),
        )
        for number, timeout_s in steps:
            if self.has_ended():
                return
            if number == signal.SIGKILL:
                _say(f"{self.process.name} does not end and is killed")
            os.killpg(self._popen.pid, number)
            self._wait(timeout_s, requests)

    def _wait(self, timeout_s: float, requests: _StopRequests) -> None:
        """Wait for the end, at most `timeout_s` or until a further stop signal comes."""
        deadline = time.monotonic() + timeout_s
        requested = len(requests.received)
        while (
            not self.has_ended()
            and time.monotonic() < deadline
            and len(requests.received) == requested
        ):
            time.sleep(POLL_INTERVAL_S)
