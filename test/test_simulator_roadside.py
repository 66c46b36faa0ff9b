# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Buildings and posts stand beside the roads, never on one, and can be seen."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from td3_driver.config import SimulatorConfig
from td3_driver.looks import NAMED
from td3_driver.roads.road_map import RoadMap, shipped_maps
from td3_driver.simulator.camera import Camera
from td3_driver.simulator.roadside import Roadside
from td3_driver.simulator.shapes import Rectangle, overlap


@pytest.mark.parametrize("name", shipped_maps())
def test_nothing_stands_on_a_road_or_in_another(name: str) -> None:
    road_map = RoadMap.load(name)
    boxes = Roadside(road_map, 0).boxes
    assert sum(box.height > 2.0 for box in boxes) > 15
    assert sum(box.height < 2.0 for box in boxes) > 25
    roads = np.concatenate([line for s in road_map.surfaces for line in (s.left, s.right)])
    outlines = [Rectangle(box.pose, box.length, box.width) for box in boxes]
    for box, outline in zip(boxes, outlines, strict=True):
        clear_m = 3.5 if box.height > 2.0 else 0.3
        for x, y in [(box.pose.x, box.pose.y), *outline.corners]:
            assert road_map.lane_at(x, y) is None
            assert np.hypot(roads[:, 0] - x, roads[:, 1] - y).min() > clear_m
    assert all(overlap(one, other) is None for one, other in combinations(outlines, 2))


def test_they_follow_the_seed() -> None:
    road_map = RoadMap.load("ring_meadow")
    assert Roadside(road_map, 1).boxes == Roadside(road_map, 1).boxes
    assert Roadside(road_map, 1).boxes != Roadside(road_map, 2).boxes


def test_they_are_seen_where_asked_for_and_fade_in_fog() -> None:
    road_map = RoadMap.load("ring_meadow")
    poses = road_map.spawn_poses(20.0)
    bare, built = (
        Camera(road_map, SimulatorConfig(roadside=roadside)) for roadside in (False, True)
    )

    def difference() -> float:
        """Return how much the roadside changes the images on average."""
        pairs = [(bare.render(pose), built.render(pose)) for pose in poses]
        return float(np.mean([np.abs(a.astype(int) - b).mean() for a, b in pairs]))

    clear = difference()
    assert clear > 1.0
    for camera in (bare, built):
        camera.wear(NAMED["thick_fog"])
    assert 0.0 < difference() < 0.7 * clear


def test_only_what_is_near_and_ahead_is_drawn() -> None:
    road_map = RoadMap.load("grid_new_town")
    roadside = Roadside(road_map, 0)
    for pose in road_map.spawn_poses(20.0)[::10]:
        near = roadside.near(pose)
        assert len(near) < len(roadside.boxes) / 2
        for box in near:
            away_m = np.hypot(box.pose.x - pose.x, box.pose.y - pose.y)
            assert away_m < (90.0 if box.height > 2.0 else 40.0)
