# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a critic's heads give: a value each, or a distribution of values; and how either learns.

A head's outputs are (B,) values of a scalar critic, or (B, ATOMS) logits of a categorical one; a
target is (B,) values, or (B, ATOMS) probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from td3_driver.config import LearningConfig
from td3_driver.learning import categorical


class CriticForm(Protocol):
    """One form of critic."""

    outputs: int
    """Width of a head's last layer."""
    greatest_q: float
    """The largest Q that a head can give; 0 = there is none."""

    def begin(self, last: nn.Linear) -> None:
        """Give a head's last layer what it begins with."""

    def values(self, outputs: Tensor) -> Tensor:
        """Return the Q-values, (B,), of a head's outputs."""

    def mean(self, target: Tensor) -> Tensor:
        """Return the Q-values, (B,), of a target."""

    def target(self, rewards: Tensor, bootstrap: Tensor, twins: tuple[Tensor, Tensor]) -> Tensor:
        """Return rewards + bootstrap * the smaller of two heads' values, as a target.

        Rewards and bootstrap factors are (B,).
        """

    def loss(self, outputs: Tensor, target: Tensor, settings: LearningConfig) -> Tensor:
        """Return the mean loss of a head's outputs."""

    def constrain(self, weights: Iterable[Tensor]) -> None:
        """Put weights back to where they are to stay, after a step."""


class Scalar:
    """Each head gives a value."""

    outputs = 1
    greatest_q = 0.0

    def begin(self, last: nn.Linear) -> None:
        """Leave the layer as it is."""

    def values(self, outputs: Tensor) -> Tensor:
        """Return the outputs: they are the values."""
        return outputs

    def mean(self, target: Tensor) -> Tensor:
        """Return the target: it is the value."""
        return target

    def target(self, rewards: Tensor, bootstrap: Tensor, twins: tuple[Tensor, Tensor]) -> Tensor:
        """Return rewards + bootstrap * the smaller value, (B,)."""
        return rewards + bootstrap * torch.minimum(*twins)

    def loss(self, outputs: Tensor, target: Tensor, settings: LearningConfig) -> Tensor:
        """Return the mean square error, or Huber's loss with LAP."""
        # LAP needs the Huber loss: its bias cancels the bias of the priorities.
        if settings.replay_sampling == "lap":
            return functional.huber_loss(outputs, target, delta=settings.huber_threshold)
        return functional.mse_loss(outputs, target)

    def constrain(self, weights: Iterable[Tensor]) -> None:
        """Leave the weights as they are."""


class Categorical:
    """Each head gives a distribution; the learning is that of FlashSAC (arXiv 2604.04539)."""

    outputs = categorical.ATOMS
    greatest_q = categorical.GREATEST

    @torch.no_grad()
    def begin(self, last: nn.Linear) -> None:
        """Begin with normal distributions of the deviation that returns are scaled to, 1.

        The usual ones are almost even over all atoms. Of that width a share of 1 - discount goes
        with every step that the targets look ahead, and until then it drowns the rewards.
        """
        last.bias.copy_(-0.5 * categorical.atoms_like(last.bias).square())

    def values(self, outputs: Tensor) -> Tensor:
        """Return the means of the distributions, (B,)."""
        return categorical.mean(outputs.softmax(dim=-1))

    def mean(self, target: Tensor) -> Tensor:
        """Return the means of the distributions, (B,)."""
        return categorical.mean(target)

    def target(self, rewards: Tensor, bootstrap: Tensor, twins: tuple[Tensor, Tensor]) -> Tensor:
        """Return the distribution after rewards, of the twin with the smaller value."""
        first, second = (twin.softmax(dim=-1) for twin in twins)
        first_is_less = categorical.mean(first) <= categorical.mean(second)
        less = torch.where(first_is_less[:, None], first, second)
        return categorical.projected(less, rewards, bootstrap)

    def loss(self, outputs: Tensor, target: Tensor, settings: LearningConfig) -> Tensor:
        """Return the mean cross-entropy."""
        losses = categorical.cross_entropy(outputs, target)
        if settings.replay_sampling == "lap":
            # What LAP draws more often for its error counts less by as much. Huber's loss does
            # that for values, but cross-entropy has no linear part.
            with torch.no_grad():
                errors = (self.mean(target) - self.values(outputs)).abs()
                excess = errors.clamp(min=settings.huber_threshold) / settings.huber_threshold
            losses = losses * excess.pow(-settings.priority_exponent)
        return losses.mean()

    @torch.no_grad()
    def constrain(self, weights: Iterable[Tensor]) -> None:
        """Scale the weights of each unit of the linear layers to a norm of 1.

        By unit and not by layer, as in FlashSAC: that keeps the size of what passes through, which
        no normalisation of the hidden layers would bring back here.
        """
        for weight in weights:
            if weight.ndim == 2:  # (outputs, inputs); convolutions have 4 axes, all else has 1
                functional.normalize(weight, dim=1, out=weight)


FORMS: dict[str, CriticForm] = {"scalar": Scalar(), "categorical": Categorical()}
"""By the setting `learning.critic`."""
