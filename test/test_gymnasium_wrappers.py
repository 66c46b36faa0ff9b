# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driving environment under the wrappers that people put around it."""

from __future__ import annotations

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import RecordEpisodeStatistics, TimeLimit

from td3_driver.config import DrivingConfig, SimulatorConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

MAP = "ring_meadow"
STAND = np.array([0.0, -1.0], dtype=np.float32)


def make() -> DrivingEnv:
    config = DrivingConfig(time_limit_s=2.0, image_size_px=36)
    return DrivingEnv(SimulatedWorld(SimulatorConfig(map=MAP)), StartSampler([MAP], 60.0), config)


def stand(env: gymnasium.Env) -> dict:
    """Stand until the episode ends, and return its last info."""
    env.reset(seed=0)
    for _ in range(1000):
        *_, terminated, truncated, info = env.step(STAND)
        if terminated or truncated:
            return info
    raise AssertionError("the episode has no end")


def test_episode_statistics_stand_beside_the_summary() -> None:
    info = stand(RecordEpisodeStatistics(make()))
    assert info["summary"].ended_by == "time_limit"
    assert info["episode"]["r"] == pytest.approx(info["summary"].episode_return, rel=1e-4)


def test_a_time_limit_ends_an_episode_that_the_task_would_not() -> None:
    env = TimeLimit(make(), 5)
    env.reset(seed=0)
    assert [env.step(STAND)[3] for _ in range(5)] == [False, False, False, False, True]
    env.reset()
    assert not env.step(STAND)[3]


def test_vectors_are_stacked_from_frame_to_frame() -> None:
    vector_alone = gymnasium.wrappers.FilterObservation(make(), ["vector"])
    flat = gymnasium.wrappers.FlattenObservation(vector_alone)
    stacked = gymnasium.wrappers.FrameStackObservation(flat, 3)
    observation, _ = stacked.reset(seed=0)
    assert observation.shape == (3, 23)
    first = observation[-1]
    for _ in range(2):
        observation, *_ = stacked.step(STAND)
    assert np.array_equal(observation[0], first)


VECTORS = [
    gymnasium.vector.SyncVectorEnv,
    pytest.param(gymnasium.vector.AsyncVectorEnv, marks=pytest.mark.long),
]


@pytest.mark.parametrize("kind", VECTORS)
def test_vector_environments_step_and_start_again(kind: type[gymnasium.vector.VectorEnv]) -> None:
    env = kind([make, make])
    try:
        observation, _ = env.reset(seed=[0, 1])
        assert observation["image"].shape == (2, 4, 36, 36)
        ended = 0
        for _ in range(60):
            observation, rewards, terminated, truncated, info = env.step(np.stack([STAND] * 2))
            ended += int((terminated | truncated).sum())
            if truncated.any():
                assert {one.ended_by for one in info["summary"] if one} == {"time_limit"}
        assert ended >= 2 and rewards.shape == (2,)
        assert np.isfinite(observation["vector"]).all()
    finally:
        env.close()


@pytest.mark.long
@pytest.mark.skipif(not find_spec("stable_baselines3"), reason="stable-baselines3 is missing")
def test_stable_baselines3_trains_through_its_monitor_and_vector_environments() -> None:
    from stable_baselines3 import TD3
    from stable_baselines3.common.env_checker import check_env
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import DummyVecEnv

    check_env(make())
    env = DummyVecEnv([lambda: Monitor(make())] * 2)
    model = TD3("MultiInputPolicy", env, buffer_size=500, learning_starts=60, batch_size=8, seed=0)
    model.learn(120)
    assert model.num_timesteps >= 120
    assert len(model.ep_info_buffer or ()) >= 1 and "r" in model.ep_info_buffer[0]
