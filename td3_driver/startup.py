# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The beginning of every process: Ctrl-C while it still imports ends it without a traceback.

What it prints may contain any name of a file, and nobody need read it to its end. It imports
nothing large itself, so that little is left of the time before.
"""

from __future__ import annotations

import importlib
import io
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Callable
from types import FrameType

from td3_driver.memory import keep_freed_memory

COMMAND_LINE = "td3-driver"
LEARNING = (COMMAND_LINE, "trainer")
EXIT_WRONG_INPUT = 2
SHARED_MEMORY = "/dev/shm"
LEAST_SHARED_BYTES = 64 << 10


def run(name: str) -> None:
    """Run `td3-driver` or one of `td3_driver.nodes`, which handles signals once it is imported."""
    end_at_once_on_ctrl_c()
    ready_streams()
    if name in LEARNING:
        keep_freed_memory()
    if name == COMMAND_LINE:
        # By its name: this module stands before everything that it starts.
        main = importlib.import_module("td3_driver.cli").main
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(end_where_nobody_reads(main))
    if reason := no_shared_memory():
        sys.stderr.write(f"error: {reason}\n")
        sys.exit(EXIT_WRONG_INPUT)
    sys.exit(end_where_nobody_reads(lambda: _run_node(name)))


def _run_node(name: str) -> int:
    runpy.run_module(f"td3_driver.nodes.{name}", run_name="__main__", alter_sys=True)
    return 0


def no_shared_memory() -> str:
    """Return why the shared memory cannot be used, empty if it can.

    Where it is full, ROS's libraries die of a bus error as soon as they are imported.
    """
    try:
        free = shutil.disk_usage(SHARED_MEMORY).free
    except OSError:
        return ""  # They do without.
    if free >= LEAST_SHARED_BYTES:
        return ""
    return (
        f"{SHARED_MEMORY} is full: remove what killed processes have left there "
        f"({SHARED_MEMORY}/*fastdds*, while no ROS runs), or start the container with "
        "--shm-size=256m"
    )


def end_at_once_on_ctrl_c() -> None:
    """Have Ctrl-C end the process at once, with its exit code and without a traceback."""
    # A shell has a process in the background ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)


class StandardError(io.TextIOWrapper):
    """Standard error whose reader may go: progress that nobody reads must not end any work."""

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return super().write(text)
        except BrokenPipeError:
            _point_at_nothing(2)
            return len(text)

    def flush(self) -> None:
        """Write what waits, or drop it."""
        try:
            super().flush()
        except BrokenPipeError:
            _point_at_nothing(2)


def ready_streams() -> None:
    """Have standard output and error take every name of a file, also where one is closed.

    What the terminal cannot show becomes an escape.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # The next file that is opened would take its place.
            _point_at_nothing(number)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = StandardError(
        open(2, "wb", closefd=False),  # noqa: SIM115
        encoding="utf-8" if sys.stderr is None else sys.stderr.encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _point_at_nothing(number: int) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing == number:
        os.set_inheritable(number, True)
    else:
        os.dup2(nothing, number)
        os.close(nothing)


def end_where_nobody_reads(main: Callable[[], int]) -> int:
    """Run `main` and return its exit code; end as other programs do once a pipe is closed.

    As in `td3-driver doctor | head -1`.
    """
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        _point_at_nothing(1)  # Python flushes again at the end.
        return 128 + signal.SIGPIPE


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # An exception in the middle of an import comes out of C++ code as anything.
    os._exit(128 + number)


if __name__ == "__main__":
    # `python -m td3_driver.startup NODE --ros-args ...`
    run(sys.argv.pop(1))
