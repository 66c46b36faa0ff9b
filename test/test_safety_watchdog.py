# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The watchdog's decisions, by times worked out by hand, and the guard that acts on them."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

from td3_driver.config import DriverConfig, DrivingConfig
from td3_driver.driving.control import AckermannCommand, Command
from td3_driver.driving.world import Frame, Pose, VehicleControl
from td3_driver.faults import HARMLESS, Fault
from td3_driver.safety.guard import Guard, WatchThread
from td3_driver.safety.standstills import Standstills
from td3_driver.safety.watchdog import SENSORS, Source, Stop, Watchdog
from td3_driver.workers import Failure

CONFIG = DriverConfig(
    camera_timeout_s=0.3,
    odometry_timeout_s=0.2,
    speedometer_timeout_s=0.4,
    policy_timeout_s=0.1,
    resume_delay_s=0.5,
)
ALL = (*SENSORS, Source.FRAME)


def awake(config: DriverConfig = CONFIG, now_s: float = 0.0) -> Watchdog:
    """A watchdog that has heard everything."""
    watchdog = Watchdog(config)
    hear(watchdog, now_s)
    return watchdog


def hear(watchdog: Watchdog, now_s: float, *but: Source) -> None:
    for source in ALL:
        if source not in but:
            watchdog.heard(source, now_s)


def test_limits_that_change_apply_from_then_on() -> None:
    watchdog = awake()
    assert watchdog.check(0.25) is not None  # the odometry's limit is 0.2 s
    watchdog = awake()
    watchdog.change_limits(CONFIG.model_copy(update={"odometry_timeout_s": 0.4}))
    assert watchdog.check(0.25) is None
    assert watchdog.check(0.35) is not None


def test_it_waits_for_everything_to_come_once() -> None:
    watchdog = Watchdog(CONFIG)
    for source in ALL:
        stop = watchdog.check(100.0)
        assert stop is not None and stop.fault is None and source.value in stop.reason
        watchdog.heard(source, 100.0)
    assert watchdog.check(100.0) is None
    assert not any(watchdog.counts.values())


@pytest.mark.parametrize(
    "silent, fault, limit_s",
    [
        (Source.CAMERA, Fault.CAMERA_SILENT, 0.3),
        (Source.ODOMETRY, Fault.ODOMETRY_SILENT, 0.2),
        (Source.SPEEDOMETER, Fault.SPEEDOMETER_SILENT, 0.4),
        # The longer one of camera and odometry.
        (Source.FRAME, Fault.STAMPS_UNMATCHED, 0.3),
    ],
)
def test_each_silence_has_its_limit(silent: Source, fault: Fault, limit_s: float) -> None:
    watchdog = awake()
    for now_s in np.arange(0.01, limit_s - 0.005, 0.01):
        hear(watchdog, now_s, silent)
        assert watchdog.check(now_s) is None
    hear(watchdog, limit_s + 0.01, silent)
    stop = watchdog.check(limit_s + 0.01)
    assert stop is not None and stop.fault is fault
    assert stop.reason == f"no {silent.value} for {limit_s:.1f} s"


def test_a_simulator_that_is_gone_is_told_from_one_silent_sensor() -> None:
    watchdog = awake()
    # All stop within a tick of each other; the odometry has the shortest limit.
    watchdog.heard(Source.SPEEDOMETER, 0.0)
    watchdog.heard(Source.CAMERA, 0.04)
    stop = watchdog.check(0.25)
    assert stop is not None and stop.fault is Fault.SIMULATOR_GONE
    assert stop.reason == "nothing from the simulator for 0.2 s: it is gone or paused"


def test_a_route_ages_only_where_that_is_asked_for() -> None:
    watchdog = awake()
    watchdog.heard(Source.ROUTE, 0.0)
    hear(watchdog, 900.0)
    assert watchdog.check(900.0) is None
    watchdog = awake(DriverConfig(route_timeout_s=2.0))
    watchdog.heard(Source.ROUTE, 0.0)
    hear(watchdog, 2.01)
    stop = watchdog.check(2.01)
    assert stop is not None and stop.fault is Fault.ROUTE_OLD


