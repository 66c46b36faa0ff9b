# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Processes side by side: what they give, and that they end with whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import side_by_side_tasks as tasks

from td3_driver.evaluation.side_by_side import WorkerEndedError, side_by_side

PROGRAM = Path(tasks.__file__)


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_task_is_done_once(jobs: int) -> None:
    found = dict(side_by_side(tasks.make_square, [3, 1, 2, 5], jobs))
    assert found == {0: 9, 1: 1, 2: 4, 3: 25}
    assert list(side_by_side(tasks.make_square, [], jobs)) == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_a_task_raises_comes_out(jobs: int) -> None:
    with pytest.raises(tasks.OddError, match="three is odd"):
        list(side_by_side(tasks.make_refusal, range(100), jobs))


def test_a_process_that_is_killed_is_told() -> None:
    with pytest.raises(WorkerEndedError, match="fewer --jobs"):
        list(side_by_side(tasks.make_suicide, range(4), 2))


@contextmanager
def running(seconds: float) -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """Run the program until both of its processes have done something; yield their ids."""
    program = subprocess.Popen(
        [sys.executable, str(PROGRAM), "2", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert program.stdout is not None
    workers: set[int] = set()
    try:
        while len(workers) < 2:
            line = program.stdout.readline()
            assert line, "it ended before both had done something"
            workers.add(int(line))
        yield program, workers
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


def wait_until_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + 60.0
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "a process goes on"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    """Return whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.long
@pytest.mark.parametrize("whole_group", [True, False], ids=["terminal", "kill"])
def test_ctrl_c_ends_all_of_them_without_a_word(whole_group: bool) -> None:
    with running(0.2) as (program, workers):
        send = os.killpg if whole_group else os.kill
        send(program.pid, signal.SIGINT)
        _, said = program.communicate(timeout=60)
        assert (program.returncode, said) == (130, "")
        wait_until_gone(workers)


@pytest.mark.long
def test_they_end_where_their_parent_is_killed() -> None:
    with running(0.2) as (program, workers):
        program.kill()
        program.wait()
        wait_until_gone(workers)
