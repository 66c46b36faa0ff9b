# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The camera as a pinhole: its intrinsics, and where it is mounted on the car."""

from __future__ import annotations

import math
from dataclasses import dataclass

from td3_driver.config import SimulatorConfig


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera as sensor_msgs/CameraInfo describes it; in pixels."""

    width: int
    height: int
    focal: float
    """fx and fy."""
    cx: float
    cy: float

    @classmethod
    def of(cls, config: SimulatorConfig) -> Intrinsics:
        """Return the bridge's intrinsics: f = w / (2 tan(fov / 2)), centre at (w/2, h/2)."""
        width, height = config.image_width_px, config.image_height_px
        focal = width / (2.0 * math.tan(math.radians(config.camera_fov_deg) / 2.0))
        return cls(width, height, focal, width / 2.0, height / 2.0)


@dataclass(frozen=True)
class Mounting:
    """The camera's position on the car, in metres ahead and above, and its pitch (+ = down)."""

    x: float
    z: float
    pitch: float

    @classmethod
    def of(cls, config: SimulatorConfig) -> Mounting:
        """Return the mounting that the settings describe."""
        return cls(config.camera_x_m, config.camera_z_m, math.radians(config.camera_pitch_deg))
