# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Threads that are started again when what they do fails, and that report it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from td3_driver.documents import in_short

RESTART_S = 1.0
"""Time before a thread that has failed goes on: whatever fails at once must not fill the log."""


@dataclass(frozen=True)
class Failure:
    """Why a thread has failed, and how often by now."""

    thread: str
    reason: str
    count: int

    def __str__(self) -> str:
        return f"thread {self.thread} has failed ({self.reason}) and was started again"


class Worker:
    """A thread that runs a body until that returns, and again whenever it raises."""

    def __init__(
        self,
        name: str,
        body: Callable[[], None],
        failed: Callable[[Failure], object] = lambda failure: None,
        restart_s: float | None = None,
    ) -> None:
        """`failed` is called in the thread with every failure; it must not raise.

        The body runs again after `restart_s`, by default `RESTART_S`.
        """
        self.name = name
        self.failure: Failure | None = None
        """The latest failure."""
        self._body = body
        self._failed = failed
        self._restart_s = RESTART_S if restart_s is None else restart_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the body to return, and have it not run again."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                self._body()
            except Exception as error:  # any: a thread that ends takes its purpose with it
                self._note(error)
            else:
                return
            if self._ended.wait(self._restart_s):
                return

    def _note(self, error: Exception) -> None:
        count = self.failure.count if self.failure else 0
        reason = in_short(f"{type(error).__name__}: {error}")
        self.failure = Failure(self.name, reason, count + 1)
        self._failed(self.failure)
