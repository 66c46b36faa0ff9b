# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Where a car is along its route, against hand-worked places."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from td3_driver.config import DrivingConfig
from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.route import NO_ERROR, RouteError, RouteTracker
from td3_driver.driving.world import Pose, Start


def straight(length: int = 50, yaw: float = 0.0) -> np.ndarray:
    """Points 1 m apart from the origin."""
    along = np.arange(length + 1.0)
    return np.stack(
        [along * math.cos(yaw), along * math.sin(yaw), np.full(length + 1, yaw)], axis=1
    )


def through(*corners: tuple[float, float]) -> np.ndarray:
    """Points about 1 m apart along straight lines between corners."""
    points = [np.array(corners[0], dtype=float)]
    for begin, end in itertools.pairwise(corners):
        begin_, end_ = np.array(begin, dtype=float), np.array(end, dtype=float)
        count = round(float(np.hypot(*(end_ - begin_))))
        points += [begin_ + (end_ - begin_) * index / count for index in range(1, count + 1)]
    xy = np.array(points)
    return np.column_stack([xy, np.zeros(len(xy))])


@pytest.mark.parametrize(
    "angle, wrapped",
    [(0.0, 0.0), (3.0, 3.0), (math.pi + 0.1, -math.pi + 0.1), (-7.0, 2 * math.pi - 7.0)],
)
def test_angles_are_wrapped(angle: float, wrapped: float) -> None:
    assert wrap_angle(angle) == pytest.approx(wrapped)


def test_progress_is_continuous_between_points() -> None:
    tracker = RouteTracker(straight())
    for x in (0.0, 3.25, 3.75, 4.0, 12.5):
        assert tracker.project(Pose(x, 0.5, 0.0)).progress_m == pytest.approx(x)


@pytest.mark.parametrize("yaw", [0.0, 0.5 * math.pi, 2.5, -3.0])
def test_lateral_is_positive_to_the_left_whatever_way_the_route_points(yaw: float) -> None:
    left = np.array([-math.sin(yaw), math.cos(yaw)])
    place = 10.3 * np.array([math.cos(yaw), math.sin(yaw)])
    tracker = RouteTracker(straight(yaw=yaw))
    for lateral in (1.5, -0.7):
        x, y = place + lateral * left
        projection = tracker.project(Pose(x, y, yaw))
        assert projection.lateral_m == pytest.approx(lateral)
        assert projection.progress_m == pytest.approx(10.3)


def test_heading_error_is_positive_where_the_car_has_to_turn_left() -> None:
    tracker = RouteTracker(straight())
    assert tracker.project(Pose(5.0, 0.0, -0.2)).heading_error_rad == pytest.approx(0.2)
    assert tracker.project(Pose(5.0, 0.0, 0.2)).heading_error_rad == pytest.approx(-0.2)


def test_heading_error_is_wrapped() -> None:
    tracker = RouteTracker(straight(yaw=3.0))
    x, y = 5.0 * math.cos(3.0), 5.0 * math.sin(3.0)
    error = tracker.project(Pose(x, y, -3.0)).heading_error_rad
    assert error == pytest.approx(6.0 - 2 * math.pi)


def test_heading_is_interpolated_between_the_middles_of_segments() -> None:
    # Two segments of 1 m, the second turned left by 0.4 rad.
    turned = (1.0 + math.cos(0.4), math.sin(0.4))
    tracker = RouteTracker(np.array([[0.0, 0, 0], [1.0, 0, 0], [*turned, 0]]))
    expected = {0.0: 0.0, 0.5: 0.0, 0.75: 0.1, 1.0: 0.2}
    for x, yaw in expected.items():
        assert tracker.project(Pose(x, 0.0, 0.0)).heading_error_rad == pytest.approx(yaw)
    later = Pose(1.0 + 0.25 * math.cos(0.4), 0.25 * math.sin(0.4), 0.0)
    assert tracker.project(later).heading_error_rad == pytest.approx(0.3)


