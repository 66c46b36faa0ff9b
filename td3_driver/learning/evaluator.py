"""The critic of a checkpoint on its own: what a driver's actions are worth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from td3_driver.learning.checkpoint import LEARNER
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import Critic
from td3_driver.learning.policy import load_spec

PREFIX = "critic."


class Evaluator:
    """Gives the two Q-values of one observation and action, on CPU."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic.eval().requires_grad_(False)

    def q_values(
        self, observation: dict[str, np.ndarray], action: np.ndarray
    ) -> tuple[float, float]:
        """Return Q1 and Q2 of one unbatched observation and action."""
        batch = {key: torch.from_numpy(value)[None] for key, value in observation.items()}
        with torch.inference_mode():
            first, second = self._critic(batch, torch.from_numpy(np.asarray(action))[None])
        return float(first[0]), float(second[0])


def load_critic(checkpoint: Path) -> Evaluator | None:
    """Load the critic of a checkpoint; None where only the actor has been kept.

    Reads nothing else of the learner. Raises CheckpointError where it is damaged.
    """
    path = checkpoint / LEARNER
    if not path.is_file():
        return None
    verify(checkpoint, (LEARNER,))
    critic = Critic(load_spec(checkpoint))
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(PREFIX)]  # noqa: SIM118
            tensors = {name.removeprefix(PREFIX): file.get_tensor(name) for name in names}
        critic.load_state_dict(tensors)
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds no critic that fits: {error}") from None
    return Evaluator(critic)
