# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Loads newer checkpoints while another one drives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from td3_driver.learning.checkpoint import to_drive
from td3_driver.learning.manifest import CheckpointError

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
    ) -> None:
        """Take the checkpoint that is `running`; `load` raises CheckpointError.

        `refused` is called, in the thread, with each checkpoint that cannot be used, and why. If
        `period_s` is None, the folder is checked only when `look` is called.
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
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)

    def start(self) -> None:
        """Start watching the folder."""
        self._thread.start()

    def end(self) -> None:
        """Stop the thread, and wait for it to end."""
        self._ended = True
        self._look.set()
        self._thread.join()

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
                self._known_bad.add(checkpoint.name)
                self._refused(checkpoint, str(error))
                continue
            self._ready = loaded
            self._newest = checkpoint.name
            return
