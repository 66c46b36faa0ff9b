# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The last stage before the car: every command is finite, within range and changes gradually."""

from __future__ import annotations

import math

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AT_REST, AckermannCommand, Command, stopping
from td3_driver.driving.world import VehicleControl


class CommandGate:
    """Brings commands within their limits; never holds back a stop.

    It does not rely on earlier stages: `CommandLimiter` applies the same limits to the commands
    it makes, but a stop, a new route or a skipped image can come between them.
    """

    LONGEST_STEP_S = 0.2
    """However long ago the last command was, the next may change by no more than in this time."""
    OVERSPEED = 1.1
    """Above this multiple of the maximum speed, the throttle is cut."""

    def __init__(self, config: DrivingConfig, fixed_delta_s: float) -> None:
        self._config = config
        self._fixed_delta_s = fixed_delta_s
        self._last = AT_REST
        self._stopped = True
        self.limited = 0
        """Number of commands that exceeded the limits."""

    def admit(self, command: Command, speed: float, elapsed_s: float) -> Command:
        """Return the nearest command within the limits.

        `speed` is the measured speed, m/s; `elapsed_s` is the simulated time since the previous
        command. Raises ValueError and discards the command if any value is not finite.
        """
        ackermann, control = command.ackermann, command.control
        values = (
            *(ackermann.steering_angle, ackermann.speed),
            *(control.throttle, control.steer, control.brake),
            *(speed, elapsed_s),
        )
        if not all(map(math.isfinite, values)):
            raise ValueError(f"the command is not finite: {command} at {speed} m/s")
        limits = self._config
        step_s = min(max(elapsed_s, 0.0), self.LONGEST_STEP_S)
        last_speed = self._last.ackermann.speed
        if self._stopped:
            # The car may still be rolling: continue from its actual speed.
            step_s = min(step_s, self._fixed_delta_s)
            last_speed = _clip(speed, 0.0, limits.max_speed_mps)
        turn = limits.max_steering_rate_rps * step_s
        largest = limits.max_steering_angle_rad
        full_steer = limits.vehicle_max_steer_rad
        target_speed = _clip(
            _clip(ackermann.speed, 0.0, limits.max_speed_mps),
            last_speed - limits.max_deceleration_mps2 * step_s,
            last_speed + limits.max_acceleration_mps2 * step_s,
        )
        steer = _clip(control.steer, *_around(self._last.control.steer, turn / full_steer))
        brake = _clip(control.brake, 0.0, 1.0)
        throttle = _clip(control.throttle, 0.0, 1.0)
        if brake > 0.0 or target_speed <= 0.0 or speed > self.OVERSPEED * limits.max_speed_mps:
            throttle = 0.0
        admitted = Command(
            AckermannCommand(
                steering_angle=_clip(
                    _clip(ackermann.steering_angle, -largest, largest),
                    *_around(self._last.ackermann.steering_angle, turn),
                ),
                speed=target_speed,
            ),
            VehicleControl(
                throttle=throttle,
                steer=_clip(steer, *_around(0.0, min(largest / full_steer, 1.0))),
                brake=brake,
            ),
        )
        self.limited += not _alike(admitted, command)
        self._last, self._stopped = admitted, False
        return admitted

    def stop(self) -> Command:
        """Return the command that stops the car at once and keeps its steering angle."""
        self._last = stopping(self._last)
        self._stopped = True
        return self._last


def _clip(value: float, low: float, high: float) -> float:
    return float(min(max(value, low), high))


def _around(centre: float, reach: float) -> tuple[float, float]:
    return centre - reach, centre + reach


# Actions are single precision, so rounding can push a limited command slightly over a limit.
def _alike(first: Command, second: Command, tolerance: float = 1e-4) -> bool:
    pairs = (
        (first.ackermann.steering_angle, second.ackermann.steering_angle),
        (first.ackermann.speed, second.ackermann.speed),
        (first.control.throttle, second.control.throttle),
        (first.control.steer, second.control.steer),
        (first.control.brake, second.control.brake),
    )
    return (
        all(abs(one - other) <= tolerance for one, other in pairs)
        and first.control.reverse == second.control.reverse
        and first.control.hand_brake == second.control.hand_brake
    )
