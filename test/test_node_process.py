# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Forked processes behave as started ones do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from node_process import ROOT, NodeProcess, parameters, start_node, stood_still
from standstill import states_of


def speak() -> None:
    print(os.environ.get("ROS_DOMAIN_ID"), sys.argv[1:], flush=True)
    print("to stderr", file=sys.stderr)
    sys.exit(7)


def sleep() -> None:
    print("begun", flush=True)
    time.sleep(100.0)


def fail() -> None:
    raise ValueError("what nobody has thought of")


def at_exit() -> None:
    import atexit

    atexit.register(lambda: os.write(1, b"at exit"))


def test_it_has_the_callers_environment_its_own_arguments_and_its_exit_code(
    ros_domain: int,
) -> None:
    process = NodeProcess(
        "test_node_process:speak", ["a", "b"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = process.communicate(timeout=60.0)
    assert out == f"{ros_domain} ['a', 'b']\n" and err == "to stderr\n"
    assert process.returncode == process.wait() == process.poll() == 7


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGKILL, -9), (signal.SIGTERM, -15), (signal.SIGINT, -signal.SIGINT)],
)
def test_signals_reach_it(number: signal.Signals, code: int) -> None:
    process = NodeProcess(
        "test_node_process:sleep", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.05)
    process.send_signal(number)
    assert process.wait(60.0) == code  # Python ends by SIGINT, too, where nobody catches it


def test_an_error_ends_it_with_a_traceback(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        process = NodeProcess("test_node_process:fail", stderr=log)
    assert process.wait(60.0) == 1
    assert "ValueError: what nobody has thought of" in (tmp_path / "log").read_text()


def test_what_is_registered_for_the_end_is_done() -> None:
    process = NodeProcess("test_node_process:at_exit", stdout=subprocess.PIPE)
    assert process.communicate(timeout=60.0)[0] == "at exit" and process.returncode == 0


def test_a_node_says_what_it_lacks() -> None:
    process = start_node("driver", stderr=subprocess.PIPE)
    _, told = process.communicate(timeout=60.0)
    assert process.returncode == 2 and told is not None and "name the run to drive with" in told


@pytest.mark.parametrize("name", ["trainer", "ackermann_controller"])
def test_a_forked_node_ends_as_one_that_users_start(name: str) -> None:
    wrong = "carla.step_timeout_s:=-1.0"
    started = subprocess.run(
        [sys.executable, "-m", f"td3_driver.nodes.{name}", *parameters(wrong)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    forked = start_node(name, wrong, stderr=subprocess.PIPE)
    _, told = forked.communicate(timeout=60.0)
    assert started.returncode == forked.returncode == 2
    assert "carla.step_timeout_s: Input should be greater than" in started.stderr
    assert told == started.stderr


def test_it_tells_how_often_it_stood_still_and_is_waited_for_where_it_does() -> None:
    process = NodeProcess("test_node_process:sleep", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    try:
        begin_s = time.monotonic()
        process.send_signal(signal.SIGSTOP)
        while states_of(process.pid) != {"T"}:
            time.sleep(0.001)  # it may be running on another core
        threading.Timer(0.5, process.send_signal, [signal.SIGCONT]).start()
        assert stood_still(begin_s) >= 1
        assert time.monotonic() - begin_s >= 0.5
        assert stood_still(begin_s, late_s=60.0) == stood_still(time.monotonic() + 60.0) == 0
    finally:
        process.kill()
    assert process.wait(10.0) == -signal.SIGKILL
    del process
    assert stood_still(begin_s) >= 1
