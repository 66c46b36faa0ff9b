# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The figures of a suite, each worked out by hand, and their intervals."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from td3_driver.driving.route import Projection
from td3_driver.driving.task import EpisodeSummary
from td3_driver.driving.world import Pose
from td3_driver.evaluation.figures import COMPARED, FIGURES, Quantities, difference
from td3_driver.evaluation.intervals import Estimate, rate, ratio, wilson
from td3_driver.evaluation.near_misses import Mover, time_to_collision
from td3_driver.evaluation.suite_drives import beyond_lane_m, quantities
from td3_driver.evaluation.trace import Trace, driving_score
from td3_driver.simulator.shapes import Rectangle, overlap

STOOD = Quantities(
    success=False,
    route_completion=0.0,
    driving_score=0.0,
    distance_m=0.0,
    duration_s=12.0,
    collisions=0,
    lane_invasions=0,
    off_lane_s=0.0,
    blocked_s=10.0,
    near_s=0.0,
    least_time_to_collision_s=None,
    squared_jerk=0.0,
    jerks=238,
    steering_travel_rad=0.0,
)


def episode(**given: object) -> Quantities:
    return dataclasses.replace(STOOD, **given)  # type: ignore[arg-type]


# --- intervals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "successes, trials, low, high",
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3: score without correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        # Its mirror image.
        (20, 20, 0.8389, 1.0000),
    ],
)
def test_wilsons_interval_has_its_published_values(
    successes: int, trials: int, low: float, high: float
) -> None:
    found = wilson(successes, trials)
    assert found.value == successes / trials
    assert found.low == pytest.approx(low, abs=6e-5)
    assert found.high == pytest.approx(high, abs=6e-5)


@pytest.mark.parametrize("trials", range(1, 60))
def test_a_share_is_within_its_interval_also_where_all_or_none_succeed(trials: int) -> None:
    for successes in (0, trials):
        found = wilson(successes, trials)
        assert found.low is not None and found.high is not None and found.value is not None
        assert 0.0 <= found.low <= found.value <= found.high <= 1.0
        assert found.high - found.low > 0.05


def test_nothing_driven_has_no_figure() -> None:
    assert wilson(0, 0) == ratio(np.array([]), np.array([])) == Estimate(None, None, None)
    assert rate(np.zeros(3), np.zeros(3)) == Estimate(None, None, None)


def test_a_ratio_is_of_sums_and_its_interval_covers_as_often_as_it_says() -> None:
    assert ratio(np.array([1.0, 0.0]), np.array([1.0, 3.0])).value == 0.25
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(200):
        found = ratio(rng.normal(5.0, 2.0, 40), np.ones(40))
        assert found.low is not None and found.high is not None
        covered += found.low <= 5.0 <= found.high
    assert 180 <= covered <= 198  # 95 %, a little less with 40 episodes


def test_a_rate_of_no_events_at_all_is_not_told_to_be_none_for_sure() -> None:
    # Poisson: e^-3.689 = 0.025 in all 2 km.
    found = rate(np.zeros(4), np.full(4, 0.5))
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(3.6889 / 2.0, abs=1e-4)
    assert rate(np.array([1.0, 0.0]), np.full(2, 0.5)).value == 1.0


# --- one episode -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "completion, collisions, score",
    [
        (1.0, {}, 100.0),
        (0.5, {"vehicle": 1}, 30.0),
        (1.0, {"pedestrian": 1, "static": 2}, 100.0 * 0.5 * 0.65**2),
        (0.0, {"vehicle": 3}, 0.0),
    ],
)
def test_the_driving_score_is_carlas(
    completion: float, collisions: dict[str, int], score: float
) -> None:
    assert driving_score(completion, collisions) == pytest.approx(score)


def test_jerk_is_the_second_difference_of_speed() -> None:
    # Accelerations of 1, 3, 3 m/s^2: jerks of 2 / 0.1 and 0.
    trace = Trace(0.1, speeds_mps=[0.0, 0.1, 0.4, 0.7])
    assert trace.jerks == 2
    assert trace.squared_jerk == pytest.approx(20.0**2)
    # The tick of a collision is left out.
    crashed = Trace(0.1, speeds_mps=[0.0, 0.1, 0.4, 0.7, -3.0], hit={101: "vehicle"})
    assert (crashed.jerks, crashed.squared_jerk) == (2, trace.squared_jerk)
    assert (Trace(0.1, [1.0]).jerks, Trace(0.1, [1.0]).squared_jerk) == (0, 0.0)


