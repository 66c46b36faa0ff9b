# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The pilot: frames to commands, without ROS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AT_REST, Command, stopping
from td3_driver.driving.observation import Observation
from td3_driver.driving.pilot import Halt, Pilot
from td3_driver.driving.world import Frame, Pose

TICK_NS = 50_000_000
AHEAD = np.array([0.0, 1.0], dtype=np.float32)
LEFT = np.array([1.0, 1.0], dtype=np.float32)


def straight_route(length_m: int = 100) -> np.ndarray:
    return np.stack([np.arange(length_m + 1.0), np.zeros(length_m + 1), np.zeros(length_m + 1)], 1)


def make_frame(tick: int, route: np.ndarray, x: float = 0.0, y: float = 0.0) -> Frame:
    image = np.full((48, 48, 4), tick % 256, np.uint8)
    return Frame(tick, tick * TICK_NS, image, Pose(x, y, 0.0), 2.0, 0.0, route)


class Policy:
    """Notes what it is asked, and answers always the same."""

    def __init__(self, action: np.ndarray = AHEAD) -> None:
        self.action = action
        self.asked: list[Observation] = []

    def __call__(self, observation: Observation) -> np.ndarray:
        self.asked.append(observation)
        return self.action


def make_pilot(act: Callable[[Observation], np.ndarray], **settings: object) -> Pilot:
    return Pilot(DrivingConfig(**settings), 0.05, act)  # type: ignore[arg-type]


def driven(pilot: Pilot, frame: Frame) -> Command:
    command = pilot.drive(frame)
    assert isinstance(command, Command), command
    return command


def test_every_frame_is_answered_and_an_action_is_held_for_its_ticks() -> None:
    policy, route = Policy(), straight_route()
    pilot = make_pilot(policy, action_repeat=3)
    speeds = [driven(pilot, make_frame(tick, route)).ackermann.speed for tick in range(7)]
    assert len(policy.asked) == 3
    # The limits are those of ticks, also while the action is held.
    assert np.allclose(np.diff(speeds), 3.0 * 0.05)


def test_the_policy_sees_what_it_was_trained_on() -> None:
    policy, route = Policy(), straight_route()
    pilot = make_pilot(policy)
    for tick in range(1, 6):
        pilot.drive(make_frame(tick, route, x=float(tick)))
    newest_last = policy.asked[-1]["image"][:, 0, 0]
    assert newest_last.tolist() == [2, 3, 4, 5]
    assert policy.asked[-1]["vector"][0] == 2.0


@pytest.mark.parametrize("next_tick", [40, 2], ids=["a gap", "the clock jumps back"])
def test_a_break_in_time_starts_a_new_stack(next_tick: int) -> None:
    policy, route = Policy(), straight_route()
    pilot = make_pilot(policy)
    for tick in (8, 9, 10, next_tick):
        pilot.drive(make_frame(tick, route))
    assert policy.asked[-1]["image"][:, 0, 0].tolist() == [next_tick] * 4


def test_without_a_route_the_car_stands_until_there_is_one() -> None:
    policy = Policy()
    pilot = make_pilot(policy)
    assert pilot.drive(make_frame(1, np.zeros((0, 3)))) == Halt("there is no route")
    assert not policy.asked
    assert driven(pilot, make_frame(2, straight_route())).ackermann.speed > 0.0


NO_ROUTE = np.zeros((0, 3))


def test_a_policy_that_sees_nothing_of_the_route_drives_without_one() -> None:
    policy = Policy()
    pilot = make_pilot(policy, vector=["speed", "previous_action"], action_repeat=2)
    speeds = [driven(pilot, make_frame(tick, NO_ROUTE)).ackermann.speed for tick in range(1, 7)]
    assert np.allclose(np.diff(speeds), 3.0 * 0.05)
    assert [seen["image"][:, 0, 0].tolist() for seen in policy.asked] == [
        [1, 1, 1, 1],
        [1, 1, 1, 3],
        [1, 1, 3, 5],
    ]
    assert policy.asked[0]["vector"].tolist() == [2.0, 0.0, -1.0]
    assert policy.asked[1]["vector"].tolist() == [2.0, 0.0, 1.0]
    # Neither a route, nor its end, nor one that lies elsewhere changes anything.
    for tick, x in enumerate([0.0, 0.0, 20.0, 20.0, 500.0], start=7):
        assert driven(pilot, make_frame(tick, straight_route(20), x=x)).ackermann.speed > 2.0
    assert policy.asked[-1]["image"][:, 0, 0].tolist() == [5, 7, 9, 11]
    assert pilot.off_course is None


def test_a_policy_that_is_given_commands_waits_for_a_route() -> None:
    policy = Policy()
    pilot = make_pilot(policy, vector=["speed", "command"])
    assert pilot.needs_route
    assert pilot.drive(make_frame(1, NO_ROUTE)) == Halt("there is no route")
    assert not policy.asked
    driven(pilot, make_frame(2, straight_route()))
    assert policy.asked[0]["vector"].tolist() == [2.0, 1.0, 0.0, 0.0, 0.0, 30.0]


