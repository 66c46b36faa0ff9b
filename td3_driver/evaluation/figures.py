# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The figures of a suite: what each means, its unit, and how it is computed from episodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from td3_driver.evaluation.intervals import Estimate, rate, ratio, wilson


@dataclass(frozen=True)
class Quantities:
    """The outcome of one episode in numbers, SI units."""

    success: bool
    """The end of the route was reached, within the time and without a failure (NoCrash)."""
    route_completion: float
    """Share of the route that was driven, in [0, 1]."""
    driving_score: float
    """See `trace.driving_score`; in [0, 100]."""
    distance_m: float
    duration_s: float
    collisions: int
    """Actors hit."""
    lane_invasions: int
    off_lane_s: float
    blocked_s: float
    near_s: float
    least_time_to_collision_s: float | None
    squared_jerk: float
    jerks: int
    steering_travel_rad: float


Of = Callable[[Quantities], float]


@dataclass(frozen=True)
class Figure:
    """One column of a suite's table: the sum of `part` over episodes by the sum of `whole`."""

    title: str
    unit: str
    better: Literal["higher", "lower", ""]
    part: Of
    whole: Of
    kind: Literal["share", "ratio", "rate", "root"] = "ratio"
    """A share of episodes with Wilson's interval; a ratio; a rate of events; a ratio's root."""
    digits: int = 2

    def estimate(self, episodes: Sequence[Quantities]) -> Estimate:
        """Return the figure of some episodes with its 95 % interval."""
        parts = np.array([self.part(episode) for episode in episodes], dtype=np.float64)
        wholes = np.array([self.whole(episode) for episode in episodes], dtype=np.float64)
        if self.kind == "share":
            return wilson(int(parts.sum()), len(episodes))
        if self.kind == "rate":
            return rate(parts, wholes)
        found = ratio(parts, wholes)
        return _root(found) if self.kind == "root" else found


def _root(of: Estimate) -> Estimate:
    # A root keeps the order of what was resampled, so the ends of the interval are the roots.
    ends = (None if end is None else math.sqrt(end) for end in (of.value, of.low, of.high))
    return Estimate(*ends)


def _one(_: Quantities) -> float:
    return 1.0


def _km(episode: Quantities) -> float:
    return episode.distance_m / 1000.0


FIGURES: dict[str, Figure] = {
    "success": Figure("success", "", "higher", lambda e: e.success, _one, "share"),
    "route_completion": Figure("completion", "", "higher", lambda e: e.route_completion, _one),
    "driving_score": Figure(
        "driving score", "", "higher", lambda e: e.driving_score, _one, digits=1
    ),
    "collisions_per_km": Figure(
        "collisions", "1/km", "lower", lambda e: e.collisions, _km, "rate"
    ),
    "lane_invasions_per_km": Figure(
        "lane invasions", "1/km", "lower", lambda e: e.lane_invasions, _km, "rate"
    ),
    "off_lane_share": Figure(
        "off the lane", "% of time", "lower",
        lambda e: 100.0 * e.off_lane_s, lambda e: e.duration_s,
    ),
    "blocked_share": Figure(
        "blocked", "% of time", "lower",
        lambda e: 100.0 * e.blocked_s, lambda e: e.duration_s,
    ),
    "speed_mps": Figure("speed", "m/s", "", lambda e: e.distance_m, lambda e: e.duration_s),
    "jerk_mps3": Figure(
        "jerk, RMS", "m/s³", "lower", lambda e: e.squared_jerk, lambda e: e.jerks, "root", 1
    ),
    "steering_rate_rps": Figure(
        "steering", "rad/s", "lower", lambda e: e.steering_travel_rad, lambda e: e.duration_s,
        digits=3,
    ),
    "near_share": Figure(
        "collision within 2 s", "% of time", "lower",
        lambda e: 100.0 * e.near_s, lambda e: e.duration_s,
    ),
    "least_ttc_s": Figure(
        "time to collision, least", "s", "higher",
        lambda e: e.least_time_to_collision_s or 0.0,
        lambda e: float(e.least_time_to_collision_s is not None),
    ),
}  # fmt: skip
"""By name; docs/evaluation.md says the same in words. The last one is a mean over the episodes
in which something was in the way."""

COMPARED = ("success", "route_completion", "driving_score")
"""Figures of which the difference between two drivers is reported, episode by episode."""


def difference(
    name: str, episodes: Sequence[Quantities], others: Sequence[Quantities]
) -> Estimate:
    """Return how much a figure of `COMPARED` is higher than for other drives of the same starts.

    Episodes are resampled in pairs, so what a start makes hard for both does not count.
    """
    of = FIGURES[name].part
    pairs = zip(episodes, others, strict=True)
    gains = np.array([float(of(one)) - float(of(other)) for one, other in pairs])
    return ratio(gains, np.ones(len(gains)))
