# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Command limits, tick by tick, and the pedals, alone and around a point mass."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import (
    AckermannCommand,
    CommandLimiter,
    PedalController,
    PedalReader,
    action_of,
)
from td3_driver.driving.world import VehicleControl

TICK_S = 0.05
CONFIG = DrivingConfig(
    max_steering_angle_rad=0.5,
    max_steering_rate_rps=1.5,
    max_speed_mps=8.0,
    max_acceleration_mps2=3.0,
    max_deceleration_mps2=6.0,
)


def held(action: tuple[float, float], start_speed: float = 0.0) -> AckermannCommand:
    """Return the command once an action has been held for long."""
    limiter = CommandLimiter(CONFIG)
    limiter.reset(start_speed)
    for _ in range(200):
        command = limiter.command(np.array(action), TICK_S)
    return command


@pytest.mark.parametrize(
    "action, steering, speed",
    [
        ((0.0, -1.0), 0.0, 0.0),
        ((0.0, 1.0), 0.0, 8.0),
        ((0.0, 0.0), 0.0, 4.0),
        ((0.0, -0.5), 0.0, 2.0),
        ((1.0, -1.0), 0.5, 0.0),
        ((-0.5, -1.0), -0.25, 0.0),
        ((3.0, 7.0), 0.5, 8.0),
        ((-3.0, -7.0), -0.5, 0.0),
    ],
)
def test_actions_span_the_ranges(
    action: tuple[float, float], steering: float, speed: float
) -> None:
    command = held(action)
    assert (command.steering_angle, command.speed) == pytest.approx((steering, speed))


def test_rates_are_limited_tick_by_tick() -> None:
    limiter = CommandLimiter(CONFIG)
    up = [limiter.command(np.array([1.0, 1.0]), TICK_S) for _ in range(3)]
    assert [command.steering_angle for command in up] == pytest.approx([0.075, 0.15, 0.225])
    assert [command.speed for command in up] == pytest.approx([0.15, 0.30, 0.45])
    # Falling is twice as fast as rising; steering as fast both ways.
    down = [limiter.command(np.array([-1.0, -1.0]), TICK_S) for _ in range(3)]
    assert [command.steering_angle for command in down] == pytest.approx([0.15, 0.075, 0.0])
    assert [command.speed for command in down] == pytest.approx([0.15, 0.0, 0.0])


@settings(max_examples=50, deadline=None)
@given(
    actions=st.lists(st.tuples(*[st.floats(-2.0, 2.0)] * 2), min_size=1, max_size=30),
    tick_s=st.sampled_from([0.01, 0.05, 0.09]),
    speed=st.floats(-20.0, 20.0),
)
def test_no_sequence_of_actions_leaves_the_limits(
    actions: list[tuple[float, float]], tick_s: float, speed: float
) -> None:
    limiter = CommandLimiter(CONFIG)
    limiter.reset(speed)
    commands = [AckermannCommand(0.0, min(max(speed, 0.0), 8.0))]
    commands += [limiter.command(np.array(action), tick_s) for action in actions]
    for before, after in itertools.pairwise(commands):
        assert abs(after.steering_angle) <= 0.5 and 0.0 <= after.speed <= 8.0
        assert abs(after.steering_angle - before.steering_angle) <= 1.5 * tick_s + 1e-9
        assert -6.0 * tick_s - 1e-9 <= after.speed - before.speed <= 3.0 * tick_s + 1e-9


def test_reset_starts_from_the_speed_driven_and_straight_wheels() -> None:
    limiter = CommandLimiter(CONFIG)
    limiter.command(np.array([1.0, 1.0]), 1.0)
    limiter.reset(5.0)
    command = limiter.command(np.array([0.0, 1.0]), TICK_S)
    assert (command.steering_angle, command.speed) == pytest.approx((0.0, 5.15))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("entry", [0, 1])
def test_an_action_that_is_not_finite_is_refused_and_changes_nothing(
    bad: float, entry: int
) -> None:
    limiter = CommandLimiter(CONFIG)
    limiter.command(np.array([1.0, 1.0]), TICK_S)
    action = np.array([1.0, 1.0])
    action[entry] = bad
    with pytest.raises(ValueError, match="finite"):
        limiter.command(action, TICK_S)
    assert limiter.command(np.array([1.0, 1.0]), TICK_S).speed == pytest.approx(0.30)


def pedals(command: AckermannCommand, speed: float) -> VehicleControl:
    return PedalController(1.25).control(command, speed, TICK_S)


def test_left_is_negative_for_the_bridge_and_full_steer_is_the_cars_largest_angle() -> None:
    assert pedals(AckermannCommand(0.25, 5.0), 5.0).steer == pytest.approx(-0.2)
    assert pedals(AckermannCommand(-0.25, 5.0), 5.0).steer == pytest.approx(0.2)
    assert pedals(AckermannCommand(2.0, 5.0), 5.0).steer == -1.0


