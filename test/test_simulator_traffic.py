# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Other vehicles keep apart, keep moving and see the ego; outlines overlap as they should."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from td3_driver.driving.world import Pose
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.shapes import Rectangle, overlap
from td3_driver.simulator.traffic import Traffic

FAR_AWAY = Rectangle(Pose(1e4, 1e4, 0.0), 4.8, 1.9)


def populated(name: str, count: int, ego: Rectangle = FAR_AWAY) -> Traffic:
    """Return traffic on a shipped map."""
    traffic = Traffic(RoadMap.load(name))
    traffic.populate(count, np.random.default_rng(1), ego.pose)
    assert len(traffic.vehicles) == count
    return traffic


@pytest.mark.long
@pytest.mark.parametrize(
    "name, count", [("ring_meadow", 8), ("grid_old_town", 8), ("grid_new_town", 12)]
)
def test_a_minute_of_traffic_without_overlap_or_gridlock(name: str, count: int) -> None:
    traffic = populated(name, count)
    moved_at = dict.fromkeys((vehicle.actor_id for vehicle in traffic.vehicles), 0)
    for tick in range(1200):
        traffic.step(0.05, FAR_AWAY, 0.0)
        for vehicle in traffic.vehicles:
            if vehicle.speed > 0.5:
                moved_at[vehicle.actor_id] = tick
        if tick % 4 == 0:
            for one, other in combinations(traffic.vehicles, 2):
                assert overlap(one.outline, other.outline) is None
    assert min(moved_at.values()) > 800


def test_vehicles_stop_behind_a_standing_ego() -> None:
    road_map = RoadMap.load("ring_meadow")
    ego = Rectangle(road_map.spawn_poses(20.0)[10], 4.8, 1.9)
    traffic = populated("ring_meadow", 8, ego)
    for tick in range(1600):
        traffic.step(0.05, ego, 0.0)
        if tick % 4 == 0:
            assert all(overlap(vehicle.outline, ego) is None for vehicle in traffic.vehicles)
    waiting = [vehicle for vehicle in traffic.vehicles if vehicle.speed < 0.1]
    gaps = [
        math.dist((vehicle.pose.x, vehicle.pose.y), (ego.pose.x, ego.pose.y)) - 4.65
        for vehicle in waiting
    ]
    assert 0.5 < min(gaps) < 4.0


def test_places_are_clear_of_each_other_and_of_the_ego() -> None:
    ego = Rectangle(RoadMap.load("grid_new_town").spawn_poses(20.0)[0], 4.8, 1.9)
    traffic = populated("grid_new_town", 30, ego)
    poses = [vehicle.pose for vehicle in traffic.vehicles]
    for one, other in combinations(poses, 2):
        assert math.dist((one.x, one.y), (other.x, other.y)) >= 14.0
    assert min(math.dist((p.x, p.y), (ego.pose.x, ego.pose.y)) for p in poses) >= 20.0


def test_a_full_road_takes_no_more() -> None:
    traffic = Traffic(RoadMap.load("ring_vineyard"))
    traffic.populate(500, np.random.default_rng(0), FAR_AWAY.pose)
    assert 20 < len(traffic.vehicles) < 100


def test_overlap_of_rectangles() -> None:
    one = Rectangle(Pose(0.0, 0.0, 0.0), 4.0, 2.0)
    assert overlap(one, Rectangle(Pose(4.1, 0.0, 0.0), 4.0, 2.0)) is None
    assert overlap(one, Rectangle(Pose(0.0, 2.1, 0.0), 4.0, 2.0)) is None
    (x, y), depth = overlap(one, Rectangle(Pose(3.5, 0.2, 0.0), 4.0, 2.0))
    assert (x, y) == pytest.approx((-1.0, 0.0))
    assert depth == pytest.approx(0.5)
    # Corner to corner: both bounding boxes overlap, the rectangles do not.
    assert overlap(one, Rectangle(Pose(2.9, 1.9, math.pi / 4.0), 2.0, 1.0)) is None
    assert overlap(one, Rectangle(Pose(2.2, 1.2, math.pi / 4.0), 2.0, 1.0)) is not None
