# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The environment and evaluation over a straight road with simple kinematics."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from td3_driver.config import VECTOR_PARTS, DrivingConfig, SimulatorConfig
from td3_driver.driving.environment import STARTS_TRIED, DrivingEnv
from td3_driver.driving.route import RouteError
from td3_driver.driving.world import (
    Collision,
    Frame,
    LaneInvasion,
    Pose,
    Start,
    StartRefusedError,
    VehicleControl,
    WorldError,
)
from td3_driver.evaluation.rollout import drive_episode, report, seeded_starts

TICK_S = 0.05
SMALL: dict[str, Any] = {"image_size_px": 36, "image_stack": 2, "waypoints": 3}


class StraightWorld:
    """A road along x; the camera's picture depends on the start's seed and on the place."""

    fixed_delta_s = TICK_S

    def __init__(self) -> None:
        self.controls: list[VehicleControl] = []
        self.collision_at: dict[int, float] = {}
        self.invasion_at: dict[int, int] = {}
        self.unclean_at: set[int] = set()
        self.closed = False
        self.route_from: float | None = None

    def reset(self, start: Start) -> Frame:
        self._x, self._y, self._yaw, self._speed = start.pose.x, start.pose.y, start.pose.yaw, 0.0
        self._frame = 0
        self._noise = np.random.default_rng(start.seed).integers(0, 64, (48, 64, 4), np.uint8)
        first = start.pose.x if self.route_from is None else self.route_from
        along = np.arange(first, start.goal.x + 0.5)
        self._route = np.column_stack([along, np.zeros_like(along), np.zeros_like(along)])
        return self._look(VehicleControl())

    def step(self, control: VehicleControl) -> Frame:
        self._frame += 1
        self.controls.append(control)
        push = 5.0 * control.throttle * (-1.0 if control.reverse else 1.0)
        speed = self._speed + TICK_S * push
        self._speed = math.copysign(max(abs(speed) - TICK_S * 8.0 * control.brake, 0.0), speed)
        # CARLA's + is right; 70 degrees at full steer, a wheelbase of 2.8 m.
        self._yaw += TICK_S * self._speed * math.tan(-1.2217 * control.steer) / 2.8
        self._x += TICK_S * self._speed * math.cos(self._yaw)
        self._y += TICK_S * self._speed * math.sin(self._yaw)
        return self._look(control)

    def _look(self, control: VehicleControl) -> Frame:
        tick, stamp = self._frame, round(self._frame * TICK_S * 1e9)
        impulse, marking = self.collision_at.get(tick), self.invasion_at.get(tick)
        return Frame(
            frame=tick,
            stamp_ns=stamp,
            image=self._noise + np.uint8(int(self._x) % 128),
            pose=Pose(self._x, self._y, self._yaw),
            speed=self._speed,
            yaw_rate=0.0,
            route=self._route,
            collisions=() if impulse is None else (Collision(stamp, 7, (impulse, 0.0, 0.0)),),
            lane_invasions=() if marking is None else (LaneInvasion(stamp, (marking,)),),
            control=control,
            clean=tick not in self.unclean_at,
        )

    def close(self) -> None:
        self.closed = True


def start_at(x: float = 0.0, length: float = 60.0, seed: int = 0, y: float = 0.0) -> Start:
    return Start("straight", Pose(x, y, 0.0), Pose(x + length, 0.0, 0.0), seed)


def sample_start(generator: np.random.Generator) -> Start:
    return start_at(x=float(generator.integers(0, 50)), seed=int(generator.integers(0, 1000)))


def make_env(**settings: Any) -> DrivingEnv:
    return DrivingEnv(
        StraightWorld(), sample_start, DrivingConfig(**{**SMALL, **settings}), "rgb_array"
    )


def world_of(env: DrivingEnv) -> StraightWorld:
    assert isinstance(env.world, StraightWorld)
    return env.world


FORWARD = np.array([0.0, 0.375], dtype=np.float32)  # 5.5 m/s
STAND = np.array([0.0, -1.0], dtype=np.float32)


def drive(env: DrivingEnv, start: Start, action: np.ndarray = FORWARD) -> list[tuple[Any, ...]]:
    """Hold one action to the end; return what each step returned."""
    env.reset(options={"start": start})
    steps = [env.step(action)]
    while not (steps[-1][2] or steps[-1][3]):
        steps.append(env.step(action))
    return steps


