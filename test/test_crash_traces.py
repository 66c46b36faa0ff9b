# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Workers of pytest-xdist that die in every way, and what pytest then says of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent

# Six workers start one after the other, on a core that may be busy.
pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

DEADLY = """
import ctypes
import os
import signal
import time


def by_signal(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def test_segfault():
    ctypes.string_at(0)


def test_abort():
    os.abort()


def test_sigterm():
    by_signal(signal.SIGTERM)


def test_sigkill():
    by_signal(signal.SIGKILL)


def test_exit():
    os._exit(3)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest says of workers that die one after the other, from the section on them."""
    pytest.importorskip("xdist")
    folder = tmp_path_factory.mktemp("deadly")
    (folder / "test_deadly.py").write_text(DEADLY)
    options = ["-n", "1", "--max-worker-restart", "10", "-p", "no:cacheprovider", "-p", "conftest"]
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "test_deadly.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert "5 failed" in ended.stdout, ended.stdout + ended.stderr
    return ended.stdout.split("= workers that died =")[1]


@pytest.mark.parametrize(
    "test, end",
    [
        ("test_segfault", "died of SIGSEGV"),
        ("test_abort", "died of SIGABRT"),
        ("test_sigterm", "died of SIGTERM"),
        ("test_exit", "ended with exit code 3"),
    ],
)
def test_a_worker_that_dies_says_how_and_where(said: str, test: str, end: str) -> None:
    account = next(part for part in said.split("\ngw") if end in part)
    assert f"in {test}\n" in account
    tests = Path(account.split("; it ran ")[1].splitlines()[0])
    assert tests.read_text() == f"test_deadly.py::{test}\n"


def test_a_worker_that_is_killed_is_told_of(said: str) -> None:
    assert "died of SIGKILL" in said
