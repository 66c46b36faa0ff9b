# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Who else is on the road: as a route passes them, as a critic is told, and as one would drive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from td3_driver.config import Config, ConfigError, DrivingConfig, override
from td3_driver.driving.adviser import Adviser, beside
from td3_driver.driving.environment import DrivingEnv, observation_space
from td3_driver.driving.observation import Course, Observation, Observer, privileged_scale
from td3_driver.driving.others import nearby
from td3_driver.driving.route import RouteTracker
from td3_driver.driving.world import Frame, Other, Pose, Start, VehicleControl, WorldError

ALONG_X = np.column_stack([np.arange(101.0), np.zeros(101), np.zeros(101)])
"""A route of 100 m along x."""
CAR = 4.5, 1.85


def parked(x: float, y: float) -> Other:
    return Other(Pose(x, y, 0.0), *CAR, (0.0, 0.0))


def course(*others: Other, x: float = 30.0, y: float = 0.0, yaw: float = 0.0) -> Course:
    tracker, pose = RouteTracker(ALONG_X), Pose(x, y, yaw)
    return Course(tracker, pose, tracker.project(pose), others)


# ------------------------------------------------------------------ along the route


def test_others_are_placed_along_and_across_the_route() -> None:
    tracker = RouteTracker(ALONG_X)
    crossing = Other(Pose(50.0, -3.0, 0.5 * math.pi), *CAR, (0.0, 4.0))
    coming = Other(Pose(60.0, 3.5, math.pi), *CAR, (-6.0, 0.0))
    found = nearby(tracker, 30.0, [coming, crossing], 5.0, 40.0)
    assert [each.ahead_m for each in found] == pytest.approx([20.0, 30.0])
    first, second = found
    # A car that stands across the route is as wide as it is long.
    assert (first.half_length_m, first.half_width_m) == pytest.approx((0.925, 2.25))
    assert (first.speed_mps, first.sideways_mps) == pytest.approx((0.0, 4.0), abs=1e-9)
    assert second.lateral_m == pytest.approx(3.5)
    assert (second.speed_mps, second.sideways_mps) == pytest.approx((-6.0, 0.0), abs=1e-9)


def test_the_room_is_between_the_bumpers_and_a_way_round_is_to_the_left_or_right() -> None:
    (ahead,) = nearby(RouteTracker(ALONG_X), 30.0, [parked(50.0, 1.2)], 5.0, 40.0)
    # 2.25 m and 2.4 m from the middles.
    assert ahead.gap_m == pytest.approx(20.0 - 4.65)
    # 0.925 m and 0.95 m from the middles, which are 1.0 m apart.
    assert ahead.ways_round_m(0.2) == pytest.approx((2.875, 0.875))
    for x, gap_m in ((33.0, 0.0), (25.2, -0.15)):
        (near,) = nearby(RouteTracker(ALONG_X), 30.0, [parked(x, 1.2)], 5.0, 40.0)
        assert near.gap_m == pytest.approx(gap_m)


def test_who_is_beyond_the_stretch_or_far_aside_does_not_count() -> None:
    tracker = RouteTracker(ALONG_X)
    away = [parked(24.0, 0.0), parked(71.0, 0.0), parked(50.0, 10.5), parked(-30.0, 0.0)]
    assert nearby(tracker, 30.0, away, 5.0, 40.0) == []
    # Nor is one beyond the route's end at its end.
    assert nearby(tracker, 90.0, [parked(105.0, 0.0)], 5.0, 40.0) == []
    assert len(nearby(tracker, 90.0, [parked(99.5, 0.0)], 5.0, 40.0)) == 1


def test_a_route_that_passes_itself_is_searched_on_its_stretch_alone() -> None:
    there = np.column_stack([np.arange(40.0), np.zeros(40)])
    back = np.column_stack([np.arange(40.0)[::-1], np.full(40, 4.0)])
    points = np.concatenate([there, back])
    tracker = RouteTracker(np.column_stack([points, np.zeros(len(points))]))
    pose = Pose(20.0, 4.0, math.pi)
    assert tracker.project(Pose(10.0, 0.0, 0.0)).progress_m == pytest.approx(10.0)
    assert tracker.place_between(pose, 0.0, 35.0).lateral_m == pytest.approx(4.0)
    assert tracker.place_between(pose, 44.0, 82.0).progress_m == pytest.approx(62.0)
    # The car's own place is what it was.
    assert tracker.project(Pose(11.0, 0.0, 0.0)).progress_m == pytest.approx(11.0)


