# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Train Stable-Baselines3's TD3 on a task, examined as benchmarks/tasks.py examines ours.

    python benchmarks/against_sb3.py --task camera_lane --seeds 0 1 2

It gets the same environment, networks, batches, random decisions, noise and examinations, and the
heads' learning rate with its decay for all layers, on one thread. What it has no option for (a
privileged critic, random shifts and light, a critic's head start) it goes without. Training goes
on to the task's last step. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from in_process import Examined, Examiner, settings_of
from tasks import PASSED, progress_line, result_of

from td3_driver.config import Config
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import IMAGE, VECTOR, Observation, vector_scale
from td3_driver.learning.networks import Encoder, NetworkSpec, network_spec
from td3_driver.learning.schedules import linear
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

try:
    from stable_baselines3 import TD3
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
except ImportError:
    sys.exit(
        "stable-baselines3, which this compares with, is missing: "
        "pip install -c constraints.txt stable-baselines3"
    )


class Extractor(BaseFeaturesExtractor):
    """The project's encoder, as a features extractor."""

    def __init__(self, observation_space: Any, spec: NetworkSpec) -> None:
        super().__init__(observation_space, spec.state_size)
        self.encoder = Encoder(spec)

    def forward(self, observations: dict[str, torch.Tensor]) -> torch.Tensor:
        """Map observations, images as floats from 0 to 255, to features (B, state_size)."""
        image = (observations[IMAGE] - 127.5) / 255.0
        return self.encoder({IMAGE: image, VECTOR: observations[VECTOR]})


def learning_rate(config: Config) -> Callable[[float], float]:
    """Return the task's learning rate, which may decay, by the share of decisions left."""
    learning, training = config.learning, config.training

    def rate(left: float) -> float:
        updates = round((1.0 - left) * training.total_steps) - training.random_steps
        decay = learning.learning_rate_decay_updates
        share = linear(1.0, learning.learning_rate_final_share, decay, updates)
        return learning.actor_learning_rate * share

    return rate


def make(config: Config, env: DrivingEnv) -> TD3:
    """Return its TD3 with the task's settings."""
    learning, training = config.learning, config.training
    spec = network_spec(
        learning, env.observation_space, env.action_space, vector_scale(config.driving)
    )
    actions = env.action_space.shape
    noise = NormalActionNoise(np.zeros(actions), np.full(actions, learning.exploration_noise))
    return TD3(
        "MultiInputPolicy",
        env,
        learning_rate=learning_rate(config),
        buffer_size=learning.replay_capacity,
        learning_starts=training.random_steps,
        batch_size=learning.batch_size,
        tau=learning.tau,
        gamma=learning.discount,
        train_freq=1,
        gradient_steps=1,
        action_noise=noise,
        policy_delay=learning.policy_freq,
        target_policy_noise=learning.policy_noise,
        target_noise_clip=learning.noise_clip,
        policy_kwargs={
            "features_extractor_class": Extractor,
            "features_extractor_kwargs": {"spec": spec},
            "normalize_images": False,
            "share_features_extractor": False,
            "net_arch": list(learning.hidden),
        },
        device="cpu",
        seed=training.seed,
    )


class Examining(BaseCallback):
    """Examines every so many decisions."""

    def __init__(
        self, examiner: Examiner, seed: int, interval: int, episodes: int, first_step: int
    ) -> None:
        super().__init__()
        self.curve: dict[int, Examined] = {}
        self.spent_s: dict[int, float] = {}
        self._examiner = examiner
        self._seed = seed
        self._interval = interval
        self._episodes = episodes
        self._first_step = first_step
        self._began_s = time.process_time()
        self._examining_s = 0.0

    def _on_step(self) -> bool:
        step = self.num_timesteps
        if step % self._interval == 0 and step > self._first_step:
            begin_s = time.process_time()
            self.spent_s[step] = begin_s - self._began_s - self._examining_s
            self.curve[step] = self._examiner.examined(self._act, self._episodes)
            self._examining_s += time.process_time() - begin_s
            print(
                progress_line(self._seed, step, self.curve[step], self.spent_s[step]),
                file=sys.stderr,
                flush=True,
            )
        return True

    def _act(self, observation: Observation) -> np.ndarray:
        action, _ = self.model.predict(observation, deterministic=True)
        return np.asarray(action, np.float32)


def train_one(task: str, seed: int, interval: int, episodes: int) -> dict[str, Any]:
    """Train once; return the result as benchmarks/tasks.py does."""
    torch.set_num_threads(1)
    # Its critic would see what is privileged, and so would its actor.
    told = {
        "driving.privileged_critic": False,
        "driving.privileged_others": 0,
        "driving.advice": False,
        "learning.imitated": "recorded",
    }
    config = settings_of(seed, told, task)
    starts = StartSampler(config.training.maps, config.training.route_length_m)
    env = DrivingEnv(SimulatedWorld(config.simulator), starts, config.driving)
    examining = Examining(Examiner(config), seed, interval, episodes, config.training.random_steps)
    make(config, env).learn(config.training.total_steps, callback=examining)
    return result_of(seed, examining.curve, examining.spent_s)


def main() -> None:
    """Train the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="camera_lane", help="name of a configuration")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--interval", type=int, default=500, help="decisions between examinations")
    parser.add_argument("--episodes", type=int, default=20, help="drives in an examination")
    given = parser.parse_args()
    rows = []
    for seed in given.seeds:
        load = os.getloadavg()[0]
        rows.append(train_one(given.task, seed, given.interval, given.episodes))
        print(f"{rows[-1]}  load average before: {load:.2f}", flush=True)
    good = sum(row["passed_step"] is not None for row in rows)
    print(json.dumps({"task": given.task, "wanted": PASSED, "passed": good, "rows": rows}))


if __name__ == "__main__":
    main()
