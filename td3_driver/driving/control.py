# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""From an action to a limited Ackermann command, and from that to pedals."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.observation import ACTIONS
from td3_driver.driving.world import FULL_BRAKE, VehicleControl


@dataclass(frozen=True)
class AckermannCommand:
    """The contents of `ackermann_msgs/AckermannDrive`: radians (+ = left) and m/s."""

    steering_angle: float = 0.0
    speed: float = 0.0


STOP = AckermannCommand()


@dataclass(frozen=True)
class Command:
    """One command in both forms."""

    ackermann: AckermannCommand
    control: VehicleControl


AT_REST = Command(STOP, FULL_BRAKE)
"""Holds the car, its wheels straight."""


def stopping(last: Command) -> Command:
    """Return the command that stops the car at once, its wheels turned as they last were."""
    return Command(replace(last.ackermann, speed=0.0), stopping_pedals(last.control))


def stopping_pedals(last: VehicleControl) -> VehicleControl:
    """Return the pedals that stop the car at once, its wheels turned as they last were."""
    return replace(FULL_BRAKE, steer=last.steer)


@dataclass(frozen=True)
class ActionRange:
    """The meaning of one action entry: -1 is `low`, +1 is `high`, linear in between."""

    name: str
    unit: str
    low: float
    high: float


def action_ranges(config: DrivingConfig) -> tuple[ActionRange, ...]:
    """Return what an action's entries command, before rate limits."""
    angle = config.max_steering_angle_rad
    ranges = {"steering": ("rad", -angle, angle), "speed": ("m/s", 0.0, config.max_speed_mps)}
    return tuple(ActionRange(name, *ranges[name]) for name in ACTIONS)


class CommandLimiter:
    """Turns actions in [-1, 1]^2 into Ackermann commands within range and rate limits."""

    def __init__(self, config: DrivingConfig) -> None:
        self._config = config
        self._last = STOP

    def reset(self, speed: float = 0.0) -> None:
        """Start from straight wheels and the given speed (m/s)."""
        speed = float(np.clip(speed, 0.0, self._config.max_speed_mps))
        self._last = AckermannCommand(speed=speed)

    def command(self, action: np.ndarray, dt_s: float) -> AckermannCommand:
        """Return the command for an action (steering + = left, speed) held for `dt_s`.

        The steering action spans the steering range, the speed action [0, max_speed]. Raises
        ValueError for an action that is not finite.
        """
        if not np.all(np.isfinite(action)):
            raise ValueError(f"the action is not finite: {action}")
        limits = self._config
        steering, speed = np.clip(action, -1.0, 1.0)
        steering_angle = steering * limits.max_steering_angle_rad
        target_speed = 0.5 * (speed + 1.0) * limits.max_speed_mps
        turn = limits.max_steering_rate_rps * dt_s
        self._last = AckermannCommand(
            steering_angle=_approach(self._last.steering_angle, steering_angle, turn, turn),
            speed=_approach(
                self._last.speed,
                target_speed,
                limits.max_acceleration_mps2 * dt_s,
                limits.max_deceleration_mps2 * dt_s,
            ),
        )
        return self._last


def _approach(value: float, target: float, rise: float, fall: float) -> float:
    """Move `value` towards `target` by at most `rise` upwards or `fall` downwards."""
    return float(np.clip(target, value - fall, value + rise))


def action_of(config: DrivingConfig, command: AckermannCommand) -> np.ndarray:
    """Return the action, float32 (steering, speed), that asks `CommandLimiter` for a command.

    It produces the command at once where the rate limits allow it. Of the actions that lead to a
    command held back by the limits, it is the one that asks for the least. A value beyond [-1, 1]
    means that no action asks for the command.
    """
    steering = command.steering_angle / config.max_steering_angle_rad
    speed = 2.0 * command.speed / config.max_speed_mps - 1.0
    return np.array([steering, speed], dtype=np.float32)


