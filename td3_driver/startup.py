# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The beginning of every process: Ctrl-C while it still imports ends it without a traceback.

It imports nothing large itself, so that little is left of the time before.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
from types import FrameType

COMMAND_LINE = "td3-driver"


def run(name: str) -> None:
    """Run `td3-driver` or one of `td3_driver.nodes`, which handles signals once it is imported."""
    end_at_once_on_ctrl_c()
    if name == COMMAND_LINE:
        # By its name: this module stands before everything that it starts.
        main = importlib.import_module("td3_driver.cli").main
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main())
    runpy.run_module(f"td3_driver.nodes.{name}", run_name="__main__", alter_sys=True)


def end_at_once_on_ctrl_c() -> None:
    """Have Ctrl-C end the process at once, with its exit code and without a traceback."""
    # A shell has a process in the background ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # An exception in the middle of an import comes out of C++ code as anything.
    os._exit(128 + number)


if __name__ == "__main__":
    # `python -m td3_driver.startup NODE --ros-args ...`
    run(sys.argv.pop(1))
