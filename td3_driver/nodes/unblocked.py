# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Logging that waits for nobody."""

from __future__ import annotations

import contextlib
import os
import sys


def never_wait_for_stderr() -> None:
    """Drop what stderr cannot take, from now on, instead of waiting until it can.

    rclpy logs with Python's interpreter lock held: a terminal that is halted (Ctrl-S), or a pipe
    that nobody reads, would stop every thread of the process, the watchdog's too. The stream is
    opened anew for that, as whoever else has it open must not find it changed. What cannot be
    opened anew, such as a socket, stays as it is.
    """
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        stream = os.open(
            "/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        )
        os.dup2(stream, 2)
        os.close(stream)