# ------------------------------------------------------------------ what a critic is told


def told(config: DrivingConfig, course: Course) -> Observation:
    image = np.zeros((48, 64, 4), np.uint8)
    return Observer(config).observe(image, 4.0, np.zeros(2, np.float32), course)


def test_a_critic_is_told_the_next_others_and_the_policy_is_not() -> None:
    config = DrivingConfig(privileged_others=3)
    assert config.privileged == ("others",)
    slow = Other(Pose(38.0, 0.0, 0.0), *CAR, (2.0, 0.0))
    seen = told(config, course(parked(50.0, 1.2), slow, y=0.2))
    expected = [3.35, 1.675, 2.075, 2.0, 0.0, 15.35, 2.875, 0.875, 0.0, 0.0]
    nobody = [40.0, 0.0, 0.0, 0.0, 0.0]
    assert seen["privileged"].tolist() == pytest.approx([*expected, *nobody])
    assert privileged_scale(config).tolist() == [10.0, 1.0, 1.0, 8.0, 8.0] * 3
    assert observation_space(config).contains(seen)
    plain = told(DrivingConfig(), course(parked(50.0, 1.2), slow, y=0.2))
    assert np.array_equal(seen["vector"], plain["vector"]) and "privileged" not in plain


def test_the_nearest_are_told_and_what_is_privileged_of_the_route_comes_before() -> None:
    config = DrivingConfig(
        vector=("speed", "waypoints", "heading"), privileged_critic=True, privileged_others=1
    )
    assert config.privileged == ("lateral", "others")
    seen = told(config, course(parked(50.0, 0.0), parked(40.0, 0.0), y=0.5))
    assert seen["privileged"].tolist() == pytest.approx([0.5, 5.35, 1.375, 2.375, 0.0, 0.0])


def test_nothing_is_privileged_where_nobody_tells_of_others() -> None:
    tracker = RouteTracker(ALONG_X)
    place = Course(tracker, Pose(30.0, 0.0, 0.0), tracker.project(Pose(30.0, 0.0, 0.0)))
    for changes in ({"privileged_others": 1}, {"advice": True}):
        assert set(told(DrivingConfig(**changes), place)) == {"image", "vector"}


class SilentWorld:
    """A world that does not show who else is on the road, as over topics."""

    fixed_delta_s = 0.05

    def reset(self, start: Start) -> Frame:
        return Frame(0, 0, np.zeros((48, 64, 4), np.uint8), start.pose, 0.0, 0.0, ALONG_X)

    def step(self, control: VehicleControl) -> Frame:
        raise NotImplementedError

    def close(self) -> None:
        pass


@pytest.mark.parametrize("changes", [{"privileged_others": 1}, {"advice": True}])
def test_training_needs_a_world_that_shows_others(changes: dict[str, Any]) -> None:
    start = Start("straight", Pose(0.0, 0.0, 0.0), Pose(100.0, 0.0, 0.0))
    env = DrivingEnv(SilentWorld(), lambda _: start, DrivingConfig(**changes))
    with pytest.raises(WorldError, match=r"does not show .*fleet\.collectors"):
        env.reset()
    DrivingEnv(SilentWorld(), lambda _: start, DrivingConfig()).reset()


def test_advice_is_imitated_only_where_it_is_given() -> None:
    with pytest.raises(ConfigError, match=r"imitated is advice, but driving\.advice is false"):
        override(Config(), {"learning.imitated": "advice"}, "a test")
    override(Config(), {"learning.imitated": "advice", "driving.advice": True}, "a test")


# ------------------------------------------------------------------ the adviser


def advised(
    *others: Other, speed: float = 5.0, y: float = 0.0, yaw: float = 0.0
) -> tuple[float, float]:
    """Return the advised steering angle (rad) and speed (m/s) at x = 30 m."""
    config, here = DrivingConfig(), course(x=30.0, y=y, yaw=yaw)
    action = Adviser(config).act(here.tracker, here.pose, here.projection, speed, others)
    return float(action[0]) * config.max_steering_angle_rad, 4.0 * (float(action[1]) + 1.0)


