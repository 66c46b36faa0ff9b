# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Random changes of image stacks: shift (Kostrikov et al., 2020; Yarats et al., 2021), and light.

The light is changed after Laskin et al. (2020): a policy then bears looks that it never saw.
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_shifts(batch: int, most_px: int, generator: torch.Generator) -> Tensor:
    """Return a vertical and a horizontal shift per batch entry, int64 (2, B), in pixels."""
    return torch.randint(
        -most_px, most_px + 1, (2, batch), generator=generator, device=generator.device
    )


def shifted_pixels(shifts: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return the source rows (B, height) and columns (B, width) of shifted images.

    The border is repeated beyond the image.
    """
    rows = torch.arange(height, device=shifts.device) + shifts[0][:, None]
    columns = torch.arange(width, device=shifts.device) + shifts[1][:, None]
    return rows.clamp_(0, height - 1), columns.clamp_(0, width - 1)


def shift_images(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each stack (B, ..., height, width) in host memory, all of its images alike."""
    shifted = torch.empty_like(images, memory_format=torch.contiguous_format)
    height, width = images.shape[-2:]
    source, target = images.numpy(), shifted.numpy()
    # Block by block: gathering single pixels takes four times as long.
    for index, (down, right) in enumerate(shifts.T.tolist()):
        top, bottom, rows = _overlap(down, height)
        left, right_end, columns = _overlap(right, width)
        stack = target[index]
        stack[..., top:bottom, left:right_end] = source[index][..., rows, columns]
        stack[..., top:bottom, :left] = stack[..., top:bottom, left : left + 1]
        stack[..., top:bottom, right_end:] = stack[..., top:bottom, right_end - 1 : right_end]
        stack[..., :top, :] = stack[..., top : top + 1, :]
        stack[..., bottom:, :] = stack[..., bottom - 1 : bottom, :]
    return shifted


def gather_pixels(images: Tensor, rows: Tensor, shifts: Tensor) -> Tensor:
    """Return the shifted images (slots, [channels,] h, w) of rows (B, stack), pixel by pixel."""
    vertical, horizontal = shifted_pixels(shifts, *images.shape[-2:])
    # The stack's axis comes last in memory, the layout that the convolutions want.
    if images.ndim == 3:
        gathered = images[
            rows[:, None, None, :], vertical[:, :, None, None], horizontal[:, None, :, None]
        ]
        return gathered.movedim(-1, 1)
    gathered = images[
        rows[:, None, None, :, None],
        torch.arange(images.shape[1], device=images.device),
        vertical[:, :, None, None, None],
        horizontal[:, None, :, None, None],
    ]
    return gathered.movedim((-2, -1), (1, 2))


def _overlap(shift: int, size: int) -> tuple[int, int, slice]:
    """Return the first index that a shifted line fills, the one after its last, and its source.

    It fills at least one index, from which the border is repeated.
    """
    shift = min(max(shift, 1 - size), size - 1)
    first, end = max(-shift, 0), size - max(shift, 0)
    return first, end, slice(first + shift, end + shift)


def jitter_light(images: Tensor, jitter: float, generator: torch.Generator) -> Tensor:
    """Change contrast and brightness of scaled stacks (B, images, h, w), each stack's alike.

    Contrast changes by a factor of exp(±jitter) about mid-grey, brightness by ±jitter / 2, both
    uniformly drawn (the former in its logarithm); the result stays in [-0.5, 0.5].
    """
    shape = (2, len(images), 1, 1, 1)
    drawn = torch.rand(shape, generator=generator, device=images.device).mul_(2.0).sub_(1.0)
    contrast, brightness = (jitter * drawn[0]).exp(), 0.5 * jitter * drawn[1]
    changed = images * contrast.to(images.dtype) + brightness.to(images.dtype)
    return changed.clamp_(-0.5, 0.5)
