# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Goals for a car that should keep driving."""

from __future__ import annotations

import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.road_map import RoadMap

WALKS = 20
SHORTEST_M = 20.0


def goal_ahead(road_map: RoadMap, rng: np.random.Generator, pose: Pose, length_m: float) -> Pose:
    """Return a random goal about `length_m` of driving ahead of `pose`.

    It is closer where no path is that long, as on a smaller ring. Raises RoadMapError if there is
    no path of 20 m.
    """
    graph = road_map.graph
    place = graph.project(pose)
    while length_m >= SHORTEST_M:
        for _ in range(WALKS):
            goal, walked_m = graph.walk(rng, place, length_m)
            # A walk that loops back is longer than the shortest path to its end.
            if walked_m == length_m and graph.path(place, goal)[1] > 0.9 * length_m:
                return graph.lanes[goal.key].pose(goal.offset)
        length_m *= 0.8
    raise RoadMapError(
        f"map {road_map.name!r}: no path of {SHORTEST_M:.0f} m leads on from "
        f"x {pose.x:.1f}, y {pose.y:.1f}"
    )