def test_a_decision_that_is_still_being_made_can_be_too_slow_already() -> None:
    watchdog = awake()
    watchdog.deciding(0.0)
    assert watchdog.check(0.1) is None
    stop = watchdog.check(0.11)
    assert stop is not None and stop.fault is Fault.POLICY_SLOW
    assert stop.reason == "the policy takes 0.11 s to decide"


def test_a_decision_between_two_checks_can_be_too_slow() -> None:
    watchdog = awake()
    watchdog.deciding(0.0)
    watchdog.decided(0.15)
    stop = watchdog.check(0.15)
    assert stop is not None and stop.fault is Fault.POLICY_SLOW


def test_it_drives_on_a_while_after_a_harmless_fault() -> None:
    watchdog = awake()
    hear(watchdog, 0.35, Source.CAMERA)
    assert watchdog.check(0.35) is not None
    for now_s in (0.4, 0.5, 0.6, 0.7, 0.8):
        hear(watchdog, now_s)
        assert watchdog.check(now_s) is not None
    hear(watchdog, 0.86)
    assert watchdog.check(0.86) is None
    assert watchdog.counts[Fault.CAMERA_SILENT] == 1


def test_after_another_it_stands_until_somebody_vouches() -> None:
    watchdog = awake()
    watchdog.report(Fault.NOT_FINITE, "the speed is nan", 0.0)
    stop = watchdog.check(0.1)
    assert stop == Stop("the speed is nan", Fault.NOT_FINITE, needs_resume=True)
    hear(watchdog, 60.0)
    stop = watchdog.check(60.0)
    assert stop is not None and stop.over and stop.needs_resume
    assert stop.reason == "waiting for ~/resume after: the speed is nan"
    watchdog.resume()
    assert watchdog.check(60.0) is None


def test_nobody_can_vouch_for_what_is_still_wrong() -> None:
    watchdog = awake()
    watchdog.set_lasting(Fault.MANUAL_OVERRIDE, "by hand")
    watchdog.check(0.0)
    watchdog.resume()
    hear(watchdog, 5.0)
    stop = watchdog.check(5.0)
    assert stop is not None and stop.fault is Fault.MANUAL_OVERRIDE
    watchdog.set_lasting(Fault.MANUAL_OVERRIDE, None)
    hear(watchdog, 9.0)
    assert watchdog.check(9.0) is not None
    watchdog.resume()
    assert watchdog.check(9.0) is None


def test_a_worse_fault_takes_the_place_of_a_harmless_one_and_not_the_other_way() -> None:
    watchdog = awake()
    hear(watchdog, 0.35, Source.CAMERA)
    watchdog.check(0.35)
    watchdog.report(Fault.CLOCK_JUMP, "back", 0.4)
    hear(watchdog, 0.8, Source.CAMERA)
    stop = watchdog.check(0.8)
    assert stop is not None and (stop.fault, stop.needs_resume) == (Fault.CLOCK_JUMP, True)
    # The jump is long over, and nobody has vouched for it.
    hear(watchdog, 5.0, Source.CAMERA)
    stop = watchdog.check(5.0)
    assert stop is not None and (stop.fault, stop.needs_resume) == (Fault.CAMERA_SILENT, True)


def test_a_second_fault_after_somebody_vouched_needs_vouching_again() -> None:
    watchdog = awake()
    watchdog.report(Fault.NOT_FINITE, "nan", 0.0)
    watchdog.resume()
    watchdog.report(Fault.NOT_FINITE, "nan again", 0.1)
    hear(watchdog, 5.0)
    assert watchdog.check(5.0) is not None


