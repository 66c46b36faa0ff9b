# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Where episodes start: a map, a pose on it, and a goal further on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from td3_driver.driving.world import Start
from td3_driver.roads.road_map import RoadMap


class StartSampler:
    """Draws starts on some maps, each map as often as the others.

    `maps` are shipped names or paths; `route_length_m` is the distance to the goal, less where a
    map has no route that long. Raises RoadMapError where a map cannot be used.
    """

    def __init__(self, maps: Sequence[str], route_length_m: float) -> None:
        self._maps = {name: RoadMap.load(name) for name in maps}
        self._route_length_m = route_length_m

    def __call__(self, rng: np.random.Generator) -> Start:
        """Draw a map and a start on it."""
        name = list(self._maps)[int(rng.integers(len(self._maps)))]
        return self.on_map(name, int(rng.integers(2**31)))

    def on_map(self, name: str, seed: int) -> Start:
        """Return the start on a map that belongs to a seed."""
        road_map = self._maps[name]
        pose, goal = road_map.random_start(np.random.default_rng(seed), self._route_length_m)
        return Start(name, pose, goal, seed, opendrive=road_map.opendrive)
