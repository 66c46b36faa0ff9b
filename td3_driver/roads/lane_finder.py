# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Which lane covers a point: a spatial index over samples of all lanes.

`carla.Map.get_waypoint(..., project_to_road=False)` would be the obvious way. But it looks for the
nearest lane centre before it asks whether that lane reaches the point, and its distances are off
by decimetres near the ends of roads: beside narrow shoulders and at seams it finds no lane where
there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from td3_driver.roads.opendrive import LaneKey

_CELL_M = 4.0
# Half the distance between samples, on the outer side of a tight bend.
_ALONG_M = 0.4


@dataclass(frozen=True, eq=False)
class LaneStrip:
    """One lane of any type, sampled along its road."""

    key: LaneKey
    type: str
    """Driving, Shoulder, Sidewalk, ... as `carla.LaneType` names them."""
    in_junction: bool
    s: np.ndarray
    """float64 (n,): distance along the road's reference line, metres."""
    centre: np.ndarray
    """float64 (n, 2): x, y."""
    to_left: np.ndarray
    """float64 (n, 2): from the centre to the left border, seen in driving direction."""


class LanePoint(NamedTuple):
    """A lane at one point of the map."""

    key: LaneKey
    s: float
    """Distance along the road's reference line, metres."""
    type: str
    width: float
    in_junction: bool


class LaneFinder:
    """Finds the lane that covers a point; driving lanes win where lanes overlap."""

    def __init__(self, strips: Sequence[LaneStrip]) -> None:
        """Index `strips`."""
        self._strips = strips
        counts = [len(strip.s) for strip in strips]
        self._owner = np.repeat(np.arange(len(strips)), counts)
        self._s = np.concatenate([strip.s for strip in strips])
        self._centre = np.concatenate([strip.centre for strip in strips])
        to_left = np.concatenate([strip.to_left for strip in strips])
        self._half = np.hypot(*to_left.T)
        # A lane may have no width where it begins or ends; it covers nothing there.
        self._normal = to_left / np.maximum(self._half, 1e-9)[:, None]
        # Added to a distance, it puts all other lanes behind driving lanes.
        self._behind = np.repeat([0.0 if s.type == "Driving" else 1e3 for s in strips], counts)
        self._low = self._centre.min(axis=0) - 3.0 * _CELL_M
        self._columns = int(np.ptp(self._centre[:, 0]) / _CELL_M) + 7
        self._cells, self._samples = self._index()

    def find(self, x: float, y: float) -> LanePoint | None:
        """Return the lane at x, y (metres); None off the road."""
        column = int((x - self._low[0]) // _CELL_M)
        if not 0 <= column < self._columns:
            return None
        cell = int((y - self._low[1]) // _CELL_M) * self._columns + column
        first, last = np.searchsorted(self._cells, (cell, cell + 1)).tolist()
        near = self._samples[first:last]
        away = (x, y) - self._centre[near]
        normal = self._normal[near]
        across = np.abs(away[:, 0] * normal[:, 0] + away[:, 1] * normal[:, 1])
        along = np.abs(away[:, 1] * normal[:, 0] - away[:, 0] * normal[:, 1])
        covers = np.flatnonzero((across <= self._half[near]) & (along <= _ALONG_M))
        if len(covers) == 0:
            return None
        nearest = np.argmin((across + along + self._behind[near])[covers])
        sample = int(near[covers[nearest]])
        strip = self._strips[self._owner[sample]]
        width = 2.0 * float(self._half[sample])
        return LanePoint(strip.key, float(self._s[sample]), strip.type, width, strip.in_junction)

    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        """Return cell numbers in rising order, and for each a sample that reaches the cell."""
        reach = (self._half + _ALONG_M)[:, None]
        first = np.floor((self._centre - reach - self._low) / _CELL_M).astype(np.int64)
        last = np.floor((self._centre + reach - self._low) / _CELL_M).astype(np.int64)
        cells, samples = [], []
        most = (last - first).max(axis=0)
        for dx in range(most[0] + 1):
            for dy in range(most[1] + 1):
                cell = first + np.array([dx, dy])
                reached = np.flatnonzero((cell <= last).all(axis=1))
                cells.append(cell[reached, 1] * self._columns + cell[reached, 0])
                samples.append(reached)
        numbers, found = np.concatenate(cells), np.concatenate(samples)
        order = np.argsort(numbers, kind="stable")
        return numbers[order], found[order]
