# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Signals at any moment of a node's life, and messages that cannot be taken, on both executors.

Takes a few seconds; more signals:

    TD3_DRIVER_SIGNALS=2000 python -m pytest test/test_bridge_runtime.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
from carla_graph import own_domain, ros_node
from rclpy.executors import Executor, SingleThreadedExecutor
from std_msgs.msg import Empty

from td3_driver.bridge import runtime

SIGNALS = int(os.environ.get("TD3_DRIVER_SIGNALS", "120"))
ROOT = Path(__file__).resolve().parent.parent
EXECUTORS: dict[str, Callable[[Any], Executor]] = {
    "best": runtime.create_executor,
    "single-threaded": lambda context: SingleThreadedExecutor(context=context),
}

# A node that is always busy, in a process that signals itself at swept moments.
PROCESS = """
import collections, json, os, random, signal, sys, threading, time
import rclpy
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from rclpy.executors import SingleThreadedExecutor
from std_srvs.srv import Trigger
from td3_driver.bridge import runtime

make_executor = {
    "best": runtime.create_executor,
    "single-threaded": lambda context: SingleThreadedExecutor(context=context),
}[sys.argv[1]]
random.seed(0)
ended = collections.Counter()
swallowed = []
sys.unraisablehook = lambda info: swallowed.append(repr(info.exc_value))

class Signaller:
    def __init__(self, latest_s, signals):
        self.thread = threading.Thread(target=self.run, args=(latest_s, signals), daemon=True)
        self.thread.start()

    def run(self, latest_s, signals):
        for _ in range(signals):
            time.sleep(random.uniform(0.0, latest_s))
            os.kill(os.getpid(), random.choice([signal.SIGINT, signal.SIGTERM]))

def busy_node():
    node = rclpy.create_node("busy")
    publisher = node.create_publisher(Path, "path", 10)
    path = Path(poses=[PoseStamped()] * 10)
    heard = node.create_subscription(Path, "path", lambda message: None, 10)
    node.create_service(Trigger, "trigger", lambda request, response: response)
    client = node.create_client(Trigger, "trigger")
    node.create_timer(0.001, lambda: publisher.publish(path))
    node.create_timer(0.002, lambda: client.call_async(Trigger.Request()))
    def renew():
        node.destroy_subscription(renewed.pop())
        renewed.append(node.create_subscription(Path, "path", lambda message: None, 10))
    renewed = [node.create_subscription(Path, "path", lambda message: None, 10)]
    node.create_timer(0.004, renew)
    return node, publisher, heard

def note(spin):
    try:
        spin()
    except BaseException as error:
        ended[type(error).__name__] += 1
        raise
    ended["nothing"] += 1

def rounds():
    # One signal for each, somewhere in a round of the executor or between two.
    node, _, heard = busy_node()
    spinner = runtime.Spinner(node, make_executor(node.context))
    def spin_on():
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            spinner.once(0.01)
            runtime.take_waiting(heard)
    for _ in range(int(sys.argv[2])):
        signaller = Signaller(0.004, 1)
        try:
            note(spin_on)
        except KeyboardInterrupt:
            signaller.thread.join()
    spinner.close()

def life():
    # Several signals, from its start to the end of its stopping.
    node, publisher, _ = busy_node()
    try:
        note(lambda: runtime.spin(node, executor=make_executor(node.context)))
    finally:
        runtime.insist(lambda: stops.append(publisher.publish(Path())), [publisher])
        node.destroy_node()

codes = collections.Counter([runtime.run(rounds, [])])
runtime.STOP_INTERVAL_S = 0.005
stopped = collections.Counter()
for _ in range(int(sys.argv[3])):
    stops = []
    def begin():
        global signaller
        signaller = Signaller(0.03, 4)
        life()
    codes[runtime.run(begin, [])] += 1
    signaller.thread.join()
    stopped[len(stops)] += 1
print(json.dumps([ended, codes, stopped, swallowed]))
"""


@pytest.mark.timeout(90 + SIGNALS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_signal_at_any_moment_is_a_keyboard_interrupt_and_cuts_no_stop_short(
    executor: str,
) -> None:
    rounds, lives = SIGNALS, max(SIGNALS // 10, 1)
    process = subprocess.run(
        [sys.executable, "-c", PROCESS, executor, str(rounds), str(lives)],
        cwd=ROOT,
        env=os.environ | {"ROS_DOMAIN_ID": str(own_domain())},
        capture_output=True,
        text=True,
        timeout=60.0 + SIGNALS,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    ended, codes, stopped, swallowed = json.loads(process.stdout.splitlines()[-1])
    assert ended == {"KeyboardInterrupt": rounds + lives}, (ended, process.stderr[-3000:])
    assert codes == {"0": 1 + lives}
    assert stopped == {str(runtime.STOP_REPEATS): lives}
    assert not swallowed


@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_message_that_cannot_be_taken_is_skipped(executor: str) -> None:
    with ros_node("listener", own_domain()) as node:
        heard: list[Any] = []

        def hear(message: Any) -> None:
            heard.append(message)
            if len(heard) == 1:
                raise runtime.RCLError("as some middleware does")

        publisher = node.create_publisher(Empty, "bad", 10)
        node.create_subscription(Empty, "bad", hear, 10)
        deadline = time.monotonic() + 20.0

        def publish() -> None:
            publisher.publish(Empty())
            assert time.monotonic() < deadline

        runtime.spin(
            node,
            until=lambda: len(heard) > 2,
            idle_s=lambda: 0.02,
            work=publish,
            executor=EXECUTORS[executor](node.context),
        )


def test_messages_are_taken_up_to_the_one_that_cannot_be() -> None:
    heard: list[Any] = []
    handle = MagicMock()
    handle.take_message.side_effect = [("first", {}), runtime.RCLError("bad"), ("last", {}), None]
    subscription = SimpleNamespace(handle=handle, msg_type=Empty, raw=False, callback=heard.append)
    runtime.take_waiting(subscription)
    assert heard == ["first"]
    runtime.take_waiting(subscription)
    assert heard == ["first", "last"]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_end_of_the_context_ends_the_loop(executor: str) -> None:
    with ros_node("listener", own_domain()) as node:
        rounds = iter([lambda: None, node.context.try_shutdown])
        runtime.spin(node, work=lambda: next(rounds)(), executor=EXECUTORS[executor](node.context))
        assert not node.context.ok()


def test_a_round_that_takes_too_long_has_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(runtime, "time", SimpleNamespace(monotonic=lambda: now_s))
    took_s = iter([0.01, runtime.BEAT_S, 2.0])

    def spin_once(timeout_sec: float) -> None:
        nonlocal now_s
        now_s += next(took_s)

    node = SimpleNamespace(context=SimpleNamespace(ok=lambda: True))
    executor = SimpleNamespace(add_node=lambda node: None, spin_once=spin_once)
    spinner = runtime.Spinner(node, executor)  # type: ignore[arg-type]
    for _ in range(3):
        spinner.once(runtime.BEAT_S)
    assert spinner.stood_still_s == pytest.approx(2.0 - runtime.BEAT_S)
    assert spinner.now_s() == pytest.approx(100.01 + 2 * runtime.BEAT_S)
