# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""In-process trainings, of the first drive or another task, examined while they run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from td3_driver.config import Config, SimulatorConfig, load, override
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import (
    PRIVILEGED,
    VECTOR,
    Observation,
    privileged_scale,
    vector_scale,
)
from td3_driver.driving.reward import End
from td3_driver.evaluation.fixed_drives import FixedDrives, mean_completion
from td3_driver.evaluation.rollout import Act, drive_episode
from td3_driver.evaluation.wrong_command import WrongCommands, wrong_commands
from td3_driver.learning.assembly import online_training
from td3_driver.learning.batch import Batch
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.trainer import Progress
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.obstacles import FIRST_ACTOR_ID
from td3_driver.simulator.world import SimulatedWorld

CONFIG = "first_drive"
EPISODES = 6
"""Drives in one examination."""
PROBES = 1000
"""Transitions of the replay that a figure is taken on."""
PLACED = ("obstacle_spacing_min_m", "obstacle_spacing_max_m", "obstacle_kinds")
"""Settings of how obstacles are placed."""


def settings_of(seed: int, changes: Mapping[str, Any], task: str = CONFIG) -> Config:
    """Return the complete configuration of a repeatable training on one thread."""
    ours = {
        "training.seed": seed,
        "training.synchronous_updates": True,
        "training.torch_threads": 1,
        "learning.device": "cpu",
    }
    return override(load(task), {**ours, **changes}, "the benchmark")


def changes_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return settings given as section.setting=value, with values in JSON."""
    return {name: json.loads(value) for name, _, value in (text.partition("=") for text in texts)}


@dataclass(frozen=True)
class Examined:
    """What came of an examination."""

    completion: float
    """Mean route completion."""
    collisions_per_km: float
    hit_first: float
    """Share of drives that ended at the first obstacle of their route."""
    left_lane: float
    """Share of drives that ended because the car left its lane."""
    off_centre_m: float
    """Mean distance from the centre of the true lane, over all decisions."""
    off_advice: float | None
    """Root mean square distance of its actions from what the adviser would have done; None where
    there is none."""


class Examiner:
    """Drives on held-out maps without noise, always from the same starts.

    Obstacles are placed by default, as in the suite, even if they are denser in training.
    """

    def __init__(self, config: Config) -> None:
        usual = SimulatorConfig()
        placed = {name: getattr(usual, name) for name in PLACED}
        simulator = config.simulator.model_copy(update=placed)
        self._drives = FixedDrives.of(simulator, config.driving, config.evaluation)
        self._driving = config.driving

    def completion(self, act: Act, episodes: int = EPISODES) -> float:
        """Return the mean route completion of the first episodes."""
        return mean_completion(self._drives.env, act, self._drives.starts[:episodes])

    def wrong_commands(self, act: Act, episodes: int = EPISODES) -> WrongCommands | None:
        """Return what the first episodes' drivers do under wrong commands, if they get any."""
        if "command" not in self._driving.vector:
            return None
        world = self._drives.env.world
        assert isinstance(world, SimulatedWorld)
        return wrong_commands(world, act, self._drives.starts[:episodes], self._driving)

    def examined(self, act: Act, episodes: int = EPISODES) -> Examined:
        """Return what comes of the first episodes: ends, collisions, how well it keeps centred."""
        env = self._drives.env
        laterals_m: list[float] = []
        off_advice: list[np.ndarray] = []
        summaries, hit_first = [], 0

        def act_noting(observation: Observation) -> np.ndarray:
            action = act(observation)
            if self._driving.advice:
                off_advice.append(action - observation[PRIVILEGED][-len(action) :])
            return action

        for start in self._drives.starts[:episodes]:
            driven = drive_episode(
                env, act_noting, start, lambda _: laterals_m.append(env.task.projection.lateral_m)
            )
            summaries.append(driven.summary)
            hit = {contact.other_actor_id for contact in env.frame.collisions}
            hit_first += FIRST_ACTOR_ID in hit
        km = sum(summary.distance_m for summary in summaries) / 1000.0
        return Examined(
            sum(summary.route_completion for summary in summaries) / len(summaries),
            sum(summary.collisions for summary in summaries) / max(km, 1e-9),
            hit_first / len(summaries),
            sum(each.ended_by == End.OFF_LANE.value for each in summaries) / len(summaries),
            float(np.mean(np.abs(laterals_m))),
            float(np.sqrt(np.mean(np.square(off_advice)))) if off_advice else None,
        )


def train(
    config: Config, folder: Path, examine: Callable[[Progress, OnlineTraining, Examiner], None]
) -> None:
    """Train once, without output; `examine` is called after every decision."""
    starts = StartSampler(config.training.maps, config.training.route_length_m)
    env = DrivingEnv(SimulatedWorld(config.simulator), starts, config.driving)
    examiner = Examiner(config)
    training = online_training(
        env,
        vector_scale(config.driving),
        config.learning,
        config.training,
        folder,
        privileged_scale=privileged_scale(config.driving),
        say=lambda line: None,
        show=lambda progress: examine(progress, training, examiner),
    )
    training.run()


def spread(replay: ReplayBuffer, first: int, end: int, count: int) -> Batch:
    """Return so many transitions spread evenly over a stretch of the queue; draws nothing."""
    places = torch.linspace(first, end - 1, count).long()
    return replay.gather(replay.transitions[places % replay.capacity])


@torch.no_grad()
def off_advice_in_replay(training: OnlineTraining) -> float | None:
    """Return the policy's distance from the advice as `Examined` has it, over the replay."""
    learner, replay = training.trainer.learner, training.trainer.replay
    if learner.settings.imitated != "advice":
        return None
    assert isinstance(replay, ReplayBuffer)
    first, end = replay.queue[:, 0].tolist()
    observations = spread(replay, first, end, PROBES).observations
    actions = learner.actor(observations)
    return float((actions - observations[VECTOR][:, -actions.shape[1] :]).square().mean().sqrt())


def acting(training: OnlineTraining) -> Act:
    """Return the current policy, without noise."""
    policy = Policy.like(training.trainer.learner.spec)
    policy.follow(training.trainer.learner.actor)
    return policy.act


def completion_of(training: OnlineTraining, examiner: Examiner, episodes: int = EPISODES) -> float:
    """Return how well the current policy drives."""
    return examiner.completion(acting(training), episodes)