def checked(env: gymnasium.Env[Any, Any]) -> list[str]:
    """Run gymnasium's own check; return the warnings that are not about unbounded reward."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(env)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize(
    "settings",
    [{}, {"vector": VECTOR_PARTS}, {"action_repeat": 3, "image_stack": 1}],
)
def test_gymnasiums_own_check_passes(settings: dict[str, Any]) -> None:
    assert [line for line in checked(make_env(**settings)) if "spec" not in line] == []


def test_gymnasiums_own_check_passes_over_the_embedded_simulator() -> None:
    world = pytest.importorskip("td3_driver.simulator.world")
    starts = pytest.importorskip("td3_driver.roads.starts")
    config = SimulatorConfig(image_width_px=64, image_height_px=48)
    env = DrivingEnv(
        world.SimulatedWorld(config),
        starts.StartSampler([config.map], 60.0),
        DrivingConfig(**SMALL),
        "rgb_array",
    )
    assert [line for line in checked(env) if "spec" not in line] == []


def test_steady_driving_completes_the_route() -> None:
    env = make_env()
    steps = drive(env, start_at(length=60.0))
    *_, terminated, truncated, info = steps[-1]
    assert (terminated, truncated) == (False, True)
    episode = info["summary"]
    assert episode.ended_by == "route_end"
    assert episode.route_completion == 1.0
    assert episode.route_length_m == pytest.approx(60.0)
    # It ends where 2 m are left, at 5.5 m/s after 1.8 s of acceleration at 3 m/s^2.
    assert episode.distance_m == pytest.approx(58.0, abs=0.4)
    assert episode.duration_s == pytest.approx(58.0 / 5.5 + 0.9, abs=0.4)
    assert episode.duration_s == pytest.approx(len(steps) * TICK_S)
    assert (episode.collisions, episode.lane_invasions) == (0, 0)
    assert episode.episode_return == pytest.approx(sum(step[1] for step in steps))
    # Every metre is worth the same: as many decisions as the target speed takes for it.
    assert episode.episode_return == pytest.approx(58.0 / (6.0 * TICK_S), rel=0.005)


def test_an_end_on_the_way_leaves_the_share_driven() -> None:
    env = make_env(time_limit_s=5.0)
    episode = drive(env, start_at(length=60.0))[-1][4]["summary"]
    assert episode.ended_by == "time_limit"
    assert episode.route_completion == pytest.approx(episode.distance_m / 60.0, abs=1e-3)
    assert 0.3 < episode.route_completion < 0.5


def test_standing_still_earns_nothing_until_it_fails() -> None:
    env = make_env(stuck_time_s=1.0, stuck_grace_s=0.5, failure_cost=5.0)
    steps = drive(env, start_at(), STAND)
    assert [step[1] for step in steps[:-1]] == [0.0] * (len(steps) - 1)
    assert steps[-1][1] == -5.0
    assert (steps[-1][2], steps[-1][3]) == (True, False)
    assert steps[-1][4]["summary"].ended_by == "stuck"
    assert steps[-1][4]["summary"].route_completion == 0.0


def test_leaving_the_lane_terminates() -> None:
    steps = drive(make_env(), start_at(), np.array([0.3, 0.0], dtype=np.float32))
    assert (steps[-1][2], steps[-1][3]) == (True, False)
    assert steps[-1][4]["summary"].ended_by == "off_lane"
    lateral = steps[-1][0]["vector"][1]
    assert lateral > 2.0  # steered left, so the car is left of the route


def test_one_action_is_held_for_its_ticks() -> None:
    env = make_env(action_repeat=4)
    env.reset(options={"start": start_at()})
    observation, *_ = env.step(FORWARD)
    assert len(world_of(env).controls) == 4 and env.frame.frame == 4
    assert env.task.summary.duration_s == pytest.approx(0.2)
    assert observation["vector"][0] == pytest.approx(env.frame.speed)
    # The rate limits hold from tick to tick also within one action: 0.15 m/s, 0.30, ...
    throttles = [control.throttle for control in world_of(env).controls]
    assert throttles == sorted(throttles) and throttles[0] == pytest.approx(0.0765)


def test_the_wheels_turn_left_for_a_positive_action() -> None:
    env = make_env()
    env.reset(options={"start": start_at()})
    env.step(np.array([0.5, 1.0], dtype=np.float32))
    # 1.5 rad/s for 0.05 s of 1.2217 rad, and the bridge's + is right.
    assert world_of(env).controls[0].steer == pytest.approx(-0.075 / 1.2217)


def test_a_collision_ends_the_holding_and_the_episode() -> None:
    env = make_env(action_repeat=4)
    world_of(env).collision_at = {6: 200.0}
    env.reset(options={"start": start_at()})
    assert env.step(FORWARD)[2] is False
    _, reward, terminated, truncated, info = env.step(FORWARD)
    assert (terminated, truncated) == (True, False)
    assert env.frame.frame == 6 and info["clean"]
    assert reward < -4.0
    assert info["summary"].collisions == 1 and info["summary"].ended_by == "collision"


def test_lane_invasions_of_every_tick_count_and_solid_ones_cost() -> None:
    env = make_env(action_repeat=4, lane_invasion_cost=0.25)
    world_of(env).invasion_at = {2: 2, 4: 1, 6: 1}
    env.reset(options={"start": start_at()})
    terms = [env.step(FORWARD)[4]["reward_terms"]["lane_invasion"] for _ in range(2)]
    assert terms == [-0.25, 0.0]
    assert env.task.summary.lane_invasions == 3


def test_an_unclean_frame_truncates_and_says_so() -> None:
    env = make_env(action_repeat=4)
    world_of(env).unclean_at = {6}
    env.reset(options={"start": start_at()})
    assert env.step(FORWARD)[4]["clean"] is True
    _, _, terminated, truncated, info = env.step(FORWARD)
    assert (terminated, truncated) == (False, True)
    assert info["clean"] is False and env.frame.frame == 6
    assert info["summary"].ended_by == "unclean_step"


def test_a_step_before_the_reset_or_after_the_end_is_refused() -> None:
    env = make_env(time_limit_s=0.05)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(FORWARD)
    drive(env, start_at())
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(FORWARD)
    env.reset()
    env.step(FORWARD)


def test_the_start_asked_for_is_the_start_driven() -> None:
    env = make_env()
    wanted = start_at(x=123.0, y=0.5)
    observation, info = env.reset(options={"start": wanted})
    assert info["start"] is wanted
    assert env.frame.pose == wanted.pose
    assert observation["vector"][1] == pytest.approx(0.5)


def rollout(env: DrivingEnv, seed: int) -> list[dict[str, np.ndarray]]:
    env.action_space.seed(0)
    observations = [env.reset(seed=seed)[0]]
    for _ in range(30):
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(env.reset()[0] if terminated or truncated else observation)
    return observations


def test_the_same_seed_gives_the_same_observations_and_another_one_does_not() -> None:
    settings = {"time_limit_s": 0.5}  # so that later resets are covered as well
    first, again, other = (
        rollout(make_env(**settings), 3),
        rollout(make_env(**settings), 3),
        rollout(make_env(**settings), 4),
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["image"], two["image"])
        np.testing.assert_array_equal(one["vector"], two["vector"])
    assert not np.array_equal(first[0]["image"], other[0]["image"])
    assert not np.array_equal(first[0]["image"], first[-1]["image"])


def test_an_episode_leaves_nothing_behind_for_the_next() -> None:
    def three_steps(env: DrivingEnv) -> np.ndarray:
        env.reset(options={"start": start_at()})
        return np.stack([env.step(FORWARD)[0]["vector"] for _ in range(3)])

    fresh, used = make_env(vector=VECTOR_PARTS), make_env(vector=VECTOR_PARTS)
    drive(used, start_at(length=10.0), np.array([0.1, 1.0], dtype=np.float32))
    np.testing.assert_array_equal(three_steps(used), three_steps(fresh))


def test_a_world_without_a_route_is_an_error_with_a_reason() -> None:
    env = make_env()
    with pytest.raises(WorldError, match="route"):
        env.reset(options={"start": start_at(length=0.0)})


@pytest.mark.parametrize("refusals, asked", [(2, 3), (9, STARTS_TRIED)])
def test_a_refused_start_is_replaced_by_another_draw(
    refusals: int, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, starts = make_env(), []
    reset = world_of(env).reset

    def refuse_the_first(start: Start) -> Frame:
        starts.append(start)
        if len(starts) <= refusals:
            raise StartRefusedError("something stands there")
        return reset(start)

    monkeypatch.setattr(world_of(env), "reset", refuse_the_first)
    if refusals < STARTS_TRIED:
        _, info = env.reset(seed=0)
        assert info["start"] == starts[-1] != starts[0]
    else:
        with pytest.raises(StartRefusedError, match="something stands there"):
            env.reset(seed=0)
    assert len(starts) == asked
    starts.clear()
    with pytest.raises(StartRefusedError):
        env.reset(options={"start": start_at()})
    assert len(starts) == 1


def test_a_car_that_begins_beyond_its_route_has_driven_none_of_it() -> None:
    env = make_env()
    world_of(env).route_from = 0.0
    world_of(env).collision_at = {1: 200.0}
    env.reset(options={"start": Start("straight", Pose(12.0, 0.0, 0.0), Pose(10.0, 0.0, 0.0))})
    episode = env.step(STAND)[4]["summary"]
    assert (episode.ended_by, episode.route_completion) == ("collision", 0.0)


def test_pictures_are_red_first() -> None:
    env = make_env()
    env.reset()
    picture = env.render()
    assert picture is not None and picture.shape == (48, 64, 3)
    np.testing.assert_array_equal(picture[:, :, 0], env.frame.image[:, :, 2])
    np.testing.assert_array_equal(picture[:, :, 2], env.frame.image[:, :, 0])


def test_closing_leaves_the_world() -> None:
    env = make_env()
    env.close()
    assert world_of(env).closed


def test_a_driven_episode_is_watched_frame_by_frame() -> None:
    env = make_env()
    frames: list[Frame] = []
    driven = drive_episode(env, lambda observation: FORWARD, start_at(length=20.0), frames.append)
    assert [frame.frame for frame in frames] == list(range(len(frames)))
    assert len(frames) == round(driven.summary.duration_s / TICK_S) + 1
    assert driven.start == start_at(length=20.0)


def test_starts_take_the_maps_in_turn_and_the_seeds_one_after_the_other() -> None:
    starts = seeded_starts(
        ["a", "b", "c"],
        5,
        1000,
        lambda name, seed: Start(name, Pose(0, 0, 0), Pose(1, 0, 0), seed),
    )
    assert [(start.map_name, start.seed) for start in starts] == [
        ("a", 1000),
        ("b", 1001),
        ("c", 1002),
        ("a", 1003),
        ("b", 1004),
    ]


def test_the_report_has_the_agreed_structure() -> None:
    env = make_env(time_limit_s=8.0)
    starts = seeded_starts(
        ["left", "right"],
        3,
        500,
        lambda name, seed: Start(name, Pose(0, 0, 0), Pose(20.0 + seed - 500, 0, 0), seed),
    )

    # The second episode stands still: it is the one of 21 m.
    def act(observation: dict[str, np.ndarray]) -> np.ndarray:
        return STAND if env.task.summary.route_length_m == pytest.approx(21.0) else FORWARD

    driven = [drive_episode(env, act, start) for start in starts]
    made = json.loads(json.dumps(report(driven)))
    assert set(made) == {"route_completion_mean", "episodes"}
    assert made["route_completion_mean"] == pytest.approx(2 / 3)
    assert [(row["map"], row["seed"], row["ended_by"]) for row in made["episodes"]] == [
        ("left", 500, "route_end"),
        ("right", 501, "time_limit"),
        ("left", 502, "route_end"),
    ]
    for row in made["episodes"]:
        assert set(row) >= {
            "map",
            "seed",
            "route_completion",
            "distance_m",
            "duration_s",
            "collisions",
            "lane_invasions",
            "ended_by",
        }
    moved, stood, _ = made["episodes"]
    assert (moved["route_completion"], stood["route_completion"]) == (1.0, 0.0)
    assert moved["distance_m"] == pytest.approx(18.0, abs=0.4)
    assert stood["duration_s"] == pytest.approx(8.0)
    assert stood["distance_m"] == 0.0
    assert moved["collisions"] == moved["lane_invasions"] == 0


def test_the_report_of_no_episode_is_nothing_completed() -> None:
    assert report([]) == {"route_completion_mean": 0.0, "episodes": []}


def test_what_is_observed_of_the_route_can_be_wrong_while_the_reward_keeps_the_truth() -> None:
    true, wrong = make_env(), make_env(route_offset_m=1.5, route_turn_rad=0.1)
    start = sample_start(np.random.default_rng(0))
    error = RouteError.drawn(start, wrong.task.config)
    pairs = [env.reset(options={"start": start})[0] for env in (true, wrong)]
    assert abs(error.offset_m) > 0.01
    for _ in range(20):
        difference = pairs[1]["vector"] - pairs[0]["vector"]
        assert difference[1] == pytest.approx(error.offset_m, abs=1e-4)
        assert difference[2] == pytest.approx(-error.turn_rad, abs=1e-5)
        assert np.array_equal(pairs[0]["image"], pairs[1]["image"])
        steps = [env.step(FORWARD) for env in (true, wrong)]
        assert steps[0][1:4] == steps[1][1:4]
        pairs = [step[0] for step in steps]


def test_a_privileged_critic_is_shown_the_true_route_where_the_vector_is_wrong() -> None:
    changes = {"vector": ("speed", "lateral", "heading", "waypoints")}
    true = make_env(**changes)
    wrong = make_env(**changes, privileged_critic=True, route_offset_m=1.5, route_turn_rad=0.1)
    start = sample_start(np.random.default_rng(0))
    pairs = [env.reset(options={"start": start})[0] for env in (true, wrong)]
    assert wrong.observation_space.contains(pairs[1])
    for _ in range(5):
        # All of the vector but the speed is of the route.
        assert np.array_equal(pairs[1]["privileged"], pairs[0]["vector"][1:])
        assert not np.allclose(pairs[1]["vector"][1:3], pairs[0]["vector"][1:3], atol=0.01)
        pairs = [env.step(FORWARD)[0] for env in (true, wrong)]
