"""Random shift of image stacks (Kostrikov et al., 2020; Yarats et al., 2021)."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_shifts(batch: int, most_px: int, generator: torch.Generator) -> Tensor:
    """Return a shift down and one to the right for each of a batch, int64 (2, B), in pixels."""
    return torch.randint(
        -most_px, most_px + 1, (2, batch), generator=generator, device=generator.device
    )


def shifted_pixels(shifts: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the rows (B, height) and columns (B, width) that shifted images are made of.

    The border is repeated beyond the image.
    """
    rows = torch.arange(height, device=shifts.device) + shifts[0][:, None]
    columns = torch.arange(width, device=shifts.device) + shifts[1][:, None]
    return rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)


def shift_images(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each stack (B, ..., height, width); all its images move together."""
    *leading, height, width = images.shape
    rows, columns = shifted_pixels(shifts, height, width)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(len(images), 1, -1)
    flat = images.reshape(leading[0], -1, height * width)
    return torch.gather(flat, 2, pixels.expand_as(flat)).view(images.shape)