def test_the_reason_given_is_the_one_in_force_and_the_first_one_stays_beside_it() -> None:
    watchdog = awake()
    stop = watchdog.check(0.25)  # everything is silent
    assert stop is not None and stop.fault is Fault.SIMULATOR_GONE and stop.first == ""
    for now_s in np.arange(0.3, 0.7, 0.05):
        hear(watchdog, now_s, Source.ODOMETRY, Source.FRAME)
        stop = watchdog.check(now_s)
        assert stop is not None and stop.fault is Fault.SIMULATOR_GONE
    # For half a second nothing has been wrong with camera and speedometer.
    hear(watchdog, 0.8, Source.ODOMETRY, Source.FRAME)
    stop = watchdog.check(0.8)
    assert stop is not None and stop.fault is Fault.ODOMETRY_SILENT and not stop.over
    assert stop.reason == "no odometry for 0.3 s"
    assert stop.first == (
        "simulator_gone: nothing from the simulator for 0.2 s: it is gone or paused"
    )
    assert watchdog.counts[Fault.SIMULATOR_GONE] == watchdog.counts[Fault.ODOMETRY_SILENT] == 1


def test_a_fault_that_is_over_is_not_given_as_the_reason_of_what_came_after_it() -> None:
    watchdog = awake()
    watchdog.set_lasting(Fault.MANUAL_OVERRIDE, "somebody drives by hand")
    stop = watchdog.check(0.0)
    assert stop is not None and stop.fault is Fault.MANUAL_OVERRIDE and not stop.over
    watchdog.set_lasting(Fault.MANUAL_OVERRIDE, None)
    stop = watchdog.check(1.0)  # nothing has been heard meanwhile
    assert stop is not None and stop.fault is Fault.SIMULATOR_GONE
    assert stop.first == "manual_override: somebody drives by hand"
    hear(watchdog, 1.1)
    watchdog.resume()
    stop = watchdog.check(1.1)
    assert stop is not None and stop.fault is Fault.SIMULATOR_GONE and not stop.needs_resume
    hear(watchdog, 1.6)
    assert watchdog.check(1.6) is None  # vouched for when it was over


def test_what_waits_to_be_vouched_for_is_named_again_once_the_rest_is_over() -> None:
    watchdog = awake()
    watchdog.report(Fault.CLOCK_JUMP, "back", 0.0)
    for now_s in np.arange(0.05, 0.9, 0.05):
        hear(watchdog, now_s, Source.CAMERA)
        stop = watchdog.check(now_s)
    assert stop is not None and stop.fault is Fault.CAMERA_SILENT
    hear(watchdog, 1.4)
    stop = watchdog.check(1.4)
    assert stop is not None and (stop.fault, stop.over) == (Fault.CLOCK_JUMP, True)
    assert watchdog.counts[Fault.CLOCK_JUMP] == watchdog.counts[Fault.CAMERA_SILENT] == 1


def beat(watchdog: Watchdog, now_s: float, *threads: str) -> None:
    for thread in threads:
        watchdog.own.beat(thread, now_s, 0.05)


@pytest.mark.parametrize("stalled", [("watchdog", "executor"), ("executor",)])
def test_silence_is_not_blamed_on_others_where_the_driver_itself_stood_still(
    stalled: tuple[str, ...],
) -> None:
    watchdog = awake()
    for now_s in (0.0, 0.05, 0.1):
        beat(watchdog, now_s, "watchdog", "executor")
    hear(watchdog, 0.1)
    for now_s in np.arange(0.15, 0.45, 0.05):
        beat(watchdog, now_s, *({"watchdog", "executor"} - set(stalled)))
    # The messages of these 0.4 s wait to be looked at; the car has been without commands.
    if "watchdog" in stalled:
        beat(watchdog, 0.5, "watchdog")
    stop = watchdog.check(0.5)
    assert stop is not None and stop.fault is Fault.DRIVER_STALLED
    assert stop.reason == "the driver itself stalled for 0.3 s" and not stop.needs_resume
    for now_s in np.arange(0.5, 0.6, 0.05):
        beat(watchdog, now_s, "watchdog", "executor")
    hear(watchdog, 0.55, Source.ODOMETRY)
    watchdog.check(0.6)
    # What stays away is named once it has been silent for its limit while the driver ran.
    for now_s in np.arange(0.6, 1.3, 0.05):
        beat(watchdog, now_s, "watchdog", "executor")
        hear(watchdog, now_s, Source.ODOMETRY, Source.FRAME)
        stop = watchdog.check(now_s)
    assert stop is not None and stop.fault is Fault.ODOMETRY_SILENT
    assert stop.first == "driver_stalled: the driver itself stalled for 0.3 s"


