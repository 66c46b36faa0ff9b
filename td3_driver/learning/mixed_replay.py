# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Recorded transitions that stay, beside a ring of new ones: what keeps training from forgetting.

Every batch holds a fixed share of each (Ball et al., 2023, Efficient Online Reinforcement
Learning with Offline Data), so that few new ones count at once and the old ones stay known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from td3_driver.learning.batch import Batch
from td3_driver.learning.replay import ReplayBuffer

RECORDED_PRIORITIES = "recorded_priorities"


class MixedReplay:
    """Draws from two buffers as from one, and adds to the second; see `ReplayBuffer`."""

    def __init__(self, recorded: ReplayBuffer, online: ReplayBuffer, share: float) -> None:
        """Take both; `share` of each batch is recorded, at least one transition of each."""
        self.recorded = recorded
        self.online = online
        self.share = share
        self.spec = online.spec
        self.device = online.device
        self.prioritized = online.prioritized
        self.lock = online.lock
        self.queue = online.queue

    def __len__(self) -> int:
        """Return the number of transitions, recorded and new."""
        return len(self.recorded) + len(self.online)

    def recorded_of(self, batch_size: int) -> int:
        """Return how many transitions of a batch are recorded; they come first."""
        return min(max(round(self.share * batch_size), 1), batch_size - 1)

    def reward_range(self) -> tuple[float, float]:
        """Return the least and the greatest reward stored, or 0 where that lies beyond them."""
        ranges = (self.recorded.reward_range(), self.online.reward_range())
        least, greatest = zip(*ranges, strict=True)
        return min(least), max(greatest)

    def begin(self, observation: Mapping[str, np.ndarray]) -> None:
        """Start an episode with its first observation."""
        self.online.begin(observation)

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: Mapping[str, np.ndarray],
        *,
        terminated: bool,
        truncated: bool = False,
        clean: bool = True,
    ) -> None:
        """Store a new transition, as `ReplayBuffer.add` does."""
        self.online.add(
            action,
            reward,
            observation,
            terminated=terminated,
            truncated=truncated,
            clean=clean,
        )

    def sample(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw transitions of both; raises ValueError until there is a new one."""
        with self.lock:
            if not len(self.online):
                raise ValueError("the replay buffer holds no new transition yet")
            return self.draw(batch_size, generator, shifts)

    def draw(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw as `sample` does, without looking: all on the device, and so capturable."""
        first = self.recorded_of(batch_size)
        parts = (None, None) if shifts is None else shifts.tensor_split((first,), dim=-1)
        return _joined(
            self.recorded.draw(first, generator, parts[0]),
            self.online.draw(batch_size - first, generator, parts[1]),
        )

    def set_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Give the transitions of a batch new priorities, in its order."""
        with self.lock:
            self.put_priorities(slots, priorities)

    def put_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Do as `set_priorities`, without locking: all on the device, and so capturable."""
        first = self.recorded_of(len(slots))
        self.recorded.put_priorities(slots[:first], priorities[:first])
        self.online.put_priorities(slots[first:], priorities[first:])

    def state(self) -> dict[str, Tensor]:
        """Return a copy of what can change, in host memory: not what was recorded."""
        state = self.online.state()
        if self.prioritized:
            state[RECORDED_PRIORITIES] = self.recorded.priorities.to("cpu", copy=True)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state()` returned; raises ValueError where it does not fit."""
        self.online.restore(state)
        if self.prioritized:
            self.recorded.priorities.copy_(state[RECORDED_PRIORITIES])


def _joined(first: Batch, second: Batch) -> Batch:
    """Return one batch of two."""

    def join(one: Any, other: Any) -> Any:
        if isinstance(one, dict):
            return {key: torch.cat([value, other[key]]) for key, value in one.items()}
        return None if one is None else torch.cat([one, other])

    names = [field.name for field in fields(Batch)]
    return Batch(**{name: join(getattr(first, name), getattr(second, name)) for name in names})
