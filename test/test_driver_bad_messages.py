# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Random and malformed messages on every topic that a driver listens to, while it drives.

Takes a few seconds; all of them:

    TD3_DRIVER_BAD_MESSAGES=20000 python -m pytest test/test_driver_bad_messages.py -s
"""

from __future__ import annotations

import os
import random
import string
import time
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carla_graph import own_domain, ros_node
from carla_msgs.msg import CarlaWorldInfo
from diagnostic_msgs.msg import DiagnosticArray
from driver_runs import make_run, small_config
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Odometry
from nav_msgs.msg import Path as PathMessage
from node_process import NodeProcess, parameters
from rclpy.serialization import serialize_message
from scripted_car import HEARD, ScriptedCar
from sensor_msgs.msg import Image
from std_msgs.msg import Bool, Float32
from std_srvs.srv import Trigger

from td3_driver.bridge import topics
from td3_driver.config import DrivingConfig

MESSAGES = int(os.environ.get("TD3_DRIVER_BAD_MESSAGES", "700"))
CHUNK = 100
# What the C++ libraries keep for themselves varies by some megabytes; a leak of a hundred bytes
# in each message would show, with 20,000 of them, as two.
GROWTH_LIMIT_MIB = 24.0
LIMITS = DrivingConfig()

NUMBERS = [0.0, -1.0, 1e-300, 1e6, -1e12, 1e300, float("nan"), float("inf"), -float("inf")]


class BadMessages:
    """Makes messages that mean nothing, or the wrong thing."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def make(self, topic: topics.Topic) -> Any:
        """A message of the topic's type, or bytes that are none."""
        message = getattr(self, f"_{topic.type_name.split('/')[-1].lower()}")()
        if self.random.random() < 0.5:
            return message
        return self._damage(serialize_message(message))

    def number(self) -> float:
        pick = self.random.random()
        return self.random.choice(NUMBERS) if pick < 0.5 else self.random.uniform(-100.0, 100.0)

    def text(self) -> str:
        return "".join(self.random.choices(string.printable, k=self.random.randrange(40)))

    def _damage(self, data: bytes) -> bytes:
        kind = self.random.randrange(4)
        if kind == 0:
            return data[: self.random.randrange(4, len(data) + 1)]
        if kind == 1:
            # No longer: DDS does not send more than a type of fixed size can have.
            return data[:4] + self.random.randbytes(self.random.randrange(len(data) - 3))
        damaged = bytearray(data)
        for _ in range(self.random.randrange(1, 9)):
            at = self.random.randrange(4 if kind == 2 else 0, min(len(damaged), 200))
            damaged[at] = self.random.randrange(256)
        return bytes(damaged)

    def _stamp(self, header: Any) -> None:
        header.stamp.sec = self.random.choice([0, 1, -5, 2**31 - 1, -(2**31)])
        header.stamp.nanosec = self.random.choice([0, 999_999_999, 2**32 - 1])
        header.frame_id = self.text()

    def _pose(self, pose: Any) -> None:
        for part in (pose.position, pose.orientation):
            for axis in "xyz":
                setattr(part, axis, self.number())

    def _image(self) -> Image:
        message = Image()
        self._stamp(message.header)
        message.encoding = self.random.choice(["bgra8", "rgb8", "mono8", "32FC1", self.text()])
        message.width, message.height, message.step = (
            self.random.choice([0, 1, 16, 160, 2**32 - 1]) for _ in range(3)
        )
        message.data = array("B", self.random.randbytes(self.random.choice([0, 1, 256, 76800])))
        return message

    def _odometry(self) -> Odometry:
        message = Odometry()
        self._stamp(message.header)
        self._pose(message.pose.pose)
        message.twist.twist.angular.z = self.number()
        return message

    def _float32(self) -> Float32:
        number = self.number()
        return Float32(data=number if abs(number) < 3e38 or number != number else float("inf"))

    def _path(self) -> PathMessage:
        message = PathMessage()
        self._stamp(message.header)
        for _ in range(self.random.choice([0, 1, 2, 50])):
            stamped = PoseStamped()
            self._pose(stamped.pose)
            message.poses.append(stamped)
        return message

    def _bool(self) -> Bool:
        return Bool(data=self.random.random() < 0.5)

    def _carlaworldinfo(self) -> CarlaWorldInfo:
        opendrive = self.random.choice(
            [
                self.text(),
                "<OpenDRIVE/>",
                "<OpenDRIVE><header/><road id='1' length='nan'/></OpenDRIVE>",
                "<OpenDRIVE><header/>" + self.text() + "</OpenDRIVE>",
            ]
        )
        return CarlaWorldInfo(map_name=self.text(), opendrive=opendrive)


