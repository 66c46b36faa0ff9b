# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A collector's process, as the process sees it that has started it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from td3_driver.fleet.chunk import Grant
from td3_driver.fleet.collector import Ended, Event, Placed
from td3_driver.fleet.gathering import Brief

WORKER = "td3_driver.fleet.worker"
SIMULATOR_ENDED = 3
"""Exit code of a collector whose simulator has ended."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
ROOT = Path(__file__).resolve().parents[2]


def die_with_parent() -> Callable[[], None]:
    """Return what a child calls before its program begins, so that it goes with its parent."""
    parent = os.getpid()

    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare


class Child:
    """A collector's process in a group of its own; `said` is called, from a thread, with events.

    Sending and receiving have a thread each: a process that hangs holds nobody up.
    """

    def __init__(
        self,
        brief: Brief,
        said: Callable[[Event], object],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._said = said
        self._stopped = False
        mine, theirs = socket.socketpair()
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        variables = {
            **os.environ,
            # Many processes share the cores, and the updates want some of them.
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(paths),
            **(environment or {}),
        }
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", WORKER, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=variables,
                start_new_session=True,
                preexec_fn=die_with_parent(),
            )
        self._connection = Connection(mine.detach())
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox.put(brief)
        name = f"collector {brief.collector}"
        self._sender = threading.Thread(target=self._send, name=name, daemon=True)
        self._sender.start()
        threading.Thread(target=self._receive, name=name, daemon=True).start()
        said(Placed(f"process {self.pid}"))

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        return self._popen.pid

    def grant(self, grant: Grant) -> None:
        """Give leave for a chunk."""
        self._outbox.put(grant)

    def stop(self) -> None:
        """Kill the whole group, and wait for the process; nothing more is said."""
        self._stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._outbox.put(None)

    def _send(self) -> None:
        try:
            while (message := self._outbox.get()) is not None:
                self._connection.send(message)
        except OSError:
            pass  # It has ended, as receiving will show.

    def _receive(self) -> None:
        reason = ""
        try:
            while True:
                event = self._connection.recv()
                if isinstance(event, Ended):
                    reason = event.reason
                else:
                    self._tell(event)
        except (EOFError, OSError):
            pass
        # Whatever it has started goes with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        code = self._popen.wait()
        self._tell(Ended(reason or _how(code)))
        self._outbox.put(None)
        self._sender.join()  # It may be sending still, to a process that has gone.
        self._connection.close()

    def _tell(self, event: Event) -> None:
        if not self._stopped:
            self._said(event)


def _how(code: int) -> str:
    """Return how a process ended, in words."""
    if code == SIMULATOR_ENDED:
        return "its simulator has ended"
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
