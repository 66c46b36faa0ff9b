# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The command gate, by hand-worked numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AckermannCommand, Command
from td3_driver.driving.world import VehicleControl
from td3_driver.safety.gate import CommandGate

TICK_S = 0.05
# 0.5 rad at 1.5 rad/s, 8 m/s, +3 and -6 m/s^2; full steer is 1.0 rad, to keep the sums simple.
LIMITS = DrivingConfig(vehicle_max_steer_rad=1.0)


def command(angle: float = 0.0, speed: float = 0.0, **pedals: float | bool) -> Command:
    control = {"steer": -angle, **pedals}
    return Command(AckermannCommand(angle, speed), VehicleControl(**control))  # type: ignore[arg-type]


def make_gate() -> CommandGate:
    return CommandGate(LIMITS, TICK_S)


def test_a_command_within_the_limits_passes_unchanged() -> None:
    gate = make_gate()
    wanted = command(0.05, 2.1, throttle=0.4)
    assert gate.admit(wanted, speed=2.0, elapsed_s=TICK_S) == wanted
    assert gate.limited == 0


def test_steering_turns_no_faster_than_its_rate_and_no_further_than_its_range() -> None:
    gate = make_gate()
    angles = [
        gate.admit(command(9.0, 1.0), 1.0, TICK_S).ackermann.steering_angle for _ in range(8)
    ]
    # 1.5 rad/s x 0.05 s = 0.075 rad in each tick, up to 0.5 rad.
    expected = [0.075, 0.15, 0.225, 0.3, 0.375, 0.45, 0.5, 0.5]
    assert angles == pytest.approx(expected)
    assert gate.limited == 8


def test_the_pedals_steer_is_held_to_the_same_limits() -> None:
    gate = make_gate()
    steers = [gate.admit(command(9.0, 1.0), 1.0, TICK_S).control.steer for _ in range(8)]
    assert steers == pytest.approx([-0.075, -0.15, -0.225, -0.3, -0.375, -0.45, -0.5, -0.5])


def test_speed_rises_and_falls_no_faster_than_its_rates() -> None:
    gate = make_gate()
    # The first command starts from the measured 2 m/s; +3 m/s^2 x 0.05 s = 0.15 m/s.
    speeds = [gate.admit(command(0.0, 50.0), 2.0, TICK_S).ackermann.speed for _ in range(3)]
    assert speeds == pytest.approx([2.15, 2.3, 2.45])
    # -6 m/s^2 x 0.05 s = 0.3 m/s.
    speeds = [gate.admit(command(0.0, -50.0), 2.0, TICK_S).ackermann.speed for _ in range(2)]
    assert speeds == pytest.approx([2.15, 1.85])


def test_no_speed_is_above_the_largest() -> None:
    gate = make_gate()
    assert gate.admit(command(0.0, 50.0), 12.0, TICK_S).ackermann.speed == 8.0


def test_skipped_images_allow_for_their_time_but_not_for_any_time() -> None:
    gate = make_gate()
    gate.admit(command(), 0.0, TICK_S)
    assert gate.admit(command(9.0), 0.0, 0.1).ackermann.steering_angle == pytest.approx(0.15)
    # 0.2 s at most: 0.3 rad more.
    assert gate.admit(command(9.0), 0.0, 60.0).ackermann.steering_angle == pytest.approx(0.45)
    # Time that goes back allows for nothing.
    assert gate.admit(command(-9.0), 0.0, -5.0).ackermann.steering_angle == pytest.approx(0.45)


def test_a_stop_is_at_once_and_keeps_the_wheels_as_they_are() -> None:
    gate = make_gate()
    for _ in range(4):
        gate.admit(command(9.0, 5.0, throttle=1.0), 5.0, TICK_S)
    stop = gate.stop()
    assert stop.ackermann == AckermannCommand(steering_angle=pytest.approx(0.3), speed=0.0)
    assert stop.control == VehicleControl(brake=1.0, steer=pytest.approx(-0.3))


def test_after_a_stop_it_goes_on_from_the_speed_and_the_wheels_that_there_are() -> None:
    gate = make_gate()
    for _ in range(4):
        gate.admit(command(9.0, 5.0), 5.0, TICK_S)
    gate.stop()
    # A minute later, with the wheels at 0.3 rad and the car rolling at 1 m/s: one tick's worth.
    after = gate.admit(command(0.0, 5.0, throttle=0.5), 1.0, 60.0)
    assert after.ackermann.steering_angle == pytest.approx(0.225)
    assert after.ackermann.speed == pytest.approx(1.15)


@pytest.mark.parametrize(
    "wanted, throttle, brake",
    [
        (command(0.0, 5.0, throttle=3.0), 1.0, 0.0),
        (command(0.0, 5.0, brake=-1.0), 0.0, 0.0),
        (command(0.0, 5.0, throttle=1.0, brake=7.0), 0.0, 1.0),
    ],
)
def test_pedals_stay_within_range_and_are_never_pressed_together(
    wanted: Command, throttle: float, brake: float
) -> None:
    control = make_gate().admit(wanted, 5.0, TICK_S).control
    assert (control.throttle, control.brake) == (throttle, brake)


def test_there_is_no_throttle_above_the_largest_speed_nor_to_stand() -> None:
    # 1.1 x 8 m/s = 8.8 m/s.
    assert make_gate().admit(command(0.0, 8.0, throttle=1.0), 8.7, TICK_S).control.throttle == 1.0
    assert make_gate().admit(command(0.0, 8.0, throttle=1.0), 8.9, TICK_S).control.throttle == 0.0
    assert make_gate().admit(command(0.0, 0.0, throttle=1.0), 0.0, TICK_S).control.throttle == 0.0


def test_neither_reverse_nor_hand_brake_nor_a_gear_passes() -> None:
    wanted = command(0.0, 2.0, reverse=True, hand_brake=True, manual_gear_shift=True, gear=-1)
    assert make_gate().admit(wanted, 2.0, TICK_S).control == VehicleControl(steer=0.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(7))
def test_what_is_not_finite_is_refused_and_changes_nothing(bad: float, place: int) -> None:
    gate = make_gate()
    values = [0.1, 2.0, 0.3, -0.1, 0.0, 2.0, TICK_S]
    good = command(0.05, 2.0)
    gate.admit(good, 2.0, TICK_S)
    values[place] = bad
    angle, speed, throttle, steer, brake, measured, elapsed_s = values
    wanted = Command(AckermannCommand(angle, speed), VehicleControl(throttle, steer, brake))
    with pytest.raises(ValueError, match="not finite"):
        gate.admit(wanted, measured, elapsed_s)
    assert gate.admit(good, 2.0, TICK_S) == good


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None)
@given(st.lists(st.tuples(*[NUMBERS] * 7), max_size=20))
def test_whatever_comes_nothing_leaves_its_limits(commands: list[tuple[float, ...]]) -> None:
    gate = make_gate()
    before = gate.stop()
    for angle, speed, throttle, steer, brake, measured, elapsed_s in commands:
        wanted = Command(AckermannCommand(angle, speed), VehicleControl(throttle, steer, brake))
        after = gate.admit(wanted, measured, elapsed_s)
        assert abs(after.ackermann.steering_angle) <= 0.5 and abs(after.control.steer) <= 0.5
        assert 0.0 <= after.ackermann.speed <= 8.0
        assert 0.0 <= after.control.throttle <= 1.0 and 0.0 <= after.control.brake <= 1.0
        turned = after.ackermann.steering_angle - before.ackermann.steering_angle
        assert abs(turned) <= 1.5 * 0.2 + 1e-9
        before = after
