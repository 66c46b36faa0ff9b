# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Twin Delayed DDPG (Fujimoto, van Hoof and Meger, 2018) with separate image encoders.

The networks take observations, never features. Each target has its own copy of its encoder; the
actor's loss treats the critic's own features of the state as constants, and only the action
carries a gradient. Two guards keep the actor's tanh alive: the critic learns alone at first, and
the squares of the pre-tanh activations are penalised.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from td3_driver.config import LearningConfig
from td3_driver.learning.augmentation import draw_shifts, jitter_light
from td3_driver.learning.batch import Batch
from td3_driver.learning.networks import (
    IMAGE,
    Actor,
    Critic,
    NetworkSpec,
    Observations,
    dormant_share,
    gradient_norm,
    scale_image,
)
from td3_driver.learning.normalization import RewardNorm
from td3_driver.learning.schedules import linear

SATURATED = 0.99
"""An action component beyond this is at its bound."""

SMALLEST_Q = 1e-6
"""Keeps TD3+BC's ratio finite if every Q is 0."""


class UpdateKind(NamedTuple):
    """What an update changes besides the critic."""

    actor: bool
    targets: bool


class TD3:
    """Actor, critic, their targets and optimisers, and the update.

    With `precision` bfloat16, only encoders and hidden layers compute in bfloat16; weights, last
    layers, targets and losses stay float32.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        settings: LearningConfig,
        device: torch.device | str = "cpu",
        seed: int = 0,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.spec = spec
        self.settings = settings
        self.device = torch.device(device)
        self.precision = precision
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.actor = Actor(spec).to(self.device)
            self.critic = Critic(spec).to(self.device)
        self.form = self.critic.form
        for network in (self.actor, self.critic):
            self.form.constrain(network.parameters())
        self.actor_target = _frozen_copy(self.actor)
        self.critic_target = _frozen_copy(self.critic)
        self.reward_norm = RewardNorm(
            settings.reward_scale, settings.normalize_rewards, self.form.greatest_q
        ).to(self.device)
        self.actor_optimizer = self._adam(
            self.actor, settings.actor_encoder_learning_rate, settings.actor_learning_rate
        )
        self.critic_optimizer = self._adam(
            self.critic, settings.critic_encoder_learning_rate, settings.critic_learning_rate
        )
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0
        self.finite = torch.tensor(True, device=self.device)
        """Whether every loss has been finite; kept on the device so that updates need not wait."""
        self.bc_weight = torch.ones((), device=self.device)
        """Weight of the recorded actions in the actor's loss, if `bc_alpha` is not 0."""
        self.td_errors = torch.zeros(0, device=self.device)
        """The larger of the twins' absolute errors on the latest batch, (B,)."""

    def _adam(self, network: nn.Module, encoder_rate: float, head_rate: float) -> torch.optim.Adam:
        encoder, head = split_parameters(network)
        graphed = self.device.type == "cuda"

        def group(parameters: list[nn.Parameter], rate: float) -> dict[str, object]:
            # A captured update must read the rate, which may change, from the device.
            lr = torch.tensor(rate, device=self.device) if graphed else rate
            return {"params": parameters, "lr": lr, "base_lr": rate}

        groups = [group(encoder, encoder_rate), group(head, head_rate)]
        groups = [each for each in groups if each["params"]]
        return torch.optim.Adam(groups, fused=True, capturable=graphed)

    def begin_update(self) -> UpdateKind:
        """Count an update, set its learning rates, and return its kind.

        The actor and all targets change every `policy_freq`-th update. The actor only starts
        after `actor_warmup_updates` (the targets change during those as well).
        """
        self.updates += 1
        settings = self.settings
        if settings.learning_rate_decay_updates:
            self._set_learning_rates(
                linear(
                    1.0,
                    settings.learning_rate_final_share,
                    settings.learning_rate_decay_updates,
                    self.updates - 1,
                )
            )
        due = self.updates % settings.policy_freq == 0
        return UpdateKind(actor=due and self.updates > settings.actor_warmup_updates, targets=due)

    def _set_learning_rates(self, share: float) -> None:
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            for group in optimizer.param_groups:
                rate = share * group["base_lr"]
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(rate)
                else:
                    group["lr"] = rate

    def update(self, batch: Batch, measure: bool = False) -> dict[str, Tensor]:
        """Do one TD3 update; with `measure`, return its figures as tensors."""
        return self.move(batch, self.begin_update(), measure)

    def move(self, batch: Batch, kind: UpdateKind, measure: bool = False) -> dict[str, Tensor]:
        """Do the arithmetic of an update that `begin_update` started, entirely on the device."""
        batch = batch.to(self.device)
        self.reward_norm.observe(batch.rewards)
        observations = self.prepare(batch.observations)
        next_observations = self.prepare(batch.next_observations)
        figures = self._update_critic(batch, observations, next_observations, measure)
        if kind.actor:
            figures |= self._update_actor(observations, batch.actions, measure)
        if kind.targets:
            self._move_targets()
        return {name: figure.detach() for name, figure in figures.items()}

    def draw_shifts(self, batch_size: int) -> Tensor | None:
        """Return random shifts for a batch's images and next images, int64 (2, 2, B)."""
        most_px = self.settings.image_shift_px
        if not (self.spec.image and most_px):
            return None
        return torch.stack([draw_shifts(batch_size, most_px, self.generator) for _ in range(2)])

    def priorities(self) -> Tensor:
        """Return the latest batch's LAP priorities, (B,) (Fujimoto et al., 2020, eq. 12)."""
        errors = self.td_errors.clamp(min=self.settings.huber_threshold)
        return errors.pow(self.settings.priority_exponent)

    def prepare(self, observations: Observations) -> Observations:
        """Scale the image once for all networks, instead of once in each, and change its light."""
        if IMAGE not in observations:
            return observations
        dtype = self.precision
        if self.precision == torch.float32:
            dtype = next(self.actor.parameters()).dtype
        image = scale_image(observations[IMAGE], dtype)
        if self.settings.image_jitter:
            image = jitter_light(image, self.settings.image_jitter, self.generator)
        return {**observations, IMAGE: image}

    def autocast(self) -> torch.autocast:
        """Return the context in which networks run in the learner's precision."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16
        )

    def target_values(self, batch: Batch, next_observations: Observations) -> Tensor:
        """Return r + discount^steps (1 - terminated) min Q'(s', a'), with a smoothed a'.

        In the form of the critic: (B,) values, or their distributions.
        """
        settings = self.settings
        with torch.no_grad():
            with self.autocast():
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
                twins = self.critic_target(next_observations, (actions + noise).clamp(-1.0, 1.0))
            bootstrap = (1.0 - batch.terminated) * settings.discount**batch.steps
            return self.form.target(self.reward_norm(batch.rewards), bootstrap, twins)

    def critic_loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a head's outputs against targets, according to the settings."""
        return self.form.loss(outputs, target, self.settings)

    def _update_critic(
        self,
        batch: Batch,
        observations: Observations,
        next_observations: Observations,
        measure: bool,
    ) -> dict[str, Tensor]:
        target = self.target_values(batch, next_observations)
        with self.autocast():
            twins = self.critic(observations, batch.actions)
        loss = self.critic_loss(twins[0], target) + self.critic_loss(twins[1], target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        figures = self._gradient_figures("critic", self.critic) if measure else {}
        self._step(self.critic_optimizer, self.critic)
        self.finite &= loss.detach().isfinite()
        q1, q2 = (self.form.values(outputs).detach() for outputs in twins)
        target = self.form.mean(target)
        errors = torch.stack([target - q1, target - q2]).abs()
        self.td_errors = errors.amax(dim=0)
        if not measure:
            return {}
        return figures | {
            "q1_mean": q1.mean(),
            "q1_std": q1.std(),
            "q2_mean": q2.mean(),
            "q2_std": q2.std(),
            "target_mean": target.mean(),
            "target_std": target.std(),
            "td_error_1": errors[0].mean(),
            "td_error_2": errors[1].mean(),
            "critic_loss": loss,
            **self._dormancy("critic", self.critic, observations),
        }

    def _step(self, optimizer: torch.optim.Optimizer, network: nn.Module) -> None:
        """Take an optimiser step, with the gradient norm limited, and the weights if so wanted."""
        if self.settings.gradient_clip_norm:
            nn.utils.clip_grad_norm_(
                network.parameters(), self.settings.gradient_clip_norm, foreach=True
            )
        optimizer.step()
        self.form.constrain(network.parameters())

    def _gradient_figures(self, name: str, network: nn.Module) -> dict[str, Tensor]:
        encoder, head = split_parameters(network)
        figures = {f"{name}_gradient_norm": gradient_norm(head)}
        if encoder:  # with the vector alone, there may be none
            figures[f"{name}_encoder_gradient_norm"] = gradient_norm(encoder)
        return figures

    def _dormancy(
        self, name: str, network: Actor | Critic, observations: Observations
    ) -> dict[str, Tensor]:
        if IMAGE not in observations:
            return {}
        with self.autocast():
            return {f"{name}_dormant_share": dormant_share(network.encoder, observations)}

    def actor_loss(
        self, observations: Observations, recorded: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the actor's loss, its actions, their pre-tanh activations and their Q, (B,).

        `recorded`, (B, actions), holds the batch's actions, which `bc_alpha` needs.
        """
        with self.autocast():
            pre_tanh = self.actor.pre_tanh(observations)
            actions = torch.tanh(pre_tanh)
            q = self.critic.q1_of_action(observations, actions)
        cost = -q.mean()
        if self.settings.bc_alpha and recorded is not None:
            cost = self.bc_weight * functional.mse_loss(actions, recorded) + self._sized(cost, q)
        return cost + self._pre_tanh_cost(pre_tanh), actions, pre_tanh, q

    def _sized(self, cost: Tensor, q: Tensor) -> Tensor:
        """Scale Q to a mean size of `bc_alpha` over a batch (Fujimoto and Gu, 2021, eq. 5)."""
        return cost * self.settings.bc_alpha / q.detach().abs().mean().clamp(min=SMALLEST_Q)

    def _pre_tanh_cost(self, pre_tanh: Tensor) -> Tensor:
        return self.settings.pre_tanh_penalty * pre_tanh.square().mean()

    def _update_actor(
        self, observations: Observations, recorded: Tensor, measure: bool
    ) -> dict[str, Tensor]:
        loss, actions, pre_tanh, q = self.actor_loss(observations, recorded)
        self.actor_optimizer.zero_grad(set_to_none=True)
        # Named explicitly, so that no parameter of the critic can receive a gradient.
        loss.backward(inputs=list(self.actor.parameters()))
        figures = self._gradient_figures("actor", self.actor) if measure else {}
        self._step(self.actor_optimizer, self.actor)
        self.finite &= loss.detach().isfinite()
        if not measure:
            return {}
        return figures | {
            "actor_loss": loss,
            "saturated_share": (actions.abs() > SATURATED).float().mean(),
            "pre_tanh_abs": pre_tanh.abs().mean(),
            "policy_q_mean": q.mean(),
            "policy_distance": (actions - recorded).abs().mean(),
            **self._dormancy("actor", self.actor, observations),
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


def split_parameters(
    network: nn.Module,
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the parameters of a network's encoder, and all others."""
    named = list(network.named_parameters())
    encoder = [parameter for name, parameter in named if name.startswith("encoder.")]
    head = [parameter for name, parameter in named if not name.startswith("encoder.")]
    return encoder, head


Network = TypeVar("Network", bound=nn.Module)


def _frozen_copy(network: Network) -> Network:
    return copy.deepcopy(network).requires_grad_(False)
