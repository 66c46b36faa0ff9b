# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a collector does: it drives a world with the policy it has, and notes what happens."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from td3_driver.config import Config
from td3_driver.fleet.chunk import Chunk, ChunkBuilder, Grant
from td3_driver.learning.batch import replay_spec
from td3_driver.learning.exploration import Exploration, noise_ladder
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import Policy

EMBEDDED = "td3_driver.fleet.worlds:embedded"


@dataclass(frozen=True)
class Brief:
    """All that a collector needs to begin."""

    collector: int
    collectors: int
    seed: int
    """Of its starts and its noise; another one each time that it begins."""
    config: Config
    spec: NetworkSpec
    world: str = EMBEDDED
    """module:function that returns the environment to drive in, of this brief."""

    def make_environment(self) -> gymnasium.Env[Any, Any]:
        """Return the environment."""
        module, _, name = self.world.partition(":")
        make = getattr(importlib.import_module(module), name)
        return make(self)  # type: ignore[no-any-return]


class Gatherer:
    """Drives one environment; `sign` is called after every decision and reset."""

    def __init__(
        self,
        brief: Brief,
        env: gymnasium.Env[Any, Any],
        sign: Callable[[], object] = lambda: None,
    ) -> None:
        settings, fleet = brief.config.learning, brief.config.fleet
        self._brief = brief
        self._env = env
        self._sign = sign
        self._policy = Policy.like(brief.spec)
        self._exploration = Exploration(
            settings,
            brief.config.training.random_steps,
            torch.Generator().manual_seed(brief.seed),
            noise_ladder(
                brief.collector,
                brief.collectors,
                fleet.least_noise_factor,
                fleet.greatest_noise_factor,
            ),
        )
        self._seed: int | None = brief.seed
        self._observation: dict[str, np.ndarray] | None = None
        self._finished_s = time.monotonic()

    def gather(self, grant: Grant) -> Chunk:
        """Take the decisions of a grant, over as many episodes as that takes."""
        began_s = time.monotonic()
        if grant.weights is not None:
            self._policy.load_weights(grant.weights)
        spec = self._brief.spec
        builder = ChunkBuilder(replay_spec(spec))
        for step in range(grant.step, grant.step + grant.decisions):
            if self._observation is None:
                self._exploration.begin()
                self._observation, _ = self._env.reset(seed=self._seed)
                self._seed = None
                builder.begin(spec.select(self._observation))
                self._sign()
            action = self._exploration.act(self._policy, self._observation, step)
            observation, reward, terminated, truncated, info = self._env.step(action)
            builder.add(
                action,
                float(reward),
                spec.select(observation),
                terminated=terminated,
                truncated=truncated,
                info=info,
            )
            self._observation = None if terminated or truncated else observation
            self._sign()
        waited_s, self._finished_s = began_s - self._finished_s, time.monotonic()
        return builder.chunk(self._brief.collector, grant, self._finished_s - began_s, waited_s)
