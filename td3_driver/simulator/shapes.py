# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Outlines of vehicles as oriented rectangles, and how deep two of them overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

from td3_driver.driving.world import Pose

Vector = tuple[float, float]


@dataclass(frozen=True)
class Rectangle:
    """An oriented rectangle around `pose`; metres."""

    pose: Pose
    length: float
    width: float

    @property
    def axes(self) -> tuple[Vector, Vector]:
        """Unit vectors to the front and to the left."""
        cosine, sine = math.cos(self.pose.yaw), math.sin(self.pose.yaw)
        return (cosine, sine), (-sine, cosine)

    @property
    def corners(self) -> list[Vector]:
        """Front left, front right, rear right, rear left."""
        (fx, fy), (lx, ly) = self.axes
        x, y, a, b = self.pose.x, self.pose.y, self.length / 2.0, self.width / 2.0
        return [
            (x + i * a * fx + j * b * lx, y + i * a * fy + j * b * ly)
            for i, j in ((1, 1), (1, -1), (-1, -1), (-1, 1))
        ]

    def reach(self, axis: Vector) -> float:
        """Return half the rectangle's extent along a unit vector."""
        (fx, fy), (lx, ly) = self.axes
        return 0.5 * (
            self.length * abs(fx * axis[0] + fy * axis[1])
            + self.width * abs(lx * axis[0] + ly * axis[1])
        )


def overlap(one: Rectangle, other: Rectangle) -> tuple[Vector, float] | None:
    """Return the shortest way out for `one`: a unit vector and metres; None if they are apart.

    By separating axes: two rectangles are apart if their extents along one of their axes are.
    """
    dx, dy = one.pose.x - other.pose.x, one.pose.y - other.pose.y
    # Most are so far apart that their circumscribed circles are.
    if 2.0 * math.hypot(dx, dy) > (
        math.hypot(one.length, one.width) + math.hypot(other.length, other.width)
    ):
        return None
    best: tuple[Vector, float] | None = None
    for axis in (*one.axes, *other.axes):
        between = dx * axis[0] + dy * axis[1]
        depth = one.reach(axis) + other.reach(axis) - abs(between)
        if depth <= 0.0:
            return None
        if best is None or depth < best[1]:
            side = 1.0 if between >= 0.0 else -1.0
            best = (side * axis[0], side * axis[1]), depth
    return best
