# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Has a document read in a process of its own first: whatever ends that, this one goes on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

_LONGEST_S = 1000
"""Longer than anybody waits for an answer."""


class TrialError(Exception):
    """The process could not be started, or gave no answer; the message says why."""


class TrialTimeoutError(TrialError):
    """The process was not done in time, and was ended."""


class TrialKilledError(TrialError):
    """The process was ended by a signal; the message is the signal's name."""

    def __init__(self, number: int) -> None:
        super().__init__(_signal_name(number))
        # Somebody else may have ended it, or memory been short.
        self.by_others = number in (signal.SIGKILL, signal.SIGTERM)


def ask(module: str, document: bytes, limit_s: float) -> bytes:
    """Return the last line that a module prints that is run with a document as its input.

    Raises TrialError, and KeyboardInterrupt if Ctrl-C ends the process.
    """
    environment = dict(os.environ)
    paths = [str(Path(__file__).resolve().parents[1]), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    try:
        done = subprocess.run(
            [sys.executable, "-m", module],
            input=document,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TrialTimeoutError(f"not done within {limit_s:.0f} s") from None
    except OSError as error:
        raise TrialError(f"{error}; free some memory") from None
    if done.returncode == -signal.SIGINT:
        raise KeyboardInterrupt  # it was meant for both
    if done.returncode < 0:
        raise TrialKilledError(-done.returncode)
    if done.returncode != 0:
        raise TrialError("td3_driver does not start")
    return done.stdout.rpartition(b"\n")[2]


def limit_this_process(memory_bytes: int) -> None:
    """Have a process that tries a document take no more memory than this, and leave no core.

    Ctrl-C ends it even within a library, and it ends by itself if who asked is no more.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.alarm(_LONGEST_S)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(hard, memory_bytes)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
