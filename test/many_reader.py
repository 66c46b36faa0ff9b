# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A process that reads many spoilt documents one after another."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from typing import Any

ANSWER_S = 60.0


class ManyReader:
    """A process that reads one after another, started again after one that ends it."""

    def __init__(self, code: str) -> None:
        """Start it; `code` is what it runs."""
        self._code = code
        self._start()

    def answer(self, text: object) -> Any:
        """Return what became of a document; None if it ended the process or hung."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(text) + "\n")
        self._process.stdin.flush()
        try:
            while True:
                line = self._lines.get(timeout=ANSWER_S)
                if line is None or line.startswith("="):
                    break
        except queue.Empty:
            line = None
        if line is None:
            self.close()
            self._start()
            return None
        return json.loads(line[1:])

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen, lines: queue.Queue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)