def test_heading_is_interpolated_the_short_way_across_the_wrap() -> None:
    headings = [math.pi - 0.1, -math.pi + 0.1]
    steps = np.array([[math.cos(yaw), math.sin(yaw)] for yaw in headings])
    points = np.vstack([[0.0, 0.0], np.cumsum(steps, axis=0)])
    tracker = RouteTracker(np.column_stack([points, np.zeros(3)]))
    error = tracker.project(Pose(points[1, 0], points[1, 1], math.pi)).heading_error_rad
    assert error == pytest.approx(0.0, abs=1e-9)


def test_a_circle_is_followed_all_the_way_round() -> None:
    radius, angles = 20.0, np.linspace(0.0, 2 * np.pi, 127)
    route = np.stack([radius * np.cos(angles), radius * np.sin(angles), angles], axis=1)
    tracker = RouteTracker(route)
    for angle in np.linspace(0.05, 2 * np.pi - 0.05, 90):
        pose = Pose(
            (radius - 1.0) * math.cos(angle), (radius - 1.0) * math.sin(angle), angle + np.pi / 2
        )
        projection = tracker.project(pose)
        # A left-hand circle: its inside is to the left. Chords err by under 4 mm.
        assert projection.lateral_m == pytest.approx(1.0, abs=0.01)
        assert projection.progress_m == pytest.approx(radius * angle, abs=0.05)
        assert projection.heading_error_rad == pytest.approx(0.0, abs=0.003)


FIGURE_EIGHT = through((0, 0), (40, 40), (40, 0), (0, 40))
"""The last stretch crosses the first at (20, 20)."""
DIAGONAL_M = 40.0 * math.sqrt(2.0)


def test_a_route_that_crosses_itself_is_followed_in_its_own_order() -> None:
    tracker = RouteTracker(FIGURE_EIGHT)
    along = np.linspace(0.0, tracker.length_m, 400)
    reference = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(FIGURE_EIGHT.T[:2])))])
    for wanted in along:
        x = float(np.interp(wanted, reference, FIGURE_EIGHT[:, 0]))
        y = float(np.interp(wanted, reference, FIGURE_EIGHT[:, 1]))
        # Half a metre aside, where the other stretch is nearer in places.
        assert tracker.project(Pose(x, y, 0.0)).progress_m == pytest.approx(wanted, abs=1e-6)


def test_near_the_crossing_the_other_stretch_is_not_taken() -> None:
    tracker = RouteTracker(FIGURE_EIGHT)
    tracker.project(Pose(19.0, 19.0, math.pi / 4))
    # Exactly on the last stretch, 0.7 m right of the first one.
    projection = tracker.project(Pose(20.5, 19.5, math.pi / 4))
    assert projection.progress_m == pytest.approx(20.0 * math.sqrt(2.0))
    assert projection.lateral_m == pytest.approx(-math.sqrt(0.5))


def test_progress_goes_back_when_the_car_does() -> None:
    tracker = RouteTracker(straight())
    tracker.project(Pose(20.0, 0.0, 0.0))
    for x in (19.0, 17.5, 15.0, 12.0):
        assert tracker.project(Pose(x, 0.0, 0.0)).progress_m == pytest.approx(x)


def test_the_first_search_covers_the_whole_route() -> None:
    assert RouteTracker(straight()).project(Pose(44.0, 0.0, 0.0)).progress_m == 44.0


def test_the_search_reaches_twelve_metres_ahead_and_no_further() -> None:
    tracker = RouteTracker(straight())
    tracker.project(Pose(5.5, 0.0, 0.0))
    assert tracker.project(Pose(16.5, 0.0, 0.0)).progress_m == pytest.approx(16.5)
    # 30 m on: only the end of the window is within reach, one window a time.
    assert tracker.project(Pose(46.5, 0.0, 0.0)).progress_m < 31.0


def test_before_the_start_and_beyond_the_end_progress_stops_but_lateral_stays_exact() -> None:
    tracker = RouteTracker(straight(length=10))
    before = tracker.project(Pose(-4.0, 1.25, 0.1))
    assert (before.progress_m, before.lateral_m) == pytest.approx((0.0, 1.25))
    assert before.heading_error_rad == pytest.approx(-0.1)
    tracker.project(Pose(9.0, 0.0, 0.0))
    beyond = tracker.project(Pose(13.0, -0.75, 0.0))
    assert (beyond.progress_m, beyond.lateral_m) == pytest.approx((10.0, -0.75))