BAD_TOPICS = (
    topics.IMAGE,
    topics.ODOMETRY,
    topics.SPEEDOMETER,
    topics.WAYPOINTS,
    topics.MANUAL_OVERRIDE,
    topics.WORLD_INFO,
)


@contextmanager
def driver_process(run: Path, log: Path, executor: str) -> Iterator[NodeProcess]:
    arguments = [executor, *parameters(f'run:="{run}"')]
    with log.open("wb") as stderr:
        process = NodeProcess("odd_drivers:on_executor", arguments, stderr=stderr)
    try:
        yield process
    finally:
        process.end()


def resident_mib(process: NodeProcess) -> float:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def check_commands(car: ScriptedCar) -> int:
    """Check what has been commanded against the limits; forget it, and return how much it was."""
    ackermann, pedals = ([message for _, message in car.commands[topic]] for topic in HEARD)
    for topic in HEARD:
        car.commands[topic].clear()
    angles = np.array([message.steering_angle for message in ackermann])
    speeds = np.array([message.speed for message in ackermann])
    assert np.all(np.isfinite(angles)) and np.all(np.isfinite(speeds))
    assert np.all(np.abs(angles) <= LIMITS.max_steering_angle_rad + 1e-6)
    assert np.all(np.abs(np.diff(angles)) <= LIMITS.max_steering_rate_rps * 0.2 + 1e-6)
    assert np.all((speeds >= 0.0) & (speeds <= LIMITS.max_speed_mps + 1e-6))
    for message in pedals:
        assert 0.0 <= message.throttle <= 1.0 and 0.0 <= message.brake <= 1.0
        assert not (message.throttle and message.brake)
        assert not message.reverse and not message.hand_brake
    return len(ackermann)


@pytest.mark.parametrize("executor", ["best", "single-threaded"])
@pytest.mark.timeout(60 + MESSAGES // 20)
def test_nothing_crashes_or_moves_that_should_not(tmp_path: Path, executor: str) -> None:
    run = make_run(tmp_path / "run", small_config()).path
    bad = BadMessages(0)
    log = tmp_path / "log"
    with ros_node("car", own_domain()) as node, driver_process(run, log, executor) as driver:
        car = ScriptedCar(node)
        resume = node.create_client(Trigger, "/driver/resume")
        publishers = {
            topic: node.create_publisher(
                topic.message_type, topic.name(car.config), topic.bridge_qos.profile()
            )
            for topic in BAD_TOPICS
        }
        refused: list[int] = []
        node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda message: refused.append(
                next(
                    int(pair.value)
                    for status in message.status
                    for pair in status.values
                    if pair.key == "refused"
                )
            ),
            10,
        )
        car.start()

        def make_it_drive() -> None:
            begin_s = time.monotonic()
            for _ in range(20):
                car.heal()
                car.send_route()
                future = resume.call_async(Trigger.Request())
                assert car.wait(future.done, 10.0), log.read_text()[-3000:]
                if car.wait(lambda: car.told_to_drive(begin_s), 1.0):
                    return
            raise AssertionError(log.read_text()[-3000:])

        try:
            assert car.wait(car.told_to_drive, 100.0), log.read_text()
            sent = commands = 0
            before_mib = 0.0
            while sent < MESSAGES:
                topic = BAD_TOPICS[(sent // CHUNK) % len(BAD_TOPICS)]
                for _ in range(CHUNK):
                    publishers[topic].publish(bad.make(topic))
                    time.sleep(0.002)
                sent += CHUNK
                assert driver.poll() is None, log.read_text()[-3000:]
                car.spin(0.1)
                commands += check_commands(car)
                make_it_drive()
                if sent == CHUNK * len(BAD_TOPICS):
                    before_mib = resident_mib(driver)
            # How many were refused is reported once a second.
            car.wait(lambda: refused[-1] > sent / 10, 10.0)
            after_mib = resident_mib(driver)
        finally:
            car.end()
    print(
        f"\n{sent} messages, {refused[-1]} of them refused, {commands} commands; "
        f"{before_mib:.1f} MiB after the first "
        f"{CHUNK * len(BAD_TOPICS)}, {after_mib:.1f} MiB at the end"
    )
    assert refused[-1] > sent / 10
    assert "Traceback" not in log.read_text()
    assert after_mib - before_mib < GROWTH_LIMIT_MIB
