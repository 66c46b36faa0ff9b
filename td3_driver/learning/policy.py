# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The actor on its own: it acts during training, and the driver loads it."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from td3_driver.config import in_words
from td3_driver.documents import DocumentError, DocumentMissingError, in_short, load_json
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import Actor, NetworkSpec, weights_of

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
            expected = weights_of(Actor, spec)
        except ValueError as error:
            raise CheckpointError(f"{checkpoint / SPEC} cannot be used: {error}") from None
        if wrong := unlike(shapes_of(checkpoint / WEIGHTS), expected):
            raise CheckpointError(f"{checkpoint / WEIGHTS} does not fit {SPEC}: {wrong}")
        policy = cls.like(spec)
        policy.actor.load_state_dict(load_tensors(checkpoint / WEIGHTS))
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
        self.take(actor.state_dict())

    def take(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Copy weights and buffers, by name as in the actor's `state_dict`."""
        with torch.no_grad(), self._lock:
            self.actor.load_state_dict(weights)

    def weights(self) -> dict[str, np.ndarray]:
        """Return a copy of the weights and buffers by name, for another process."""
        with self._lock:
            return {name: value.numpy().copy() for name, value in self.actor.state_dict().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over what `weights` returned, in this or another process."""
        # The arrays may be read-only and shared, and are not kept.
        self.take({name: torch.tensor(value) for name, value in weights.items()})


def save_actor(folder: Path, actor: Actor, spec: NetworkSpec) -> None:
    """Write an actor's weights and the shape of its networks."""
    tensors = {name: tensor.contiguous().cpu() for name, tensor in actor.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / SPEC).write_text(json.dumps(dataclasses.asdict(spec), indent=1))


_SPECS = TypeAdapter(NetworkSpec)


def load_spec(folder: Path) -> NetworkSpec:
    """Read the shape of a checkpoint's networks; raises CheckpointError."""
    path = folder / SPEC
    try:
        return _SPECS.validate_python(load_json(path))
    except DocumentMissingError:
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {SPEC}") from None
    except DocumentError as error:
        raise CheckpointError(str(error)) from None
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {in_short(in_words(error))}") from None


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file, or raise CheckpointError."""
    with _damage_told(path):
        return load_file(path)


Shapes = Mapping[str, tuple[int, ...]]


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what is in a safetensors file, by name, without reading it.

    Raises CheckpointError.
    """
    with _damage_told(path), safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def unlike(found: Shapes, expected: Shapes) -> str:
    """Return how what is in a file differs from what should be; "" if it does not."""
    if missing := expected.keys() - found.keys():
        return in_short(f"it has no {min(missing)}")
    if more := found.keys() - expected.keys():
        return in_short(f"it has {min(more)}, which has no place")
    for name, shape in expected.items():
        if found[name] != shape:
            return in_short(f"{name} is {found[name]}, not {shape}")
    return ""


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing") from None
    except (SafetensorError, OSError, AttributeError) as error:
        # A kind of numbers that PyTorch does not have is an AttributeError.
        raise CheckpointError(f"{path} is damaged: {in_short(error)}") from None
