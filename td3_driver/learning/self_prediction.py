# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Self-prediction: an encoder also learns to make features from which the next ones follow.

After MR.Q (Fujimoto et al., 2025, arXiv 2501.16142) and DR.Q (arXiv 2605.11711). From an encoder's
features of the image and the action, a small head predicts the features that the target encoder
makes of the next image, and the reward; on what it predicted it goes on, for some decisions. The
prediction is also to be nearer to its own next features than to those of the rest of the batch
(InfoNCE, van den Oord et al., 2018), which features that are all alike cannot be.

In those papers such losses train the encoder alone. Here they are added to the loss that trains
it anyway: the critic's by default, as its encoder learns from the first update on and from every
one. The actor's encoder, which is the one that drives, learns likewise beside the actor's loss if
that is wanted, or if it is the only one.

The vector is left out. It holds the previous action, by which a batch's transitions could be told
apart without looking, and for the critic perhaps what the image shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from td3_driver.config import LearningConfig
from td3_driver.learning import categorical
from td3_driver.learning.batch import Batch
from td3_driver.learning.networks import FEATURES, IMAGE, NetworkSpec, Observations

HIDDEN = 256
"""Width of the head's hidden layer."""
REWARD_WEIGHT = 0.1
"""Weight of the reward against the features; MR.Q's."""
CONTRAST_WEIGHT = 0.1
"""Weight of InfoNCE against the features."""
TEMPERATURE = 0.1
"""Of InfoNCE: the cosines of features are divided by it."""


class Ahead(NamedTuple):
    """What followed a batch of observations, decision by decision, K of them."""

    actions: Tensor
    """(K, B, actions)."""
    rewards: Tensor
    """(K, B)."""
    going: Tensor
    """(K, B): 1 while the decisions belong to the same drive, then 0; all of the first are 1."""
    features: Tensor
    """(K, B, image_features): what the target encoder makes of the image that each led to."""


class Seen(NamedTuple):
    """Observations as two networks encoded them, each for itself or both alike."""

    by_actor: Observations
    by_critic: Observations


class SelfPrediction(nn.Module):
    """The head: from features and an action to the next features, and to the reward."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(spec.image_features + spec.actions, HIDDEN), nn.ReLU(inplace=True)
        )
        self.features = nn.Linear(HIDDEN, spec.image_features)
        self.reward = nn.Linear(HIDDEN, categorical.ATOMS)

    def forward(self, features: Tensor, ahead: Ahead) -> Tensor:
        """Return the mean loss over batch and decisions of predictions from features (B, n)."""
        dtype = self.reward.weight.dtype
        losses = []
        with torch.autocast(features.device.type, enabled=False):
            predicted = features.to(dtype)
            for actions, rewards, going, following in zip(*ahead, strict=True):
                hidden = self.hidden(torch.cat([predicted, actions.to(dtype)], dim=1))
                predicted = self.features(hidden)
                following = following.to(dtype)
                each = (
                    (predicted - following).square().mean(dim=1)
                    + REWARD_WEIGHT * reward_loss(self.reward(hidden), rewards.to(dtype))
                    + CONTRAST_WEIGHT * contrast(predicted, following)
                )
                losses.append((going * each).sum() / going.sum().clamp(min=1.0))
        return torch.stack(losses).mean()


class SelfPredictions:
    """The heads of the encoders that learn so, by the names of their networks, as they learn."""

    def __init__(
        self,
        heads: dict[str, SelfPrediction],
        adam: Callable[[SelfPrediction, float], torch.optim.Optimizer],
        settings: LearningConfig,
    ) -> None:
        """Take heads, and what makes an optimiser of one with a learning rate.

        That is the rate of the network's own head.
        """
        rates = {"actor": settings.actor_learning_rate, "critic": settings.critic_learning_rate}
        self.heads = heads
        self.optimizers = {name: adam(head, rates[name]) for name, head in heads.items()}
        self._weight = settings.self_prediction

    def ahead(
        self,
        batch: Batch,
        following: Seen,
        prepare: Callable[[Observations], Observations],
        encode: Callable[[str, Observations], Tensor],
    ) -> dict[str, Ahead]:
        """Return what each head is to predict, with the features of its target encoder.

        `following` are the batch's next observations as the target encoders see them. `prepare`
        does with further images as was done with theirs, and `encode` gives the features that a
        network's target encoder makes of them.
        """
        told = batch.ahead
        if told is None:  # one decision, which led to the next observations
            rewards = batch.rewards[None]
            seen = {"actor": following.by_actor, "critic": following.by_critic}
            return {
                name: Ahead(
                    batch.actions[None],
                    rewards,
                    torch.ones_like(rewards),
                    seen[name][FEATURES][None],
                )
                for name in self.heads
            }
        actions, rewards, going = (
            told[name].transpose(0, 1) for name in ("actions", "rewards", "going")
        )
        images = prepare({IMAGE: told[IMAGE].flatten(0, 1)})

        def by_decision(features: Tensor) -> Tensor:
            return features.unflatten(0, (-1, len(actions))).transpose(0, 1)

        return {
            name: Ahead(actions, rewards, going, by_decision(encode(name, images)))
            for name in self.heads
        }

    def backward(
        self,
        name: str,
        loss: Tensor,
        parameters: list[nn.Parameter],
        encoded: Observations,
        ahead: dict[str, Ahead],
    ) -> dict[str, Tensor]:
        """Add the gradients of a network's loss, and of self-prediction if its encoder learns so.

        `parameters` are the network's, and no other's get any. The head takes its step at once.
        Returns the figure of self-prediction.
        """
        if name not in self.heads:
            loss.backward(inputs=parameters)
            return {}
        head, optimizer = self.heads[name], self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        predicted = head(encoded[FEATURES], ahead[name])
        (loss + self._weight * predicted).backward(inputs=[*parameters, *head.parameters()])
        optimizer.step()
        return {f"{name}_self_prediction_loss": predicted}


def reward_loss(logits: Tensor, rewards: Tensor) -> Tensor:
    """Return the cross-entropies, (B,), of two-hot rewards; logits are (B, ATOMS).

    Rewards of up to 147 fit the atoms in the form sign(r) ln(1 + |r|), which is DreamerV3's
    (Hafner et al., 2023).
    """
    squeezed = rewards.sign() * rewards.abs().log1p()
    return categorical.cross_entropy(logits, categorical.two_hot(squeezed))


def contrast(predicted: Tensor, following: Tensor) -> Tensor:
    """Return InfoNCE, (B,): how ill each prediction tells its own next features from the others'.

    Both are (B, n).
    """
    one, other = (functional.normalize(each, dim=1) for each in (predicted, following))
    return -(one @ other.T / TEMPERATURE).log_softmax(dim=1).diagonal()


def decisions_ahead(settings: LearningConfig) -> int:
    """Return how many decisions a batch must tell of one by one.

    0 where its next observations, which follow the first decision, are enough.
    """
    steps = settings.self_prediction_steps
    one_is_there = steps == 1 and settings.n_step == 1
    return steps if settings.self_prediction and not one_is_there else 0


def make_heads(spec: NetworkSpec, settings: LearningConfig) -> dict[str, SelfPrediction]:
    """Return a head for each encoder that learns so, by the name of its network."""
    if not (settings.self_prediction and spec.image):
        return {}
    names: tuple[str, ...] = (spec.encoders,)
    if spec.encoders == "separate":
        of = settings.self_prediction_of
        names = ("critic", "actor") if of == "both" else (of,)
    return {name: SelfPrediction(spec) for name in names}
