# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a map that has been read must be like: lanes run as they head, have a width and meet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from td3_driver.driving.angles import wrap_angle
from td3_driver.roads.lane_graph import Lane
from td3_driver.roads.opendrive import LaneKey

LARGEST_GAP_M = 1.0
LARGEST_TURN_RAD = 0.5
NARROWEST_M = 1.0
WIDEST_M = 30.0
STEEPEST = 2.0
# Points are half a metre apart on the reference line, and further on the outside of a bend.
_JUMP_M = 1.5
# Steps shorter than this have no direction worth the name.
_SHORTEST_STEP_M = 0.05


def lane_name(key: LaneKey) -> str:
    """Return a lane in words."""
    return f"road {key[0]}, lane {key[2]}" + (f" of section {key[1]}" if key[1] else "")


def width_problem(widths: Sequence[float]) -> str | None:
    """Return what is wrong with a driving lane's widths, metres, in words that follow its name."""
    widest, narrowest = max(widths), min(widths)
    if not math.isfinite(widest) or widest < NARROWEST_M:
        return f"is {widest:.2f} m wide at most; correct its <width>"
    if widest > WIDEST_M:
        return f"is up to {widest:.0f} m wide; correct its <width>"
    if narrowest < -0.01:
        return f"has a width of {narrowest:.2f} m; correct its <width>"
    return None


def course_problem(lane: Lane) -> str | None:
    """Return what makes a lane's course unfit to drive, in words that follow its name."""
    steps = np.diff(lane.points[:, :2], axis=0)
    lengths = np.hypot(*steps.T)
    jump = int(np.argmax(lengths))
    if lengths[jump] > _JUMP_M:
        return (
            f"jumps by {lengths[jump]:.1f} m {_place(lane, jump)}; correct the <geometry>, "
            "<laneOffset> or <width> there"
        )
    slopes = np.abs(np.diff(lane.heights)) / np.maximum(lengths, _SHORTEST_STEP_M)
    steepest = int(np.argmax(slopes))
    if slopes[steepest] > STEEPEST:
        return (
            f"climbs or falls by {slopes[steepest]:.3g} m a metre {_place(lane, steepest)}; "
            "correct the <elevation> there"
        )
    ahead = np.arctan2(steps[:, 1], steps[:, 0])
    # Halfway between the headings of the step's two ends.
    heading = 0.5 * (lane.points[1:, 2] + lane.points[:-1, 2])
    turned = np.abs(wrap_angle(ahead - heading))
    turned[lengths < _SHORTEST_STEP_M] = 0.0
    worst = int(np.argmax(turned))
    if turned[worst] > LARGEST_TURN_RAD:
        return (
            f"runs {math.degrees(turned[worst]):.0f} degrees off its heading "
            f"{_place(lane, worst)}; correct the <geometry> or the lane's <width> there"
        )
    return None


def link_problem(lane: Lane, following: Lane) -> str | None:
    """Return what is wrong with a link, in words that follow the first lane's name."""
    end, begin = lane.points[-1], following.points[0]
    rise = following.heights[0] - lane.heights[-1]
    gap = math.hypot(end[0] - begin[0], end[1] - begin[1], rise)
    turn = abs(math.remainder(end[2] - begin[2], math.tau))
    leads = f"leads to {lane_name(following.key)}"
    if gap > LARGEST_GAP_M:
        return (
            f"{leads}, which begins {gap:.1f} m from its end; correct the <link>, the <geometry>, "
            "the <elevation> or the road's rule"
        )
    if turn > LARGEST_TURN_RAD:
        return (
            f"{leads}, which heads {math.degrees(turn):.0f} degrees away there; correct the "
            "<link> or the <geometry>"
        )
    return None


def _place(lane: Lane, index: int) -> str:
    x, y = lane.points[index, :2]
    return f"at x {x:.1f}, y {y:.1f}"
