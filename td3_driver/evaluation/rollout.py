# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Episodes driven without noise, and their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import Observation
from td3_driver.driving.task import EpisodeSummary
from td3_driver.driving.world import Frame, Start

Act = Callable[[Observation], np.ndarray]


@dataclass(frozen=True)
class DrivenEpisode:
    """One episode: its start and its outcome."""

    start: Start
    summary: EpisodeSummary

    def as_dict(self) -> dict[str, Any]:
        """Return the row for `evaluation.json`."""
        summary = asdict(self.summary)
        del summary["episode_return"]
        return {"map": self.start.map_name, "seed": self.start.seed, **summary}


def drive_episode(
    env: DrivingEnv,
    act: Act,
    start: Start,
    watch: Callable[[Frame], None] = lambda frame: None,
) -> DrivenEpisode:
    """Drive from `start` to the episode's end; `watch` sees every frame."""
    observation, _ = env.reset(options={"start": start})
    watch(env.frame)
    while True:
        observation, _, terminated, truncated, info = env.step(act(observation))
        watch(env.frame)
        if terminated or truncated:
            return DrivenEpisode(start, info["summary"])


def report(episodes: Sequence[DrivenEpisode]) -> dict[str, Any]:
    """Return the contents of `evaluation.json`."""
    completions = [episode.summary.route_completion for episode in episodes]
    return {
        "route_completion_mean": float(np.mean(completions)) if completions else 0.0,
        "episodes": [episode.as_dict() for episode in episodes],
    }


def seeded_starts(
    maps: Sequence[str], episodes: int, seed: int, sample: Callable[[str, int], Start]
) -> Iterator[Start]:
    """Yield a start for each episode: maps in turn, seeds counting up."""
    for index in range(episodes):
        yield sample(maps[index % len(maps)], seed + index)
