# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Normalises rewards by the running mean size of the sampled ones.

The statistics are module buffers: saved with the networks, and updated in place.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
        """Add a batch of raw rewards (B,) to the statistics; does nothing unless `running`."""
        if self.running:
            self.total += rewards.abs().sum()
            self.count += len(rewards)

    def scale(self) -> Tensor | float:
        """Return the factor that rewards are multiplied by now; a tensor if `running`."""
        if not self.running:
            return self.factor
        return self.factor / (self.total / self.count.clamp(min=1)).clamp(min=1e-6)

    def forward(self, rewards: Tensor) -> Tensor:
        """Return the normalised rewards, (B,)."""
        return (rewards * self.scale()).to(rewards.dtype)
