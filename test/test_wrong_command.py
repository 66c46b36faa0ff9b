# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Wrong commands, to drivers of which it is known whether they do as they are told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from td3_driver.config import Config, build, override
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import VECTOR, Observation, vector_names
from td3_driver.driving.world import Start
from td3_driver.evaluation import camera_test
from td3_driver.evaluation.camera_test import CameraTest, Condition
from td3_driver.evaluation.rollout import Act
from td3_driver.evaluation.wrong_command import WrongCommands, swapped, wrong_commands
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

MAP = "grid_new_town"
CONFIG = build(
    {
        "driving": {"vector": ["speed", "lateral", "heading", "waypoints", "command"]},
        "simulator": {"map": MAP, "image_width_px": 40, "image_height_px": 30},
    },
    "the test",
)
NAMES = vector_names(CONFIG.driving)


class Obedient:
    """Follows the route, but turns as it is told, even off the route."""

    def __init__(self) -> None:
        self._follow = RouteFollower(CONFIG.driving)

    def act(self, observation: Observation) -> np.ndarray:
        told = dict(zip(NAMES, observation[VECTOR].tolist(), strict=True))
        side = told["command_left"] - told["command_right"]
        if not side or told["command_distance_m"] > 0.0:
            return self._follow.act(observation)
        # On a circle of 10 m: atan(2.87 / 10) is 0.56 of the largest angle; and at 3 m/s of 8.
        return np.array([0.56 * side, 2.0 * 3.0 / 8.0 - 1.0], np.float32)


def straight_on(observation: Observation) -> np.ndarray:
    return np.array([0.0, 0.0], np.float32)


@pytest.fixture(scope="module")
def world() -> SimulatedWorld:
    return SimulatedWorld(CONFIG.simulator)


def starts() -> list[Start]:
    """Three starts before a junction with roads to both sides, and one before a bend."""
    sampler = StartSampler([MAP], 90.0)
    return [sampler.on_map(MAP, seed) for seed in (0, 1, 2, 4)]


@pytest.mark.parametrize(
    "act, obeyed, kept",
    [(Obedient().act, 3, 0), (RouteFollower(CONFIG.driving).act, 0, 3), (straight_on, 0, 0)],
    ids=["obeys", "ignores", "straight on"],
)
def test_who_does_as_told_takes_the_wrong_turn(
    act: Act, obeyed: int, kept: int, world: SimulatedWorld
) -> None:
    heard: list[str] = []
    outcome = wrong_commands(
        world, act, starts(), CONFIG.driving, lambda name, share: heard.append(name)
    )
    assert outcome == WrongCommands(3, obeyed, kept)
    assert heard == ["wrong command"] * 4


def test_only_left_and_right_are_swapped() -> None:
    vector = np.arange(len(NAMES), dtype=np.float32)
    changed = dict(zip(NAMES, swapped(vector, CONFIG.driving).tolist(), strict=True))
    left, right = NAMES.index("command_left"), NAMES.index("command_right")
    expected = dict(zip(NAMES, vector.tolist(), strict=True))
    expected |= {"command_left": right, "command_right": left}
    assert changed == expected
    assert vector[left] == left
    mirrored = dict(
        zip(NAMES, camera_test.mirrored_vector(vector, CONFIG.driving).tolist(), strict=True)
    )
    assert (mirrored["command_left"], mirrored["command_right"]) == (right, left)
    assert mirrored["lateral_m"] == -NAMES.index("lateral_m")


def test_the_share_is_told_in_one_line_and_in_the_report() -> None:
    wrong = WrongCommands(junctions=8, obeyed=6, kept_to_route=1)
    line = (
        "Told left for right, it took the wrong turn at 6 of 8 junctions (0.75) and kept to its "
        "route at 1."
    )
    names = ("real", *camera_test.NEEDED, "half a second late", "sky hidden")
    conditions = [Condition(name, [1.0, 1.0]) for name in names]
    result = CameraTest(conditions, -0.95, {}, wrong)
    assert result.table().splitlines()[-1] == line
    assert result.as_dict()["wrong_commands"] == {
        "junctions": 8, "obeyed": 6, "kept_to_route": 1, "obeyed_share": 0.75, "says": line,
    }  # fmt: skip
    none = WrongCommands()
    assert math.isnan(none.obeyed_share) and none.as_dict()["obeyed_share"] is None
    assert none.line() == "No turn of these routes could be commanded the wrong way."
    assert CameraTest(conditions, -0.95, {}).as_dict()["wrong_commands"] is None


def test_the_camera_test_gives_wrong_commands_where_there_are_any(world: SimulatedWorld) -> None:
    assert camera_test.conditions_of(CONFIG) == 9 and camera_test.conditions_of(Config()) == 8
    config = override(CONFIG, {"driving.time_limit_s": 1.0}, "the test")
    first, second, *_ = starts()
    env = DrivingEnv(world, lambda rng: first, config.driving)
    heard: list[str] = []
    result = camera_test.camera_test(
        env, straight_on, [first, second], config, lambda name, share: heard.append(name)
    )
    assert result.wrong_commands == WrongCommands(2, 0, 0)
    assert len(heard) == 9 * 2 and heard[-2:] == ["wrong command"] * 2
