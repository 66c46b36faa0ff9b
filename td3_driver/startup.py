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

COMMAND_LINE = "td3-driver"
EXIT_WRONG_INPUT = 2
SHARED_MEMORY = "/dev/shm"
LEAST_SHARED_BYTES = 64 << 10


def run(name: str) -> None:
    """Run `td3-driver` or one of `td3_driver.nodes`, which handles signals once it is imported."""
    end_at_once_on_ctrl_c()
    print_any_name()
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


def print_any_name() -> None:
    """Have names of files that the terminal cannot show be printed with escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_where_nobody_reads(main: Callable[[], int]) -> int:
    """Run `main` and return its exit code; end as other programs do once a pipe is closed.

    As in `td3-driver doctor | head -1`.
    """
    try:
        try:
            return main()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes again at the end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        return 128 + signal.SIGPIPE


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # An exception in the middle of an import comes out of C++ code as anything.
    os._exit(128 + number)


if __name__ == "__main__":
    # `python -m td3_driver.startup NODE --ros-args ...`
    run(sys.argv.pop(1))
