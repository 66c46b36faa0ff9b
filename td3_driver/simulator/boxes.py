# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Draws other vehicles as boxes, from far to near."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import cv2
import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.looks import Colour
from td3_driver.simulator.colours import brightened
from td3_driver.simulator.pinhole import Intrinsics, Mounting

_NEAREST_M = 0.2
_FARTHEST_M = 150.0
_SHIFT = 4
_GLASS: Colour = (58.0, 50.0, 46.0)
_SHADOW: Colour = (38.0, 38.0, 38.0)


class Shade(Protocol):
    """What light and haze make of a colour."""

    def __call__(self, colour: Colour, distance_m: float, painted: bool) -> Colour:
        """Return the colour as it is seen; `painted` = it is a vehicle's paint."""


def as_painted(colour: Colour, distance_m: float, painted: bool) -> Colour:
    """Return the colour itself: in the usual light, boxes have no haze."""
    return colour


@dataclass(frozen=True)
class Box:
    """A vehicle to draw, standing on the ground; `pose` is its centre; metres."""

    pose: Pose
    length: float
    width: float
    height: float
    colour: Colour


# A block's corners as signs: x forward, y left; z is 0 for the bottom and 1 for the top.
_CORNERS = np.array(
    [(x, y, z) for z in (0, 1) for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))], float
)
# The corners of each side, the direction it faces (as signs), and its brightness.
_SIDES = (
    ((0, 1, 5, 4), (1, 0), 0.80),
    ((2, 3, 7, 6), (-1, 0), 0.70),
    ((3, 0, 4, 7), (0, 1), 0.55),
    ((1, 2, 6, 5), (0, -1), 0.62),
)
_BOTTOM, _TOP = (0, 1, 2, 3), (4, 5, 6, 7)


@dataclass(frozen=True)
class _Block:
    """One of the two blocks that make up a vehicle; metres, in the vehicle's axes."""

    middle: float
    length: float
    width: float
    low: float
    high: float
    paint: Colour


@dataclass(frozen=True)
class _View:
    """A vehicle's pose relative to the camera, and the camera."""

    ahead: float
    aside: float
    turned: float
    mounting: Mounting
    intrinsics: Intrinsics

    def eye(self) -> tuple[float, float]:
        """Return the camera's position in the vehicle's axes."""
        cosine, sine = math.cos(self.turned), math.sin(self.turned)
        return (
            -cosine * self.ahead - sine * self.aside,
            sine * self.ahead - cosine * self.aside,
        )

    def of_camera(self, points: np.ndarray) -> np.ndarray:
        """Convert points (n, 3) from the vehicle's axes to the camera's: depth, left, up."""
        cosine, sine = math.cos(self.turned), math.sin(self.turned)
        x = self.ahead + cosine * points[:, 0] - sine * points[:, 1]
        y = self.aside + sine * points[:, 0] + cosine * points[:, 1]
        z = points[:, 2] - self.mounting.z
        down, level = math.sin(self.mounting.pitch), math.cos(self.mounting.pitch)
        return np.stack([level * x - down * z, y, down * x + level * z], axis=1)


def draw_boxes(
    image: np.ndarray,
    boxes: Sequence[Box],
    pose: Pose,
    mounting: Mounting,
    intrinsics: Intrinsics,
    shade: Shade = as_painted,
) -> None:
    """Draw vehicles into `image` (height, width, 4), seen from a car at `pose`.

    `shade` says what becomes of their colours in the light and the haze.
    """
    cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
    widest = intrinsics.cx / intrinsics.focal
    seen = []
    for box in boxes:
        east, north = box.pose.x - pose.x, box.pose.y - pose.y
        ahead = cosine * east + sine * north - mounting.x
        aside = -sine * east + cosine * north
        # A vehicle centred outside the image may still reach into it.
        if -box.length < ahead < _FARTHEST_M and abs(aside) < widest * max(ahead, 0.0) + (
            2.0 * box.length
        ):
            view = _View(ahead, aside, box.pose.yaw - pose.yaw, mounting, intrinsics)
            seen.append((math.hypot(ahead, aside), box, view))
    for distance_m, box, view in sorted(seen, key=lambda item: -item[0]):
        _draw(image, box, view, partial(shade, distance_m=distance_m))


def _draw(image: np.ndarray, box: Box, view: _View, shade: Callable[..., Colour]) -> None:
    waist = 0.55 * box.height
    body = _Block(0.0, box.length, box.width, 0.18 * box.height, waist, box.colour)
    cabin = _Block(
        -0.04 * box.length, 0.52 * box.length, 0.86 * box.width, waist, box.height, _GLASS
    )
    eye_x, eye_y = view.eye()
    for block in (body, cabin):
        half = np.array([block.length / 2.0, block.width / 2.0, block.high - block.low])
        corners = _CORNERS * half + (block.middle, 0.0, block.low)
        points = view.of_camera(corners)
        if block is body:
            shadow = corners[list(_BOTTOM)] * (1.0, 1.0, 0.0)
            below = shade(_SHADOW, painted=False)
            _fill(image, view.of_camera(shadow), below, view.intrinsics)
        for side, (x, y), brightness in _SIDES:
            # A side is visible if the eye is on its outer side.
            if x * (eye_x - block.middle) + y * eye_y > abs(x) * half[0] + abs(y) * half[1]:
                paint = shade(brightened(block.paint, brightness), painted=block is body)
                _fill(image, points[list(side)], paint, view.intrinsics)
        if view.mounting.z > block.high:
            # The roof has the body's paint: only the cabin's sides are glass.
            roof = shade(box.colour, painted=True)
            _fill(image, points[list(_TOP)], roof, view.intrinsics)


def _fill(image: np.ndarray, points: np.ndarray, colour: Colour, k: Intrinsics) -> None:
    """Project a convex polygon (n, 3), as depth, left, up, and fill it."""
    if points[:, 0].min() < _NEAREST_M:
        points = _clip_near(points)
        if len(points) < 3:
            return
    scale = k.focal / points[:, 0]
    u, v = k.cx - scale * points[:, 1], k.cy - scale * points[:, 2]
    # Beyond these bounds, cv2's fixed-point coordinates would overflow.
    pixels = np.clip(np.stack([u, v], axis=1), -8.0 * k.width, 8.0 * k.width)
    fixed = np.round(pixels * 2**_SHIFT).astype(np.int32)
    cv2.fillConvexPoly(image, fixed, (*colour, 255.0), cv2.LINE_AA, _SHIFT)


def _clip_near(points: np.ndarray) -> np.ndarray:
    """Cut a convex polygon (n, 3), depth first, at the near plane (Sutherland-Hodgman)."""
    kept = []
    for one, other in zip(points, np.roll(points, -1, axis=0), strict=True):
        if one[0] >= _NEAREST_M:
            kept.append(one)
        if (one[0] >= _NEAREST_M) != (other[0] >= _NEAREST_M):
            share = (_NEAREST_M - one[0]) / (other[0] - one[0])
            kept.append(one + share * (other - one))
    return np.array(kept).reshape(-1, 3)
