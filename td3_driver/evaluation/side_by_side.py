# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Does tasks in several processes side by side, which all end with this one."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
Make = Callable[[], Callable[[Any], Any]]


class WorkerEndedError(OSError):
    """A process ended before its task did; the message says what to do."""


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def side_by_side(
    make: Callable[[], Callable[[Task], Result]], tasks: Sequence[Task], jobs: int
) -> Generator[tuple[int, Result], None, None]:
    """Yield each task's number and result, in the order in which they are done.

    `make` is called once in each of up to `jobs` processes, and returns what does a task there; it
    has to be picklable, as have tasks and results. With one job, everything happens here. Raises
    what a task raises, and WorkerEndedError if a process is killed.

    Close the iterator where it is left early: that ends the processes.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        do = make()
        yield from ((number, do(task)) for number, task in enumerate(tasks))
        return
    # A fork would take along the locks of PyTorch's threads, but not the threads.
    context = multiprocessing.get_context("spawn")
    ends, end_all = context.Pipe(duplex=False)
    executor = ProcessPoolExecutor(jobs, context, _begin, (ends, make))
    try:
        with _sigint_held():
            futures = {executor.submit(_do, task): number for number, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures.pop(future), future.result()
        executor.shutdown()
    except BrokenProcessPool:
        raise WorkerEndedError(
            "a process that drove has been ended; memory may be short: try fewer --jobs"
        ) from None
    finally:
        end_all.close()
        executor.shutdown(cancel_futures=True)
        ends.close()


@contextmanager
def _sigint_held() -> Iterator[None]:
    """Hold Ctrl-C back meanwhile, here and in processes that start: they begin with imports."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_worker: dict[str, Callable[[Any], Any]] = {}


def _begin(ends: Connection, make: Make) -> None:
    """Make a new process ready for tasks; it goes with its parent, and with Ctrl-C, quietly."""
    threading.Thread(target=_end_with_parent, args=(ends,), daemon=True).start()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    logging.disable(logging.WARNING)  # The parent has read the same maps, and has warned of them.
    _worker["do"] = make()


def _end_with_parent(ends: Connection) -> None:
    """Wait for the parent to close its end of a pipe, as it also does when it is killed."""
    ends.poll(None)
    os._exit(1)


def _do(task: Any) -> Any:
    return _worker["do"](task)
