# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The random shift against padding and cropping sample by sample; the random light."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from td3_driver.learning.augmentation import draw_shifts, jitter_light, shift_images

MOST = 3


def random_shift(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    return shift_images(images, draw_shifts(len(images), most, generator))


def pad_and_crop(images: np.ndarray, most: int, rows: int, columns: int) -> np.ndarray:
    """Shift every image of one stack by cropping from an edge-padded one."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (most, most), (most, most)), mode="edge")
    top, left = most + rows, most + columns
    return padded[:, top : top + height, left : left + width]


def stacks(batch: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    images = torch.randint(0, 256, (batch, 2, 9, 13), generator=generator)
    return images.to(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_each_stack_is_one_of_the_shifts_and_the_generators(dtype: torch.dtype) -> None:
    images = stacks(40, dtype)
    shifted = random_shift(images, MOST, torch.Generator().manual_seed(11))
    assert shifted.shape == images.shape and shifted.dtype == dtype
    generator = torch.Generator().manual_seed(11)
    shifts = torch.randint(-MOST, MOST + 1, (2, 40, 1), generator=generator).squeeze(2)
    for index in range(40):
        rows, columns = shifts[:, index].tolist()
        expected = pad_and_crop(images[index].numpy(), MOST, rows, columns)
        np.testing.assert_array_equal(shifted[index].numpy(), expected)


def test_every_shift_both_ways_occurs_equally_often() -> None:
    # One bright pixel in the middle tells the shift.
    images = torch.zeros(4900, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 255
    shifted = random_shift(images, MOST, torch.Generator().manual_seed(0))
    _, _, rows, columns = torch.nonzero(shifted, as_tuple=True)
    assert len(rows) == 4900
    counts = torch.bincount((rows - 1) * 7 + (columns - 1), minlength=49)
    assert len(counts) == 49
    # 100 of each are expected; 5 standard deviations are 50.
    assert counts.min() > 50 and counts.max() < 150


def test_all_images_of_a_stack_move_together() -> None:
    images = stacks(20, torch.uint8)[:, :1].repeat(1, 4, 1, 1)
    shifted = random_shift(images, MOST, torch.Generator().manual_seed(0))
    assert torch.equal(shifted, shifted[:, :1].expand_as(shifted))
    assert not torch.equal(shifted, images)


def test_no_shift_gives_the_images_themselves() -> None:
    images = stacks(5, torch.uint8)
    assert torch.equal(shift_images(images, torch.zeros(2, 5, dtype=torch.int64)), images)


def test_stacks_of_colour_images_move_like_grey_ones() -> None:
    images = stacks(8, torch.uint8)
    coloured = torch.stack([images, 255 - images], dim=2)
    shifts = draw_shifts(8, MOST, torch.Generator().manual_seed(1))
    moved = shift_images(coloured, shifts)
    assert torch.equal(moved[:, :, 0], shift_images(images, shifts))
    assert torch.equal(moved[:, :, 1], 255 - moved[:, :, 0])


def test_any_memory_layout_gives_the_same_picture() -> None:
    images = stacks(6, torch.float32)
    turned = images.to(memory_format=torch.channels_last)
    one = random_shift(images, MOST, torch.Generator().manual_seed(2))
    other = random_shift(turned, MOST, torch.Generator().manual_seed(2))
    assert torch.equal(one, other)


def test_light_changes_as_drawn_and_alike_in_a_whole_stack() -> None:
    images = torch.rand((200, 3, 5, 4), generator=torch.Generator().manual_seed(1)).mul_(0.4)
    changed = jitter_light(images, 0.3, torch.Generator().manual_seed(2))
    again = jitter_light(images, 0.3, torch.Generator().manual_seed(2))
    assert torch.equal(changed, again) and changed.min() >= -0.5 and changed.max() <= 0.5
    contrasts, brightnesses = [], []
    for before, after in zip(images, changed, strict=True):
        inside = (after > -0.5) & (after < 0.5)
        x, y = before[inside].double(), after[inside].double()
        # A line through all pixels of a stack: y = contrast x + brightness.
        contrast = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        brightness = y.mean() - contrast * x.mean()
        assert torch.allclose(y, contrast * x + brightness, atol=1e-5)
        contrasts.append(float(contrast.log()))
        brightnesses.append(float(brightness))
    for drawn, most in ((contrasts, 0.3), (brightnesses, 0.15)):
        assert max(map(abs, drawn)) <= most + 1e-4
        assert np.std(drawn) == pytest.approx(2 * most / np.sqrt(12), rel=0.15)
    assert abs(np.corrcoef(contrasts, brightnesses)[0, 1]) < 0.2


def test_too_much_light_is_held_within_the_images_range() -> None:
    images = torch.full((50, 1, 2, 2), 0.45)
    changed = jitter_light(images, 1.0, torch.Generator().manual_seed(3))
    assert changed.max() == 0.5
    assert jitter_light(images.bfloat16(), 0.3, torch.Generator()).dtype == torch.bfloat16
