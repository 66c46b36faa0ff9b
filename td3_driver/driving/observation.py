# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The dict observation: stacked images and a vector in SI units."""

from __future__ import annotations

import cv2
import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.route import Projection, RouteTracker
from td3_driver.driving.world import Pose

Observation = dict[str, np.ndarray]

IMAGE, VECTOR = "image", "vector"
"""The observation's keys."""

ACTIONS = ("steering", "speed")


def image_shape(config: DrivingConfig) -> tuple[int, ...]:
    """Return the shape of a stack: (stack, size, size), or in colour (stack, 3, size, size)."""
    side = config.image_size_px
    channels = () if config.image_channels == 1 else (config.image_channels,)
    return (config.image_stack, *channels, side, side)


def vector_names(config: DrivingConfig) -> list[str]:
    """Return the name of each entry of the observation's vector, units included."""
    names = ["speed_mps", "lateral_m", "heading_error_rad"]
    for index in range(1, config.waypoints + 1):
        names += [f"waypoint_{index}_x_m", f"waypoint_{index}_y_m"]
    if config.observe_previous_action:
        names += [f"previous_{name}" for name in ACTIONS]
    return names


UNITS = {"mps": "m/s", "m": "m", "rad": "rad"}
"""Units by the last part of a name; any other name has none."""


def unit_of(name: str) -> str:
    """Return the unit of an entry of the vector, "1" if it has none."""
    return UNITS.get(name.rsplit("_", 1)[-1], "1")


def vector_scale(config: DrivingConfig) -> np.ndarray:
    """Return the usual magnitude of each entry of the vector, float32, for networks to divide by.

    A waypoint's y is scaled by the lane's limits near the car and by its distance further out.
    """
    scale = [config.max_speed_mps, config.lateral_limit_m, config.heading_limit_rad]
    for index in range(1, config.waypoints + 1):
        distance = index * config.waypoint_spacing_m
        scale += [distance, max(config.lateral_limit_m, 0.5 * distance)]
    if config.observe_previous_action:
        scale += [1.0] * len(ACTIONS)
    return np.array(scale, dtype=np.float32)


# Values beyond this many scales say no more than "far off", and keep the space bounded.
VECTOR_BOUND_SCALES = 10.0


def grey_image(bgra: np.ndarray, size_px: int) -> np.ndarray:
    """Reduce a `bgra8` image, uint8 (height, width, 4), to grey, uint8 (size, size)."""
    # Shrinking first is cheaper, and area averaging commutes with the channels' weighting.
    small = cv2.resize(bgra, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGRA2GRAY)


def colour_image(bgra: np.ndarray, size_px: int) -> np.ndarray:
    """Reduce a `bgra8` image, uint8 (height, width, 4), to red, green, blue, (3, size, size)."""
    small = cv2.resize(bgra, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[:, :, 2::-1].transpose(2, 0, 1))


class Observer:
    """Builds observations; the same code serves training, the driver and bags."""

    def __init__(self, config: DrivingConfig) -> None:
        self._config = config
        self._bound = VECTOR_BOUND_SCALES * vector_scale(config)
        self._reduce = grey_image if config.image_channels == 1 else colour_image
        self._stack: np.ndarray | None = None

    def reset(self) -> None:
        """Forget earlier images; the next one fills the whole stack."""
        self._stack = None

    def observe(
        self,
        image: np.ndarray,
        pose: Pose,
        speed: float,
        tracker: RouteTracker,
        projection: Projection,
        previous_action: np.ndarray,
    ) -> Observation:
        """Return {"image": uint8 of `image_shape`, "vector": float32 (entries,)}.

        The newest image comes last. `previous_action` is in [-1, 1]^2.
        """
        latest = self._reduce(image, self._config.image_size_px)
        if self._stack is None:
            self._stack = np.repeat(latest[None], self._config.image_stack, axis=0)
        else:
            self._stack = np.concatenate([self._stack[1:], latest[None]])
        ahead = tracker.ahead(
            pose,
            projection.progress_m,
            self._config.waypoints,
            self._config.waypoint_spacing_m,
        )
        parts: list[np.ndarray | list[float]] = [
            [speed, projection.lateral_m, projection.heading_error_rad],
            ahead.ravel(),
        ]
        if self._config.observe_previous_action:
            parts.append(previous_action)
        vector = np.concatenate(parts).astype(np.float32)
        return {
            IMAGE: self._stack.copy(),
            VECTOR: np.clip(vector, -self._bound, self._bound),
        }