def test_the_adviser_steers_round_one_that_stands_aside() -> None:
    assert advised() == pytest.approx((0.0, 6.0), abs=1e-6)
    to_right, _ = advised(parked(45.0, 1.2))
    _, speed = advised(parked(45.0, -1.2), y=0.975)
    # 3.5 m/s, and 0.3 m/s for each metre of the 15 - 4.65 m beyond 8 m.
    assert to_right < -0.03 and speed == pytest.approx(4.205)
    assert advised(parked(45.0, -1.2))[0] == pytest.approx(-to_right)
    # 0.925 + 0.95 + 0.6 - 1.2 = 1.275 m to the right it is where it should be.
    beside = advised(parked(32.0, 1.2), y=-1.275)
    assert beside == pytest.approx((0.0, 3.5), abs=1e-6)
    assert advised(parked(25.0, 1.2), y=0.0)[1] == pytest.approx(6.0, abs=0.5)


def test_the_adviser_slows_down_where_the_car_is_late_to_steer_round() -> None:
    # Its nose, 2.4 + 1.435 m before the rear axle, has 0.925 + 0.95 + 0.3 - 1.2 = 0.975 m to go
    # aside. On an arc of 6 m it has done so after s, where s^2 / 12 + 3.835 s / 6 = 0.975.
    needed_m = math.sqrt(3.835**2 + 12.0 * 0.975) - 3.835
    assert needed_m**2 / 12.0 + 3.835 * needed_m / 6.0 == pytest.approx(0.975)
    for sign in (1.0, -1.0):
        far, near = parked(40.0, sign * 1.2), parked(38.0, sign * 1.2)
        assert advised(far)[1] == pytest.approx(3.5)
        assert advised(near)[1] == pytest.approx((3.35 - needed_m) / 0.8)
        # With 0.3 m of room, or on the other side, there is nothing to go aside any more.
        assert advised(near, y=-sign * 0.975)[1] == pytest.approx(3.5)
        assert advised(near, y=-sign * 1.5)[1] == pytest.approx(3.5)
        # Turned towards it by 0.2 rad, the nose is 2.4 sin 0.2 = 0.477 m nearer to it.
        turned_m = math.sqrt(3.835**2 + 12.0 * 2.4 * math.sin(0.2)) - 3.835
        turned_mps = advised(near, y=-sign * 0.975, yaw=sign * 0.2)[1]
        assert turned_mps == pytest.approx((3.35 - turned_m) / 0.8, rel=1e-3)
        # 1.35 m are left, of 1.4 m that it needs: it creeps while 0.1 m of room would remain.
        assert advised(parked(36.0, sign * 1.2))[1] == pytest.approx(0.8)
        # There is no room to go round here.
        assert advised(parked(35.5, sign * 1.2))[1] == 0.0


def test_the_adviser_goes_round_beside_the_route_on_a_bend() -> None:
    corner = np.array([[5.0, 0.0], [8.0, -1.0], [9.0, -4.0], [9.0, -7.0]])
    moved = beside(corner, np.full(4, 1.0))
    # One metre to the left of a route that ends to the right (-y) is one metre in +x.
    assert moved[-1] == pytest.approx([10.0, -7.0])
    assert np.hypot(*(moved - corner).T) == pytest.approx(1.0)
    assert beside(corner, np.zeros(4)) == pytest.approx(corner)


def test_the_adviser_waits_for_one_in_the_lane_and_follows_it() -> None:
    # (gap - 3 m) / 1.2 s, with gaps of 15 - 4.65, 8 - 4.65 and 7 - 4.65 m.
    assert advised(parked(45.0, 0.0))[1] == pytest.approx(6.0)
    assert advised(parked(38.0, 0.0)) == pytest.approx((0.0, 0.35 / 1.2), abs=1e-5)
    assert advised(parked(37.0, 0.0))[1] == pytest.approx(0.0)
    # In another lane, or driven past.
    assert advised(parked(38.0, 3.5), parked(27.0, 0.0))[1] == pytest.approx(6.0)
    oncoming = Other(Pose(38.0, 3.5, math.pi), *CAR, (-6.0, 0.0))
    assert advised(oncoming)[1] == pytest.approx(6.0)


def test_the_adviser_keeps_room_behind_a_parked_one_while_another_passes_it() -> None:
    passing = Other(Pose(43.0, -1.0, 0.0), *CAR, (2.0, 0.0))
    # The gap of 12 - 4.65 m less 6 m for turning out, and then the usual 3 m.
    assert advised(parked(42.0, 1.2), passing, y=-0.975)[1] == pytest.approx(0.0)
    gone = Other(Pose(49.0, -0.2, 0.0), *CAR, (5.0, 0.0))
    assert advised(parked(42.0, 1.2), gone, y=-0.975)[1] == pytest.approx(3.5)
