# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Training runs on a task that takes seconds, for tests of all that happens in one."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import torch

from td3_driver.config import LearningConfig, TrainingConfig
from td3_driver.learning.assembly import online_training
from td3_driver.learning.health import HealthMonitor
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.trainer import Progress
from td3_driver.learning.validation import Validation

torch.set_num_threads(1)  # the networks are too small for more

LENGTH = 4
GOAL = 0.6


class Bandit(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Earns most for an action of +GOAL under a bright picture and -GOAL under a dark one."""

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Dict(  # type: ignore[assignment]
            {
                "image": gymnasium.spaces.Box(0, 255, (2, 36, 36), np.uint8),
                "vector": gymnasium.spaces.Box(-1, 1, (2,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.steps = 0
        self.actions: list[float] = []
        self.unclean_at = -1
        self.fails_at = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        super().reset(seed=seed)
        self._count, self._return = 0, 0.0
        self._bright = bool(self.np_random.integers(2))
        return self._observation(), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        self.steps += 1
        if self.steps == self.fails_at:
            raise ConnectionError("the simulator went away")
        self.actions.append(float(action[0]))
        self._count += 1
        reward = 1.0 - abs(float(action[0]) - (GOAL if self._bright else -GOAL))
        self._return += reward
        clean = self.steps != self.unclean_at
        info: dict[str, Any] = {"clean": clean}
        terminated, truncated = self._count == LENGTH, not clean
        if terminated or truncated:
            info["summary"] = SimpleNamespace(
                episode_return=self._return, route_completion=0.25, ended_by="limit"
            )
        return self._observation(), reward, terminated and clean, truncated, info

    def _observation(self) -> dict[str, np.ndarray]:
        level = 220 if self._bright else 40
        return {
            "image": np.full((2, 36, 36), level, np.uint8),
            "vector": self.np_random.uniform(-1, 1, 2).astype(np.float32),
        }


def bandit(brief: object) -> Bandit:
    """Return the world of a collector."""
    return Bandit()


class Unhurried(Bandit):
    """Waits a little in every step, and leaves the processor to others meanwhile."""

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        time.sleep(0.01)
        return super().step(action)


def unhurried(brief: object) -> Unhurried:
    """Return the world of a collector that is one of many on a machine."""
    return Unhurried()


LEARNING: dict[str, Any] = {
    "batch_size": 16,
    "discount": 0.5,
    "tau": 0.05,
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 3e-3,
    "actor_encoder_learning_rate": 1e-3,
    "critic_encoder_learning_rate": 1e-3,
    "actor_warmup_updates": 20,
    "image_shift_px": 2,
    "channels": (4, 4, 4),
    "image_features": 8,
    "hidden": (16, 16),
    "replay_capacity": 500,
    "policy_freq": 2,
    "pre_tanh_penalty": 1e-3,
    "device": "cpu",
}
TRAINING: dict[str, Any] = {
    "total_steps": 80,
    "random_steps": 20,
    "log_interval_updates": 10,
    "checkpoint_interval_steps": 25,
    "synchronous_updates": True,
}


class Heard:
    """What a run said and showed."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.progress: list[Progress] = []


def make(
    folder: Path,
    env: Bandit | None = None,
    resume: bool = False,
    heard: Heard | None = None,
    show: Callable[[Progress], None] | None = None,
    report: Callable[[Mapping[str, float], HealthMonitor], object] = lambda row, health: None,
    validation: Validation | None = None,
    **changes: Any,
) -> OnlineTraining:
    heard = heard or Heard()
    fields = LearningConfig.model_fields
    learning = {key: value for key, value in changes.items() if key in fields}
    training = {key: value for key, value in changes.items() if key not in fields}
    return online_training(
        env or Bandit(),
        np.ones(2, np.float32),
        LearningConfig(**{**LEARNING, **learning}),
        TrainingConfig(**{**TRAINING, **training}),
        folder,
        validation=validation,
        resume=resume,
        say=heard.lines.append,
        show=show or heard.progress.append,
        report=report,
    )


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def state_of(training: OnlineTraining) -> dict[str, torch.Tensor]:
    trainer = training.trainer
    tensors = learner_tensors(trainer.learner, trainer.generators)
    return tensors | {f"replay.{key}": value for key, value in trainer.replay.state().items()}


def assert_same_state(one: OnlineTraining, other: OnlineTraining) -> None:
    mine, theirs = state_of(one), state_of(other)
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name
