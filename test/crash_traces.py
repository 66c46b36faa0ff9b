# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Whatever ends a worker of pytest-xdist leaves a trace, which pytest's closing output shows.

A dead worker takes along what it wrote to the stderr that pytest captures, and xdist says only
that it is gone. So a worker writes the stacks of its threads to a file of its own when it dies
of a fault, SIGTERM, SIGHUP or os._exit, and may leave a core dump. How it ended, by SIGKILL too,
is asked of the system.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

FOLDER_KEY = "crash_traces"
# Those that a process can die of without a word; faulthandler knows the faults.
SILENT_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# A worker that has lost its connection ends itself within 15 s.
END_TIMEOUT_S = 20.0
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


@pytest.hookimpl(trylast=True)  # pytest's own plugin points faulthandler to stderr before.
def pytest_configure(config: pytest.Config) -> None:
    given: dict[str, Any] | None = getattr(config, "workerinput", None)
    if given is None:
        config.pluginmanager.register(Controller())
    elif FOLDER_KEY in given:
        config.pluginmanager.register(Worker(Path(given[FOLDER_KEY]), given["workerid"]))


class Worker:
    """Leaves the traces, from within a worker."""

    def __init__(self, folder: Path, name: str) -> None:
        self._pid = os.getpid()
        self._exit = os._exit
        self._tests = tests_of(folder, name).open("w")
        self._trace = trace_of(folder, name).open("w")
        faulthandler.enable(self._trace)
        for number in SILENT_SIGNALS:
            # One that nohup ignores is to stay so, in the processes that tests start too.
            if signal.getsignal(number) == signal.SIG_DFL:
                faulthandler.register(number, self._trace, chain=True)
        os._exit = self._exit_with_trace  # type: ignore[assignment]
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        print(nodeid, file=self._tests, flush=True)

    def _exit_with_trace(self, status: int) -> None:
        if os.getpid() == self._pid:  # and not a fork's
            faulthandler.dump_traceback(self._trace)
        self._exit(status)


class Controller:
    """Collects the traces of workers that died."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._accounts: list[str] = []

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="td3_driver-workers-"))
        node.workerinput[FOLDER_KEY] = str(self._folder)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        if error is None or error == "keyboard-interrupt" or self._folder is None:
            return
        name = node.gateway.id
        self._accounts.append(
            f"{name} {how_it_ended(node.gateway._rinfo().pid)}; it ran "
            f"{tests_of(self._folder, name)}\n{read(trace_of(self._folder, name))}"
        )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._accounts:
            terminalreporter.section("workers that died")
            terminalreporter.write_line("\n".join(self._accounts))

    def pytest_unconfigure(self) -> None:
        if self._folder is not None and not self._accounts:
            shutil.rmtree(self._folder)


def tests_of(folder: Path, name: str) -> Path:
    """Return the file of the tests that a worker began, in order."""
    return folder / f"{name}.tests"


def trace_of(folder: Path, name: str) -> Path:
    """Return the file of a worker's last stacks."""
    return folder / f"{name}.trace"


def read(trace: Path) -> str:
    """Return what a worker has left, if anything."""
    return (trace.read_text(errors="replace") if trace.exists() else "") or "It left no trace.\n"


def how_it_ended(pid: int) -> str:
    """Tell by which signal or exit code a child process ended; leave it to others to reap."""
    deadline = time.monotonic() + END_TIMEOUT_S
    try:
        while not (end := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)):
            if time.monotonic() > deadline:
                return f"(process {pid}) still runs, without a connection"
            time.sleep(0.05)
    except ChildProcessError:
        return "ended, nobody knows how"
    if end.si_code == os.CLD_EXITED:
        return f"ended with exit code {end.si_status}"
    core = ""
    if end.si_code == os.CLD_DUMPED:
        core = f" and dumped core (as {CORE_PATTERN.read_text().strip()!r} from {Path.cwd()})"
    return f"died of {signal.Signals(end.si_status).name}{core}"
