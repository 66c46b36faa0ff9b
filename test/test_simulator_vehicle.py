# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The car's physics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from td3_driver.driving.world import FULL_BRAKE, Pose, VehicleControl
from td3_driver.simulator.vehicle import GRAVITY_MPS2, Vehicle, VehicleParameters, sanitised

CAR = VehicleParameters()
ROLLING = CAR.rolling_resistance * GRAVITY_MPS2


def driven(
    control: VehicleControl, seconds: float, speed: float = 0.0, yaw_rate: float = 0.0
) -> Vehicle:
    """Return a car that started at the origin along x and drove under one command."""
    vehicle = Vehicle()
    vehicle.set_motion(speed, yaw_rate)
    vehicle.control = control
    for _ in range(round(seconds / 0.05)):
        vehicle.step(0.05)
    return vehicle


def steering(angle: float) -> float:
    """Return the `steer` that turns the front wheels to an angle (+ = left)."""
    return -angle / CAR.max_steering_angle_rad


def test_full_throttle_accelerates_evenly_at_first() -> None:
    vehicle = driven(VehicleControl(throttle=1.0), 2.0)
    # 4 m/s^2 less 0.15 m/s^2 of rolling resistance, and a little drag.
    assert vehicle.speed == pytest.approx(2.0 * (4.0 - ROLLING), rel=0.01)
    assert vehicle.pose.x == pytest.approx(0.5 * (4.0 - ROLLING) * 2.0**2, rel=0.01)
    assert vehicle.pose.y == vehicle.pose.yaw == 0.0


def test_acceleration_falls_with_speed() -> None:
    slow = driven(VehicleControl(throttle=1.0), 0.5, speed=5.0).speed - 5.0
    fast = driven(VehicleControl(throttle=1.0), 0.5, speed=20.0).speed - 20.0
    assert fast < 0.55 * slow


def test_braking_distance_and_exact_stop() -> None:
    vehicle = driven(FULL_BRAKE, 3.0, speed=10.0)
    # v^2 / (2 a)
    assert vehicle.pose.x == pytest.approx(10.0**2 / (2.0 * (8.0 + ROLLING)), rel=0.01)
    assert vehicle.speed == 0.0
    stopped_at = vehicle.pose
    vehicle.step(1.0)
    assert vehicle.pose == stopped_at


def test_braking_stops_a_car_that_rolls_backwards() -> None:
    vehicle = driven(FULL_BRAKE, 2.0, speed=-3.0)
    assert vehicle.speed == 0.0
    assert -1.0 < vehicle.pose.x < 0.0


def test_nothing_creeps() -> None:
    vehicle = driven(VehicleControl(), 5.0)
    assert vehicle.pose == Pose(0.0, 0.0, 0.0)


def test_car_rolls_out_without_pedals() -> None:
    assert 0.0 < driven(VehicleControl(), 5.0, speed=5.0).speed < 5.0 - 5.0 * ROLLING + 0.01


def test_brake_holds_against_throttle() -> None:
    assert driven(VehicleControl(throttle=1.0, brake=1.0), 1.0).speed == 0.0


def test_steer_is_positive_to_the_right() -> None:
    vehicle = driven(VehicleControl(throttle=0.3, steer=0.3), 2.0)
    assert vehicle.pose.yaw < 0.0
    assert vehicle.pose.y < 0.0
    assert vehicle.yaw_rate < 0.0


@pytest.mark.parametrize("angle", [0.2, -0.35])
def test_turning_radius_is_wheelbase_over_tangent(angle: float) -> None:
    vehicle = Vehicle()
    vehicle.control = VehicleControl(steer=steering(angle))
    vehicle.step(1.0)
    for _ in range(20):
        vehicle.set_motion(3.0, vehicle.yaw_rate)
        vehicle.step(0.05)
    vehicle.set_motion(3.0, vehicle.yaw_rate)
    # The rear axle's radius is L / tan(angle); the yaw rate is v / radius.
    assert vehicle.yaw_rate == pytest.approx(3.0 * math.tan(angle) / CAR.wheelbase_m, rel=0.02)
    radius = math.hypot(*vehicle.velocity) / abs(vehicle.yaw_rate)
    rear = CAR.wheelbase_m / math.tan(abs(angle))
    assert radius == pytest.approx(math.hypot(rear, CAR.wheelbase_m / 2.0), rel=0.02)


def test_tyres_limit_the_lateral_acceleration() -> None:
    vehicle = Vehicle()
    vehicle.control = VehicleControl(throttle=0.3, steer=steering(0.4))
    vehicle.set_motion(15.0, 0.0)
    for _ in range(20):
        vehicle.step(0.05)
        held = CAR.friction * GRAVITY_MPS2
        assert abs(vehicle.speed * vehicle.yaw_rate) <= held * 1.01
    assert vehicle.yaw_rate < 0.5 * vehicle.speed * math.tan(0.4) / CAR.wheelbase_m


def test_wheels_turn_at_a_limited_rate() -> None:
    vehicle = driven(VehicleControl(steer=-1.0), 0.1)
    assert vehicle.wheel_angle == pytest.approx(0.1 * CAR.steering_rate_rps)
    vehicle.step(2.0)
    assert vehicle.wheel_angle == pytest.approx(CAR.max_steering_angle_rad)


def test_reverse_gear() -> None:
    vehicle = driven(VehicleControl(throttle=0.5, reverse=True, steer=steering(0.3)), 2.0)
    assert vehicle.speed < -2.0
    assert vehicle.pose.x < 0.0
    # Wheels to the left, backwards: the car's nose turns right.
    assert vehicle.yaw_rate < 0.0
    for _ in range(400):
        vehicle.step(0.05)
    assert vehicle.speed == pytest.approx(-CAR.max_reverse_speed_mps, abs=0.1)


def test_manual_gears() -> None:
    def speed(gear: int) -> float:
        return driven(VehicleControl(throttle=1.0, manual_gear_shift=True, gear=gear), 1.0).speed

    assert speed(1) > 3.0
    assert speed(0) == 0.0
    assert speed(-1) < -3.0


def test_hand_brake() -> None:
    vehicle = driven(VehicleControl(hand_brake=True), 3.0, speed=5.0)
    assert vehicle.speed == 0.0
    distance = 5.0**2 / (2.0 * (CAR.hand_brake_deceleration_mps2 + ROLLING))
    assert vehicle.pose.x == pytest.approx(distance, rel=0.02)


def test_commands_are_clamped_and_nonsense_brakes() -> None:
    assert sanitised(VehicleControl(throttle=3.0, steer=-2.0, brake=-1.0)) == VehicleControl(
        throttle=1.0, steer=-1.0
    )
    for value in (math.nan, math.inf, -math.inf):
        assert sanitised(VehicleControl(throttle=value)) == FULL_BRAKE
        assert sanitised(VehicleControl(throttle=1.0, steer=value)) == FULL_BRAKE


def test_step_length_changes_little() -> None:
    """A tick of 0.05 s and five of 0.01 s take the same substeps."""
    control = VehicleControl(throttle=0.6, steer=0.1)
    one, five = Vehicle(), Vehicle()
    one.control = five.control = control
    one.step(0.05)
    for _ in range(5):
        five.step(0.01)
    assert one.pose.x == pytest.approx(five.pose.x)
    assert one.speed == pytest.approx(five.speed)
