# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The time to collision: how soon two vehicles touch if both go on as they do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from td3_driver.simulator.shapes import Rectangle, Vector

HORIZON_S = 10.0
"""What would take longer is no conflict."""


@dataclass(frozen=True)
class Mover:
    """A vehicle's outline and its velocity in map axes, m/s."""

    outline: Rectangle
    velocity: Vector


def time_to_collision(ego: Mover, others: Iterable[Mover]) -> float:
    """Return the seconds until the first contact, infinity if there is none within the horizon.

    Everybody keeps speed and direction, without turning (Hayward, 1972, in two dimensions): a car
    in a bend may meet one in the opposite lane by this measure and pass it by all the same.
    """
    return min((_contact_s(ego, other) for other in others), default=math.inf)


def _contact_s(ego: Mover, other: Mover) -> float:
    """Return when two moving rectangles touch: once they overlap along all axes of both."""
    dx, dy = ego.outline.pose.x - other.outline.pose.x, ego.outline.pose.y - other.outline.pose.y
    vx, vy = ego.velocity[0] - other.velocity[0], ego.velocity[1] - other.velocity[1]
    sizes = sum(math.hypot(each.outline.length, each.outline.width) for each in (ego, other))
    if math.hypot(dx, dy) > HORIZON_S * math.hypot(vx, vy) + 0.5 * sizes:
        return math.inf
    enter, leave = 0.0, HORIZON_S
    for axis in (*ego.outline.axes, *other.outline.axes):
        between, closing = dx * axis[0] + dy * axis[1], vx * axis[0] + vy * axis[1]
        reach = ego.outline.reach(axis) + other.outline.reach(axis)
        if abs(closing) < 1e-9:
            if abs(between) >= reach:
                return math.inf
            continue
        first, last = sorted(((-reach - between) / closing, (reach - between) / closing))
        enter, leave = max(enter, first), min(leave, last)
    return enter if enter < leave else math.inf
