# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The actor on its own: it acts during training, and the driver loads it."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import Actor, NetworkSpec

WEIGHTS = "actor.safetensors"
SPEC = "networks.json"
POLICY_FILES = (WEIGHTS, SPEC)


class Policy:
    """Maps one observation to one action, on CPU, without noise."""

    def __init__(self, actor: Actor, spec: NetworkSpec) -> None:
        self.spec = spec
        self.actor = actor.eval().requires_grad_(False)
        self._lock = threading.Lock()

    @classmethod
    def like(cls, spec: NetworkSpec) -> Policy:
        """Make a policy of this shape; `follow` sets its weights."""
        return cls(Actor(spec), spec)

    @classmethod
    def load(cls, checkpoint: Path) -> Policy:
        """Load the actor of a checkpoint folder, without running any code from it.

        Raises CheckpointError if a file is missing or damaged, or does not fit the networks.
        """
        verify(checkpoint, POLICY_FILES)
        spec = load_spec(checkpoint)
        try:
            policy = cls.like(spec)
        except (RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{checkpoint / SPEC} cannot be used: {error}") from None
        tensors = load_tensors(checkpoint / WEIGHTS)
        try:
            policy.actor.load_state_dict(tensors)
        except RuntimeError as error:
            raise CheckpointError(f"{checkpoint / WEIGHTS} does not fit {SPEC}: {error}") from None
        return policy

    @property
    def observed(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parts of an observation that it sees, by the environment's keys."""
        spec = self.spec
        image = {spec.image_key: spec.image} if spec.image else {}
        vector = {spec.vector_key: (len(spec.vector_scale),)} if spec.vector_scale else {}
        return {**image, **vector}

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return the action, float32 (actions,) in [-1, 1], for one unbatched observation."""
        seen = self.spec.select(observation)
        batch = {key: torch.from_numpy(value)[None] for key, value in seen.items()}
        with torch.inference_mode(), self._lock:
            return self.actor(batch)[0].numpy()

    def follow(self, actor: Actor) -> None:
        """Copy the weights and buffers of a learning actor, from any device."""
        with torch.no_grad(), self._lock:
            self.actor.load_state_dict(actor.state_dict())


def save_actor(folder: Path, actor: Actor, spec: NetworkSpec) -> None:
    """Write an actor's weights and the shape of its networks."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in actor.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / SPEC).write_text(json.dumps(dataclasses.asdict(spec), indent=1))


def load_spec(folder: Path) -> NetworkSpec:
    """Read the shape of a checkpoint's networks."""
    path = folder / SPEC
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.items()
        }
        return NetworkSpec(**fields)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {SPEC}") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, or raise CheckpointError."""
    try:
        return load_file(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
