# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A navigator's commands: on hand-made routes, and against the lanes of the shipped towns."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from td3_driver.driving.navigator import Direction, Turn, find_turns, instruction
from td3_driver.driving.route import RouteTracker
from td3_driver.roads.road_map import RoadMap
from td3_driver.roads.starts import StartSampler

Piece = tuple[float, float]
"""A length in metres and how far it turns, radians."""


def bent(*pieces: Piece, spacing_m: float = 1.0) -> np.ndarray:
    """Points along lines and arcs from the origin, first along x, float64 (n, 3)."""
    x, y, yaw = 0.0, 0.0, 0.0
    points = [(x, y, yaw)]
    for length, angle in pieces:
        count = max(round(length / spacing_m), 1)
        step = length / count
        for _ in range(count):
            middle = yaw + 0.5 * angle / count
            x, y, yaw = (
                x + step * math.cos(middle),
                y + step * math.sin(middle),
                yaw + angle / count,
            )
            points.append((x, y, yaw))
    return np.array(points)


QUARTER = math.pi / 2
LEFT = (12.25 * QUARTER, QUARTER)
"""A left turn of radius 12.25 m, 19.2 m long, as the junctions of the shipped towns have it."""
RIGHT = (8.75 * QUARTER, -QUARTER)
"""A right turn of radius 8.75 m, 13.7 m long."""


@pytest.mark.parametrize("spacing_m", [0.5, 1.0, 2.0])
def test_turns_are_found_where_they_are(spacing_m: float) -> None:
    route = bent((40.0, 0.0), LEFT, (50.0, 0.0), RIGHT, (40.0, 0.0), spacing_m=spacing_m)
    left, right = RouteTracker(route).turns
    assert (left.direction, right.direction) == (Direction.LEFT, Direction.RIGHT)
    # 40 + 19.2 = 59.2; 59.2 + 50 = 109.2; 109.2 + 13.7 = 123.0.
    assert left.begin_m == pytest.approx(40.0, abs=2.0)
    assert left.end_m == pytest.approx(59.2, abs=2.0)
    assert right.begin_m == pytest.approx(109.2, abs=2.0)
    assert right.end_m == pytest.approx(123.0, abs=2.0)
    # Chords at its two ends still see some of the straight.
    assert math.degrees(left.angle_rad) == pytest.approx(85.0, abs=6.0)
    assert math.degrees(right.angle_rad) == pytest.approx(-85.0, abs=6.0)


@pytest.mark.parametrize(
    "pieces",
    [
        [(200.0, 0.0)],
        [(50.0, 0.0), (30.0 * QUARTER, QUARTER), (50.0, 0.0)],  # a bend of radius 30 m
        [(50.0, 0.0), (22.0 * 0.4, 0.4), (22.0 * 0.8, -0.8), (22.0 * 0.4, 0.4), (50.0, 0.0)],
        [(50.0, 0.0), (6.0, math.radians(40)), (50.0, 0.0)],  # a fork of 40 degrees
    ],
    ids=["straight", "gentle", "swerve", "slight"],
)
def test_a_road_that_bends_gently_or_slightly_is_followed(pieces: list[Piece]) -> None:
    assert RouteTracker(bent(*pieces)).turns == ()


def test_a_change_of_lanes_is_no_turn() -> None:
    x = np.arange(0.0, 101.0)
    x = x[(x <= 50.0) | (x >= 55.0)]  # 3.5 m to the left between two points 5 m apart
    route = np.column_stack([x, np.where(x > 52.0, 3.5, 0.0), np.zeros(len(x))])
    assert RouteTracker(route).turns == ()


def test_a_turn_that_the_routes_end_cuts_off_is_told() -> None:
    cut = (12.25 * math.radians(40.0), math.radians(40.0))
    (turn,) = RouteTracker(bent((60.0, 0.0), cut)).turns
    assert turn.direction is Direction.LEFT and turn.begin_m == pytest.approx(60.0, abs=2.0)
    (turn,) = RouteTracker(bent(cut, (60.0, 0.0))).turns
    assert turn.direction is Direction.LEFT and turn.begin_m < 2.0


def test_a_turn_is_told_from_the_distance_on_and_until_it_ends() -> None:
    turns = (Turn(50.0, 65.0, QUARTER), Turn(75.0, 90.0, -QUARTER))
    told = {at: instruction(turns, at, ahead_m=30.0) for at in (0.0, 20.0, 21.0, 50.0, 64.9)}
    assert [(each.direction.value, each.distance_m) for each in told.values()] == [
        ("follow", 30.0),
        ("follow", 30.0),
        ("left", 29.0),
        ("left", 0.0),
        ("left", 0.0),
    ]
    after = instruction(turns, 65.0, 30.0)
    assert (after.direction, after.distance_m) == (Direction.RIGHT, 10.0)
    assert instruction(turns, 90.0, 30.0).direction is Direction.FOLLOW
    assert instruction((), 5.0, 12.0).distance_m == 12.0


def crossed(road_map: RoadMap, name: str, seed: int) -> Iterator[tuple[Turn, np.ndarray]]:
    """Yield each junction that a route crosses, as a turn by its lane, with the whole route."""
    start = StartSampler([name], 300.0).on_map(name, seed)
    graph = road_map.graph
    begin = graph.project(start.pose)
    keys, length = graph.path(begin, graph.project(start.goal))
    route = road_map.route(start.pose, start.goal)
    at = -begin.offset
    for key in keys:
        lane = graph.lanes[key]
        if lane.in_junction and at + lane.length < length:
            yield Turn(at, at + lane.length, float(lane.points[-1, 2] - lane.points[0, 2])), route
        at += lane.length


@pytest.mark.parametrize("name", ["grid_old_town", "grid_new_town"])
def test_every_turn_at_a_junction_is_told_and_no_junction_crossed_straight(name: str) -> None:
    road_map = RoadMap.load(name)
    seen = dict.fromkeys(("left", "right", "straight"), 0)
    for seed in range(6):
        for turn, route in crossed(road_map, name, seed):
            tracker = RouteTracker(route)
            middle = 0.5 * (turn.begin_m + turn.end_m)
            at_it = [each for each in tracker.turns if each.begin_m < middle < each.end_m]
            if abs(turn.angle_rad) < 0.1:
                assert not at_it
                seen["straight"] += 1
                continue
            (found,) = at_it
            assert found.direction is turn.direction
            assert found.begin_m == pytest.approx(turn.begin_m, abs=3.0)
            seen[turn.direction.value] += 1
    assert min(seen.values()) >= 3


def test_a_route_is_read_from_its_points_alone() -> None:
    route = bent((40.0, 0.0), RIGHT, (40.0, 0.0))
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(route[:, :2], axis=0).T))])
    assert find_turns(route[:, :2], along) == RouteTracker(route).turns
    without_headings = route * np.array([1.0, 1.0, 0.0])
    assert RouteTracker(without_headings).turns == RouteTracker(route).turns
