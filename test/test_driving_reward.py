# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Rewards worked out by hand, and each end at its threshold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from td3_driver.config import DrivingConfig
from td3_driver.driving.reward import End, EndDetector, RewardTerms, reward_terms
from td3_driver.driving.route import Projection
from td3_driver.driving.world import Collision, LaneInvasion

CONFIG = DrivingConfig(
    target_speed_mps=6.0,
    reward_speed_limit_mps=9.0,
    lateral_limit_m=2.0,
    heading_limit_rad=0.8,
    wrong_way_rad=1.5,
    steering_change_cost=0.05,
    lane_invasion_cost=0.1,
    failure_cost=5.0,
    collision_impulse_ns=10.0,
    stuck_speed_mps=0.25,
    stuck_time_s=2.0,
    stuck_grace_s=1.0,
    time_limit_s=60.0,
    goal_tolerance_m=2.0,
    off_lane_ticks=2,
)
DECISION_S = 0.125  # exact in binary, so that boundaries are hit exactly


def terms(
    progress_m: float = 0.75,
    lateral_m: float = 0.0,
    heading_error_rad: float = 0.0,
    speed: float = 6.0,
    steering_change: float = 0.0,
    markings: tuple[int, ...] = (),
    end: End | None = None,
) -> RewardTerms:
    return reward_terms(
        CONFIG,
        progress_m=progress_m,
        duration_s=DECISION_S,
        projection=Projection(50.0, lateral_m, heading_error_rad),
        speed=speed,
        steering_change=steering_change,
        lane_invasions=[LaneInvasion(0, (marking,)) for marking in markings],
        end=end,
    )


def test_the_target_speed_on_the_centre_line_earns_one() -> None:
    assert terms().total == pytest.approx(1.0)


def test_half_the_target_speed_earns_half() -> None:
    assert terms(progress_m=0.375, speed=3.0).total == pytest.approx(0.5)


@pytest.mark.parametrize(
    "given_, total",
    [
        ({"lateral_m": 0.5}, 0.75),
        ({"lateral_m": -0.5}, 0.75),
        ({"lateral_m": 2.0}, 0.0),
        ({"heading_error_rad": 0.2}, 0.75),
        ({"heading_error_rad": -0.6}, 0.25),
        ({"heading_error_rad": 1.2}, 0.0),
        ({"speed": 7.5}, 0.5),
        ({"speed": 9.0}, 0.0),
        ({"speed": 12.0}, 0.0),
        ({"lateral_m": 1.0, "heading_error_rad": 0.4, "speed": 7.5}, 0.125),
        ({"steering_change": 2.0}, 0.9),
        ({"markings": (2,)}, 0.9),
        ({"markings": (1,)}, 1.0),
        ({"markings": (1, 3, 2)}, 0.9),
        ({"end": End.COLLISION}, -4.0),
        ({"end": End.TIME_LIMIT}, 1.0),
        ({"end": End.ROUTE_END}, 1.0),
        ({"end": End.UNCLEAN_STEP}, 1.0),
    ],
)
def test_rewards_worked_out_by_hand(given_: dict[str, object], total: float) -> None:
    assert terms(**given_).total == pytest.approx(total)  # type: ignore[arg-type]


def test_no_factor_can_pay_for_another() -> None:
    assert terms(lateral_m=2.5).total == 0.0
    assert terms(heading_error_rad=0.9).total == 0.0
    assert terms(speed=9.5, progress_m=9.5 * DECISION_S).total == 0.0


def test_progress_is_bounded_by_the_speed_limit_both_ways() -> None:
    assert terms(progress_m=50.0).progress == pytest.approx(1.5)
    assert terms(progress_m=-50.0).progress == pytest.approx(-1.5)


@given(
    back_m=st.floats(0.001, 5.0),
    lateral_m=st.floats(-5, 5),
    heading_error_rad=st.floats(-3, 3),
    speed=st.floats(-10, 20),
)
def test_going_backwards_costs_the_same_however_badly_it_is_done(
    back_m: float, lateral_m: float, heading_error_rad: float, speed: float
) -> None:
    badly = terms(-back_m, lateral_m, heading_error_rad, speed).total
    assert badly == terms(-back_m).total == pytest.approx(-min(back_m / 0.75, 1.5))


@given(lateral_m=st.floats(-5, 5), heading_error_rad=st.floats(-3, 3))
def test_standing_still_earns_exactly_nothing(lateral_m: float, heading_error_rad: float) -> None:
    assert terms(0.0, lateral_m, heading_error_rad, speed=0.0).total == 0.0


def test_the_terms_are_given_by_name() -> None:
    named = terms(lateral_m=0.5, steering_change=1.0, markings=(2,), end=End.STUCK).as_dict()
    assert named == pytest.approx(
        {
            "progress": 1.0,
            "centring": 0.75,
            "heading": 1.0,
            "speed": 1.0,
            "steering_change": -0.05,
            "lane_invasion": -0.1,
            "failure": -5.0,
        }
    )


