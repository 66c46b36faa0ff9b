"""Random shift of image stacks (Kostrikov et al., 2020; Yarats et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor


def random_shift(images: Tensor, most_px: int, generator: torch.Generator) -> Tensor:
    """Shift each stack by up to `most_px` both ways, repeating the border.

    `images` is (B, stack, height, width) of any type; all images of a stack move together.
    """
    if most_px == 0:
        return images
    batch, stack, height, width = images.shape
    shifts = torch.randint(
        -most_px, most_px + 1, (2, batch, 1), generator=generator, device=images.device
    )
    rows = (torch.arange(height, device=images.device) + shifts[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=images.device) + shifts[1]).clamp_(0, width - 1)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, -1)
    flat = images.reshape(batch, stack, -1)
    return torch.gather(flat, 2, pixels.expand_as(flat)).view(images.shape)