def test_times_and_ways_of_a_trace_add_up() -> None:
    trace = Trace(
        0.5,
        speeds_mps=[0.0, 0.1, 2.0, -2.0, 0.2, 0.0],
        steering_rad=[0.0, 0.1, -0.1, -0.1, 0.0, 0.0],
        off_lane=[False, True, True, False, False, False],
        time_to_collision_s=[math.inf, 1.9, 2.0, 0.5, math.inf, math.inf],
        lane_invasions=2,
        hit={101: "vehicle", 107: "vehicle"},
    )
    assert trace.duration_s == 3.0
    assert trace.distance_m == pytest.approx(0.5 * 4.3)
    assert trace.steering_travel_rad == pytest.approx(0.1 + 0.2 + 0.1)
    assert trace.off_lane_s == 1.0
    assert trace.near_s == 1.0  # 2.0 s is not below 2 s
    assert trace.least_time_to_collision_s == 0.5
    assert trace.blocked_s(0.3, grace_s=1.0) == 1.0
    assert trace.blocked_s(0.3, grace_s=0.0) == 2.0
    assert trace.collisions() == {"vehicle": 2}
    found = quantities(trace, EpisodeSummary(50.0, route_completion=0.5), False, 0.3, 1.0)
    assert found.driving_score == pytest.approx(50.0 * 0.6**2)
    assert (found.collisions, found.lane_invasions, found.blocked_s) == (2, 2, 1.0)


def test_no_traffic_is_no_time_to_collision() -> None:
    assert Trace(0.05, time_to_collision_s=[math.inf] * 3).least_time_to_collision_s is None


@pytest.mark.parametrize(
    "lateral_m, turned_rad, beyond_m",
    [
        (0.0, 0.0, 0.95 - 1.75),
        (0.8, 0.0, 0.0),
        (-1.0, 0.0, 0.2),
        # 30 degrees: 0.95 cos 30 + 2.4 sin 30 = 2.0227.
        (0.0, math.pi / 6.0, 2.0227 - 1.75),
        (0.0, -math.pi / 6.0, 2.0227 - 1.75),
    ],
)
def test_a_car_reaches_beyond_its_lane_with_its_corners(
    lateral_m: float, turned_rad: float, beyond_m: float
) -> None:
    found = beyond_lane_m(Projection(0.0, lateral_m, turned_rad), 4.8, 1.9, 3.5)
    assert found == pytest.approx(beyond_m, abs=1e-4)


# --- time to collision -----------------------------------------------------------------------


def mover(x: float, y: float, yaw: float = 0.0, speed: float = 0.0) -> Mover:
    velocity = speed * math.cos(yaw), speed * math.sin(yaw)
    return Mover(Rectangle(Pose(x, y, yaw), 4.0, 2.0), velocity)


EGO = mover(0.0, 0.0, speed=10.0)


@pytest.mark.parametrize(
    "other, seconds",
    [
        (mover(24.0, 0.0), 2.0),  # 20 m between the bumpers
        (mover(24.0, 0.0, speed=5.0), 4.0),
        (mover(24.0, 0.0, speed=10.0), math.inf),  # never closer
        (mover(24.0, 0.0, speed=12.0), math.inf),
        (mover(-24.0, 0.0, speed=20.0), 2.0),  # from behind
        (mover(-24.0, 0.0), math.inf),
        (mover(24.0, 0.0, math.pi, 10.0), 1.0),  # head on
        (mover(24.0, 3.5, math.pi, 10.0), math.inf),  # in the next lane
        (mover(24.0, 1.9), 2.0),  # a tenth of a metre is enough
        (mover(24.0, 2.1), math.inf),
        # It crosses from the right: both have 17 m to go until a front meets a side.
        (mover(20.0, -20.0, math.pi / 2.0, 10.0), 1.7),
        (mover(20.0, -60.0, math.pi / 2.0, 10.0), math.inf),  # the ego is past by then
        (mover(3.0, 0.0), 0.0),  # it is there already
        (mover(204.0, 0.0), math.inf),  # 20 s are beyond the horizon
        (mover(95.0, 0.0), 9.1),
    ],
)
def test_the_time_to_a_collision_by_hand(other: Mover, seconds: float) -> None:
    assert time_to_collision(EGO, [other]) == pytest.approx(seconds)
    assert time_to_collision(other, [EGO]) == pytest.approx(seconds)