class PedalController:
    """Turns Ackermann commands into pedals: one output for one input, no timer.

    A proportional-integral speed controller with a feed-forward for drag; steering is the angle's
    share of the car's largest one. Holds the car with the brake at standstill.
    """

    PROPORTIONAL = 0.5
    """Pedal per m/s of speed error."""
    INTEGRAL = 0.2
    """Pedal per metre of accumulated speed error."""
    INTEGRAL_LIMIT = 0.4
    """Largest pedal from the integral."""
    BRAKE_DEAD_BAND = 0.05
    """Weaker braking is left to drag, so that the pedals do not chatter."""
    STANDSTILL_MPS = 0.1
    """Commanded and actual speeds below this mean: hold the car."""

    def __init__(self, vehicle_max_steer_rad: float) -> None:
        self._max_steer_rad = vehicle_max_steer_rad
        self._integral = 0.0

    def reset(self) -> None:
        """Forget the accumulated error."""
        self._integral = 0.0

    def control(self, command: AckermannCommand, speed: float, dt_s: float) -> VehicleControl:
        """Return the pedals for a command at a signed speed (m/s), `dt_s` after the last."""
        # The bridge's steer is positive to the right, the Ackermann angle to the left.
        steer = float(np.clip(-command.steering_angle / self._max_steer_rad, -1.0, 1.0))
        backwards = command.speed < 0.0
        if abs(command.speed) < self.STANDSTILL_MPS and abs(speed) < self.STANDSTILL_MPS:
            self.reset()
            return VehicleControl(steer=steer, brake=1.0)
        # Forward along the wanted direction, so one law serves both gears.
        wanted, actual = abs(command.speed), -speed if backwards else speed
        if actual < -self.STANDSTILL_MPS:
            self.reset()  # rolling the other way: stop first, then change gear
            return VehicleControl(steer=steer, brake=1.0)
        error = wanted - actual
        self._integral = float(
            np.clip(
                self._integral + self.INTEGRAL * error * dt_s,
                -self.INTEGRAL_LIMIT,
                self.INTEGRAL_LIMIT,
            )
        )
        pedal = float(np.clip(self.PROPORTIONAL * error + self._integral, -1.0, 1.0))
        return VehicleControl(
            throttle=max(pedal, 0.0),
            steer=steer,
            brake=-pedal if pedal < -self.BRAKE_DEAD_BAND else 0.0,
            reverse=backwards,
        )


class PedalReader:
    """Finds the Ackermann commands that `PedalController` would turn into given pedals.

    The inverse of its law. The initial integral is unknown and assumed to be 0, an error that
    fades with the time constant PROPORTIONAL / INTEGRAL = 2.5 s. A pedal at its bound, or not
    pressed where braking would stay within the dead band, is read as just that much.
    """

    def __init__(self, vehicle_max_steer_rad: float) -> None:
        self._max_steer_rad = vehicle_max_steer_rad
        self._integral = 0.0

    def reset(self) -> None:
        """Forget the accumulated error."""
        self._integral = 0.0

    def command(self, control: VehicleControl, speed: float, dt_s: float) -> AckermannCommand:
        """Return the command whose pedals these are, at a signed speed (m/s).

        `dt_s` is the time since the pedals before.
        """
        law = PedalController
        angle = -control.steer * self._max_steer_rad
        direction = -1.0 if control.reverse else 1.0
        holding = control.hand_brake or control.brake >= 1.0
        if holding and abs(speed) < law.STANDSTILL_MPS:
            self.reset()
            return AckermannCommand(angle, 0.0)
        pedal = control.throttle - control.brake - float(control.hand_brake)
        # pedal = P error + integral, of which the error since the pedals before is a part.
        error = (pedal - self._integral) / (law.PROPORTIONAL + law.INTEGRAL * dt_s)
        grown = self._integral + law.INTEGRAL * error * dt_s
        self._integral = float(np.clip(grown, -law.INTEGRAL_LIMIT, law.INTEGRAL_LIMIT))
        if self._integral != grown:
            error = (pedal - self._integral) / law.PROPORTIONAL
        # No braking asks for the other direction.
        return AckermannCommand(angle, direction * max(direction * speed + error, 0.0))
