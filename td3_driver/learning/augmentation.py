# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Random changes of what is learnt from: shift, light, and left for right.

Shifts are after Kostrikov et al. (2020) and Yarats et al. (2021).

The light is changed after Laskin et al. (2020): a policy then bears looks that it never saw.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from td3_driver.learning.batch import Batch
from td3_driver.learning.networks import IMAGE, VECTOR, NetworkSpec, Observations


@dataclass(frozen=True)
class MirrorSigns:
    """The signs that entries get in a mirror, 1 or -1."""

    vector: tuple[float, ...]
    """Of the stored vector: what only the critic sees comes last."""
    actions: tuple[float, ...]

    def of_stored(self, spec: NetworkSpec) -> MirrorSigns:
        """Return the signs for networks that may be without the vector, or what is privileged."""
        stored = len(spec.of_critic.vector_scale)
        first = 0 if spec.vector_scale else len(self.vector) - stored
        return replace(self, vector=self.vector[first : first + stored])

    def mirror_half(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return a batch in which each transition is mirrored with probability 0.5."""
        device = batch.actions.device
        turned = torch.rand(len(batch.actions), generator=generator, device=device) < 0.5
        # With a choice for every pixel, shapes do not depend on the draw: it can be captured.
        actions = _signed(batch.actions, self.actions, turned)
        observations = self._mirrored(batch.observations, turned)
        after = self._mirrored(batch.next_observations, turned)
        return replace(batch, actions=actions, observations=observations, next_observations=after)

    def _mirrored(self, seen: Observations, turned: Tensor) -> Observations:
        mirrored = dict(seen)
        if IMAGE in seen:
            image = seen[IMAGE]
            choice = turned.view(-1, *[1] * (image.ndim - 1))
            mirrored[IMAGE] = torch.where(choice, image.flip(-1), image)
        if VECTOR in seen:
            mirrored[VECTOR] = _signed(seen[VECTOR], self.vector, turned)
        return mirrored


def _signed(values: Tensor, signs: tuple[float, ...], turned: Tensor) -> Tensor:
    """Return values (B, n) with signs (n) where `turned` (B)."""
    factors = torch.tensor(signs, device=values.device, dtype=values.dtype)
    return torch.where(turned[:, None], values * factors, values)


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
