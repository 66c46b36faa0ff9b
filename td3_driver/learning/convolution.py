# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A convolution that trains fast in bfloat16 on a CPU that other processes use too."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from td3_driver.learning.threads import use_one_thread


class Convolution(nn.Conv2d):
    """A Conv2d that computes its weights' gradient in shares of the batch, one thread each.

    oneDNN's threads spin while they wait for each other in that sum: beside a simulator, on two
    cores, it then takes up to ten times as long. This only matters, and is only done, for bfloat16
    on the CPU; otherwise this is a plain Conv2d.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, h', w')."""
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        if learns and images.device.type == "cpu" and images.dtype == torch.bfloat16:
            return _SharedConvolution.apply(images, self.weight, self.bias, self.stride)
        return super().forward(images)


class _SharedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int]
    ) -> Tensor:
        weight = weight.to(images.dtype)
        ctx.save_for_backward(images, weight)
        ctx.stride = stride
        return functional.conv2d(images, weight, bias.to(images.dtype), stride)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        differentiate = partial(_differentiate, weight=weight, stride=ctx.stride)
        of_images = None
        if ctx.needs_input_grad[0]:
            of_images = differentiate((gradient, images), wanted=(True, False, False))[0]
        threads = torch.get_num_threads()
        shares = zip(gradient.chunk(threads), images.chunk(threads), strict=True)
        of_share = partial(differentiate, wanted=(False, True, True))
        gradients = list(_run(of_share, shares, threads))
        # In float32; otherwise small contributions would be rounded away.
        of_weight, of_bias = (sum(each[i].float() for each in gradients) for i in (1, 2))
        return of_images, of_weight, of_bias, None


def _differentiate(
    share: tuple[Tensor, Tensor],
    weight: Tensor,
    stride: tuple[int, int],
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, ...]:
    """Return the wanted ones of the gradients of images, weight and bias."""
    gradient, images = share
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, [len(weight)], stride, [0, 0], [1, 1], False, [0, 0], 1, wanted
    )


def _run(function: Any, shares: Iterable[Any], threads: int) -> Iterable[Any]:
    return (
        map(function, shares) if threads == 1 else _single_threads(threads).map(function, shares)
    )


@cache
def _single_threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "convolution", initializer=use_one_thread)
