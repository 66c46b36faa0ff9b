# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How the priorities of a replay buffer fade with age."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SHARE = 0.1
"""However old a transition is, so much of its priority counts."""


def faded(priorities: Tensor, latest: Tensor, half_life: int) -> Tensor:
    """Return priorities as they count today, (rows,): halved with every half-life, to a floor.

    Rows are those of rings, one after the other; `latest`, int64 (rings,), is the slot of each
    ring's newest transition. A half-life of 0 leaves them as they are. The floor is that of DR.Q's
    faded LAP (arXiv 2605.11711).
    """
    if not half_life:
        return priorities
    rows = torch.arange(len(priorities) // len(latest), device=priorities.device)
    ages = (latest[:, None] - rows) % len(rows)
    return priorities * torch.exp2(-ages / half_life).clamp(min=LEAST_SHARE).flatten()
