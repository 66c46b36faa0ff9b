# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The car: a single-track model driven by pedals and steering as CARLA takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from td3_driver.driving.world import CAR_LENGTH_M, CAR_WIDTH_M, FULL_BRAKE, Pose, VehicleControl

GRAVITY_MPS2 = 9.81
SUBSTEP_S = 0.01


@dataclass(frozen=True)
class VehicleParameters:
    """A mid-size electric car, like CARLA's vehicle.tesla.model3; SI units, radians."""

    length_m: float = CAR_LENGTH_M
    width_m: float = CAR_WIDTH_M
    height_m: float = 1.5
    wheelbase_m: float = 2.87
    track_m: float = 1.58
    mass_kg: float = 1850.0
    moment_of_inertia_kgm2: float = 1.0
    """As CARLA's `moi` reports it: the engine's, not the car's."""
    drag_coefficient: float = 0.23
    frontal_area_m2: float = 2.2
    rolling_resistance: float = 0.015
    wheel_radius_m: float = 0.355
    max_rpm: float = 15000.0
    max_steering_angle_rad: float = math.radians(70.0)
    """Largest angle of the front wheels; 70 degrees, as for CARLA's model3."""
    steering_rate_rps: float = 3.0
    """Fastest change of the front wheels' angle."""
    max_acceleration_mps2: float = 4.0
    full_power_speed_mps: float = 10.0
    """Above this speed, the motor's power limits the acceleration, not its torque."""
    max_reverse_speed_mps: float = 8.0
    max_deceleration_mps2: float = 8.0
    hand_brake_deceleration_mps2: float = 5.0
    friction: float = 0.9
    """Lateral acceleration that the tyres can hold, as a share of gravity."""
    yaw_time_s: float = 0.08
    """Time constant with which the yaw rate follows the front wheels."""


def sanitised(control: VehicleControl) -> VehicleControl:
    """Return the command with pedals in [0, 1] and steering in [-1, 1].

    CARLA clamps values out of range. It does not filter out NaN and infinity, which make its
    physics undefined: here, a command with any of them becomes full brake, wheels straight.
    """
    values = (control.throttle, control.steer, control.brake)
    if not all(math.isfinite(value) for value in values):
        return FULL_BRAKE
    return replace(
        control,
        throttle=min(max(control.throttle, 0.0), 1.0),
        steer=min(max(control.steer, -1.0), 1.0),
        brake=min(max(control.brake, 0.0), 1.0),
    )


def _gear_direction(control: VehicleControl) -> int:
    """Return 1 for a forward gear, -1 for reverse, 0 for neutral (a manual gear 0)."""
    if control.reverse:
        return -1
    if control.manual_gear_shift:
        return (control.gear > 0) - (control.gear < 0)
    return 1


class Vehicle:
    """A car on flat ground; its origin lies midway between the axles.

    The rear axle does not slip: at forward speed v with the front wheels at angle d, the yaw rate
    settles at v tan(d) / wheelbase (the kinematic single-track model, e.g. R. Rajamani, Vehicle
    Dynamics and Control, 2.2), as long as the tyres can hold v times the yaw rate; beyond that,
    the car understeers. It does not creep, and the brakes only ever slow it down.
    """

    def __init__(self, parameters: VehicleParameters | None = None) -> None:
        """Put a car at rest at the origin."""
        self.parameters = parameters or VehicleParameters()
        self.control = VehicleControl()
        self.pose = Pose(0.0, 0.0, 0.0)
        self.speed = 0.0
        """Forward speed, m/s; negative while rolling backwards."""
        self.yaw_rate = 0.0
        """rad/s, + = left."""
        self.wheel_angle = 0.0
        """Angle of the front wheels, rad, + = left."""

    @property
    def lateral_speed(self) -> float:
        """Speed of the origin to the left, m/s; the rear axle has none."""
        return self.yaw_rate * self.parameters.wheelbase_m / 2.0

    @property
    def velocity(self) -> tuple[float, float]:
        """Velocity of the origin in map axes, m/s."""
        cosine, sine = math.cos(self.pose.yaw), math.sin(self.pose.yaw)
        return (
            self.speed * cosine - self.lateral_speed * sine,
            self.speed * sine + self.lateral_speed * cosine,
        )

    def set_motion(self, speed: float, yaw_rate: float) -> None:
        """Give the car a forward speed (m/s) and a yaw rate (rad/s) at once."""
        self.speed, self.yaw_rate = speed, yaw_rate

    def straighten(self) -> None:
        """Turn the front wheels straight at once."""
        self.wheel_angle = 0.0

    def step(self, duration_s: float) -> None:
        """Drive for `duration_s` under the control in force."""
        count = max(1, round(duration_s / SUBSTEP_S))
        for _ in range(count):
            self._substep(duration_s / count)

    def _substep(self, dt: float) -> None:
        car = self.parameters
        wanted = -self.control.steer * car.max_steering_angle_rad
        turn = car.steering_rate_rps * dt
        self.wheel_angle += min(max(wanted - self.wheel_angle, -turn), turn)

        before = self.speed
        self.speed = self._speed_after(dt)
        self._turn_after(dt)

        mean, lateral, yaw = 0.5 * (before + self.speed), self.lateral_speed, self.pose.yaw
        # The heading halfway through the step makes the integration second order.
        halfway = yaw + 0.5 * self.yaw_rate * dt
        cosine, sine = math.cos(halfway), math.sin(halfway)
        self.pose = Pose(
            self.pose.x + (mean * cosine - lateral * sine) * dt,
            self.pose.y + (mean * sine + lateral * cosine) * dt,
            math.remainder(yaw + self.yaw_rate * dt, math.tau),
            self.pose.z,
        )

    def _speed_after(self, dt: float) -> float:
        """Return the forward speed one substep later: first the motor acts, then friction."""
        car, control = self.parameters, self.control
        speed = self.speed + self._motor() * dt
        drag = 0.5 * 1.2 * car.drag_coefficient * car.frontal_area_m2 / car.mass_kg
        resistance = car.rolling_resistance * GRAVITY_MPS2 + drag * speed * speed
        brakes = control.brake * car.max_deceleration_mps2
        if control.hand_brake:
            brakes += car.hand_brake_deceleration_mps2
        slowing = min(brakes, car.friction * GRAVITY_MPS2) + resistance
        return math.copysign(max(0.0, abs(speed) - slowing * dt), speed)

    def _motor(self) -> float:
        """Return the motor's acceleration, m/s^2, + = forward."""
        car = self.parameters
        direction = _gear_direction(self.control)
        ahead = self.speed * direction
        if direction < 0 and ahead >= car.max_reverse_speed_mps:
            return 0.0
        power = min(1.0, car.full_power_speed_mps / max(ahead, 1e-9)) if ahead > 0.0 else 1.0
        return direction * self.control.throttle * car.max_acceleration_mps2 * power

    def _turn_after(self, dt: float) -> None:
        """Let the yaw rate follow the wheels, as far as the tyres can hold."""
        car = self.parameters
        if self.speed == 0.0:
            self.yaw_rate = 0.0
            return
        limit = car.friction * GRAVITY_MPS2 / abs(self.speed)
        wanted = self.speed * math.tan(self.wheel_angle) / car.wheelbase_m
        wanted = min(max(wanted, -limit), limit)
        self.yaw_rate += (wanted - self.yaw_rate) * -math.expm1(-dt / car.yaw_time_s)
