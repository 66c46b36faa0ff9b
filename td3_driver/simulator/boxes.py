"""Other vehicles as boxes, drawn from far to near."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.simulator.looks import Colour

if TYPE_CHECKING:
    from td3_driver.simulator.camera import Intrinsics, Mounting

_NEAREST_M = 0.2
_FARTHEST_M = 150.0
_SHIFT = 4
_GLASS: Colour = (58.0, 50.0, 46.0)
_SHADOW: Colour = (38.0, 38.0, 38.0)


@dataclass(frozen=True)
class Box:
    """A vehicle to be drawn, standing on the ground; `pose` is its middle, metres."""

    pose: Pose
    length: float
    width: float
    height: float
    colour: Colour


# Corner signs (x forward, y left, z up) of each face, and its outward normal and brightness.
_FACES = (
    (((1, 1, 0), (1, -1, 0), (1, -1, 1), (1, 1, 1)), (1, 0, 0), 0.80),
    (((-1, 1, 0), (-1, -1, 0), (-1, -1, 1), (-1, 1, 1)), (-1, 0, 0), 0.70),
    (((1, 1, 0), (-1, 1, 0), (-1, 1, 1), (1, 1, 1)), (0, 1, 0), 0.55),
    (((1, -1, 0), (-1, -1, 0), (-1, -1, 1), (1, -1, 1)), (0, -1, 0), 0.62),
    (((1, 1, 1), (1, -1, 1), (-1, -1, 1), (-1, 1, 1)), (0, 0, 1), 1.0),
)


def draw_boxes(
    image: np.ndarray,
    boxes: Sequence[Box],
    pose: Pose,
    mounting: Mounting,
    intrinsics: Intrinsics,
) -> None:
    """Draw vehicles into `image` (height, width, 4), seen from a car at `pose`."""
    cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
    seen = []
    for box in boxes:
        east, north = box.pose.x - pose.x, box.pose.y - pose.y
        ahead = cosine * east + sine * north - mounting.x
        aside = -sine * east + cosine * north
        if -box.length < ahead < _FARTHEST_M:
            seen.append((math.hypot(ahead, aside), ahead, aside, box))
    for _, ahead, aside, box in sorted(seen, key=lambda item: -item[0]):
        turned = box.pose.yaw - pose.yaw
        for corners, colour in _polygons(box, ahead, aside, turned, mounting.z):
            _fill(image, corners, colour, mounting.pitch, intrinsics)


def _polygons(
    box: Box, ahead: float, aside: float, turned: float, eye: float
) -> Iterator[tuple[np.ndarray, Colour]]:
    """Yield polygons (n, 3) relative to the camera, and their colours, in drawing order."""
    rotation = np.array(
        [[math.cos(turned), -math.sin(turned)], [math.sin(turned), math.cos(turned)]]
    )
    middle = np.array([ahead, aside])
    waist = 0.55 * box.height
    body = (box.length, box.width, 0.18 * box.height, waist, 0.0, box.colour)
    cabin = (0.52 * box.length, 0.86 * box.width, waist, box.height, -0.04 * box.length, _GLASS)
    shadow = np.array([(1, 1), (1, -1), (-1, -1), (-1, 1)]) * (box.length / 2, box.width / 2)
    on_ground = shadow @ rotation.T + middle
    yield np.column_stack([on_ground, np.full(4, -eye)]), _SHADOW
    for length, width, low, high, moved, colour in (body, cabin):
        centre = middle + rotation @ np.array([moved, 0.0])
        half = np.array([length / 2.0, width / 2.0])
        for signs, normal, brightness in _FACES:
            corners = np.array(signs, float)
            flat = corners[:, :2] * half @ rotation.T + centre
            level = np.where(corners[:, 2] > 0, high, low) - eye
            outward = np.array([*(rotation @ np.array(normal[:2], float)), float(normal[2])])
            points = np.column_stack([flat, level])
            # A face is seen if the camera, at the origin, is on its outer side.
            if float(outward @ points[0]) < 0.0:
                # The roof keeps the paint of the body: only the cabin's sides are glass.
                paint = box.colour if normal[2] else colour
                yield points, tuple(brightness * channel for channel in paint)


def _fill(
    image: np.ndarray, points: np.ndarray, colour: Colour, pitch: float, k: Intrinsics
) -> None:
    """Project a convex polygon (n, 3) given in the car's axes, and fill it."""
    cosine, sine = math.cos(pitch), math.sin(pitch)
    depth = cosine * points[:, 0] - sine * points[:, 2]
    up = sine * points[:, 0] + cosine * points[:, 2]
    clipped = _clip_near(np.column_stack([depth, points[:, 1], up]))
    if len(clipped) < 3:
        return
    u = k.cx - k.focal * clipped[:, 1] / clipped[:, 0]
    v = k.cy - k.focal * clipped[:, 2] / clipped[:, 0]
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
