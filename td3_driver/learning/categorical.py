# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Values as distributions over fixed atoms (Bellemare, Dabney and Munos, 2017, "C51").

A distribution is a probability for each atom, and its value is its mean. The sizes are those of
SimbaV2, XQC and FlashSAC (arXiv 2502.15280, 2509.25174, 2604.04539).
"""

from __future__ import annotations

import torch
from torch import Tensor

ATOMS = 101
GREATEST = 5.0
"""The atoms are spread evenly from minus this to this."""
SPACING = 2.0 * GREATEST / (ATOMS - 1)


def atoms_like(tensor: Tensor) -> Tensor:
    """Return the atoms, (ATOMS,), with a tensor's type and on its device."""
    return torch.linspace(-GREATEST, GREATEST, ATOMS, dtype=tensor.dtype, device=tensor.device)


def mean(probabilities: Tensor) -> Tensor:
    """Return the values, (B,), of distributions, (B, ATOMS)."""
    # Not a matrix product, which autocast would do in bfloat16.
    return (probabilities * atoms_like(probabilities)).sum(dim=-1)


def projected(probabilities: Tensor, rewards: Tensor, bootstrap: Tensor) -> Tensor:
    """Return the distributions of rewards + bootstrap * value on the atoms, (B, ATOMS).

    `probabilities`, (B, ATOMS), are those of the values. What falls between two atoms is shared
    by them so that its mean stays; what falls beyond the last atom goes to it.
    """
    moved = rewards[:, None] + bootstrap[:, None] * atoms_like(probabilities)
    lower, upper_share = _places(moved)
    result = torch.zeros_like(probabilities)
    result.scatter_add_(1, lower, probabilities * (1.0 - upper_share))
    return result.scatter_add_(1, lower + 1, probabilities * upper_share)


def two_hot(values: Tensor) -> Tensor:
    """Return the distributions of values, (B,), on the two atoms next to each, (B, ATOMS)."""
    lower, upper_share = _places(values[:, None])
    result = torch.zeros(len(values), ATOMS, dtype=values.dtype, device=values.device)
    return result.scatter_(1, lower, 1.0 - upper_share).scatter_(1, lower + 1, upper_share)


def _places(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the atom below each value, int64, and the share of the next one, both (B, n)."""
    places = ((values + GREATEST) / SPACING).clamp(0.0, ATOMS - 1.0)
    below = places.floor().clamp(max=ATOMS - 2.0)
    return below.long(), places - below


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Return the cross-entropies, (B,), of target distributions, both (B, ATOMS)."""
    return -(target * logits.log_softmax(dim=-1)).sum(dim=-1)