def test_the_soonest_of_several_counts() -> None:
    assert time_to_collision(EGO, []) == math.inf
    assert time_to_collision(EGO, [mover(54.0, 0.0), mover(24.0, 0.0)]) == pytest.approx(2.0)


def test_the_time_to_a_collision_is_when_the_outlines_first_touch() -> None:
    """By small steps of time, for movers in all directions."""
    rng = np.random.default_rng(7)
    met = 0
    for _ in range(200):
        x, y = rng.uniform(-9.0, 9.0, 2)
        one = mover(0.0, 0.0, float(rng.uniform(-3.0, 3.0)), float(rng.uniform(0.0, 10.0)))
        other = mover(x, y, float(rng.uniform(-3.0, 3.0)), float(rng.uniform(0.0, 10.0)))
        told = time_to_collision(one, [other])
        moved = (_at(one, 0.01 * step, other) for step in range(601))
        first = next((step for step, pair in enumerate(moved) if overlap(*pair)), None)
        if first is None:
            assert told == math.inf
        else:
            met += 1
            assert told == pytest.approx(0.01 * first, abs=0.0101)
    assert 20 < met < 180


def _at(one: Mover, time_s: float, other: Mover) -> tuple[Rectangle, Rectangle]:
    def shifted(each: Mover) -> Rectangle:
        pose = each.outline.pose
        x, y = pose.x + time_s * each.velocity[0], pose.y + time_s * each.velocity[1]
        return dataclasses.replace(each.outline, pose=Pose(x, y, pose.yaw))

    return shifted(one), shifted(other)


# --- several episodes ------------------------------------------------------------------------


def test_figures_of_several_episodes_by_hand() -> None:
    episodes = [
        episode(
            success=True, route_completion=1.0, driving_score=100.0, distance_m=300.0,
            duration_s=60.0, blocked_s=0.0, lane_invasions=1, off_lane_s=3.0, squared_jerk=400.0,
            jerks=100, steering_travel_rad=1.2, near_s=6.0, least_time_to_collision_s=1.0,
        ),
        episode(
            route_completion=0.5, driving_score=30.0, distance_m=100.0, duration_s=20.0,
            blocked_s=4.0, collisions=1, jerks=100, steering_travel_rad=0.4, lane_invasions=1,
            least_time_to_collision_s=0.0,
        ),
        episode(duration_s=20.0),
    ]  # fmt: skip
    found = {name: figure.estimate(episodes).value for name, figure in FIGURES.items()}
    assert found == pytest.approx(
        {
            "success": 1 / 3,
            "route_completion": 0.5,
            "driving_score": 130.0 / 3.0,
            "collisions_per_km": 2.5,
            "lane_invasions_per_km": 5.0,
            "off_lane_share": 3.0,
            "blocked_share": 14.0,
            "speed_mps": 4.0,
            "jerk_mps3": math.sqrt(400.0 / 438.0),
            "steering_rate_rps": 0.016,
            "near_share": 6.0,
            "least_ttc_s": 0.5,
        }
    )
    for name, figure in FIGURES.items():
        estimate = figure.estimate(episodes)
        assert estimate.low is not None and estimate.value is not None, name
        assert estimate.low <= estimate.value <= (estimate.high or 0.0), name


def test_differences_are_of_pairs() -> None:
    """Where every start goes better by as much, the interval has no width."""
    easy, hard = (
        [episode(driving_score=score, success=score > 50.0) for score in scores]
        for scores in ((90.0, 40.0, 70.0), (85.0, 35.0, 65.0))
    )
    assert difference("driving_score", easy, hard) == Estimate(5.0, 5.0, 5.0)
    assert difference("success", easy, hard) == Estimate(0.0, 0.0, 0.0)
    assert set(COMPARED) <= set(FIGURES)
