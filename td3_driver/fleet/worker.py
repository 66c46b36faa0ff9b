# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A collector's process: `python -m td3_driver.fleet.worker FD`, with a socket to its parent."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

from td3_driver.documents import in_short
from td3_driver.fleet.chunk import Grant
from td3_driver.fleet.collector import Alive, Ended, Event, Ready
from td3_driver.fleet.gathering import Brief, Gatherer
from td3_driver.learning.threads import use_one_thread

SIGN_PERIOD_S = 1.0


class Signs:
    """Says now and then that decisions are being taken."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._said_s = time.monotonic()

    def __call__(self) -> None:
        """Say so, if it is time."""
        now_s = time.monotonic()
        if now_s - self._said_s >= SIGN_PERIOD_S:
            self.say(Alive())

    def say(self, event: Event) -> None:
        """Send an event; only the main thread does."""
        self._connection.send(event)
        self._said_s = time.monotonic()


def read(connection: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Pass on what arrives; with its parent goes the process, and all that it has started."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)


def serve(connection: Connection) -> None:
    """Drive where leave is given, for ever."""
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=read, args=(connection, inbox), daemon=True).start()
    use_one_thread()
    signs = Signs(connection)
    brief = inbox.get()
    assert isinstance(brief, Brief)
    try:
        env = brief.make_environment()
        gatherer = Gatherer(brief, env, signs)
        signs.say(Ready())
        while True:
            grant = inbox.get()
            assert isinstance(grant, Grant)
            signs.say(gatherer.gather(grant))
    except OSError:
        raise
    except Exception as error:  # whatever it was, the parent is to say it, and to start another
        signs.say(Ended(f"{type(error).__name__}: {in_short(error)}"))
        sys.exit(1)


def main() -> None:
    """Run the process."""
    # Its group is its own: Ctrl-C is for the learner, which ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Connection(int(sys.argv[1])))


if __name__ == "__main__":
    main()
