# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Loads newer checkpoints while another one drives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from td3_driver.documents import in_short
from td3_driver.learning.checkpoint import to_drive
from td3_driver.learning.manifest import CheckpointError
from td3_driver.workers import Failure, Worker

Loaded = TypeVar("Loaded")
"""What loading a checkpoint returns."""


class Reloader(Generic[Loaded]):
    """A thread that loads newer checkpoints from a folder while another one drives."""

    def __init__(
        self,
        folder: Path,
        running: Path,
        load: Callable[[Path], Loaded],
        refused: Callable[[Path, str], None],
        period_s: float | None,
        failed: Callable[[Failure], object] = lambda failure: None,
    ) -> None:
        """Take the checkpoint that is `running`; `load` raises CheckpointError.

        `refused` is called, in the thread, with each checkpoint that cannot be used, and why. If
        `period_s` is None, the folder is checked only when `look` is called. `failed` is called
        with every other failure, after which the thread goes on.
        """
        self._folder = folder
        self._newest = running.name
        self._load = load
        self._refused = refused
        self._period_s = period_s
        self._known_bad: set[str] = set()
        self._ready: Loaded | None = None
        self._look = threading.Event()
        self._ended = False
        self.worker = Worker("reloader", self._run, failed)
        """The thread."""

    def start(self) -> None:
        """Start watching the folder."""
        self.worker.start()

    def end(self) -> None:
        """Stop the thread, and wait for it to end."""
        self._ended = True
        self._look.set()
        self.worker.join()

    def newer(self) -> Path | None:
        """Return the newest checkpoint if it is newer than the running one."""
        found = to_drive(self._folder)
        return found[-1] if found and found[-1].name > self._newest else None

    def look(self) -> None:
        """Check the folder now, including checkpoints that were refused before."""
        self._known_bad.clear()
        self._look.set()

    def take(self) -> Loaded | None:
        """Return a newly loaded policy, once; None if there is none."""
        ready, self._ready = self._ready, None
        return ready

    def _run(self) -> None:
        while not self._ended:
            self._look.wait(self._period_s)
            self._look.clear()
            if not self._ended:
                self._load_newer()

    def _load_newer(self) -> None:
        """Load the newest checkpoint that is newer than the running one and usable."""
        for checkpoint in reversed(to_drive(self._folder)):
            if checkpoint.name <= self._newest:
                return
            if checkpoint.name in self._known_bad:
                continue
            try:
                loaded = self._load(checkpoint)
            except (CheckpointError, OSError) as error:
                self._refuse(checkpoint, str(error))
                continue
            except Exception as error:  # nothing in one may end the search for newer ones
                self._refuse(checkpoint, in_short(f"it cannot be loaded: {error!r}"))
                continue
            self._ready = loaded
            self._newest = checkpoint.name
            return

    def _refuse(self, checkpoint: Path, reason: str) -> None:
        self._known_bad.add(checkpoint.name)
        self._refused(checkpoint, reason)
