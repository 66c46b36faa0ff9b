"""Twin Delayed DDPG (Fujimoto, van Hoof and Meger, 2018) with separate image encoders.

The networks take observations, never features: each target has its own copy of its encoder, the
actor's loss sees the critic's own features of the state as constants, and only the action carries
gradient. Two guards keep the actor's tanh alive: the critic learns alone at first, and the
squares of the pre-tanh activations are penalised.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from td3_driver.config import LearningConfig
from td3_driver.learning.augmentation import random_shift
from td3_driver.learning.networks import (
    Actor,
    Critic,
    NetworkSpec,
    Observations,
    dormant_share,
    gradient_norm,
    scale_image,
)
from td3_driver.learning.replay import Batch

SATURATED = 0.99
"""An action component beyond this is at its bound."""


class TD3:
    """Actor, critic, their targets and optimisers, and the update."""

    def __init__(
        self,
        spec: NetworkSpec,
        settings: LearningConfig,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.device = torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(spec).to(self.device)
            self.critic = Critic(spec).to(self.device)
        self.actor_target = _frozen_copy(self.actor)
        self.critic_target = _frozen_copy(self.critic)
        self.actor_optimizer = _adam(
            self.actor, settings.actor_encoder_learning_rate, settings.actor_learning_rate
        )
        self.critic_optimizer = _adam(
            self.critic, settings.critic_encoder_learning_rate, settings.critic_learning_rate
        )
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0
        self.finite = torch.tensor(True, device=self.device)
        """Whether every loss has been finite; on the device, so that no update waits for it."""

    def update(self, batch: Batch, measure: bool = False) -> dict[str, Tensor]:
        """Take one TD3 update; with `measure`, return its figures as tensors.

        The actor and all targets move every `policy_freq`-th update, once the critic has had
        `actor_warmup_updates` to itself (the targets move during those as well).
        """
        self.updates += 1
        observations = self._augment(batch.observations)
        next_observations = self._augment(batch.next_observations)
        figures = self._update_critic(batch, observations, next_observations, measure)
        if self.updates % self.settings.policy_freq == 0:
            if self.updates > self.settings.actor_warmup_updates:
                figures |= self._update_actor(observations, measure)
            self._move_targets()
        return {name: figure.detach() for name, figure in figures.items()}

    def _augment(self, observations: Observations) -> Observations:
        image = observations["image"].to(self.device)
        image = random_shift(image, self.settings.image_shift_px, self.generator)
        return {
            # Once for all networks: each would do it again.
            "image": scale_image(image),
            "vector": observations["vector"].to(self.device),
        }

    def target_values(self, batch: Batch, next_observations: Observations) -> Tensor:
        """Return r + discount (1 - terminated) min Q'(s', a'), (B,), with a smoothed a'."""
        settings = self.settings
        with torch.no_grad():
            actions = self.actor_target(next_observations)
            noise = torch.randn(
                actions.shape,
                generator=self.generator,
                device=self.device,
                dtype=actions.dtype,
            )
            noise = (noise * settings.policy_noise).clamp(
                -settings.noise_clip, settings.noise_clip
            )
            q1, q2 = self.critic_target(next_observations, (actions + noise).clamp(-1.0, 1.0))
            bootstrap = 1.0 - batch.terminated.to(self.device)
            return batch.rewards.to(self.device) + settings.discount * bootstrap * torch.minimum(
                q1, q2
            )

    def _update_critic(
        self,
        batch: Batch,
        observations: Observations,
        next_observations: Observations,
        measure: bool,
    ) -> dict[str, Tensor]:
        target = self.target_values(batch, next_observations)
        q1, q2 = self.critic(observations, batch.actions.to(self.device))
        loss = functional.mse_loss(q1, target) + functional.mse_loss(q2, target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.critic_optimizer.step()
        self.finite &= loss.detach().isfinite()
        if not measure:
            return {}
        encoder, head = split_parameters(self.critic)
        return {
            "q1_mean": q1.mean(),
            "q1_std": q1.std(),
            "q2_mean": q2.mean(),
            "q2_std": q2.std(),
            "target_mean": target.mean(),
            "target_std": target.std(),
            "td_error_1": (target - q1).abs().mean(),
            "td_error_2": (target - q2).abs().mean(),
            "critic_loss": loss,
            "critic_gradient_norm": gradient_norm(head),
            "critic_encoder_gradient_norm": gradient_norm(encoder),
            "critic_dormant_share": dormant_share(self.critic.encoder, observations),
        }

    def actor_loss(self, observations: Observations) -> tuple[Tensor, Tensor, Tensor]:
        """Return the actor's loss, its actions and their pre-tanh activations."""
        pre_tanh = self.actor.pre_tanh(observations)
        actions = torch.tanh(pre_tanh)
        value = self.critic.q1_of_action(observations, actions).mean()
        return self._pre_tanh_cost(pre_tanh) - value, actions, pre_tanh

    def _pre_tanh_cost(self, pre_tanh: Tensor) -> Tensor:
        return self.settings.pre_tanh_penalty * pre_tanh.square().mean()

    def _update_actor(self, observations: Observations, measure: bool) -> dict[str, Tensor]:
        loss, actions, pre_tanh = self.actor_loss(observations)
        self.actor_optimizer.zero_grad(set_to_none=True)
        # Asked for by name, so that nothing of the critic's can receive a gradient.
        loss.backward(inputs=list(self.actor.parameters()))
        self.actor_optimizer.step()
        self.finite &= loss.detach().isfinite()
        if not measure:
            return {}
        encoder, head = split_parameters(self.actor)
        return {
            "actor_loss": loss,
            "actor_gradient_norm": gradient_norm(head),
            "actor_encoder_gradient_norm": gradient_norm(encoder),
            "saturated_share": (actions.abs() > SATURATED).float().mean(),
            "pre_tanh_abs": pre_tanh.abs().mean(),
            "policy_q_mean": self._pre_tanh_cost(pre_tanh) - loss,
            "actor_dormant_share": dormant_share(self.actor.encoder, observations),
        }

    @torch.no_grad()
    def _move_targets(self) -> None:
        for network, target in (
            (self.actor, self.actor_target),
            (self.critic, self.critic_target),
        ):
            torch._foreach_lerp_(
                list(target.parameters()), list(network.parameters()), self.settings.tau
            )


def _adam(network: nn.Module, encoder_rate: float, head_rate: float) -> torch.optim.Adam:
    encoder, head = split_parameters(network)
    groups = [{"params": encoder, "lr": encoder_rate}, {"params": head, "lr": head_rate}]
    return torch.optim.Adam(groups, fused=True)


def split_parameters(
    network: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of a network's encoder, and the others."""
    named = list(network.named_parameters())
    encoder = [parameter for name, parameter in named if name.startswith("encoder.")]
    head = [parameter for name, parameter in named if not name.startswith("encoder.")]
    return encoder, head


Network = TypeVar("Network", bound=nn.Module)


def _frozen_copy(network: Network) -> Network:
    return copy.deepcopy(network).requires_grad_(False)
