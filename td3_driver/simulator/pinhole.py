# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The camera as a pinhole: its intrinsics, its mounting on the car, and what it looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Pose


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


class Projection:
    """What each pixel of a mounted camera looks at: the sky, or a place on the flat ground."""

    def __init__(self, intrinsics: Intrinsics, mounting: Mounting) -> None:
        self.intrinsics = intrinsics
        self.mounting = mounting
        self._rays = rays = self._directions()
        # Rows above the horizon are sky. The camera never rolls, so the horizon is a row.
        self.horizon = int(np.count_nonzero(rays[:, 0, 2] >= 0.0))
        """The first row that sees ground."""
        below = rays[self.horizon :, 0]
        self.forward_m = mounting.z * below[:, 0] / -below[:, 2]
        """How far ahead each row from the horizon down meets the ground, float64 (rows,)."""

    def sky_angles(self) -> tuple[np.ndarray, np.ndarray]:
        """Return azimuth and elevation of the sky's pixels, radians, + = left and up."""
        sky = self._rays[: self.horizon]
        azimuth = np.arctan2(sky[..., 1], sky[..., 0])
        return azimuth, np.arctan2(sky[..., 2], np.hypot(sky[..., 0], sky[..., 1]))

    def pixel_to_map(self, pose: Pose) -> np.ndarray:
        """Return the homography (3, 3) from pixel u, v, 1 to the ground's map x, y, 1.

        Pixel (u, v) looks along x = 1, y = -(u - cx) / f, z = -(v - cy) / f, then pitched; the ray
        meets the ground where it has descended by the camera's height.
        """
        k, height = self.intrinsics, self.mounting.z
        cosine, sine = math.cos(self.mounting.pitch), math.sin(self.mounting.pitch)
        # The ray's downward, forward and left components, each linear in u, v, 1.
        down = np.array([0.0, cosine / k.focal, sine - cosine * k.cy / k.focal])
        forward = np.array([0.0, -sine / k.focal, cosine + sine * k.cy / k.focal])
        left = np.array([-1.0 / k.focal, 0.0, k.cx / k.focal])
        ahead = height * forward + self.mounting.x * down
        aside = height * left
        heading_x, heading_y = math.cos(pose.yaw), math.sin(pose.yaw)
        return np.array(
            [
                heading_x * ahead - heading_y * aside + pose.x * down,
                heading_y * ahead + heading_x * aside + pose.y * down,
                down,
            ]
        )

    def _directions(self) -> np.ndarray:
        """Return every pixel's direction in the car's axes, float64 (height, width, 3)."""
        k = self.intrinsics
        u, v = np.meshgrid(np.arange(k.width), np.arange(k.height))
        left, up = -(u - k.cx) / k.focal, -(v - k.cy) / k.focal
        cosine, sine = math.cos(self.mounting.pitch), math.sin(self.mounting.pitch)
        return np.stack([cosine + sine * up, left, -sine + cosine * up], axis=-1)
