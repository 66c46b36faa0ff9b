# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The front camera: ground by inverse perspective, sky, and boxes for other vehicles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import cv2
import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Pose
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box, draw_boxes
from td3_driver.simulator.ground import Ground, paint_ground
from td3_driver.simulator.looks import draw_looks
from td3_driver.simulator.pinhole import Intrinsics, Mounting
from td3_driver.simulator.sky import Sky

# Images are small: a thread pool would cost more than it saves, and take cores away from the
# learner. cv2 only has this setting per process.
cv2.setNumThreads(1)

_HAZE_STARTS_M = 50.0
_HAZE_FULL_M = 160.0


class Camera:
    """Renders what a car sees on one map."""

    def __init__(self, road_map: RoadMap, config: SimulatorConfig) -> None:
        """Paint the map's ground and prepare everything that does not depend on the pose."""
        self.intrinsics = Intrinsics.of(config)
        self.mounting = Mounting.of(config)
        self.looks = draw_looks(config.seed, road_map.name)
        self._ground = paint_ground(road_map, self.looks)
        rays = self._rays()
        # Rows above the horizon are sky. The camera never rolls, so the horizon is a row.
        self._horizon = int(np.count_nonzero(rays[:, 0, 2] >= 0.0))
        sky = rays[: self._horizon]
        azimuth = np.arctan2(sky[..., 1], sky[..., 0])
        elevation = np.arctan2(sky[..., 2], np.hypot(sky[..., 0], sky[..., 1]))
        self._sky = Sky(self.looks, azimuth, elevation)
        forward = self.mounting.z * rays[self._horizon :, 0, 0] / -rays[self._horizon :, 0, 2]
        self._bands = _bands(forward, self.intrinsics.focal, self._ground)
        share = (forward - _HAZE_STARTS_M) / (_HAZE_FULL_M - _HAZE_STARTS_M)
        self._hazy_rows = int(np.count_nonzero(share > 0.0))
        self._clear_share = (1.0 - np.clip(share[: self._hazy_rows], 0.0, 1.0))[:, None, None]
        self._haze = np.array(self._sky.horizon_colour) * (1.0 - self._clear_share)

    def render(self, pose: Pose, boxes: Sequence[Box] = ()) -> np.ndarray:
        """Return what a car at `pose` sees, uint8 (height, width, 4), `bgra8`."""
        width, height = self.intrinsics.width, self.intrinsics.height
        image = np.empty((height, width, 4), np.uint8)
        image[: self._horizon] = self._sky.look(pose.yaw)
        ground = np.empty((height - self._horizon, width, 3), np.uint8)
        to_map = self.pixel_to_map(pose)
        for first, last, level in self._bands:
            from_row = np.array([[1, 0, 0], [0, 1, self._horizon + first], [0, 0, 1]])
            cv2.warpPerspective(
                self._ground.levels[level],
                self._ground.from_map(level) @ to_map @ from_row,
                (width, last - first),
                dst=ground[first:last],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self._ground.outside,
            )
        far = ground[: self._hazy_rows]
        far[:] = far * self._clear_share + self._haze
        if len(ground):
            cv2.cvtColor(ground, cv2.COLOR_BGR2BGRA, dst=image[self._horizon :])
        draw_boxes(image, boxes, pose, self.mounting, self.intrinsics)
        return image

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

    def _rays(self) -> np.ndarray:
        """Return every pixel's direction in the car's axes, float64 (height, width, 3)."""
        k = self.intrinsics
        u, v = np.meshgrid(np.arange(k.width), np.arange(k.height))
        left, up = -(u - k.cx) / k.focal, -(v - k.cy) / k.focal
        cosine, sine = math.cos(self.mounting.pitch), math.sin(self.mounting.pitch)
        return np.stack([cosine + sine * up, left, -sine + cosine * up], axis=-1)


def _bands(forward: np.ndarray, focal: float, ground: Ground) -> list[tuple[int, int, int]]:
    """Group ground rows by the texture level they are drawn from.

    `forward` is each row's distance ahead in metres. Returns first row, row after the last,
    level. A pixel covers d / f metres across and d^2 / (f h) along the road. Choosing the level
    whose texel is nearest to the geometric mean of the two keeps distant lines from flickering
    without washing them out.
    """
    across = forward / focal
    along = np.abs(np.gradient(forward)) if len(forward) > 1 else across
    texels = np.sqrt(across * along) * ground.px_per_m
    levels = np.clip(np.round(np.log2(texels)), 0, len(ground.levels) - 1).astype(int)
    edges = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    return [
        (first, last, int(levels[first]))
        for first, last in itertools.pairwise(edges)
        if last > first
    ]