def test_points_ahead_are_in_the_cars_frame() -> None:
    tracker = RouteTracker(straight(yaw=0.5 * math.pi))  # north
    # At (1, 10), facing west: the route, 1 m to the west, runs ahead of it to the right.
    ahead = tracker.ahead(Pose(1.0, 10.0, math.pi), 10.0, 3, 2.0)
    np.testing.assert_allclose(ahead, [[1.0, -2.0], [1.0, -4.0], [1.0, -6.0]], atol=1e-9)


def test_points_ahead_turn_the_corner() -> None:
    tracker = RouteTracker(through((0, 0), (10, 0), (10, 10)))
    ahead = tracker.ahead(Pose(8.0, 0.0, 0.0), 8.0, 3, 1.5)
    np.testing.assert_allclose(ahead, [[1.5, 0.0], [2.0, 1.0], [2.0, 2.5]], atol=1e-9)


def test_points_past_the_end_go_straight_on() -> None:
    tracker = RouteTracker(through((0, 0), (10, 0), (10, 10)))
    ahead = tracker.ahead(Pose(10.0, 9.0, 0.5 * math.pi), 19.0, 3, 2.0)
    np.testing.assert_allclose(ahead, [[2.0, 0.0], [4.0, 0.0], [6.0, 0.0]], atol=1e-9)


def test_repeated_points_are_left_out() -> None:
    route = np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [2, 0, 0]])
    tracker = RouteTracker(route)
    assert tracker.length_m == 2.0
    assert tracker.project(Pose(1.0, 0.0, 0.0)).progress_m == 1.0


@pytest.mark.parametrize(
    "route",
    [
        np.empty((0, 3)),
        np.zeros((1, 3)),
        np.zeros((5, 2)),
        np.zeros(3),
        np.array([[1.0, 2.0, 0.0]] * 4),
    ],
)
def test_a_bad_route_is_refused(route: np.ndarray) -> None:
    with pytest.raises(ValueError, match="route"):
        RouteTracker(route)


def test_a_misjudged_place_is_off_to_the_left_and_turned_left() -> None:
    seen = RouteError(1.5, 0.1).misplaced(Pose(10.0, 20.0, math.pi / 2))
    assert (seen.x, seen.y) == pytest.approx((8.5, 20.0))
    assert seen.yaw == pytest.approx(math.pi / 2 + 0.1)
    straight = RouteTracker(np.array([[0.0, 0.0, 0.0], [50.0, 0.0, 0.0]]))
    observed = straight.project(RouteError(1.5, 0.1).misplaced(Pose(10.0, 0.0, 0.0)))
    assert observed.lateral_m == pytest.approx(1.5)
    assert observed.heading_error_rad == pytest.approx(-0.1)


def test_errors_are_uniform_within_the_settings_and_the_same_for_one_start() -> None:
    config = DrivingConfig(route_offset_m=1.5, route_turn_rad=0.1)

    def drawn(seed: int, x: float = 1.0) -> RouteError:
        place = Pose(x, 2.0, 0.0)
        return RouteError.drawn(Start("town", place, place, seed), config)

    errors = [drawn(seed) for seed in range(400)]
    offsets = np.array([each.offset_m for each in errors])
    turns = np.array([each.turn_rad for each in errors])
    assert np.abs(offsets).max() <= 1.5 and np.abs(turns).max() <= 0.1
    # The deviation of a uniform distribution of width w is w / sqrt(12).
    assert np.std(offsets) == pytest.approx(3.0 / math.sqrt(12), rel=0.1)
    assert np.std(turns) == pytest.approx(0.2 / math.sqrt(12), rel=0.1)
    assert abs(np.corrcoef(offsets, turns)[0, 1]) < 0.15
    assert drawn(7) == drawn(7) and drawn(7) != drawn(7, x=1.1)
    place = Pose(0.0, 0.0, 0.0)
    assert RouteError.drawn(Start("town", place, place, 3), DrivingConfig()) is NO_ERROR
    assert not NO_ERROR and RouteError(turn_rad=0.1)
