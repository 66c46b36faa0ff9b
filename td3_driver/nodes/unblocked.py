# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Logging that never blocks."""

from __future__ import annotations

import contextlib
import os
import sys


def never_wait_for_stderr() -> None:
    """From now on, drop output that stderr cannot take, instead of waiting until it can.

    rclpy logs with Python's interpreter lock held: a halted terminal (Ctrl-S) or an unread pipe
    would stop every thread of the process, including the watchdog's. The stream is reopened, so
    that it does not change for other processes that have it open. A stream that cannot be
    reopened, such as a socket, stays as it is.
    """
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        stream = os.open(
            "/proc/self/fd/2", os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY
        )
        os.dup2(stream, 2)
        os.close(stream)