def test_a_short_standstill_hides_no_silence() -> None:
    watchdog = awake()
    beat(watchdog, 0.0, "executor")
    beat(watchdog, 0.15, "executor")  # 0.1 s late
    for now_s in np.arange(0.2, 0.4, 0.05):
        beat(watchdog, now_s, "executor")
    hear(watchdog, 0.4, Source.CAMERA)
    stop = watchdog.check(0.41)
    assert stop is not None and stop.fault is Fault.CAMERA_SILENT


def test_standstills_are_counted_and_not_those_on_purpose() -> None:
    own = Standstills()
    own.beat("executor", 0.0, 0.05)
    own.beat("executor", 0.09, 0.05)
    assert own.count == 0
    own.beat("executor", 0.44, 0.05)
    assert own.count == 1 and own.longest_s == pytest.approx(0.3)
    own.rest()
    own.beat("executor", 5.0, 0.05)
    assert own.count == 1
    assert own.between(0.2, 5.0) == pytest.approx(0.24)
    assert own.between(5.0, 5.2) == pytest.approx(0.15)  # what goes on now counts, too


def test_none_can_be_harmless() -> None:
    watchdog = awake(DriverConfig(resume_after=("none",)))
    hear(watchdog, 0.35, Source.CAMERA)
    stop = watchdog.check(0.35)
    assert stop is not None and stop.needs_resume
    assert set(HARMLESS) < set(Fault)


# The guard, with a clock that stands until it is moved.


class Scene:
    def __init__(self) -> None:
        self.now_s = 100.0
        self.sent: list[tuple[Command, int | None]] = []
        self.told: list[Stop | None] = []
        self.guard = Guard(
            DrivingConfig(),
            CONFIG,
            0.05,
            lambda command, stamp_ns: self.sent.append((command, stamp_ns)),
            self.told.append,
            clock=lambda: self.now_s,
        )
        self.frames = 0

    def hear(self) -> None:
        for source in ALL:
            self.guard.heard(source)

    def frame(self, speed: float = 2.0) -> Frame:
        self.frames += 1
        image = np.zeros((2, 2, 4), np.uint8)
        stamp_ns = self.frames * 50_000_000
        return Frame(
            self.frames, stamp_ns, image, Pose(0.0, 0.0, 0.0), speed, 0.0, np.zeros((0, 3))
        )

    def drive(self, angle: float = 0.0, age_s: float = 0.01) -> Command | None:
        command = Command(AckermannCommand(angle, 2.1), VehicleControl(throttle=0.3))
        return self.guard.drive(command, self.frame(), self.now_s - age_s)

    @property
    def stopped(self) -> bool:
        command, stamp_ns = self.sent[-1]
        return command.ackermann.speed == 0.0 and command.control.brake == 1.0 and not stamp_ns


def engaged() -> Scene:
    scene = Scene()
    scene.hear()
    scene.guard.engage()
    return scene


def test_nothing_passes_before_it_is_engaged_nor_afterwards() -> None:
    scene = Scene()
    scene.hear()
    assert scene.drive() is None and not scene.sent
    scene.guard.engage()
    assert scene.stopped
    assert scene.drive() is not None and not scene.stopped
    scene.guard.disengage()
    assert scene.stopped
    count = len(scene.sent)
    assert scene.drive() is None
    scene.guard.check()
    scene.guard.stand("no route")
    scene.guard.report(Fault.NOT_FINITE, "nan")
    assert len(scene.sent) == count


