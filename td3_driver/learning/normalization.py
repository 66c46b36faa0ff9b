# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Scales rewards: by a factor, by their mean size so far, or so that returns fit a range.

What is saved with the networks is in module buffers, which are updated in place.
"""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass

import torch
from torch import Tensor, nn

LEAST_SIZE = 1e-6
"""Rewards are never divided by less."""


@dataclass(frozen=True)
class Returns:
    """What is known of the discounted returns that were met so far.

    A return here is what had been collected in an episode up to a decision, counted backwards: the
    latest reward, plus the discount times the return before it. Its size tells that of Q without
    waiting for an episode to end.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """Sum of the squared differences from the mean."""
    largest: float = 0.0
    """Largest absolute value."""

    @property
    def deviation(self) -> float:
        """Standard deviation, or 1 while there is none."""
        return math.sqrt(self.squares / self.count) if self.squares else 1.0

    def tensor(self) -> Tensor:
        """Return the fields as one tensor, float64 (4,), to save."""
        return torch.tensor(astuple(self), dtype=torch.float64)

    def joined(self, other: Returns) -> Returns:
        """Return what is known of both (Chan, Golub and LeVeque, 1979)."""
        count = self.count + other.count
        if not count:
            return self
        apart, share = other.mean - self.mean, other.count / count
        return Returns(
            count,
            self.mean + apart * share,
            self.squares + other.squares + apart * apart * self.count * share,
            max(self.largest, other.largest),
        )

    def and_one(self, value: float) -> Returns:
        """Return what is known after one more."""
        return self.joined(Returns(1, value, 0.0, abs(value)))


class RewardNorm(nn.Module):
    """Multiplies rewards by a factor; `running` also divides them by their mean absolute value.

    With a `greatest_q`, they are divided so that returns have a deviation of at most 1 and a size
    of at most that (Lee et al., 2025, arXiv 2502.15280); `follow` says what returns there are.
    """

    total: Tensor
    count: Tensor
    divisor: Tensor

    def __init__(self, factor: float, running: bool, greatest_q: float = 0.0) -> None:
        super().__init__()
        self.factor = factor
        self.running = running
        self.greatest_q = greatest_q
        if running:
            self.register_buffer("total", torch.zeros((), dtype=torch.float64))
            self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        if greatest_q:
            self.register_buffer("divisor", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def observe(self, rewards: Tensor) -> None:
        """Add a batch of raw rewards (B,) to the statistics; does nothing unless `running`."""
        if self.running:
            self.total += rewards.abs().sum()
            self.count += len(rewards)

    def follow(self, returns: Returns) -> None:
        """Scale by these returns from now on; does nothing without a `greatest_q`."""
        if self.greatest_q:
            size = max(returns.deviation, returns.largest / self.greatest_q, LEAST_SIZE)
            self.divisor.fill_(size)

    def scale(self) -> Tensor | float:
        """Return the factor that rewards are multiplied by now; a tensor unless it is fixed."""
        if self.greatest_q:
            return self.factor / self.divisor
        if not self.running:
            return self.factor
        return self.factor / (self.total / self.count.clamp(min=1)).clamp(min=LEAST_SIZE)

    def forward(self, rewards: Tensor) -> Tensor:
        """Return the normalised rewards, (B,)."""
        return (rewards * self.scale()).to(rewards.dtype)
