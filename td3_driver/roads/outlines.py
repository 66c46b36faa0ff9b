# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The outlines of a map's lanes near some places, for pages that draw them."""

from __future__ import annotations

import numpy as np

from td3_driver.roads.road_map import RoadMap

MARGIN_M = 60.0
SPACING_M = 1.0


def spaced(points: np.ndarray, spacing_m: float) -> list[list[float]]:
    """Return points (n, 2) rounded to centimetres, each at least `spacing_m` from the last."""
    kept: list[list[float]] = []
    for x, y in np.round(points, 2).tolist():
        if not kept or np.hypot(x - kept[-1][0], y - kept[-1][1]) >= spacing_m:
            kept.append([x, y])
    return kept


def lane_outlines(road_map: RoadMap, places: np.ndarray) -> list[list[list[float]]]:
    """Return the outline of each driving lane near some places, float64 (n, 2) of x, y."""
    low, high = places.min(axis=0) - MARGIN_M, places.max(axis=0) + MARGIN_M
    outlines = []
    for surface in road_map.surfaces:
        if surface.type == "Driving":
            outline = np.concatenate([surface.left, surface.right[::-1]])[:, :2]
            if np.all(outline.max(axis=0) >= low) and np.all(outline.min(axis=0) <= high):
                outlines.append(spaced(outline, SPACING_M))
    return outlines
