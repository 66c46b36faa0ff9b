# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Running statistics of what is sampled, by which vectors and rewards are normalised.

They are buffers: saved with the networks, exported with the policy, and updated in place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEAST_VARIANCE = 1e-4
"""Of an entry in its usual magnitude: one that hardly varies is not blown up."""
BOUND = 10.0
"""Normalised entries beyond this many deviations say no more than "far off"."""


class VectorNorm(nn.Module):
    """Divides a vector by its usual magnitudes; `running` also brings it to mean 0, deviation 1.

    Mean and variance are merged from batches as in Chan et al. (1979).
    """

    scale: Tensor
    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, scale: Sequence[float], running: bool) -> None:
        super().__init__()
        self.running = running
        self.register_buffer("scale", torch.tensor(scale))
        if running:
            self.register_buffer("mean", torch.zeros(len(scale)))
            self.register_buffer("variance", torch.ones(len(scale)))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, vectors: Tensor) -> None:
        """Take a batch (B, n) into the statistics; nothing happens unless they are running."""
        if not self.running:
            return
        scaled = vectors / self.scale
        variance, mean = torch.var_mean(scaled, dim=0, unbiased=False)
        # The new share of all that was seen; the first batch replaces the initial values.
        self.count += len(vectors)
        share = (len(vectors) / self.count).to(scaled.dtype)
        apart = mean - self.mean
        self.variance.lerp_(variance, share).add_(apart.square() * share * (1.0 - share))
        self.mean.lerp_(mean, share)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return the normalised vectors, (B, n)."""
        scaled = vectors / self.scale
        if not self.running:
            return scaled
        deviation = self.variance.clamp(min=LEAST_VARIANCE).sqrt()
        return ((scaled - self.mean) / deviation).clamp(-BOUND, BOUND)


class RewardNorm(nn.Module):
    """Multiplies rewards by a factor; `running` also divides them by their mean absolute value."""

    total: Tensor
    count: Tensor

    def __init__(self, factor: float, running: bool) -> None:
        super().__init__()
        self.factor = factor
        self.running = running
        if running:
            self.register_buffer("total", torch.zeros((), dtype=torch.float64))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, rewards: Tensor) -> None:
        """Take a batch of raw rewards (B,) into the statistics; nothing unless running."""
        if self.running:
            self.total += rewards.abs().sum()
            self.count += len(rewards)

    def scale(self) -> Tensor | float:
        """Return what rewards are multiplied by now; a tensor where it changes."""
        if not self.running:
            return self.factor
        return self.factor / (self.total / self.count.clamp(min=1)).clamp(min=1e-6)

    def forward(self, rewards: Tensor) -> Tensor:
        """Return the normalised rewards, (B,)."""
        return (rewards * self.scale()).to(rewards.dtype)
