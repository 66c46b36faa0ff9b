# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Starts node processes for tests: imports what they need once, and forks for each of them.

Run as a script by `node_process`, once for all of a suite's processes, and for as long as the one
that began the suite lives. A child's parent does nothing but wait for it and report its end; the
child itself reports when it stood still. What Python does at its end is done, what C libraries do
is not: a tracing library of ROS looks there for threads that no fork takes along.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from td3_driver.safety.standstills import LATE_S

# The trainer first: it says how PyTorch's threads are to wait before PyTorch is loaded.
WARM = [
    *(
        f"td3_driver.nodes.{name}"
        for name in (
            "trainer",
            "driver",
            "simulator",
            "recorder",
            "player",
            "ackermann_controller",
        )
    ),
    "torch._dynamo",  # which PyTorch's optimisers load when the first one is made
]
MAX_REQUEST_BYTES = 1 << 20
STOOD_STILL = "stood still"
"""Begins the report that a process did not run: from and until, s of the steady clock."""
AWAKE = "awake"
"""The answer to a question: all that the process stood still before has been reported."""
BEAT_S = 0.05
FILES = 4
"""Reports, questions, and the two streams of a process."""


def serve(listener: socket.socket, suite: int) -> tuple[dict[str, Any], list[int]] | None:
    """Fork for every request; return it with its files in a child, None when the suite ends.

    `suite` is the file of a process (pidfd) that can be read once that has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    callers: list[socket.socket] = []
    while True:
        ready, _, _ = select.select([suite, listener, *callers], [], [])
        if suite in ready:
            return None
        if listener in ready:
            callers.append(listener.accept()[0])
        for caller in set(ready) & set(callers):
            data, files, _, _ = socket.recv_fds(caller, MAX_REQUEST_BYTES, FILES)
            if not data:
                callers.remove(caller)
                caller.close()
                continue
            if not os.fork():
                for ours in (listener, *callers):
                    ours.close()
                os.close(suite)
                if not _wait_for_child(files):
                    return json.loads(data), files
            for file in files:
                os.close(file)


def _wait_for_child(files: list[int]) -> bool:
    """Fork; return False in the child, and never in its parent."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.fork()
    if not child:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return False
    reports, *others = files
    for file in (*others, 0, 1, 2):
        os.close(file)
    os.write(reports, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(reports, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict[str, Any], files: list[int]) -> None:
    """Make this process the one that was asked for, and run its function."""
    reports, questions, stdout, stderr = files
    threading.Thread(target=_report_standstills, args=[reports, questions], daemon=True).start()
    sys.stdout.flush()
    sys.stderr.flush()
    for file, number in ((stdout, 1), (stderr, 2)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    module, _, function = request["entry"].partition(":")
    os._exit(_ended_by(lambda: getattr(importlib.import_module(module), function)()))


def _report_standstills(reports: int, questions: int) -> None:
    """Report each time when this process did not run, for as long as anybody hears it."""
    while True:
        due_s = time.monotonic() + BEAT_S
        asked = bool(select.select([questions], [], [], BEAT_S)[0])
        now_s = time.monotonic()
        lines = [f"{STOOD_STILL} {due_s} {now_s}"] if now_s - due_s > LATE_S else []
        if asked:
            if not os.read(questions, 1):
                return
            lines.append(AWAKE)
        if lines:
            try:
                os.write(reports, "".join(f"{line}\n" for line in lines).encode())
            except OSError:
                return


def _ended_by(function: Callable[[], object]) -> int:
    """Run a function as the interpreter runs a script; return the exit code."""
    code = 0
    try:
        function()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as at any end
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    """Listen at a socket for as long as a process lives: warm up, then serve."""
    path, suite = sys.argv[1], os.pidfd_open(int(sys.argv[2]))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen(64)
        gc.disable()
        for module in WARM:
            importlib.import_module(module)
        gc.freeze()  # What children do not look through they need not copy.
        gc.enable()
        child = serve(listener, suite)
    if child is not None:
        become(*child)
    os.unlink(path)
    os._exit(0)  # What is imported takes long to be taken apart.


if __name__ == "__main__":
    main()
