# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What benchmarks/metadrive_world.py converts, on cases worked out by hand, without MetaDrive."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.metadrive_world import lane_points, map_pose, metadrive_action, middle_of
from td3_driver.driving.world import FULL_BRAKE, Pose, VehicleControl

FULL_STEER_RAD = math.radians(70.0)
"""Of our car; MetaDrive's reaches 40 degrees."""


class Lane:
    """A straight lane in MetaDrive's axes, 20 m long, from a place at a heading."""

    length = 20.0

    def __init__(self, x: float, y: float, heading: float) -> None:
        self._x, self._y, self._heading = x, y, heading

    def position(self, along: float, beside: float) -> tuple[float, float]:
        assert beside == 0.0
        cosine, sine = math.cos(self._heading), math.sin(self._heading)
        return self._x + along * cosine, self._y + along * sine

    def heading_theta_at(self, along: float) -> float:
        return self._heading


def test_right_in_metadrive_is_right_here():
    pose = map_pose(10.0, 3.5, math.radians(30.0))  # Its y points to the right.
    assert (pose.x, pose.y) == (10.0, -3.5)
    assert pose.yaw == pytest.approx(math.radians(-30.0))


def test_our_place_of_the_car_is_behind_metadrives():
    # The axles are 1.05234 m ahead of and 1.4166 m behind its origin: their middle 0.18213 behind.
    pose = middle_of(Pose(2.0, 5.0, math.pi / 2))
    assert (pose.x, pose.y, pose.yaw) == pytest.approx((2.0, 4.81787, math.pi / 2))


@pytest.mark.parametrize(
    "control, action",
    [
        (VehicleControl(throttle=0.5, steer=-2.0 / 7.0), (0.5, 0.5)),  # 20 degrees to the left
        (VehicleControl(throttle=1.0, steer=1.0), (-1.0, 1.0)),  # as far right as it can
        (VehicleControl(steer=4.0 / 7.0, brake=0.25), (-1.0, -0.25)),
        (FULL_BRAKE, (0.0, -1.0)),
    ],
)
def test_a_command_turns_the_wheels_by_the_same_angle(control, action):
    assert metadrive_action(control, FULL_STEER_RAD) == pytest.approx(action)


def test_a_route_runs_along_the_rightmost_lanes_from_where_the_car_begins():
    # 20 m ahead, then a corner to the right, which is along MetaDrive's y.
    left, right = None, [Lane(0.0, 7.0, 0.0), Lane(20.0, 7.0, math.pi / 2)]
    graph = {"a": {"b": [left, right[0]]}, "b": {"c": [left, right[1]]}}
    roads = SimpleNamespace(road_network=SimpleNamespace(graph=graph))
    navigation = SimpleNamespace(checkpoints=["a", "b", "c"], map=roads)
    route = lane_points(navigation, 30.0)  # It begins 5 m along the first lane.
    assert route.shape == (31, 3)
    np.testing.assert_allclose(route[0], [5.0, -7.0, 0.0])
    np.testing.assert_allclose(route[14], [19.0, -7.0, 0.0])
    np.testing.assert_allclose(route[30], [20.0, -22.0, -math.pi / 2])
    with pytest.raises(ValueError, match="40 m long, too short for 36 m"):
        lane_points(navigation, 36.0)
