# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Threads whose work fails: told, and started again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from td3_driver.offline.writer import BagWriter
from td3_driver.workers import Failure, Worker


def test_a_thread_that_fails_tells_so_and_goes_on() -> None:
    failures: list[Failure] = []
    again = threading.Event()

    def body() -> None:
        if len(failures) < 2:
            raise RecursionError("too deep\n" * 1000)
        again.set()

    worker = Worker("reader", body, failures.append, restart_s=0.0)
    assert worker.failure is None
    worker.start()
    assert again.wait(20.0)
    worker.join()
    assert [failure.count for failure in failures] == [1, 2] and worker.failure == failures[-1]
    told = str(failures[0])
    assert "thread reader has failed (RecursionError: too deep" in told
    assert len(told) < 400 and len(told.splitlines()) == 1


def test_the_end_does_not_wait_for_another_start() -> None:
    failed = threading.Event()

    def body() -> None:
        raise OSError

    worker = Worker("reader", body, lambda failure: failed.set(), restart_s=3600.0)
    worker.start()
    assert failed.wait(20.0)
    worker.join()


def test_a_body_that_returns_is_not_run_again() -> None:
    runs: list[int] = []
    worker = Worker("reader", lambda: runs.append(1), restart_s=0.0)
    worker.start()
    worker.join()
    assert runs == [1]


def test_a_recording_that_fails_in_any_way_has_ended_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from td3_driver.nodes.recorder import BagThread  # brings ROS, which the rest does without

    def fail(*_: object) -> None:
        raise RuntimeError("a bag of another world")

    monkeypatch.setattr(BagWriter, "write", fail)
    writing = BagThread(tmp_path / "bag")
    writing.put("/topic", 0, b"", None)
    writing.close()
    assert "recording has ended: RuntimeError('a bag of another world')" in writing.failure
