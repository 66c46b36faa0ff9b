# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A driver that learns nothing: it follows the route and slows down for bends.

It is the benchmark for policies, and records drives for offline learning. It reads only the
observation's vector.
"""

from __future__ import annotations

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AckermannCommand, action_of
from td3_driver.driving.observation import VECTOR, Observation

WHEELBASE_M = 2.87
"""That of CARLA's vehicle.tesla.model3 and of the embedded simulator's car."""
LOOK_AHEAD_S = 0.8
LEAST_LOOK_AHEAD_M = 4.0
LATERAL_ACCELERATION_MPS2 = 2.5
"""Accepted in a bend, as by a calm driver."""


class RouteFollower:
    """Pure pursuit (Coulter, 1992) at the target speed, or less where the route bends."""

    def __init__(self, config: DrivingConfig) -> None:
        self._config = config

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action, float32 (steering, speed) in [-1, 1]^2, for one observation."""
        vector = observation[VECTOR].astype(np.float64)
        count = self._config.waypoints
        command = self.command(vector[3 : 3 + 2 * count].reshape(count, 2), vector[0])
        return np.clip(action_of(self._config, command), -1.0, 1.0)

    def command(self, waypoints: np.ndarray, speed: float) -> AckermannCommand:
        """Return the command for points of the route in the car's frame, (n, 2), and a speed."""
        return AckermannCommand(self._steering_angle(waypoints, speed), self._speed(waypoints))

    def _steering_angle(self, waypoints: np.ndarray, speed: float) -> float:
        """Return the angle of the arc through the first point far enough ahead.

        An arc from the rear axle, along x, through (x, y) has the curvature 2 y / (x^2 + y^2).
        """
        wanted = max(LOOK_AHEAD_S * speed, LEAST_LOOK_AHEAD_M)
        from_rear = waypoints + np.array([WHEELBASE_M / 2.0, 0.0])  # the origin is its middle
        distances = np.hypot(*from_rear.T)
        far_enough = np.flatnonzero(distances >= wanted)
        target = from_rear[far_enough[0] if len(far_enough) else -1]
        curvature = 2.0 * target[1] / max(float(target @ target), 1e-6)
        return float(np.arctan(WHEELBASE_M * curvature))

    def _speed(self, waypoints: np.ndarray) -> float:
        """Return the speed at which each bend in sight can be reached and driven.

        Curvature is the change of direction per length, at each point between two segments;
        v^2 = a / curvature there, and v0^2 = v^2 + 2 b s where it is s away and braking takes b.
        """
        limits = self._config
        if len(waypoints) < 3:
            return limits.target_speed_mps
        segments = np.diff(waypoints, axis=0)
        lengths = np.maximum(np.hypot(*segments.T), 1e-6)
        turns = np.diff(np.unwrap(np.arctan2(segments[:, 1], segments[:, 0])))
        curvatures = np.abs(turns) / (0.5 * (lengths[:-1] + lengths[1:]))
        away_m = np.cumsum(lengths)[:-1]
        squares = LATERAL_ACCELERATION_MPS2 / np.maximum(curvatures, 1e-6)
        squares += 2.0 * 0.5 * limits.max_deceleration_mps2 * away_m
        return min(limits.target_speed_mps, float(np.sqrt(squares.min())))
