# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Twin Delayed DDPG (Fujimoto, van Hoof and Meger, 2018) for images.

By default, actor and critic have separate encoders, and each target has its own copy of its
encoder. With `encoders: critic`, the actor's head is all that learns of the actor: it acts on what
the critic's encoder sees, which the critic's loss alone trains (as in DrQ-v2, Yarats et al.,
2021), and the target actor's head on what the target critic's sees. Either way the actor's loss
treats the critic's features of the state as constants, and only the action carries a gradient.

Two guards keep the actor's tanh alive: the critic learns alone at first, and the squares of the
pre-tanh activations are penalised.
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
    FEATURES,
    IMAGE,
    VECTOR,
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
from td3_driver.learning.self_prediction import Ahead, Seen, SelfPredictions, make_heads

SATURATED = 0.99
"""An action component beyond this is at its bound."""

SMALLEST_Q = 1e-6
"""Keeps TD3+BC's ratio finite if every Q is 0."""


class Trained(NamedTuple):
    """The parameters that one loss trains."""

    encoder: list[nn.Parameter]
    head: list[nn.Parameter]

    @property
    def all(self) -> list[nn.Parameter]:
        """Those of both."""
        return self.encoder + self.head


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
            heads = make_heads(spec, settings)
        self.form = self.critic.form
        for network in (self.actor, self.critic):
            self.form.constrain(network.parameters())
        self.actor_target = _frozen_copy(self.actor)
        self.critic_target = _frozen_copy(self.critic)
        if spec.shares_image_layers:
            self.actor.encoder.look_through(self.critic.encoder)
            self.actor_target.encoder.look_through(self.critic_target.encoder)
        self.reward_norm = RewardNorm(
            settings.reward_scale, settings.normalize_rewards, self.form.greatest_q
        ).to(self.device)
        self._of_actor, self._of_critic = map(split_parameters, (self.actor, self.critic))
        if spec.shares_image_layers:
            self._of_actor = Trained([], self._of_actor.head)
        self.actor_optimizer = self._adam(
            self._of_actor, settings.actor_encoder_learning_rate, settings.actor_learning_rate
        )
        self.critic_optimizer = self._adam(
            self._of_critic, settings.critic_encoder_learning_rate, settings.critic_learning_rate
        )
        self.predictions = SelfPredictions(
            {name: head.to(self.device) for name, head in heads.items()},
            lambda head, rate: self._adam(Trained([], list(head.parameters())), rate, rate),
            settings,
        )
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.updates = 0
        self.finite = torch.tensor(True, device=self.device)
        """Whether every loss has been finite; kept on the device so that updates need not wait."""
        self.bc_weight = torch.ones((), device=self.device)
        """Weight of the recorded actions in the actor's loss, if `bc_alpha` is not 0."""
        self.td_errors = torch.zeros(0, device=self.device)
        """The larger of the twins' absolute errors on the latest batch, (B,)."""

    def _adam(self, trained: Trained, encoder_rate: float, head_rate: float) -> torch.optim.Adam:
        graphed = self.device.type == "cuda"

        def group(parameters: list[nn.Parameter], rate: float) -> dict[str, object]:
            # A captured update must read the rate, which may change, from the device.
            lr = torch.tensor(rate, device=self.device) if graphed else rate
            return {"params": parameters, "lr": lr, "base_lr": rate}

        groups = [group(trained.encoder, encoder_rate), group(trained.head, head_rate)]
        groups = [each for each in groups if each["params"]]
        return torch.optim.Adam(groups, fused=True, capturable=graphed)

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """All that an update steps."""
        return [
            self.actor_optimizer,
            self.critic_optimizer,
            *self.predictions.optimizers.values(),
        ]

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
        for optimizer in self.optimizers:
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
        following, ahead = None, {}
        if self.predictions.heads:
            following = self._see_next(next_observations)
            ahead = self.predictions.ahead(batch, following, self.prepare, self._target_features)
        figures, encoded = self._update_critic(
            batch, observations, next_observations, following, ahead, measure
        )
        if kind.actor:
            reuses = self.spec.shares_image_layers or self.settings.reuse_critic_features
            reused = encoded if reuses else None
            figures |= self._update_actor(observations, batch.actions, measure, reused, ahead)
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

    @torch.no_grad()
    def _see_next(self, observations: Observations) -> Seen:
        """Return observations as target actor and target critic encode them, each once."""
        with self.autocast():
            by_critic = self.critic_target.encoder.encoded(observations)
            if self.spec.shares_image_layers:
                return Seen(by_critic, by_critic)
            return Seen(self.actor_target.encoder.encoded(observations), by_critic)

    @torch.no_grad()
    def _target_features(self, name: str, observations: Observations) -> Tensor:
        """Return the features that a network's target encoder makes of an image."""
        network = self.actor_target if name == "actor" else self.critic_target
        with self.autocast():
            return network.encoder.encoded(observations)[FEATURES]

    def target_values(
        self, batch: Batch, next_observations: Observations, seen: Seen | None = None
    ) -> Tensor:
        """Return r + discount^steps (1 - terminated) min Q'(s', a'), with a smoothed a'.

        In the form of the critic: (B,) values, or their distributions. `seen` are the next
        observations with the target encoders' features, if they are known already.
        """
        settings = self.settings
        with torch.no_grad():
            with self.autocast():
                if seen is None and self.spec.shares_image_layers:
                    next_observations = self.critic_target.encoder.encoded(next_observations)
                seen = seen or Seen(next_observations, next_observations)
                actions = self.actor_target(seen.by_actor)
                noise = torch.randn(
                    actions.shape,
                    generator=self.generator,
                    device=self.device,
                    dtype=actions.dtype,
                )
                noise = (noise * settings.policy_noise).clamp(
                    -settings.noise_clip, settings.noise_clip
                )
                twins = self.critic_target(seen.by_critic, (actions + noise).clamp(-1.0, 1.0))
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
        following: Seen | None,
        ahead: dict[str, Ahead],
        measure: bool,
    ) -> tuple[dict[str, Tensor], Observations]:
        """Return the figures, and the observations as the critic encoded them for its loss."""
        target = self.target_values(batch, next_observations, following)
        with self.autocast():
            encoded = self.critic.encoder.encoded(observations)
            twins = self.critic(encoded, batch.actions)
        detached = {key: value.detach() for key, value in encoded.items()}
        loss = self.critic_loss(twins[0], target) + self.critic_loss(twins[1], target)
        self.critic_optimizer.zero_grad(set_to_none=True)
        predicted = self.predictions.backward("critic", loss, self._of_critic.all, encoded, ahead)
        figures = self._gradient_figures("critic", self._of_critic) if measure else {}
        self._step(self.critic_optimizer, self._of_critic)
        self._note_finite(loss, *predicted.values())
        q1, q2 = (self.form.values(outputs).detach() for outputs in twins)
        target = self.form.mean(target)
        errors = torch.stack([target - q1, target - q2]).abs()
        self.td_errors = errors.amax(dim=0)
        if not measure:
            return {}, detached
        figures |= {
            "q1_mean": q1.mean(),
            "q1_std": q1.std(),
            "q2_mean": q2.mean(),
            "q2_std": q2.std(),
            "target_mean": target.mean(),
            "target_std": target.std(),
            "td_error_1": errors[0].mean(),
            "td_error_2": errors[1].mean(),
            "critic_loss": loss,
            **predicted,
            **self._dormancy("critic", self.critic, observations),
        }
        return figures, detached

    def _note_finite(self, *losses: Tensor) -> None:
        for loss in losses:
            self.finite &= loss.detach().isfinite()

    def _step(self, optimizer: torch.optim.Optimizer, trained: Trained) -> None:
        """Take an optimiser step, with the gradient norm limited, and the weights if so wanted."""
        if self.settings.gradient_clip_norm:
            nn.utils.clip_grad_norm_(trained.all, self.settings.gradient_clip_norm, foreach=True)
        optimizer.step()
        self.form.constrain(trained.all)

    def _gradient_figures(self, name: str, trained: Trained) -> dict[str, Tensor]:
        figures = {f"{name}_gradient_norm": gradient_norm(trained.head)}
        if trained.encoder:  # with the vector alone, or the critic's encoder, there is none
            figures[f"{name}_encoder_gradient_norm"] = gradient_norm(trained.encoder)
        return figures

    def _dormancy(
        self, name: str, network: Actor | Critic, observations: Observations
    ) -> dict[str, Tensor]:
        if not network.encoder.spec.image:
            return {}
        with self.autocast():
            return {f"{name}_dormant_share": dormant_share(network.encoder, observations)}

    def actor_loss(
        self,
        observations: Observations,
        recorded: Tensor | None = None,
        encoded: Observations | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the actor's loss, its actions, their pre-tanh activations and their Q, (B,).

        `recorded`, (B, actions), holds the batch's actions, which `bc_alpha` needs. `encoded` are
        the observations with the critic's features, without gradient, if they are known already.
        """
        with self.autocast():
            if encoded is None:
                with torch.no_grad():
                    encoded = self.critic.encoder.encoded(observations)
            # Only an actor that looks through the critic's layers can do with its features.
            seen = encoded if self.spec.shares_image_layers else observations
            pre_tanh = self.actor.pre_tanh(seen)
            actions = torch.tanh(pre_tanh)
            q = self.critic.q1_of_action(encoded, actions)
        cost = -q.mean()
        if self.settings.imitated == "advice":  # the last of what only training knows
            recorded = observations[VECTOR][:, -actions.shape[1] :]
        if self.settings.bc_alpha and recorded is not None:
            cost = self.bc_weight * functional.mse_loss(actions, recorded) + self._sized(cost, q)
        return cost + self._pre_tanh_cost(pre_tanh), actions, pre_tanh, q

    def _sized(self, cost: Tensor, q: Tensor) -> Tensor:
        """Scale Q to a mean size of `bc_alpha` over a batch (Fujimoto and Gu, 2021, eq. 5)."""
        return cost * self.settings.bc_alpha / q.detach().abs().mean().clamp(min=SMALLEST_Q)

    def _pre_tanh_cost(self, pre_tanh: Tensor) -> Tensor:
        return self.settings.pre_tanh_penalty * pre_tanh.square().mean()

    def _update_actor(
        self,
        observations: Observations,
        recorded: Tensor,
        measure: bool,
        encoded: Observations | None,
        ahead: dict[str, Ahead],
    ) -> dict[str, Tensor]:
        seen = observations
        if "actor" in self.predictions.heads:
            with self.autocast():
                seen = self.actor.encoder.encoded(observations)
        loss, actions, pre_tanh, q = self.actor_loss(seen, recorded, encoded)
        self.actor_optimizer.zero_grad(set_to_none=True)
        predicted = self.predictions.backward("actor", loss, self._of_actor.all, seen, ahead)
        figures = self._gradient_figures("actor", self._of_actor) if measure else {}
        self._step(self.actor_optimizer, self._of_actor)
        self._note_finite(loss, *predicted.values())
        if not measure:
            return {}
        return figures | {
            "actor_loss": loss,
            **predicted,
            "saturated_share": (actions.abs() > SATURATED).float().mean(),
            "pre_tanh_abs": pre_tanh.abs().mean(),
            "policy_q_mean": q.mean(),
            "policy_distance": (actions - recorded).abs().mean(),
            **self._dormancy("actor", self.actor, observations),
        }

    @torch.no_grad()
    def _move_targets(self) -> None:
        actors: tuple[nn.Module, nn.Module] = self.actor, self.actor_target
        if self.spec.shares_image_layers:  # those layers move with the target critic
            actors = self.actor.head, self.actor_target.head
        for network, target in (actors, (self.critic, self.critic_target)):
            torch._foreach_lerp_(
                list(target.parameters()), list(network.parameters()), self.settings.tau
            )


def split_parameters(network: nn.Module) -> Trained:
    """Return the parameters of a network's encoder, and all others."""
    named = list(network.named_parameters())
    encoder = [parameter for name, parameter in named if name.startswith("encoder.")]
    head = [parameter for name, parameter in named if not name.startswith("encoder.")]
    return Trained(encoder, head)


Network = TypeVar("Network", bound=nn.Module)


def _frozen_copy(network: Network) -> Network:
    return copy.deepcopy(network).requires_grad_(False)
