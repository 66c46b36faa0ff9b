# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What becomes of each fault that comes over topics: messages in, stops out.

No DDS and no waiting: messages are handed over by calls, on a clock that the test moves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from driver_faults import FAULTS
from scripted_car import TICK_S, Script

from td3_driver.bridge import topics
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig, DriverConfig, DrivingConfig
from td3_driver.driving.control import AckermannCommand, Command
from td3_driver.driving.world import Frame, VehicleControl
from td3_driver.faults import HARMLESS, Fault
from td3_driver.nodes.driver.live_frames import LiveFrames
from td3_driver.safety.guard import WATCH_PERIOD_S, Guard
from td3_driver.safety.watchdog import Stop

LIMIT_S = 0.5
STEP_S = 0.01
CARLA = CarlaConfig()
DRIVER = DriverConfig(route_timeout_s=0.3)
FORWARD = Command(AckermannCommand(0.0, 3.0), VehicleControl(throttle=0.3))


class Subscribers:
    """Stands for a node: keeps what is to be called with the messages of each topic."""

    def __init__(self) -> None:
        self._callbacks: dict[str, Callable[[Any], None]] = {}

    def create_subscription(
        self, message_type: Any, name: str, callback: Callable[[Any], None], qos: Any
    ) -> None:
        self._callbacks[name] = callback

    def deliver(self, topic: Topic, message: Any) -> None:
        self._callbacks[topic.name(CARLA)](message)


class Bench:
    """A script of a car, and what of a driver hears it and commands; `run` moves the clock."""

    def __init__(self, driver: DriverConfig = DRIVER) -> None:
        self.now_s = 100.0
        self.sent: list[tuple[float, Command]] = []
        self.reasons: list[Stop | None] = []
        self.stalled = False
        """Whether the driver stands still: messages wait, and nobody watches."""
        self._waiting: list[tuple[Topic, Any]] = []
        subscribers = Subscribers()
        self._deliver = subscribers.deliver
        self.script = Script(self._take, route_length_m=30, clock=lambda: self.now_s)
        self.script.route_every_tick = True
        self.guard = Guard(
            DrivingConfig(),
            driver,
            TICK_S,
            lambda command, stamp_ns: self.sent.append((self.now_s, command)),
            self.reasons.append,
            clock=lambda: self.now_s,
        )
        self.frames = LiveFrames(subscribers, CARLA, driver, TICK_S, self.guard, self._on_frame)
        self.guard.engage()
        self._steps = 0
        self.run(1.0)
        assert self.drives

    def _take(self, topic: Topic, message: Any) -> None:
        self._waiting.append((topic, message))

    def _on_frame(self, frame: Frame, arrived_s: float) -> None:
        self.guard.drive(FORWARD, frame, arrived_s)

    def run(self, duration_s: float) -> None:
        """Let time pass, in steps of 10 ms; the car ticks every fifth."""
        for _ in range(round(duration_s / STEP_S)):
            self.now_s += STEP_S
            self._steps += 1
            if self._steps % round(TICK_S / STEP_S) == 0:
                self.script.tick()
            if self.stalled:
                continue
            if self._steps % round(WATCH_PERIOD_S / STEP_S) == 2:
                self.guard.beat("watchdog")
                self.guard.check()
            if self._steps % round(WATCH_PERIOD_S / STEP_S) == 1:
                self.guard.beat("executor")
            waiting, self._waiting = self._waiting, []
            for topic, message in waiting:
                self._deliver(topic, message)

    def leave_out(self, topic: Topic) -> None:
        """Lose a topic's messages that wait, but for the first and the last."""
        here = [number for number, (of, _) in enumerate(self._waiting) if of is topic]
        self._waiting = [
            each for number, each in enumerate(self._waiting) if number not in here[1:-1]
        ]

    @property
    def drives(self) -> bool:
        return self.guard.standing is None and self.sent[-1][1].ackermann.speed > 0.0

    @property
    def standing(self) -> Stop:
        stop = self.guard.standing
        assert stop is not None
        return stop

    def first_stop(self, since_s: float) -> int:
        """Which of the commands is the first stop since a time."""
        return next(
            number
            for number, (at, command) in enumerate(self.sent)
            if at >= since_s and command.ackermann.speed == 0.0
        )


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_stops_the_car_in_time_with_its_reason_and_no_longer_than_it_has_to(
    name: str,
) -> None:
    bench, wrong = Bench(), FAULTS[name]
    began_s = wrong.begin(bench.script)
    bench.run(1.0)
    first_stop = bench.first_stop(began_s[0])
    assert bench.sent[first_stop][0] - began_s[0] < LIMIT_S
    stop = bench.standing
    assert stop.fault is wrong.fault and wrong.words in stop.reason
    # A jump is over at once, all the others last.
    assert stop.over is (wrong.jump_s != 0.0)
    assert stop.needs_resume is (wrong.fault not in HARMLESS)
    # No command comes between the stops, and they are repeated.
    since = [command for _, command in bench.sent[first_stop:]]
    assert len(since) >= 0.5 / WATCH_PERIOD_S
    assert all(command.control.brake == 1.0 and not command.ackermann.speed for command in since)
    bench.script.heal()
    bench.run(DRIVER.resume_delay_s + 0.2)
    assert bench.drives is (wrong.fault in HARMLESS)
    if wrong.fault in HARMLESS:
        return
    bench.run(3.0)
    stop = bench.standing
    assert stop.fault is wrong.fault and stop.over and wrong.words in stop.reason
    assert bench.guard.resume() is None
    bench.run(0.1)
    assert bench.drives


