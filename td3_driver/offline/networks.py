# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The networks of a checkpoint, for evaluating recorded observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from td3_driver.config import LearningConfig
from td3_driver.driving.observation import Observation
from td3_driver.learning.checkpoint import step_of
from td3_driver.learning.networks import Actor, Critic, NetworkSpec, Observations
from td3_driver.learning.normalization import RewardNorm
from td3_driver.learning.saved_networks import SavedNetworks, load_network


@dataclass(frozen=True)
class Targets:
    """The target networks and the reward scale that TD targets are computed with."""

    actor: Actor
    critic: Critic
    reward_norm: RewardNorm


@dataclass(frozen=True)
class Networks:
    """A checkpoint's networks and, if they were saved, those that TD errors need."""

    saved: SavedNetworks
    learning: LearningConfig
    targets: Targets | None = None

    @property
    def spec(self) -> NetworkSpec:
        """The networks' shape."""
        return self.saved.policy.spec

    @property
    def actor(self) -> Actor:
        """The network that acts."""
        return self.saved.policy.actor

    @property
    def critic(self) -> Critic | None:
        """The network that values actions."""
        return self.saved.critic

    @property
    def name(self) -> str:
        """The run and the step, for display."""
        checkpoint = self.saved.checkpoint
        return f"{checkpoint.parents[1].name} @ {step_of(checkpoint)}"


def load_networks(
    checkpoint: Path, learning: LearningConfig, knows_others: bool = False
) -> Networks:
    """Load the networks of a checkpoint's folder, on the CPU; raises CheckpointError.

    `learning` is the run's, and determines how rewards are scaled and discounted. A checkpoint
    with only an actor has neither critic nor targets. A critic that `knows_others`, who else was
    on the road, cannot judge a bag, which does not say so.
    """
    saved = SavedNetworks.load(checkpoint)
    if knows_others:
        saved = replace(saved, critic=None)
    if saved.critic is None:
        return Networks(saved, learning)
    spec = saved.policy.spec
    critic = Critic(spec)
    reward_norm = RewardNorm(
        learning.reward_scale, learning.normalize_rewards, critic.form.greatest_q
    )
    targets = Targets(
        load_network(checkpoint, "actor_target", Actor(spec)),
        load_network(checkpoint, "critic_target", critic),
        load_network(checkpoint, "reward_norm", reward_norm),
    )
    return Networks(saved, learning, targets)


def batch_of(spec: NetworkSpec, observations: Sequence[Observation]) -> Observations:
    """Return the parts of observations that the networks see, as one batch."""
    seen = [spec.select(observation) for observation in observations]
    return {key: torch.from_numpy(np.stack([item[key] for item in seen])) for key in seen[0]}


@dataclass(frozen=True)
class Evaluation:
    """The networks' view of a batch of decisions; arrays have an entry for each, or NaN."""

    policy_action: np.ndarray
    """float32 (n, 2): the actor's choice."""
    q1: np.ndarray
    q2: np.ndarray
    """Value of the recorded action, by each critic."""
    policy_q: np.ndarray
    """The lower of both values of the actor's choice."""
    td_error_1: np.ndarray
    td_error_2: np.ndarray
    """Target minus value: r + discount (1 - terminated) min Q'(s', pi'(s')) - Q(s, a)."""


def evaluate(
    networks: Networks,
    observations: Sequence[Observation],
    actions: np.ndarray,
    rewards: np.ndarray,
    next_observations: Sequence[Observation | None],
    terminated: np.ndarray,
) -> Evaluation:
    """Evaluate decisions; unknown actions (n, 2) and rewards (n,) are NaN.

    The TD error is that of Fujimoto et al. (2018) with the target networks, but over a single
    decision and without target policy smoothing noise, which makes it deterministic.
    """
    count = len(observations)
    unknown = np.full(count, np.nan, dtype=np.float32)
    values = {
        name: unknown.copy() for name in ("q1", "q2", "policy_q", "td_error_1", "td_error_2")
    }
    with torch.inference_mode():
        batch = batch_of(networks.spec, observations)
        chosen = networks.actor(batch)
        if networks.critic is not None:
            values["policy_q"] = torch.minimum(*networks.critic.q_values(batch, chosen)).numpy()
            known = ~np.isnan(actions).any(axis=1)
            if known.any():
                recorded = torch.from_numpy(np.nan_to_num(actions).astype(np.float32))
                q1, q2 = (q.numpy().copy() for q in networks.critic.q_values(batch, recorded))
                q1[~known] = q2[~known] = np.nan
                values["q1"], values["q2"] = q1, q2
                target = _targets(networks, rewards, next_observations, terminated)
                values["td_error_1"], values["td_error_2"] = target - q1, target - q2
    return Evaluation(chosen.numpy(), **values)


def _targets(
    networks: Networks,
    rewards: np.ndarray,
    next_observations: Sequence[Observation | None],
    terminated: np.ndarray,
) -> np.ndarray:
    """Return the targets (n,); NaN if the next observation is not known."""
    targets = np.full(len(rewards), np.nan, dtype=np.float32)
    known = [index for index, item in enumerate(next_observations) if item is not None]
    if not known or networks.targets is None:
        return targets
    actor, critic = networks.targets.actor, networks.targets.critic
    known_next = [item for item in next_observations if item is not None]
    following = batch_of(networks.spec, known_next)
    twins = critic(following, actor(following))
    bootstrap = networks.learning.discount * (1.0 - torch.from_numpy(terminated[known]))
    scaled = networks.targets.reward_norm(torch.from_numpy(rewards[known]))
    targets[known] = critic.form.mean(critic.form.target(scaled, bootstrap, twins)).numpy()
    return targets
