# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Recorded transitions that are kept, beside a ring of new ones, so that training does not forget.

Every batch holds a fixed share of each (Ball et al., 2023, Efficient Online Reinforcement
Learning with Offline Data): even a few new transitions count at once, and old ones are not lost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from td3_driver.learning.batch import Batch
from td3_driver.learning.normalization import Returns
from td3_driver.learning.replay import ReplayBuffer

RECORDED_PRIORITIES = "recorded_priorities"


class MixedReplay:
    """Draws from two buffers as if they were one, and adds to the second; see `ReplayBuffer`."""

    def __init__(self, recorded: ReplayBuffer, online: ReplayBuffer, share: float) -> None:
        """Take both; `share` of a batch is recorded, with at least one transition from each."""
        self.recorded = recorded
        self.online = online
        self.share = share
        self.spec = online.spec
        self.device = online.device
        self.prioritized = online.prioritized
        self.lock = online.lock
        self.queue = online.queue

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled, recorded and new."""
        return len(self.recorded) + len(self.online)

    @property
    def returns(self) -> Returns:
        """What is known of the discounted returns, recorded and new."""
        return self.recorded.returns.joined(self.online.returns)

    def recorded_of(self, batch_size: int) -> int:
        """Return how many of a batch's transitions are recorded; these come first."""
        return min(max(round(self.share * batch_size), 1), batch_size - 1)

    def reward_range(self) -> tuple[float, float]:
        """Return the range of the stored rewards, extended to include 0."""
        ranges = (self.recorded.reward_range(), self.online.reward_range())
        least, greatest = zip(*ranges, strict=True)
        return min(least), max(greatest)

    def begin(self, observation: Mapping[str, np.ndarray], ring: int = 0) -> None:
        """Start an episode with its first observation."""
        self.online.begin(observation, ring)

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: Mapping[str, np.ndarray],
        *,
        terminated: bool,
        truncated: bool = False,
        clean: bool = True,
        ring: int = 0,
    ) -> None:
        """Store the step from the latest observation, and the observation it led to."""
        self.online.add(
            action,
            reward,
            observation,
            terminated=terminated,
            truncated=truncated,
            clean=clean,
            ring=ring,
        )

    def sample(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw transitions from both; raises ValueError while there are no new ones."""
        with self.lock:
            if not len(self.online):
                raise ValueError("the replay buffer holds no new transition yet")
            return self.draw(batch_size, generator, shifts)

    def draw(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw like `sample`, but without checks: entirely on the device, and so capturable."""
        first = self.recorded_of(batch_size)
        parts = (None, None) if shifts is None else shifts.tensor_split((first,), dim=-1)
        return _joined(
            self.recorded.draw(first, generator, parts[0]),
            self.online.draw(batch_size - first, generator, parts[1]),
        )

    def set_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Give a whole batch's transitions new priorities above 0, float32 (B,), in its order."""
        with self.lock:
            self.put_priorities(slots, priorities)

    def priority_tensors(self) -> list[Tensor]:
        """Return what `put_priorities` changes: the tensors themselves."""
        return [*self.recorded.priority_tensors(), *self.online.priority_tensors()]

    def put_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Do the same without locking: entirely on the device, and so capturable."""
        first = self.recorded_of(len(slots))
        self.recorded.put_priorities(slots[:first], priorities[:first])
        self.online.put_priorities(slots[first:], priorities[first:])

    def state(self) -> dict[str, Tensor]:
        """Return a copy of everything that can change, in host memory: not the recorded data."""
        state = self.online.state()
        if self.prioritized:
            state[RECORDED_PRIORITIES] = self.recorded.priorities.to("cpu", copy=True)
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state()` returned; raises ValueError if it does not fit."""
        self.online.restore(state)
        if self.prioritized:
            self.recorded.priorities.copy_(state[RECORDED_PRIORITIES])


def _joined(first: Batch, second: Batch) -> Batch:
    """Join two batches into one."""

    def join(one: Any, other: Any) -> Any:
        if isinstance(one, dict):
            return {key: torch.cat([value, other[key]]) for key, value in one.items()}
        return None if one is None else torch.cat([one, other])

    names = [field.name for field in fields(Batch)]
    return Batch(**{name: join(getattr(first, name), getattr(second, name)) for name in names})
