# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Chunks: contiguous decisions of one collector, and how they enter the replay buffer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from td3_driver.learning.batch import Replay, ReplaySpec
from td3_driver.learning.networks import IMAGE, VECTOR


@dataclass(frozen=True)
class Grant:
    """Leave to take some decisions, and the policy to take them with."""

    sequence: int
    """Number of the chunk that is to come of it; a collector's go up by one."""
    step: int
    """The run's decision that the first of them counts as, for schedules."""
    decisions: int
    version: int
    """Updates that the policy had when it was published."""
    weights: dict[str, np.ndarray] | None = None
    """The policy, where the collector does not have this version yet."""


@dataclass(frozen=True)
class Episode:
    """How an episode ended."""

    episode_return: float
    route_completion: float
    ended_by: str


@dataclass(frozen=True, eq=False)
class Chunk:
    """Observations in their order, each with the decision that led to it.

    An episode's first observation has none: `begins` is true there, and action, reward and ends
    are 0. An observation's stack is made of the images before it.
    """

    collector: int
    sequence: int
    policy_version: int
    """Updates that the policy had which took these decisions."""
    images: np.ndarray
    """uint8 (rows, [channels,] height, width): the newest image of each; (rows, 0) without."""
    vectors: np.ndarray
    """float32 (rows, entries), all that the critic sees."""
    actions: np.ndarray
    """float32 (rows, actions)."""
    rewards: np.ndarray
    """float64 (rows,)."""
    begins: np.ndarray
    """bool (rows,), as are the three below."""
    terminated: np.ndarray
    truncated: np.ndarray
    clean: np.ndarray
    episodes: tuple[Episode, ...] = ()
    """Those that ended in it and say how."""
    ended: int = 0
    """Number of episodes that ended in it."""
    busy_s: float = 0.0
    """Time that it took."""
    waited_s: float = 0.0
    """Time that the collector waited for leave before."""

    @property
    def decisions(self) -> int:
        """Number of decisions."""
        return int((~self.begins).sum())

    def is_finite(self) -> bool:
        """Return whether there is no NaN or infinity in it."""
        return bool(np.isfinite(self.vectors).all() and np.isfinite(self.rewards).all())


@dataclass
class ChunkBuilder:
    """Puts a chunk together, row by row."""

    spec: ReplaySpec
    rows: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[Episode] = field(default_factory=list)
    ended: int = 0

    def begin(self, observation: Mapping[str, np.ndarray]) -> None:
        """Add an episode's first observation."""
        action = np.zeros(self.spec.actions, np.float32)
        self._append(observation, action, 0.0, begins=True, terminated=False, truncated=False)

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: Mapping[str, np.ndarray],
        *,
        terminated: bool,
        truncated: bool,
        info: Mapping[str, Any],
    ) -> None:
        """Add a decision and the observation that it led to."""
        self._append(
            observation,
            action,
            reward,
            begins=False,
            terminated=terminated,
            truncated=truncated,
            clean=bool(info.get("clean", True)),
        )
        if terminated or truncated:
            self.ended += 1
            if (summary := info.get("summary")) is not None:
                self.episodes.append(
                    Episode(summary.episode_return, summary.route_completion, summary.ended_by)
                )

    def _append(
        self,
        observation: Mapping[str, np.ndarray],
        action: np.ndarray,
        reward: float,
        *,
        begins: bool,
        terminated: bool,
        truncated: bool,
        clean: bool = True,
    ) -> None:
        image = observation[IMAGE][-1] if self.spec.image else np.zeros(0, np.uint8)
        vector = observation[VECTOR] if self.spec.vector else np.zeros(0, np.float32)
        self.rows.append(
            {
                "images": np.array(image),
                "vectors": np.array(vector, np.float32),
                "actions": np.asarray(action, np.float32),
                "rewards": float(reward),
                "begins": begins,
                "terminated": terminated,
                "truncated": truncated,
                "clean": clean,
            }
        )

    def chunk(self, collector: int, grant: Grant, busy_s: float, waited_s: float) -> Chunk:
        """Return what has been added as the chunk of a grant."""
        columns = {name: np.array([row[name] for row in self.rows]) for name in self.rows[0]}
        return Chunk(
            collector,
            grant.sequence,
            grant.version,
            **columns,
            episodes=tuple(self.episodes),
            ended=self.ended,
            busy_s=busy_s,
            waited_s=waited_s,
        )


@dataclass
class Intake:
    """Puts one collector's chunks into its ring, each once and in order.

    What lies between two chunks that do not follow one another is a gap: the episode that it cuts
    ends there, as a truncated one, and goes on only with the next beginning.
    """

    replay: Replay
    ring: int
    expected: int = 0
    """Sequence of the chunk that comes next."""
    gaps: list[range] = field(default_factory=list)
    """Sequences that never came."""
    repeats: int = 0
    """Chunks that came again, or after they had been given up."""
    left_out: int = 0
    """Decisions of chunks after a gap that nothing leads to."""
    _driving: bool = False

    def give_up(self, until: int) -> None:
        """Mark all chunks before `until` that have not come as a gap."""
        if until > self.expected:
            self.gaps.append(range(self.expected, until))
            self.expected = until
            self._driving = False

    def take(self, chunk: Chunk) -> int:
        """Put a chunk into the ring; return the number of its decisions that are new there."""
        if chunk.sequence < self.expected:
            self.repeats += 1
            return 0
        self.give_up(chunk.sequence)
        self.expected = chunk.sequence + 1
        taken = 0
        for row in range(len(chunk.begins)):
            observation = {IMAGE: chunk.images[row][None], VECTOR: chunk.vectors[row]}
            if chunk.begins[row]:
                self.replay.begin(observation, self.ring)
                self._driving = True
                continue
            if not self._driving:
                self.left_out += 1
                continue
            terminated, truncated = bool(chunk.terminated[row]), bool(chunk.truncated[row])
            self.replay.add(
                chunk.actions[row],
                float(chunk.rewards[row]),
                observation,
                terminated=terminated,
                truncated=truncated,
                clean=bool(chunk.clean[row]),
                ring=self.ring,
            )
            taken += 1
            self._driving = not (terminated or truncated)
        return taken