def test_the_reason_follows_what_is_in_force() -> None:
    bench = Bench()
    FAULTS["the simulator falls silent"].begin(bench.script)
    bench.run(1.0)
    assert bench.standing.fault is Fault.SIMULATOR_GONE
    bench.script.silent = {topics.ODOMETRY}
    bench.run(1.0)
    assert bench.standing.fault is Fault.ODOMETRY_SILENT
    assert bench.standing.first.startswith("simulator_gone: nothing from the simulator")
    bench.script.heal()
    bench.run(0.7)
    assert bench.drives


def test_an_override_that_is_over_is_no_reason_to_refuse_resume() -> None:
    bench = Bench()
    FAULTS["somebody drives by hand"].begin(bench.script)
    bench.run(0.5)
    refused = bench.guard.resume()
    assert refused is not None and refused.needs_resume
    assert refused.fault is Fault.MANUAL_OVERRIDE and "by hand" in refused.reason
    bench.script.heal()
    bench.run(1.0)
    bench.script.silent = {topics.IMAGE}
    bench.run(0.4)
    # The camera is what is missing now: somebody can vouch, and it drives on when that is back.
    answer = bench.guard.resume()
    assert answer is not None and not answer.needs_resume
    assert answer.fault is Fault.CAMERA_SILENT and "camera" in answer.reason
    assert answer.first.startswith("manual_override")
    bench.script.heal()
    bench.run(0.7)
    assert bench.drives


def test_a_driver_that_stood_still_says_so_and_blames_nobody() -> None:
    bench = Bench()
    bench.stalled = True
    bench.run(0.45)
    bench.stalled = False
    bench.run(0.2)
    assert bench.standing.fault is Fault.DRIVER_STALLED
    assert "the driver itself stalled for 0.5 s" in bench.standing.reason
    assert bench.guard.standstills()[0] >= 1
    bench.run(0.7)
    assert bench.drives
    assert {stop.fault for stop in bench.reasons if stop} == {None, Fault.DRIVER_STALLED}


def test_a_sensor_that_died_while_the_driver_stood_still_is_named_in_the_end() -> None:
    bench = Bench()
    bench.script.silent = {topics.ODOMETRY}
    bench.stalled = True
    bench.run(0.45)
    bench.stalled = False
    bench.run(1.5)
    assert bench.standing.fault is Fault.ODOMETRY_SILENT


def test_which_faults_are_harmless_is_a_setting() -> None:
    bench = Bench(DriverConfig(resume_after=(Fault.CLOCK_JUMP,)))
    FAULTS["the clock jumps ahead"].begin(bench.script)
    bench.run(0.2)
    assert bench.standing.fault is Fault.CLOCK_JUMP and not bench.standing.needs_resume
    bench.run(0.6)
    assert bench.drives
    bench.script.silent = {topics.IMAGE}
    bench.run(1.0)
    bench.script.heal()
    bench.run(5.0)
    assert bench.standing.fault is Fault.CAMERA_SILENT and bench.standing.over


def test_what_became_of_the_images_is_counted() -> None:
    bench = Bench()
    assert (bench.frames.counts.dropped, bench.frames.counts.unmatched) == (0, 0)
    bench.script.stamp_ns += 3 * round(TICK_S * 1e9)
    bench.run(0.2)
    assert bench.frames.counts.dropped == 3

    def repeat(message: Any) -> None:
        del bench.script.tamper[topics.IMAGE]
        bench.script.publish(topics.IMAGE, message)

    bench.script.tamper[topics.IMAGE] = repeat
    bench.run(0.2)
    assert bench.frames.counts.repeated == 1
    lost: list[Any] = []

    def lose(message: Any) -> None:
        lost.append(message)
        message.header.stamp.sec -= 1
        if len(lost) == 2:
            del bench.script.tamper[topics.ODOMETRY]

    bench.script.tamper[topics.ODOMETRY] = lose
    bench.run(0.3)
    counts = bench.frames.counts
    assert (counts.dropped, counts.repeated, counts.unmatched, counts.refused) == (3, 1, 2, 0)
    assert bench.drives


def test_in_a_simulator_faster_than_real_time_a_few_images_left_out_are_no_jump() -> None:
    bench = Bench()
    for _ in range(60):  # five ticks for each that is heard: simulated time goes five times faster
        bench.script.stamp_ns += 4 * round(TICK_S * 1e9)
        bench.run(TICK_S)
    assert bench.frames.pace == pytest.approx(5.0, rel=0.05)
    bench.script.stamp_ns += 1_500_000_000
    bench.run(TICK_S)
    assert bench.drives and not bench.guard.fault_counts()[Fault.CLOCK_JUMP]
    bench.script.stamp_ns += 10_000_000_000
    bench.run(2 * TICK_S)
    assert bench.standing.fault is Fault.CLOCK_JUMP