def test_failures_terminate_and_the_rest_truncates() -> None:
    failures = {End.COLLISION, End.OFF_LANE, End.WRONG_WAY, End.STUCK}
    assert {end for end in End if end.terminated} == failures
    assert {end.value for end in set(End) - failures} == {
        "route_end",
        "time_limit",
        "unclean_step",
    }


class Episode:
    """An end detector on a route of 100 m, driven with good values unless told otherwise."""

    def __init__(self, config: DrivingConfig = CONFIG) -> None:
        self.detector = EndDetector(config, 100.0)
        self.elapsed_s = 0.0

    def check(
        self,
        *,
        lateral_m: float = 0.0,
        heading_error_rad: float = 0.0,
        progress_m: float = 50.0,
        speed: float = 6.0,
        impulses: tuple[float, ...] = (),
        elapsed_s: float | None = None,
        clean: bool = True,
    ) -> End | None:
        self.elapsed_s = self.elapsed_s + DECISION_S if elapsed_s is None else elapsed_s
        return self.detector.check(
            projection=Projection(progress_m, lateral_m, heading_error_rad),
            speed=speed,
            collisions=[Collision(0, 1, (0.0, impulse, 0.0)) for impulse in impulses],
            elapsed_s=self.elapsed_s,
            duration_s=DECISION_S,
            clean=clean,
        )


def test_a_good_decision_ends_nothing() -> None:
    assert Episode().check() is None


def test_the_impulse_is_the_vectors_magnitude() -> None:
    assert Collision(0, 1, (2.0, -3.0, 6.0)).impulse_ns == pytest.approx(7.0)


@pytest.mark.parametrize(
    "given_, end",
    [
        ({"impulses": (9.99,)}, None),
        ({"impulses": (0.5, 10.0)}, End.COLLISION),
        ({"heading_error_rad": 1.5}, None),
        ({"heading_error_rad": -1.501}, End.WRONG_WAY),
        ({"heading_error_rad": 1.501}, End.WRONG_WAY),
        ({"progress_m": 97.99}, None),
        ({"progress_m": 98.0}, End.ROUTE_END),
        ({"elapsed_s": 59.875}, None),
        ({"elapsed_s": 60.0}, End.TIME_LIMIT),
        ({"clean": False}, End.UNCLEAN_STEP),
    ],
)
def test_each_end_at_its_threshold(given_: dict[str, object], end: End | None) -> None:
    assert Episode().check(**given_) is end  # type: ignore[arg-type]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_off_the_lane_takes_two_decisions_in_a_row(side: float) -> None:
    episode = Episode()
    laterals = [2.1, 1.9, 2.1, 2.0, 2.1, 2.1]
    ends = [episode.check(lateral_m=side * lateral) for lateral in laterals]
    assert ends == [None] * 5 + [End.OFF_LANE]


def test_standing_counts_from_the_end_of_the_grace_time() -> None:
    episode = Episode()
    decisions = 1
    while episode.check(speed=0.0) is None:
        decisions += 1
    # 1 s of grace are 8 decisions, 2 s of standing 16.
    assert decisions == 24
    assert episode.elapsed_s == 3.0


def test_moving_restarts_the_standing_time_and_rolling_back_is_moving() -> None:
    episode = Episode()
    assert [episode.check(speed=0.24) for _ in range(23)] == [None] * 23
    assert episode.check(speed=0.25) is None
    assert [episode.check(speed=-0.24) for _ in range(15)] == [None] * 15
    assert episode.check(speed=-0.3) is None
    assert [episode.check(speed=0.0) for _ in range(15)] == [None] * 15
    assert episode.check(speed=0.0) is End.STUCK


def test_an_unclean_step_is_judged_by_nothing_it_shows() -> None:
    assert Episode().check(clean=False, impulses=(500.0,)) is End.UNCLEAN_STEP


def test_the_first_in_the_order_names_the_end() -> None:
    at_once = CONFIG.model_copy(
        update={"off_lane_ticks": 1, "stuck_grace_s": 0.0, "stuck_time_s": DECISION_S}
    )
    wrong: dict[str, object] = {
        "impulses": (50.0,),
        "lateral_m": 3.0,
        "heading_error_rad": 2.0,
        "speed": 0.0,
        "progress_m": 99.0,
        "elapsed_s": 60.0,
    }
    order = []
    while wrong:
        order.append(Episode(at_once).check(**wrong))  # type: ignore[arg-type]
        del wrong[next(iter(wrong))]
    assert order == [
        End.COLLISION,
        End.OFF_LANE,
        End.WRONG_WAY,
        End.STUCK,
        End.ROUTE_END,
        End.TIME_LIMIT,
    ]
