# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The observation, against hand-worked vectors and an image reduced in the other order."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from td3_driver.config import VECTOR_PARTS, DrivingConfig
from td3_driver.driving.environment import observation_space
from td3_driver.driving.observation import (
    Course,
    Observation,
    Observer,
    grey_image,
    image_shape,
    privileged_scale,
    vector_names,
    vector_scale,
)
from td3_driver.driving.route import RouteTracker
from td3_driver.driving.world import Pose

ROUTE = np.stack([np.arange(101.0), np.zeros(101), np.zeros(101)], axis=1)
AT_TEN = Pose(10.0, 0.0, 0.0)
CONFIGS = [
    DrivingConfig(),
    DrivingConfig(waypoints=3, waypoint_spacing_m=1.5, image_stack=2, image_size_px=40),
    DrivingConfig(vector=VECTOR_PARTS, image_stack=1),
    DrivingConfig(vector=("speed", "previous_action")),
    DrivingConfig(image_channels=3, image_size_px=36),
]


def plain(level: int, height: int = 120, width: int = 160) -> np.ndarray:
    return np.full((height, width, 4), level, dtype=np.uint8)


def observe(
    observer: Observer,
    image: np.ndarray | None = None,
    pose: Pose = AT_TEN,
    speed: float = 0.0,
    previous_action: tuple[float, float] = (0.0, -1.0),
) -> Observation:
    tracker = RouteTracker(ROUTE)
    return observer.observe(
        plain(0) if image is None else image,
        speed,
        np.array(previous_action, dtype=np.float32),
        Course(tracker, pose, tracker.project(pose)),
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_an_observation_is_in_its_space_and_named_and_scaled_entry_by_entry(
    config: DrivingConfig,
) -> None:
    observation = observe(Observer(config), speed=3.0)
    space = observation_space(config)
    assert space.contains(observation)
    assert observation["image"].dtype == np.uint8
    assert observation["vector"].dtype == np.float32
    side = config.image_size_px
    channels = [3] if config.image_channels == 3 else []
    assert observation["image"].shape == (config.image_stack, *channels, side, side)
    entries = len(observation["vector"])
    lengths = {"waypoints": 2 * config.waypoints, "previous_action": 2, "command": 5}
    assert entries == sum(lengths.get(part, 1) for part in config.vector)
    names = vector_names(config)
    assert len(names) == len(set(names)) == entries
    scale = vector_scale(config)
    assert scale.shape == (entries,) and scale.dtype == np.float32 and np.all(scale > 0)


def test_the_default_observation_is_the_documented_one() -> None:
    observation = observe(Observer(DrivingConfig()))
    assert observation["image"].shape == (4, 84, 84)
    assert observation["vector"].shape == (23,)


def test_the_scales_are_the_documented_magnitudes() -> None:
    config = DrivingConfig(
        waypoints=3, waypoint_spacing_m=3.0, lateral_limit_m=2.0, vector=VECTOR_PARTS
    )
    named = dict(zip(vector_names(config), vector_scale(config).tolist(), strict=True))
    assert named == pytest.approx(
        {
            "speed_mps": 8.0,
            "lateral_m": 2.0,
            "heading_error_rad": 0.7854,
            "waypoint_1_x_m": 3.0,
            "waypoint_1_y_m": 2.0,
            "waypoint_2_x_m": 6.0,
            "waypoint_2_y_m": 3.0,
            "waypoint_3_x_m": 9.0,
            "waypoint_3_y_m": 4.5,
            "previous_steering": 1.0,
            "previous_speed": 1.0,
            "command_follow": 1.0,
            "command_left": 1.0,
            "command_right": 1.0,
            "command_straight": 1.0,
            "command_distance_m": 30.0,
        }
    )


def test_the_newest_image_is_last_and_the_first_one_fills_the_stack() -> None:
    observer = Observer(DrivingConfig(image_stack=3))
    levels = [
        observe(observer, plain(level))["image"][:, 0, 0].tolist() for level in (10, 20, 30, 40)
    ]
    assert levels == [[10, 10, 10], [10, 10, 20], [10, 20, 30], [20, 30, 40]]
    observer.reset()
    assert observe(observer, plain(90))["image"][:, 0, 0].tolist() == [90, 90, 90]


def test_later_images_do_not_change_an_observation_already_given() -> None:
    observer = Observer(DrivingConfig())
    first = observe(observer, plain(10))["image"]
    observe(observer, plain(200))
    assert np.all(first == 10)


@pytest.mark.parametrize("shape", [(120, 160), (84, 84), (600, 800), (97, 211)])
def test_grey_is_the_same_as_weighting_first_and_shrinking_then(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (*shape, 4), dtype=np.uint8)
    ours = grey_image(image, 84).astype(int)
    blue, green, red = (image[:, :, channel].astype(np.float32) for channel in range(3))
    grey = 0.114 * blue + 0.587 * green + 0.299 * red
    expected = cv2.resize(grey, (84, 84), interpolation=cv2.INTER_AREA)
    assert np.max(np.abs(ours - expected)) <= 2.0
    assert abs(np.mean(ours - expected)) < 0.1  # rounding, not a darker or lighter picture


def test_blue_green_and_red_are_told_apart_and_alpha_is_ignored() -> None:
    levels = []
    for channel in range(4):
        image = np.zeros((84, 84, 4), dtype=np.uint8)
        image[:, :, channel] = 200
        levels.append(int(grey_image(image, 84)[40, 40]))
    assert levels == [pytest.approx(22.8, abs=1), pytest.approx(117.4, abs=1), 60, 0]


def test_colours_come_red_first_each_shrunk_like_grey() -> None:
    config = DrivingConfig(image_channels=3, image_stack=2)
    image = np.random.default_rng(2).integers(0, 256, (120, 160, 4), dtype=np.uint8)
    stack = observe(Observer(config), image)["image"]
    assert stack.shape == image_shape(config) == (2, 3, 84, 84)
    for ours, theirs in enumerate((2, 1, 0)):
        expected = cv2.resize(image[:, :, theirs], (84, 84), interpolation=cv2.INTER_AREA)
        np.testing.assert_array_equal(stack[1, ours], expected)


def test_up_and_left_stay_where_they_are() -> None:
    image = plain(0)
    image[:60, :80] = 255
    grey = grey_image(image, 84)
    assert grey[5, 5] == 255 and grey[5, 78] == grey[78, 5] == grey[78, 78] == 0


def test_the_vector_is_worked_out_by_hand() -> None:
    config = DrivingConfig(waypoints=2, waypoint_spacing_m=2.0, vector=VECTOR_PARTS)
    yaw = math.pi / 6
    pose = Pose(20.0, 1.0, yaw)
    vector = observe(Observer(config), pose=pose, speed=4.5, previous_action=(0.25, -0.5))
    # Waypoints at (22, 0) and (24, 0): 2 and 4 ahead, 1 to the right, turned by -30 degrees.
    cos, sin = math.sqrt(3) / 2, 0.5
    expected = [4.5, 1.0, -yaw]
    expected += [2 * cos - 1 * sin, -2 * sin - 1 * cos]
    expected += [4 * cos - 1 * sin, -4 * sin - 1 * cos]
    expected += [0.25, -0.5]
    expected += [1.0, 0.0, 0.0, 0.0, 30.0]
    np.testing.assert_allclose(vector["vector"], expected, atol=1e-6)


def test_waypoints_start_at_the_projection_not_at_the_last_route_point() -> None:
    config = DrivingConfig(waypoints=2, waypoint_spacing_m=2.0)
    vector = observe(Observer(config), pose=Pose(10.6, 0.0, 0.0))["vector"]
    np.testing.assert_allclose(vector[3:], [2.0, 0.0, 4.0, 0.0], atol=1e-6)


def test_a_vector_without_the_route_is_built_without_one() -> None:
    config = DrivingConfig(vector=("previous_action", "speed"))
    assert not config.needs_route and DrivingConfig(vector=("heading",)).needs_route
    action = np.array([0.25, -0.5], dtype=np.float32)
    observation = Observer(config).observe(plain(0), 4.5, action)
    assert observation["vector"].tolist() == [4.5, 0.25, -0.5]
    assert vector_names(config) == ["speed_mps", "previous_steering", "previous_speed"]


def test_a_privileged_critic_is_shown_what_the_vector_leaves_out() -> None:
    config = DrivingConfig(vector=("speed", "lateral"), privileged_critic=True, waypoints=2)
    assert config.privileged == ("heading", "waypoints")
    yaw = math.pi / 6
    observation = observe(Observer(config), pose=Pose(20.0, 1.0, yaw), speed=4.5)
    assert observation_space(config).contains(observation)
    everything = DrivingConfig(vector=("heading", "waypoints"), waypoints=2)
    expected = observe(Observer(everything), pose=Pose(20.0, 1.0, yaw))["vector"]
    np.testing.assert_array_equal(observation["privileged"], expected)
    np.testing.assert_array_equal(privileged_scale(config), vector_scale(everything))
    free = Observer(DrivingConfig(vector=("speed",), privileged_critic=True))
    assert set(free.observe(plain(0), 4.5, np.zeros(2, np.float32))) == {"image", "vector"}
    assert DrivingConfig(privileged_critic=True).privileged == ()


def test_a_command_is_read_off_the_route_ahead() -> None:
    config = DrivingConfig(vector=("command", "speed"), command_ahead_m=20.0)
    assert config.needs_route
    # 40 m along x, then a quarter circle of radius 10 m to the right, 15.7 m long, then 30 m.
    angles = np.arange(0.0, 15.7) / 10.0
    x = np.concatenate([np.arange(40.0), 40.0 + 10.0 * np.sin(angles), np.full(30, 50.0)])
    y = np.concatenate([np.zeros(40), 10.0 * np.cos(angles) - 10.0, -10.0 - np.arange(30.0)])
    route = np.column_stack([x, y, np.zeros(len(x))])

    def told(x: float, y: float) -> list[float]:
        pose, tracker = Pose(x, y, 0.0), RouteTracker(route)
        course = Course(tracker, pose, tracker.project(pose))
        observer = Observer(config)
        seen = observer.observe(plain(0), 4.5, np.zeros(2, np.float32), course)
        return seen["vector"].tolist()

    assert told(10.0, 0.5) == [4.5, 1.0, 0.0, 0.0, 0.0, 20.0]
    assert told(30.0, -0.5) == [4.5, 0.0, 0.0, 1.0, 0.0, pytest.approx(10.0, abs=2.0)]
    assert told(47.0, -3.0) == [4.5, 0.0, 0.0, 1.0, 0.0, 0.0]
    assert told(50.0, -20.0) == [4.5, 1.0, 0.0, 0.0, 0.0, 20.0]


def test_a_command_is_nothing_that_only_the_critic_sees() -> None:
    config = DrivingConfig(vector=("speed",), privileged_critic=True)
    assert config.privileged == ("lateral", "heading", "waypoints")
    given = DrivingConfig(vector=("speed", "command"), privileged_critic=True)
    assert given.privileged == config.privileged


def test_a_part_is_named_once_and_older_settings_are_read() -> None:
    with pytest.raises(ValueError, match="names a part twice"):
        DrivingConfig(vector=("speed", "speed"))
    older = DrivingConfig.model_validate({"observe_previous_action": True})
    parts = ("speed", "lateral", "heading", "waypoints", "previous_action")
    assert older == DrivingConfig(vector=parts)
    assert DrivingConfig.model_validate({"observe_previous_action": False}) == DrivingConfig()
    with pytest.raises(ValueError, match="is now previous_action, a part of vector"):
        DrivingConfig.model_validate({"observe_previous_action": True, "vector": ["speed"]})


def test_values_far_off_are_held_within_the_space() -> None:
    config = DrivingConfig()
    observation = observe(Observer(config), pose=Pose(10.0, -5000.0, 0.0), speed=1000.0)
    vector = dict(zip(vector_names(config), observation["vector"].tolist(), strict=True))
    assert vector["speed_mps"] == pytest.approx(80.0)
    assert vector["lateral_m"] == pytest.approx(-20.0)
    assert vector["waypoint_1_y_m"] == pytest.approx(20.0)
    assert observation_space(config).contains(observation)
