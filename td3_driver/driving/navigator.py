# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a navigator says of a route: follow the road, or turn, and how far ahead.

It reads the route's points alone, as a Path over topics has nothing else. So a turn is where the
route bends sharply, whether other roads leave there or not.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

TURN_RADIUS_M = 25.0
"""Where the route bends, its radius is less than this."""
TURN_RAD = math.radians(60.0)
"""A bend that turns further is a turn."""
CUT_TURN_RAD = math.radians(15.0)
"""The same for a bend that the route's beginning or end cuts off, as more of it may follow."""
CHORD_M = 8.0
"""Directions are those of chords of this length: a change of lanes, 3.5 m to the side on 5 m of
way, turns them by 27 degrees and back."""
STEP_M = 1.0


class Direction(Enum):
    """What to do at the next junction."""

    FOLLOW = "follow"
    LEFT = "left"
    RIGHT = "right"
    STRAIGHT = "straight"
    """Never said yet: a route straight over a junction looks like one along a road."""


@dataclass(frozen=True)
class Turn:
    """A stretch of a route that turns."""

    begin_m: float
    """Where it begins, along the route."""
    end_m: float
    angle_rad: float
    """How far it turns, + = left."""

    @property
    def direction(self) -> Direction:
        """Which way it turns."""
        return Direction.LEFT if self.angle_rad > 0.0 else Direction.RIGHT


@dataclass(frozen=True)
class Instruction:
    """What a navigator says now."""

    direction: Direction
    distance_m: float
    """How far the turn is, 0 while it lasts; where there is none, how far was looked."""


def find_turns(points: np.ndarray, along: np.ndarray) -> tuple[Turn, ...]:
    """Return the turns of a route in order.

    `points` is float (n, 2) of x, y, and `along` float (n,) each point's distance along the route.
    """
    length = float(along[-1])
    # Half a chord beyond either end, where the route is taken to go straight on.
    middles = np.arange(-0.5 * CHORD_M, length + 0.5 * CHORD_M + STEP_M, STEP_M)
    chords = _at(points, along, middles + 0.5 * CHORD_M)
    chords -= _at(points, along, middles - 0.5 * CHORD_M)
    headings = np.unwrap(np.arctan2(chords[:, 1], chords[:, 0]))
    changes = np.diff(headings)
    bends = np.where(np.abs(changes) > STEP_M / TURN_RADIUS_M, np.sign(changes), 0.0)
    edges = np.flatnonzero(np.diff(bends, prepend=0.0, append=0.0))
    turns = []
    for first, last in itertools.pairwise(edges.tolist()):
        begin_m, end_m = float(middles[first]), float(middles[last])
        angle = float(headings[last] - headings[first])
        cut = begin_m < 0.5 * CHORD_M or end_m > length - 0.5 * CHORD_M
        if bends[first] and abs(angle) >= (CUT_TURN_RAD if cut else TURN_RAD):
            turns.append(Turn(begin_m, end_m, angle))
    return tuple(turns)


def _at(points: np.ndarray, along: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return places along a route, float64 (m, 2), that goes straight on at both ends."""
    columns = [np.interp(wanted, along, points[:, i]) for i in range(2)]
    places = np.stack(columns, axis=1)
    for end, beyond in ((0, np.minimum(wanted, 0.0)), (-1, np.maximum(wanted - along[-1], 0.0))):
        one, other = (points[0], points[1]) if end == 0 else (points[-2], points[-1])
        direction = (other - one) / np.hypot(*(other - one))
        places += beyond[:, None] * direction
    return places


def instruction(turns: tuple[Turn, ...], progress_m: float, ahead_m: float) -> Instruction:
    """Return what to say at a place of a route; turns are announced from `ahead_m` on."""
    for turn in turns:
        if progress_m < turn.end_m:
            distance_m = max(turn.begin_m - progress_m, 0.0)
            if distance_m < ahead_m:
                return Instruction(turn.direction, distance_m)
            break
    return Instruction(Direction.FOLLOW, ahead_m)
