# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A copy of a ring's images in host memory, for checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor


class Mirror:
    """Takes over only what is new: copying all images would hold up training."""

    def __init__(self, images: Tensor) -> None:
        """Take a ring's rows; no memory is used before the first copy."""
        self._images = images
        self._copy: Tensor | None = None
        self._copied = 0

    def forget(self) -> None:
        """Take over everything next time."""
        self._copied = 0

    def after(self, added: int) -> Tensor:
        """Return the copy, in memory that the next call reuses, after so many slots were added."""
        if self._copy is None:
            self._copy = torch.empty_like(self._images, device="cpu")
        capacity = len(self._images)
        slot = max(self._copied, added - capacity)
        while slot < added:  # at most twice: up to the end of the ring, and from its start
            row = slot % capacity
            end = min(row + added - slot, capacity)
            self._copy[row:end].copy_(self._images[row:end])
            slot += end - row
        self._copied = added
        return self._copy
