# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Shows what a network looks at: how much each pixel of the image changes one of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np
import torch
from torch import Tensor

from td3_driver.driving.observation import Observation
from td3_driver.learning.networks import IMAGE, Actor, Observations, scale_image
from td3_driver.offline.networks import Networks, batch_of

NOISE_SAMPLES = 3
NOISE = 0.05
"""Standard deviation of the noise, relative to the image's range of 1."""
BLUR_PX = 2.0

OUTPUTS = ("steering", "speed", "critic")


def saliencies(networks: Networks, observations: Sequence[Observation]) -> dict[str, np.ndarray]:
    """Return saliency maps by the output's name, float32 (n, h, w) in [0, 1].

    "steering" and "speed" are the actor's pre-tanh outputs, which do not fade when the action
    saturates; "critic" is the lower Q-value of the actor's choice, if there is a critic. Networks
    that see no image have no maps.
    """
    batch = batch_of(networks.spec, observations)
    if IMAGE not in batch:
        return {}
    with torch.no_grad():
        actions = networks.actor(batch)
    maps = {
        name: saliency(partial(_pre_tanh, networks.actor, index), batch)
        for index, name in enumerate(OUTPUTS[:2])
    }
    critic = networks.critic
    if critic is not None and critic.encoder.spec.image:
        maps[OUTPUTS[2]] = saliency(
            lambda seen: torch.minimum(*critic.q_values(seen, actions)), batch
        )
    return maps


def _pre_tanh(actor: Actor, index: int, observations: Observations) -> Tensor:
    return actor.pre_tanh(observations)[:, index]


def saliency(output: Callable[[Observations], Tensor], batch: Observations) -> np.ndarray:
    """Return |d output / d pixel|, summed over stack and colours, averaged over noisy images.

    This is SmoothGrad (Smilkov et al., 2017), blurred to the scale of a convolution's stride and
    scaled to the largest value of each map, float32 (n, h, w). The noise is the same every time.
    """
    image = scale_image(batch[IMAGE])
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(image.shape[0], *image.shape[2:])
    for _ in range(NOISE_SAMPLES):
        noise = torch.randn(image.shape[1:], generator=generator) * NOISE
        noisy = (image + noise).requires_grad_(True)
        value = output({**batch, IMAGE: noisy}).sum()
        (gradient,) = torch.autograd.grad(value, noisy)
        total += gradient.abs().sum(dim=1)
    maps = [cv2.GaussianBlur(part, (0, 0), BLUR_PX) for part in total.numpy()]
    return np.stack([part / max(float(part.max()), 1e-12) for part in maps])
