# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The networks of a checkpoint, for choosing and valuing actions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from td3_driver.documents import in_short
from td3_driver.learning.checkpoint import LEARNER
from td3_driver.learning.manifest import CheckpointError, digest_of, verify
from td3_driver.learning.networks import Critic
from td3_driver.learning.policy import WEIGHTS, Policy, unlike

CRITIC = "critic"
"""The critic's name in a learner's file."""
Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class SavedNetworks:
    """A checkpoint's policy and, unless only the actor was saved, its critic; on the CPU."""

    checkpoint: Path
    policy: Policy
    critic: Critic | None
    actor_sha256: str
    """Digest of the actor's weights."""

    @classmethod
    def load(cls, checkpoint: Path) -> SavedNetworks:
        """Load a checkpoint; raises CheckpointError if it is damaged or does not fit."""
        policy = Policy.load(checkpoint)
        critic = None
        if (checkpoint / LEARNER).is_file():
            verify(checkpoint, (LEARNER,))
            critic = load_network(checkpoint, CRITIC, Critic(policy.spec))
        return cls(checkpoint, policy, critic, digest_of(checkpoint, WEIGHTS))

    def q_values(
        self, observation: dict[str, np.ndarray], action: np.ndarray
    ) -> tuple[float, float]:
        """Return Q1 and Q2 of one unbatched observation and action; there must be a critic."""
        assert self.critic is not None
        seen = self.policy.spec.select(observation)
        batch = {key: torch.from_numpy(value)[None] for key, value in seen.items()}
        with torch.inference_mode():
            first, second = self.critic.q_values(batch, torch.from_numpy(np.asarray(action))[None])
        return float(first[0]), float(second[0])


def load_network(checkpoint: Path, name: str, network: Network) -> Network:
    """Load only the network called `name` from a checkpoint's learner.

    Raises CheckpointError if it does not fit; the file is not verified here.
    """
    path, prefix = checkpoint / LEARNER, f"{name}."
    try:
        with safe_open(path, framework="pt") as file:
            names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            found = {key.removeprefix(prefix): file.get_slice(key).get_shape() for key in names}
            expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
            if wrong := unlike({key: tuple(shape) for key, shape in found.items()}, expected):
                raise CheckpointError(f"{path} has no {name} that fits: {wrong}")
            network.load_state_dict({key: file.get_tensor(prefix + key) for key in found})
    except (SafetensorError, RuntimeError, OSError, AttributeError) as error:
        raise CheckpointError(f"{path} has no {name} that fits: {in_short(error)}") from None
    return network.eval().requires_grad_(False)
