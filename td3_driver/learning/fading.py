# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Priorities that fade with the age of a transition (after DR.Q, arXiv 2605.11711)."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SHARE = 0.1
"""However old a transition is, so much of its priority counts; DR.Q's."""


def faded(priorities: Tensor, newest: Tensor, half_life: int) -> Tensor:
    """Return the priorities of all rows, halved for every `half_life` slots of age, to a floor.

    `priorities` are those of rings of slots, one ring after the other, and `newest`, int64
    (rings,), is the slot of each ring's newest transition, from which the ages of its rows follow.
    Slots of all rings count, as they fill side by side.
    """
    rings = len(newest)
    capacity = len(priorities) // rings
    rows = torch.arange(capacity, device=priorities.device)
    ages = rings * ((newest[:, None] - rows) % capacity)
    return priorities * torch.exp2(ages.flatten() / -half_life).clamp(min=LEAST_SHARE)