def test_a_command_carries_its_images_stamp_and_its_latency_is_kept() -> None:
    scene = engaged()
    scene.drive(age_s=0.02)
    assert scene.sent[-1][1] == 50_000_000
    assert scene.guard.latencies_s() == pytest.approx([0.02])
    assert scene.guard.standing is None


def test_a_stop_is_repeated_and_no_command_comes_between() -> None:
    scene = engaged()
    scene.drive()
    scene.guard.report(Fault.NOT_FINITE, "the speed is nan")
    assert scene.stopped
    for _ in range(5):
        count = len(scene.sent)
        scene.now_s += 0.05
        scene.hear()
        assert scene.drive() is None and scene.guard.check() is not None
        assert len(scene.sent) > count
        assert all(command.ackermann.speed == 0.0 for command, _ in scene.sent[count:])
    assert [stop.fault for stop in scene.told if stop and stop.fault] == [Fault.NOT_FINITE]


def test_a_car_with_nowhere_to_drive_is_told_to_stand_again_and_again() -> None:
    scene = engaged()
    scene.drive()
    scene.guard.stand("there is no route")
    assert scene.stopped and scene.guard.standing == Stop("there is no route")
    count = len(scene.sent)
    scene.guard.check()
    assert len(scene.sent) == count + 1 and scene.stopped
    assert scene.drive() is not None


def test_a_command_that_comes_late_is_not_sent() -> None:
    scene = engaged()
    assert scene.drive(age_s=0.11) is None
    assert scene.stopped
    assert scene.guard.standing is not None
    assert scene.guard.standing.reason == "the command came 0.11 s after its image"


def test_a_command_that_is_not_finite_stops_the_car() -> None:
    scene = engaged()
    scene.drive()
    assert scene.drive(angle=math.nan) is None
    assert scene.stopped and scene.guard.fault_counts()[Fault.NOT_FINITE] == 1


def test_a_command_for_which_no_watchdog_has_looked_is_not_sent() -> None:
    scene = engaged()
    scene.drive()
    scene.now_s += 0.51
    scene.hear()
    assert scene.drive() is None
    assert scene.guard.fault_counts()[Fault.UNWATCHED] == 1


def test_a_policy_that_hangs_is_stopped_by_the_thread_that_watches() -> None:
    config = DriverConfig(policy_timeout_s=0.1)
    stopped = threading.Event()
    failures: list[Failure] = []

    def changed(stop: Stop | None) -> None:
        if stop is not None and stop.fault is Fault.POLICY_SLOW:
            stopped.set()

    guard = Guard(DrivingConfig(), config, 0.05, lambda command, stamp: None, changed)
    for source in ALL:
        guard.heard(source)
    guard.engage()
    watch = WatchThread(guard, failures.append)
    watch.start()
    with guard.deciding:
        # The policy is still deciding while this is told.
        assert stopped.wait(5.0)
    watch.end()
    assert not failures


def test_a_watch_that_fails_says_so_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("td3_driver.workers.RESTART_S", 0.0)
    told: list[Failure] = []
    stopped = threading.Event()

    def broken_at_first(command: Command, stamp_ns: int | None) -> None:
        if not told:
            raise OSError("no way out")
        stopped.set()

    guard = Guard(DrivingConfig(), CONFIG, 0.05, broken_at_first, lambda stop: None)
    watch = WatchThread(guard, told.append)
    watch.start()
    with pytest.raises(OSError, match="no way out"):
        guard.engage()
    assert stopped.wait(20.0)
    watch.end()
    assert "thread watchdog has failed (OSError: no way out)" in str(told[0])


def test_in_the_end_only_stops_are_sent_whatever_is_silent() -> None:
    scene = engaged()
    scene.drive()
    scene.guard.end("the driver ends")
    scene.now_s += 5.0
    assert scene.drive() is None
    assert scene.guard.check() == Stop("the driver ends") and scene.stopped
    scene.guard.disengage()
    scene.hear()
    scene.guard.engage()
    assert scene.guard.check() == Stop("waiting for the first command")