def test_without_a_route_a_break_in_time_starts_a_new_stack_too() -> None:
    policy = Policy()
    pilot = make_pilot(policy, vector=["speed"])
    for tick in (8, 9, 10, 40):
        pilot.drive(make_frame(tick, NO_ROUTE))
    assert policy.asked[-1]["image"][:, 0, 0].tolist() == [40] * 4
    pilot.restart()
    pilot.drive(make_frame(41, NO_ROUTE))
    assert policy.asked[-1]["image"][:, 0, 0].tolist() == [41] * 4


def test_a_route_that_lies_elsewhere_is_not_driven() -> None:
    pilot = make_pilot(Policy())
    halt = pilot.drive(make_frame(1, straight_route(), x=10.0, y=30.0))
    assert halt == Halt("the route is 30.0 m away")


def test_the_reason_of_a_route_that_lies_elsewhere_stays_while_the_car_rolls() -> None:
    pilot, route = make_pilot(Policy()), straight_route()
    reasons = {
        pilot.drive(make_frame(tick, route, x=10.0, y=13.0 - 0.1 * tick)) for tick in range(1, 9)
    }
    assert reasons == {Halt("the route is 12.9 m away")}
    assert isinstance(pilot.drive(make_frame(9, route, x=10.0)), Command)
    halt = pilot.drive(make_frame(10, straight_route(50), x=10.0, y=20.0))
    assert halt == Halt("the route is 20.0 m away")


def test_a_route_of_one_place_is_not_driven() -> None:
    pilot = make_pilot(Policy())
    halt = pilot.drive(make_frame(1, np.zeros((3, 3))))
    assert isinstance(halt, Halt) and "route" in halt.reason


def test_the_car_stops_at_the_end_and_stays_there_until_the_next_route() -> None:
    policy, route = Policy(), straight_route(20)
    pilot = make_pilot(policy)
    for tick, x in enumerate([0.0, 6.0, 12.0, 17.9], start=1):
        assert driven(pilot, make_frame(tick, route, x=x)).ackermann.speed > 0.0
    # Also where it stands a little back, and off the lane, at the end.
    for tick, x in enumerate([18.1, 17.0, 17.0], start=5):
        halt = pilot.drive(make_frame(tick, route, x=x, y=0.5))
        assert isinstance(halt, Halt) and "end" in halt.reason
    assert driven(pilot, make_frame(8, straight_route(60), x=17.0)).ackermann.speed > 0.0


def test_leaving_the_lane_is_told() -> None:
    route = straight_route()
    pilot = make_pilot(Policy())
    for tick, y in enumerate([0.0, 2.5, 2.5, 2.5], start=1):
        pilot.drive(make_frame(tick, route, x=float(tick), y=y))
    assert pilot.off_course is not None and pilot.off_course.value == "off_lane"


def test_neither_time_nor_the_end_of_the_route_is_a_failure() -> None:
    route = straight_route(20)
    pilot = make_pilot(Policy(), time_limit_s=0.1)
    for tick in range(1, 6):
        assert driven(pilot, make_frame(tick, route, x=float(tick))).ackermann.speed > 0.0
        assert pilot.off_course is None
    pilot.drive(make_frame(6, route, x=19.0))
    assert pilot.off_course is None


def test_a_stop_is_at_once_and_keeps_the_wheels_as_they_are() -> None:
    route = straight_route()
    pilot = make_pilot(Policy(LEFT))
    for tick in range(5):
        before = driven(pilot, make_frame(tick, route))
    command = stopping(before)
    assert (command.ackermann.speed, command.control.brake) == (0.0, 1.0)
    assert (command.control.throttle, command.control.reverse) == (0.0, False)
    assert command.ackermann.steering_angle == before.ackermann.steering_angle > 0.0
    assert command.control.steer == before.control.steer < 0.0
    assert stopping(AT_REST) == AT_REST


def test_it_drives_on_from_the_speed_it_has_after_a_stop() -> None:
    policy, route = Policy(), straight_route()
    pilot = make_pilot(policy)
    pilot.drive(make_frame(1, route))
    pilot.restart()
    frame = replace(make_frame(2, route), speed=1.0)
    assert driven(pilot, frame).ackermann.speed == pytest.approx(1.0 + 3.0 * 0.05)
    assert policy.asked[-1]["image"][:, 0, 0].tolist() == [2] * 4


def test_a_new_route_does_not_jerk_the_wheels_straight() -> None:
    pilot = make_pilot(Policy(LEFT))
    route = straight_route()
    for tick in range(5):
        before = driven(pilot, make_frame(tick, route))
    after = driven(pilot, make_frame(5, straight_route(50)))
    turned = after.ackermann.steering_angle - before.ackermann.steering_angle
    assert 0.0 <= turned <= 1.5 * 0.05 + 1e-9


def test_an_action_that_is_not_finite_is_refused() -> None:
    pilot = make_pilot(Policy(np.array([np.nan, 0.0], dtype=np.float32)))
    with pytest.raises(ValueError, match="not finite"):
        pilot.drive(make_frame(1, straight_route()))