def test_standstill_is_held_with_the_brake_and_the_wheels_still_turn() -> None:
    control = pedals(AckermannCommand(0.25, 0.0), 0.02)
    assert (control.throttle, control.brake, control.reverse) == (0.0, 1.0, False)
    assert control.steer == pytest.approx(-0.2)


def test_the_law_is_proportional_plus_integral() -> None:
    controller = PedalController(1.25)
    # 0.5 per m/s of error, and 0.2 per metre of it: 0.4 * 0.05 * 0.2 = 0.004 a tick.
    throttles = [
        controller.control(AckermannCommand(0.0, 5.0), 4.6, TICK_S).throttle for _ in range(3)
    ]
    assert throttles == pytest.approx([0.204, 0.208, 0.212])
    controller.reset()
    throttle = controller.control(AckermannCommand(0.0, 5.0), 4.6, TICK_S).throttle
    assert throttle == pytest.approx(0.204)


def test_the_integral_is_bounded() -> None:
    controller = PedalController(1.25)
    for _ in range(2000):
        controller.control(AckermannCommand(0.0, 5.0), 3.0, TICK_S)
    throttle = controller.control(AckermannCommand(0.0, 5.0), 5.0, TICK_S).throttle
    assert throttle == pytest.approx(0.4)


def test_small_brakings_are_left_to_drag() -> None:
    assert pedals(AckermannCommand(0.0, 5.0), 5.05).brake == 0.0
    assert pedals(AckermannCommand(0.0, 5.0), 5.40).brake == pytest.approx(0.204)


@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.floats(-5, 10), st.floats(-5, 10), st.floats(-1.5, 1.5)),
        min_size=1,
        max_size=20,
    )
)
def test_never_throttle_and_brake_together_and_always_in_range(
    steps: list[tuple[float, float, float]],
) -> None:
    controller = PedalController(1.25)
    for wanted, speed, angle in steps:
        control = controller.control(AckermannCommand(angle, wanted), speed, TICK_S)
        assert control.throttle == 0.0 or control.brake == 0.0
        assert 0.0 <= control.throttle <= 1.0 and 0.0 <= control.brake <= 1.0
        assert -1.0 <= control.steer <= 1.0
        assert not control.hand_brake and not control.manual_gear_shift


def test_backwards_is_the_same_law_in_the_other_gear() -> None:
    forward = pedals(AckermannCommand(0.1, 3.0), 2.0)
    backward = pedals(AckermannCommand(0.1, -3.0), -2.0)
    assert (forward.reverse, backward.reverse) == (False, True)
    assert (forward.throttle, forward.brake) == (backward.throttle, backward.brake)
    assert forward.throttle == pytest.approx(0.51)
    assert forward.steer == backward.steer
    too_fast = pedals(AckermannCommand(0.0, -1.0), -2.0)
    assert (too_fast.throttle, too_fast.brake) == pytest.approx((0.0, 0.51))


@pytest.mark.parametrize("wanted, speed", [(3.0, -1.0), (-3.0, 1.0), (0.0, -1.0)])
def test_it_stops_before_it_changes_direction(wanted: float, speed: float) -> None:
    control = pedals(AckermannCommand(0.0, wanted), speed)
    assert (control.throttle, control.brake) == (0.0, 1.0)


@dataclass
class PointMass:
    """A car's longitudinal motion: throttle, brake, drag; a brake only ever stops it."""

    speed: float = 0.0

    def step(self, control: VehicleControl) -> None:
        drive = 4.5 * control.throttle * (-1.0 if control.reverse else 1.0)
        speed = self.speed + TICK_S * (drive - 0.01 * self.speed * abs(self.speed))
        slowing = TICK_S * (8.0 * control.brake + 0.15)
        self.speed = np.sign(speed) * max(abs(speed) - slowing, 0.0)


def drive(
    controller: PedalController, car: PointMass, wanted: float, seconds: float
) -> np.ndarray:
    """Hold a commanded speed, limited in rate as the limiter does; return the speeds driven."""
    speeds, command = [], car.speed
    for _ in range(round(seconds / TICK_S)):
        command = float(np.clip(wanted, command - 6.0 * TICK_S, command + 3.0 * TICK_S))
        car.step(controller.control(AckermannCommand(0.0, command), car.speed, TICK_S))
        speeds.append(car.speed)
    return np.array(speeds)


def test_around_a_point_mass_it_reaches_the_speed_and_stops() -> None:
    controller, car = PedalController(1.25), PointMass()
    speeds = drive(controller, car, 6.0, 15.0)
    assert speeds[round(4.0 / TICK_S)] > 5.5
    assert np.max(speeds) < 6.5
    np.testing.assert_allclose(speeds[-40:], 6.0, atol=0.1)
    slower = drive(controller, car, 3.0, 15.0)
    assert np.min(slower) > 2.5
    np.testing.assert_allclose(slower[-40:], 3.0, atol=0.1)
    stopped = drive(controller, car, 0.0, 4.0)
    np.testing.assert_array_equal(stopped[-20:], 0.0)
    assert np.min(stopped) == 0.0