def test_at_real_time_the_same_gap_is_a_jump() -> None:
    bench = Bench()
    assert bench.frames.pace == pytest.approx(1.0, rel=0.05)
    bench.script.stamp_ns += 1_500_000_000
    bench.run(2 * TICK_S)
    assert bench.standing.fault is Fault.CLOCK_JUMP


@pytest.mark.parametrize("ahead_s", [0.0, 2.0])
def test_images_that_waited_while_the_driver_stood_still_are_no_jump(ahead_s: float) -> None:
    bench = Bench()
    bench.stalled = True
    bench.run(0.2)
    bench.script.stamp_ns += round(ahead_s * 1e9)
    bench.run(0.8)
    bench.leave_out(topics.IMAGE)  # as the queue holds few
    bench.stalled = False
    bench.run(0.1)
    jumped = bench.guard.fault_counts()[Fault.CLOCK_JUMP]
    assert jumped == (ahead_s > 0.0)
    bench.run(DRIVER.resume_delay_s + 0.2)
    assert bench.drives is not jumped and bench.frames.pace == pytest.approx(1.0, rel=0.3)


SEVERAL = "a, b publish /carla/ego_vehicle/rgb_front/image"
MIXED = ("an image of another size", "the clock jumps back")


@pytest.mark.parametrize("name", MIXED)
def test_what_several_publishers_cause_is_theirs_and_over_with_them(name: str) -> None:
    bench = Bench()
    FAULTS[name].begin(bench.script)
    bench.run(0.3)
    assert bench.standing.needs_resume
    bench.guard.note_publishers(SEVERAL)  # It was heard before it was seen.
    stop = bench.standing
    assert (stop.fault, stop.reason) == (Fault.SEVERAL_PUBLISHERS, SEVERAL)
    assert not stop.needs_resume and stop.first.startswith(FAULTS[name].fault.value)
    bench.guard.note_publishers(f"{SEVERAL}, named")
    assert bench.guard.check() == bench.standing and bench.standing.reason.endswith("named")
    assert bench.guard.fault_counts()[Fault.SEVERAL_PUBLISHERS] == 1
    bench.script.heal()
    bench.guard.note_publishers(None)
    bench.run(DRIVER.resume_delay_s + 0.2)
    assert bench.drives


def test_several_publishers_alone_stop_nothing() -> None:
    """One that was killed stays in the graph for a while."""
    bench = Bench()
    bench.guard.note_publishers(SEVERAL)
    bench.run(2.0)
    assert bench.drives and set(bench.reasons[-1:]) == {None}
    FAULTS["the clock jumps back"].begin(bench.script)
    bench.run(0.1)
    assert bench.standing.fault is Fault.SEVERAL_PUBLISHERS
    bench.run(1.0)
    assert bench.drives


def test_several_publishers_excuse_nothing_else() -> None:
    bench = Bench()
    FAULTS["an image of another size"].begin(bench.script)
    bench.run(6.0)  # It began long before the other publisher came.
    bench.guard.note_publishers(SEVERAL)
    bench.script.heal()
    bench.run(1.0)
    assert bench.standing.fault is Fault.IMAGE_MALFORMED and bench.standing.needs_resume
    assert bench.guard.resume() is None
    FAULTS["NaN in the speed"].begin(bench.script)
    bench.run(0.2)
    assert bench.standing.fault is Fault.NOT_FINITE and bench.standing.needs_resume
    bench.script.heal()
    bench.run(1.0)
    assert bench.guard.resume() is None
    bench.guard.note_publishers(None)
    bench.run(1.5)  # What is left of the other has come by now.
    FAULTS["an image of another size"].begin(bench.script)
    bench.run(0.2)
    assert bench.standing.fault is Fault.IMAGE_MALFORMED and bench.standing.needs_resume


def test_after_several_publishers_somebody_can_be_asked_to_look_too() -> None:
    bench = Bench(DriverConfig(resume_after=("none",)))
    bench.guard.note_publishers(SEVERAL)
    FAULTS["the clock jumps back"].begin(bench.script)
    bench.run(3.0)
    stop = bench.standing
    assert stop.fault is Fault.SEVERAL_PUBLISHERS and stop.needs_resume and stop.over


def test_another_camera_has_a_size_of_its_own() -> None:
    bench = Bench()
    bench.frames.expect_another_size()
    FAULTS["an image of another size"].begin(bench.script)
    bench.run(1.0)
    assert bench.drives
    bench.script.heal()
    bench.run(0.2)
    assert bench.standing.fault is Fault.IMAGE_MALFORMED
    assert "160 x 120 pixels instead of 160 x 60" in bench.standing.reason


def test_a_size_that_is_a_setting_stays_for_every_camera() -> None:
    bench = Bench(DriverConfig(image_width_px=160, image_height_px=120))
    bench.frames.expect_another_size()
    FAULTS["an image of another size"].begin(bench.script)
    bench.run(0.2)
    assert bench.standing.fault is Fault.IMAGE_MALFORMED
