# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The beginning of every process: Ctrl-C while it still imports ends it without a traceback.

It imports nothing large itself, so that little is left of the time before.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def run_node(name: str) -> None:
    """Run one of `td3_driver.nodes`, which takes the signals over once it is imported."""
    _end_at_once_on_ctrl_c()
    runpy.run_module(f"td3_driver.nodes.{name}", run_name="__main__", alter_sys=True)


def command_line() -> int:
    """Run `td3-driver` and return the exit code."""
    with _ctrl_c_ending_at_once():
        from td3_driver.cli import main
    return main()


@contextmanager
def _ctrl_c_ending_at_once() -> Iterator[None]:
    before = signal.getsignal(signal.SIGINT)
    _end_at_once_on_ctrl_c()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end_at_once_on_ctrl_c() -> None:
    # A shell has a process in the background ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # An exception in the middle of an import comes out of C++ code as anything.
    os._exit(128 + number)


if __name__ == "__main__":
    # `python -m td3_driver.startup NODE --ros-args ...`
    run_node(sys.argv.pop(1))
