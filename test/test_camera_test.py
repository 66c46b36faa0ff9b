# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The camera test, on drivers of which it is known whether they look."""

from __future__ import annotations

import math

import numpy as np
import pytest

from td3_driver.config import Config, build
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import Observation, vector_names
from td3_driver.evaluation import camera_test
from td3_driver.evaluation.camera_test import CameraTest, Condition
from td3_driver.evaluation.rollout import Act, seeded_starts
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

MAPS = ("ring_meadow", "ring_quarry")


def stack(*levels: int) -> np.ndarray:
    """Return a stack of plain images, each with its left half brighter by 1."""
    images = np.stack([np.full((4, 4), level, np.uint8) for level in levels])
    images[..., :2] += 1
    return images


def test_each_tamper_does_what_its_name_says() -> None:
    one, two, three = (stack(level, level) for level in (10, 20, 30))
    assert not camera_test.black()(one).any()
    frozen = camera_test.frozen()
    assert [int(frozen(image)[0, 0, 3]) for image in (one, two, three)] == [10, 10, 10]
    foreign = camera_test.foreign([two, three])
    assert [int(foreign(one)[0, 0, 3]) for _ in range(3)] == [20, 30, 20]
    late = camera_test.late(1)
    assert [int(late(image)[0, 0, 3]) for image in (one, two, three)] == [10, 10, 20]
    mirrored = camera_test.mirrored()(one)
    assert mirrored[0, 0].tolist() == [10, 10, 11, 11]
    rows = np.arange(16, dtype=np.uint8).reshape(1, 4, 4)
    covered = camera_test.hidden(1, 3)(rows)
    assert covered[0, 0].tolist() == [0, 1, 2, 3] and covered[0, 3].tolist() == [12, 13, 14, 15]
    assert set(covered[0, 1:3].ravel()) == {8}  # the mean of 4 to 11, rounded to even
    assert rows[0, 1, 0] == 4


def test_the_horizon_is_where_the_camera_looks_level() -> None:
    level = build({"simulator": {"camera_pitch_deg": 0.0}}, "the test")
    assert camera_test.horizon_row(level) == 42
    # 160 px and 90 degrees: f = 80 px; 60 - 80 tan(15 degrees) = 38.6 of 120 rows, so 27 of 84.
    down = {"camera_pitch_deg": 15.0, "camera_fov_deg": 90.0}
    assert camera_test.horizon_row(build({"simulator": down}, "the test")) == 27


def test_a_mirror_turns_what_is_about_left_and_right() -> None:
    config = Config().driving.model_copy(
        update={"vector": ("speed", "lateral", "heading", "waypoints", "previous_action")}
    )
    names = vector_names(config)
    turned = camera_test.mirrored_vector(np.ones(len(names), np.float32), config)
    negative = {name for name, value in zip(names, turned, strict=True) if value < 0}
    assert negative == {"lateral_m", "heading_error_rad", "previous_steering"} | {
        f"waypoint_{index}_y_m" for index in range(1, config.waypoints + 1)
    }


def examined(act: Act, config: Config) -> CameraTest:
    sampler = StartSampler(MAPS, 25.0)
    starts = list(seeded_starts(MAPS, 2, 7, sampler.on_map))
    env = DrivingEnv(SimulatedWorld(config.simulator), sampler, config.driving)
    heard: list[str] = []
    result = camera_test.camera_test(
        env, act, starts, config, lambda name, completion: heard.append(name)
    )
    assert heard == [each.name for each in result.conditions for _ in starts]
    return result


def test_a_driver_that_goes_by_its_vector_is_found_out() -> None:
    config = Config()
    result = examined(RouteFollower(config.driving).act, config)
    assert {each.completion for each in result.conditions} == {1.0}
    # Pure pursuit knows no left or right.
    assert result.mirrored_correlation == pytest.approx(-1.0, abs=1e-3)
    assert not result.looks
    assert result.verdict() == (
        "It is not shown to drive by its camera: it completes 1.00 with the image black."
    )
    assert "sky hidden" in result.table() and result.as_dict()["looks"] is False
    assert set(result.examples) == {each.name for each in result.conditions}
    assert not result.examples["black"].any()


def test_a_driver_that_never_steers_has_no_mirror_image() -> None:
    config = Config()

    def straight_on(observation: Observation) -> np.ndarray:
        return np.array([0.0, 0.0], np.float32)

    result = examined(straight_on, config)
    assert math.isnan(result.mirrored_correlation) and not result.looks
    assert result.as_dict()["mirrored_correlation"] is None
    assert "with its camera" in result.verdict()


def outcome(**changes: float) -> CameraTest:
    completions = {
        "real": 1.0,
        "black": 0.05,
        "frozen": 0.1,
        "foreign": 0.2,
        "half a second late": 0.6,
        "mirrored": 0.03,
        "road hidden": 0.04,
        "sky hidden": 0.99,
    }
    completions |= {name.replace("_", " "): value for name, value in changes.items()}
    conditions = [Condition(name, [value, value]) for name, value in completions.items()]
    return CameraTest(conditions, -0.95, {})


@pytest.mark.parametrize(
    "result, words",
    [
        (outcome(), "It drives by its camera: completion 1.00, and at most 0.20 (foreign) where"),
        (outcome(real=0.9), "only 0.90 with its camera"),
        (outcome(road_hidden=0.5), "0.50 with the image road hidden"),
        (outcome(sky_hidden=0.4), "0.40 with the sky hidden"),
        (outcome(mirrored=0.9), "0.90 with the image mirrored"),
    ],
)
def test_the_verdict_names_what_counts(result: CameraTest, words: str) -> None:
    assert words in result.verdict()
    assert result.looks == result.verdict().startswith("It drives by its camera")


def test_one_episode_is_too_few() -> None:
    config = Config()
    sampler = StartSampler(MAPS, 25.0)
    env = DrivingEnv(SimulatedWorld(config.simulator), sampler, config.driving)
    with pytest.raises(ValueError, match="at least two episodes"):
        camera_test.camera_test(
            env, RouteFollower(config.driving).act, [sampler.on_map(MAPS[0], 1)], config
        )
