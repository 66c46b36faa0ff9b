# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Processes of nodes that start at once, as they are forked from one that has imported all."""

from __future__ import annotations

import fcntl
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

from fork_server import AWAKE, STOOD_STILL

ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 100.0
END_TIMEOUT_S = 30.0
MAX_REPORTS_BYTES = 1 << 16


class NodeProcess:
    """A process that runs a function, with what tests use of `subprocess.Popen`."""

    def __init__(
        self,
        entry: str,
        arguments: Sequence[str] = (),
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        domain: int | None = None,
    ) -> None:
        """Start `entry`, a module and its function as "module:function".

        It has the caller's environment, but for another ROS domain where one is given.
        """
        self.args = [entry, *arguments]
        self.returncode: int | None = None
        ours, theirs = os.pipe()
        self._reports = os.fdopen(ours, "rb", buffering=0)
        heard, asks = os.pipe()
        self._questions = os.fdopen(asks, "wb", buffering=0)
        self.stdout, out = _stream(stdout, 1)
        self.stderr, err = (
            (None, os.dup(out)) if stderr == subprocess.STDOUT else _stream(stderr, 2)
        )
        request = {
            "entry": entry,
            "argv": self.args,
            "env": {**os.environ, **({} if domain is None else {"ROS_DOMAIN_ID": str(domain)})},
            "cwd": str(ROOT),
        }
        socket.send_fds(_server(), [json.dumps(request).encode()], [theirs, heard, out, err])
        for file in (theirs, heard, out, err):
            os.close(file)
        self._unread = b""
        self._lines: deque[str] = deque()
        self._awake = 0
        line = self._report(START_TIMEOUT_S)
        assert line, "the fork server has not started the process"
        self.pid = int(line)
        _started.add(self)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        if self.returncode is None and (line := self._report(0.0)):
            self.returncode = int(line)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            line = self._report(timeout)
            if not line:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = int(line)
        return self.returncode

    def report_standstills(self) -> None:
        """Have it report when it stood still; where it does so now, this waits for it."""
        if self.poll() is not None:
            return
        answers = self._awake
        try:
            self._questions.write(b"?")
        except BrokenPipeError:
            return  # It is ending.
        deadline_s = time.monotonic() + END_TIMEOUT_S
        while self._awake == answers and not self._lines:
            if not self._take_reports(max(deadline_s - time.monotonic(), 0.0)):
                return

    def communicate(self, timeout: float | None = None) -> tuple[str | None, str | None]:
        """Read both streams to their ends, and wait; raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        texts: dict[IO[str], str] = {}
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                texts[stream] = self._read_to_end(stream, deadline)
        self.wait(None if deadline is None else max(deadline - time.monotonic(), 0.0))
        return (
            texts.get(self.stdout) if self.stdout else None,
            texts.get(self.stderr) if self.stderr else None,
        )

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def end(self) -> None:
        """End it as a user does, and by SIGKILL only where that does not help.

        What a killed process leaves in the shared memory of DDS can crash its neighbours.
        """
        self.terminate()
        try:
            self.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()

    def _report(self, timeout_s: float | None) -> str:
        """Return the next line that the server reports; empty where none comes in time."""
        deadline_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._lines:
            left_s = None if deadline_s is None else max(deadline_s - time.monotonic(), 0.0)
            if not self._take_reports(left_s):
                return ""
        return self._lines.popleft()

    def _take_reports(self, timeout_s: float | None = 0.0) -> bool:
        """Take what has been reported; return whether anything was."""
        if not select.select([self._reports], [], [], timeout_s)[0]:
            return False
        data = self._reports.read(MAX_REPORTS_BYTES)
        assert data, f"nobody knows what became of {self.args}"
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in map(bytes.decode, lines):
            if line.startswith(STOOD_STILL):
                from_s, until_s = map(float, line.removeprefix(STOOD_STILL).split())
                _standstills.append((from_s, until_s))
            elif line == AWAKE:
                self._awake += 1
            else:
                self._lines.append(line)
        return True

    def _read_to_end(self, stream: IO[str], deadline: float | None) -> str:
        texts: list[str] = []
        reader = threading.Thread(target=lambda: texts.append(stream.read()), daemon=True)
        reader.start()
        left_s = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        reader.join(left_s)
        if not texts:
            raise subprocess.TimeoutExpired(self.args, left_s or 0.0)
        stream.close()
        return texts[0]


_started: WeakSet[NodeProcess] = WeakSet()
_standstills: deque[tuple[float, float]] = deque(maxlen=1000)
"""Of all processes, also of those that have ended: from and until, s of the steady clock."""


def stood_still(since_s: float, late_s: float = 0.0) -> int:
    """Return how often processes started here stood still, for longer than `late_s`, since a time.

    The time is one of the steady clock. What is too short to be noted is not counted.
    """
    for process in list(_started):
        process.report_standstills()
    return sum(
        until_s >= since_s and until_s - from_s > late_s for from_s, until_s in _standstills
    )


def _stream(wanted: int | IO[Any] | None, inherited: int) -> tuple[IO[str] | None, int]:
    """Return the test's end of a stream, where there is one, and the process's."""
    if wanted is None:
        return None, os.dup(inherited)
    if wanted == subprocess.DEVNULL:
        return None, os.open(os.devnull, os.O_WRONLY)
    if wanted == subprocess.PIPE:
        ours, theirs = os.pipe()
        return os.fdopen(ours, errors="replace"), theirs
    assert not isinstance(wanted, int)
    return None, os.dup(wanted.fileno())


@cache
def _server() -> socket.socket:
    """Return a connection to the suite's fork server, which the first to ask starts."""
    # The processes of one suite have one parent, which waits for them.
    suite = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    path = Path(tempfile.gettempdir()) / f"td3_driver-{os.getuid()}-forks-{suite}"
    with path.with_name(f"td3_driver-{os.getuid()}-forks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = _connected(path)
        if server is None:
            path.unlink(missing_ok=True)  # of a server that was killed, or of another process
            _start_server(path, suite)
            deadline = time.monotonic() + START_TIMEOUT_S
            while (server := _connected(path)) is None:
                assert time.monotonic() < deadline, "the fork server has not started"
                time.sleep(0.02)
    return server


def _connected(path: Path) -> socket.socket | None:
    """Return a connection to whoever listens there, if anybody does."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        server.connect(str(path))
    except OSError:
        server.close()
        return None
    return server


def _start_server(path: Path, suite: int) -> None:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "test"), str(ROOT / "benchmarks")])
    subprocess.Popen(
        [sys.executable, str(ROOT / "test" / "fork_server.py"), str(path), str(suite)],
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,  # Ctrl-C, or the end of the worker that asked, is not for it.
    )


def run_script() -> None:
    """Be a Python script, whose path is the first argument, in a process that was forked."""
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


def parameters(*assignments: str) -> list[str]:
    """Return the arguments that give a node `name:=value` parameters."""
    return ["--ros-args", *(part for one in assignments for part in ("-p", one))]


def start_node(name: str, *assignments: str, **how: Any) -> NodeProcess:
    """Start one of the package's nodes with `name:=value` parameters."""
    module = f"{name}.node" if name in ("driver", "simulator") else name
    return NodeProcess(f"td3_driver.nodes.{module}:main", parameters(*assignments), **how)


@contextmanager
def node_process(name: str, *assignments: str, **how: Any) -> Iterator[NodeProcess]:
    """Run one of the package's nodes, and end it."""
    process = start_node(name, *assignments, **how)
    try:
        yield process
    finally:
        process.end()
