# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The trainer's process, with a small network, and its log."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

from node_process import start_node

PARAMETERS = {
    "training.maps": "[ring_meadow]",
    "training.total_steps": "1000000",
    "training.random_steps": "20",
    "training.torch_threads": "1",
    "training.log_interval_updates": "40",
    "learning.batch_size": "4",
    "learning.channels": "[4, 4, 4]",
    "learning.image_features": "8",
    "learning.hidden": "[16]",
    "learning.replay_capacity": "2000",
    "learning.device": "cpu",
    "carla.step_timeout_s": "1.0",
}


class Trainer:
    """A trainer in a process of its own, whose log is read line by line."""

    def __init__(self, run: Path, **parameters: str) -> None:
        values = {**PARAMETERS, **parameters, "run": str(run)}
        assignments = [f"{name.replace('__', '.')}:={value}" for name, value in values.items()]
        self.lines: list[str] = []
        self._arrived = threading.Condition()
        self.process = start_node(
            "trainer", *assignments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._arrived:
                self.lines.append(line)
                self._arrived.notify_all()

    def wait_for(self, words: str, timeout_s: float = 90.0) -> None:
        """Wait for a line with `words`, among those that have not been waited for."""

        def found() -> int | None:
            numbers = (n for n, line in enumerate(self.lines) if words in line)
            return next(numbers, None)

        with self._arrived:
            assert self._arrived.wait_for(lambda: found() is not None, timeout_s), self.lines
            number = found()
            assert number is not None
            del self.lines[: number + 1]

    def wait(self, timeout_s: float = 90.0) -> int:
        """Return the exit code."""
        code = self.process.wait(timeout_s)
        self._reader.join()
        return code

    def kill(self) -> None:
        """End it if it has not ended."""
        self.process.kill()
        self._reader.join()
