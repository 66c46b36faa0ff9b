# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The rest of a checkpoint's learner: the networks that estimate the value of actions."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from td3_driver.learning.checkpoint import LEARNER
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import Critic
from td3_driver.learning.policy import load_spec

CRITIC = "critic"
"""What a learner's file calls it."""
Network = TypeVar("Network", bound=nn.Module)


class Evaluator:
    """Gives the two Q-values of one observation and action, on CPU."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic.eval().requires_grad_(False)

    def q_values(
        self, observation: dict[str, np.ndarray], action: np.ndarray
    ) -> tuple[float, float]:
        """Return Q1 and Q2 of one unbatched observation and action."""
        seen = self._critic.encoder.spec.select(observation)
        batch = {key: torch.from_numpy(value)[None] for key, value in seen.items()}
        with torch.inference_mode():
            first, second = self._critic(batch, torch.from_numpy(np.asarray(action))[None])
        return float(first[0]), float(second[0])


def load_critic(checkpoint: Path) -> Evaluator | None:
    """Load the critic of a checkpoint; None where only the actor has been kept.

    Reads nothing else of the learner. Raises CheckpointError where it is damaged.
    """
    if not has_learner(checkpoint):
        return None
    verify(checkpoint, (LEARNER,))
    return Evaluator(load_network(checkpoint, CRITIC, Critic(load_spec(checkpoint))))


def has_learner(checkpoint: Path) -> bool:
    """Return whether a checkpoint holds more than its actor."""
    return (checkpoint / LEARNER).is_file()


def load_network(checkpoint: Path, name: str, network: Network) -> Network:
    """Fill a network with what a checkpoint's learner has under `name`, and nothing else of it.

    Raises CheckpointError where that does not fit; the file is not verified here.
    """
    path, prefix = checkpoint / LEARNER, f"{name}."
    try:
        with safe_open(path, framework="pt") as file:
            names = [key for key in file.keys() if key.startswith(prefix)]  # noqa: SIM118
            tensors = {key.removeprefix(prefix): file.get_tensor(key) for key in names}
        network.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds no {name} that fits: {error}") from None
    return network.eval().requires_grad_(False)
