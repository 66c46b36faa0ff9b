# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What replay buffers store and return, and the interface that all of them share."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from td3_driver.learning.networks import NetworkSpec, Observations
from td3_driver.learning.normalization import Returns


@dataclass(frozen=True)
class Batch:
    """Transitions: observations before and after, and what happened in between."""

    observations: Observations
    actions: Tensor
    """(B, actions), float32."""
    rewards: Tensor
    """(B,), float32: the discounted sum over the steps."""
    next_observations: Observations
    terminated: Tensor
    """(B,), float32: 1 if nothing follows; a truncated transition has 0 and bootstraps."""
    steps: Tensor
    """(B,), float32: decisions between the observations, from 1 to the n of n-step returns."""
    slots: Tensor | None = None
    """(B,), int64: the transitions' slots in the buffer that they come from."""
    ahead: dict[str, Tensor] | None = None
    """The first decisions one by one, where self-prediction needs them: their "actions",
    (B, K, actions), their "rewards" and "going", (B, K), and the "image" stack that each led to;
    see `self_prediction.Ahead`."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""

        def moved(value: object) -> object:
            if isinstance(value, Tensor):
                return value.to(device)
            if isinstance(value, dict):
                return {key: moved(entry) for key, entry in value.items()}
            return value

        values = {field.name: moved(getattr(self, field.name)) for field in fields(self)}
        return Batch(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ReplaySpec:
    """Shapes of the stored data."""

    image: tuple[int, ...] | None
    """(stack, [channels,] height, width); each slot stores one image. None: no images."""
    vector: int
    """Entries of the vector; 0: none."""
    actions: int

    @property
    def stack(self) -> int:
        """Images in one observation; 1 if there are none."""
        return self.image[0] if self.image else 1

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one slot in bytes."""
        image = math.prod(self.image[1:]) if self.image else 0
        floats = 4 * (self.vector + self.actions + 1 + 1)  # reward, priority
        return image + floats + 1 + 1 + 8  # terminated, stacked, place in the queue


def replay_spec(spec: NetworkSpec) -> ReplaySpec:
    """Return the shapes of the data that these networks need."""
    return ReplaySpec(spec.image, len(spec.of_critic.vector_scale), spec.actions)


class Replay(Protocol):
    """What a learner samples from and a run adds to: a `ReplayBuffer` or a `MixedReplay`."""

    device: torch.device
    prioritized: bool
    lock: threading.Lock
    queue: Tensor

    @property
    def returns(self) -> Returns:
        """What is known of the discounted returns of all that was added."""

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""

    def reward_range(self) -> tuple[float, float]:
        """Return the range of the stored rewards, extended to include 0."""

    def begin(self, observation: Mapping[str, np.ndarray], ring: int = 0) -> None:
        """Start an episode with its first observation, in one of the rings."""

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

    def sample(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw transitions; raises ValueError while there are none."""

    def draw(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw like `sample`, but without checks: entirely on the device, and so capturable."""

    def set_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Give sampled transitions new priorities above 0, float32 (B,)."""

    def put_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Do the same without locking: entirely on the device, and so capturable."""

    def priority_tensors(self) -> list[Tensor]:
        """Return what `put_priorities` changes: the tensors themselves."""

    def state(self) -> dict[str, Tensor]:
        """Return a copy of everything that can change, in host memory."""

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state()` returned; raises ValueError if it does not fit."""
