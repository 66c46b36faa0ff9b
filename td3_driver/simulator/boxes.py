# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Draws other vehicles, and what stands beside the road, as boxes from far to near."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
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
    """A vehicle or a plain block to draw, standing on the ground; metres.

    `pose` is its centre.
    """

    pose: Pose
    length: float
    width: float
    height: float
    colour: Colour
    vehicle: bool = True


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
_TOP = (4, 5, 6, 7)
_SHADOW_CORNERS = np.arange(16, 20)


@dataclass(frozen=True, eq=False)
class _Face:
    """An upright side of a block."""

    corners: np.ndarray
    """Numbers of its corners among the vehicle's."""
    faces: tuple[int, int]
    """Its direction in the vehicle's axes, as signs."""
    outer: float
    """Metres from the block's middle."""
    brightness: float


@dataclass(frozen=True, eq=False)
class _Block:
    """One of the two blocks that make up a vehicle; metres, in the vehicle's axes."""

    middle: float
    high: float
    sides: list[_Face]
    top: np.ndarray
    """Numbers of its upper corners."""


@dataclass(frozen=True, eq=False)
class _Shape:
    """A vehicle's body and cabin, or a plain block, and all of their corners."""

    blocks: tuple[_Block, ...]
    corners: np.ndarray
    """float64 (20, 3): eight of the body, eight of the cabin, four of the shadow; or (8, 3)."""


@lru_cache(maxsize=1024)
def _shape(length: float, width: float, height: float, vehicle: bool) -> _Shape:
    """Return the shape of all vehicles, or all plain blocks, of one size."""
    waist = 0.55 * height
    corners: list[np.ndarray] = []

    def block(middle: float, length: float, width: float, low: float, high: float) -> _Block:
        first = 8 * len(corners)
        half = (length / 2.0, width / 2.0, high - low)
        corners.append(_CORNERS * half + (middle, 0.0, low))
        sides = [
            _Face(np.array(side) + first, (x, y), abs(x) * half[0] + abs(y) * half[1], brightness)
            for side, (x, y), brightness in _SIDES
        ]
        return _Block(middle, high, sides, np.array(_TOP) + first)

    if not vehicle:
        plain = block(0.0, length, width, 0.0, height)
        return _Shape((plain,), corners[0])
    body = block(0.0, length, width, 0.18 * height, waist)
    cabin = block(-0.04 * length, 0.52 * length, 0.86 * width, waist, height)
    shadow = corners[0][:4] * (1.0, 1.0, 0.0)
    return _Shape((body, cabin), np.concatenate([*corners, shadow]))


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

    def axes(self) -> list[tuple[float, float, float]]:
        """Return the vehicle's axes and its middle in the camera's: depth, left, up."""
        cosine, sine = math.cos(self.turned), math.sin(self.turned)
        down, level = math.sin(self.mounting.pitch), math.cos(self.mounting.pitch)
        below = -self.mounting.z
        return [
            (level * cosine, sine, down * cosine),
            (-level * sine, cosine, -down * sine),
            (-down, 0.0, level),
            (level * self.ahead - down * below, self.aside, down * self.ahead + level * below),
        ]


def draw_boxes(
    image: np.ndarray,
    boxes: Sequence[Box],
    pose: Pose,
    mounting: Mounting,
    intrinsics: Intrinsics,
    shade: Shade = as_painted,
) -> None:
    """Draw boxes into `image` (height, width, 4), seen from a car at `pose`.

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
    if not seen:
        return
    seen.sort(key=lambda item: -item[0])
    shapes = [_shape(box.length, box.width, box.height, box.vehicle) for _, box, _ in seen]
    points = _seen_points(shapes, [view for _, _, view in seen])
    # All projected together; those of boxes that are partly behind the camera are of no use.
    depths = points[:, :1]
    pixels = _pixels(np.where(depths < _NEAREST_M, 1.0, points), intrinsics)
    first = 0
    for (distance_m, box, view), shape in zip(seen, shapes, strict=True):
        own = slice(first, first := first + len(shape.corners))
        before = depths[own].min() >= _NEAREST_M
        drawn = _Drawn(box, shape, view, points[own], pixels[own] if before else None)
        _draw(image, drawn, partial(shade, distance_m=distance_m))


def _seen_points(shapes: Sequence[_Shape], views: Sequence[_View]) -> np.ndarray:
    """Return the corners of all boxes in the camera's axes, float64 (n, 3)."""
    counts = [len(shape.corners) for shape in shapes]
    corners = np.concatenate([shape.corners for shape in shapes])
    axes = np.array([view.axes() for view in views]).repeat(counts, axis=0)
    points = corners[:, :1] * axes[:, 0]
    points += corners[:, 1:2] * axes[:, 1]
    points += corners[:, 2:] * axes[:, 2]
    points += axes[:, 3]
    return points


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A box to draw, with its corners as they are seen."""

    box: Box
    shape: _Shape
    view: _View
    points: np.ndarray
    """float64 (n, 3): depth, left, up."""
    pixels: np.ndarray | None
    """int32 (n, 2) in cv2's fixed point; None if some are behind the camera."""


def _draw(image: np.ndarray, drawn: _Drawn, shade: Callable[..., Colour]) -> None:
    box, shape, view = drawn.box, drawn.shape, drawn.view
    points, pixels = drawn.points, drawn.pixels

    def fill(corners: np.ndarray, colour: Colour) -> None:
        if pixels is not None:
            _fill(image, pixels[corners], colour)
        elif len(cut := _clip_near(points[corners])) >= 3:
            _fill(image, _pixels(cut, view.intrinsics), colour)

    if box.vehicle:
        fill(_SHADOW_CORNERS, shade(_SHADOW, painted=False))
    eye_x, eye_y = view.eye()
    for block in shape.blocks:
        body = block is shape.blocks[0]
        painted = body and box.vehicle
        colour = box.colour if body else _GLASS
        for side in block.sides:
            # A side is visible if the eye is on its outer side.
            x, y = side.faces
            if x * (eye_x - block.middle) + y * eye_y > side.outer:
                fill(side.corners, shade(brightened(colour, side.brightness), painted=painted))
        if view.mounting.z > block.high:
            # The roof has the body's paint: only the cabin's sides are glass.
            fill(block.top, shade(box.colour, painted=box.vehicle))


def _pixels(points: np.ndarray, k: Intrinsics) -> np.ndarray:
    """Project points (n, 3), as depth, left, up: int32 (n, 2), in cv2's fixed point."""
    pixels = points[:, 1:] * (-k.focal / points[:, :1])
    pixels += (k.cx, k.cy)
    # Beyond these bounds, cv2's fixed-point coordinates would overflow.
    bound = 8.0 * k.width
    np.maximum(pixels, -bound, out=pixels)
    np.minimum(pixels, bound, out=pixels)
    pixels *= 2**_SHIFT
    return np.rint(pixels, out=pixels).astype(np.int32)


def _fill(image: np.ndarray, pixels: np.ndarray, colour: Colour) -> None:
    """Fill a convex polygon, int32 (n, 2)."""
    cv2.fillConvexPoly(image, pixels, (*colour, 255.0), cv2.LINE_AA, _SHIFT)


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