def test_around_a_point_mass_it_turns_from_forward_to_backward_through_a_stop() -> None:
    controller, car = PedalController(1.25), PointMass(speed=3.0)
    speeds = drive(controller, car, -2.0, 15.0)
    np.testing.assert_allclose(speeds[-40:], -2.0, atol=0.15)
    assert np.min(speeds) > -2.5


@pytest.mark.parametrize(
    "command, action",
    [
        (AckermannCommand(0.25, 6.0), (0.5, 0.5)),
        (AckermannCommand(-0.5, 0.0), (-1.0, -1.0)),
        (AckermannCommand(0.0, 8.0), (0.0, 1.0)),
        (AckermannCommand(0.75, -4.0), (1.5, -2.0)),  # no action asks for it
    ],
)
def test_the_action_of_a_command(command: AckermannCommand, action: tuple[float, float]) -> None:
    assert action_of(CONFIG, command) == pytest.approx(action)


@settings(max_examples=50, deadline=None)
@given(
    actions=st.lists(st.tuples(*[st.floats(-1.0, 1.0)] * 2), min_size=1, max_size=30),
    ticks=st.integers(1, 4),
)
def test_the_last_command_of_each_action_leads_to_the_same_commands(
    actions: list[tuple[float, float]], ticks: int
) -> None:
    limiter, again = CommandLimiter(CONFIG), CommandLimiter(CONFIG)
    for action in actions:
        commands = [limiter.command(np.array(action), TICK_S) for _ in range(ticks)]
        for command in commands:
            repeated = again.command(action_of(CONFIG, commands[-1]), TICK_S)
            assert repeated.speed == pytest.approx(command.speed, abs=1e-5)
            assert repeated.steering_angle == pytest.approx(command.steering_angle, abs=1e-5)


def test_reading_pedals_by_hand() -> None:
    reader = PedalReader(vehicle_max_steer_rad=1.25)
    # 0.255 = 0.5 e + (0 + 0.2 e 0.05) for an error of e = 0.5 m/s; then the integral is 0.005.
    first = reader.command(VehicleControl(throttle=0.255, steer=-0.2), 3.0, TICK_S)
    assert (first.steering_angle, first.speed) == pytest.approx((0.25, 3.5))
    # 0.26 = 0.5 e + (0.005 + 0.01 e) for e = 0.5 again.
    second = reader.command(VehicleControl(throttle=0.26), 3.0, TICK_S)
    assert second.speed == pytest.approx(3.5)
    # -0.245 = 0.5 e + (0.01 + 0.01 e) for e = -0.5.
    braking = reader.command(VehicleControl(brake=0.245), 3.0, TICK_S)
    assert braking.speed == pytest.approx(2.5)


def test_brakes_ask_for_a_stop_at_most_and_reverse_is_backwards() -> None:
    assert PedalReader(1.2).command(VehicleControl(brake=1.0), 1.0, TICK_S).speed == 0.0
    assert PedalReader(1.2).command(VehicleControl(brake=1.0), 0.0, TICK_S).speed == 0.0
    assert PedalReader(1.2).command(VehicleControl(hand_brake=True), 0.05, TICK_S).speed == 0.0
    backwards = PedalReader(1.2).command(VehicleControl(throttle=0.51, reverse=True), -1.0, TICK_S)
    assert backwards.speed == pytest.approx(-2.0)


@settings(max_examples=50, deadline=None)
@given(
    # Errors that keep the pedal off its bounds and above the brake's dead band.
    errors=st.lists(st.floats(0.1, 0.9), min_size=1, max_size=40),
    speed=st.floats(0.5, 6.0),
)
def test_pedals_are_read_as_what_was_commanded(errors: list[float], speed: float) -> None:
    controller, reader = PedalController(1.2), PedalReader(1.2)
    for error in errors:
        command = AckermannCommand(0.1, speed + error)
        control = controller.control(command, speed, TICK_S)
        read = reader.command(control, speed, TICK_S)
        assert (read.steering_angle, read.speed) == pytest.approx((0.1, command.speed))


def test_an_unknown_integral_is_forgotten() -> None:
    controller, reader = PedalController(1.2), PedalReader(1.2)
    command = AckermannCommand(0.0, 3.3)
    for _ in range(100):
        controller.control(command, 3.0, TICK_S)  # before the recording began
    read = [
        reader.command(controller.control(command, 3.0, TICK_S), 3.0, TICK_S).speed
        for _ in range(200)
    ]
    assert read[0] > 3.6 and read[-1] == pytest.approx(3.3, abs=0.05)
