# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Actor and critic for dict observations, each with its own encoder or with the critic's."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import gymnasium
import numpy as np
import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from td3_driver.config import MOST_WEIGHTS, ConfigError, CriticKind, LearningConfig, Width
from td3_driver.learning.critic_forms import FORMS

IMAGE, VECTOR, PRIVILEGED = "image", "vector", "privileged"
"""The keys of the learner's own observations, whatever the environment calls them."""
FEATURES = "features"
"""What an encoder made of the image, (B, image_features), in observations that it has encoded."""

Observations = dict[str, Tensor]

NOTHING = np.zeros(0, np.float32)
"""Scale of no entries at all."""

_CONVOLUTIONS = ((8, 4), (4, 2), (3, 1))
"""Kernel and stride of the convolutions of Mnih et al. (2015)."""
_Side = Annotated[int, Field(ge=1, le=4096)]
_Scale = Annotated[float, Field(gt=0.0)]


@dataclass(frozen=True)
class NetworkSpec:
    """Everything that determines the networks' shape; saved beside their weights.

    The limits count where it is read from a file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    image: Annotated[tuple[_Side, ...], Field(min_length=3, max_length=4)] | None
    """Shape of the image stack: (stack, height, width), or (stack, channels, height, width);
    None if the networks see no image."""
    vector_scale: Annotated[tuple[_Scale, ...], Field(max_length=1 << 16)]
    """Usual magnitude of each entry of the vector, which is divided by it; empty if the networks
    see no vector."""
    actions: Width
    channels: tuple[Width, Width, Width]
    image_features: Width
    hidden: Annotated[tuple[Width, ...], Field(max_length=16)]
    image_key: Annotated[str, Field(max_length=256)] = IMAGE
    vector_key: Annotated[str, Field(max_length=256)] = VECTOR
    image_layer_norm: bool = True
    privileged_scale: Annotated[tuple[_Scale, ...], Field(max_length=1 << 16)] = ()
    """The same as `vector_scale`, for entries that only the critic sees; they follow the vector's
    in what is stored and sampled."""
    privileged_key: Annotated[str, Field(max_length=256)] = PRIVILEGED
    critic: CriticKind = "scalar"
    encoders: Literal["separate", "critic", "actor"] = "separate"
    """Who has image layers: actor and critic, each its own; the critic, through whose layers the
    learning actor looks; or the actor alone."""

    @property
    def shares_image_layers(self) -> bool:
        """Whether the learning actor looks at an image through the critic's layers."""
        return self.encoders == "critic" and self.image is not None

    @property
    def of_critic(self) -> NetworkSpec:
        """The shape of the critic, which sees everything, or all but the image."""
        scale = (*self.vector_scale, *self.privileged_scale)
        image = None if self.encoders == "actor" else self.image
        return dataclasses.replace(self, image=image, vector_scale=scale, privileged_scale=())

    @property
    def state_size(self) -> int:
        """Size of an encoder's output: features of the image and of the vector."""
        image = self.image_features if self.image else 0
        return image + len(self.vector_scale)

    def select(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the networks see of an environment's observation, under their own names.

        What only the critic sees is left out where the observation lacks it, as when driving.
        """
        seen = {}
        if self.image:
            seen[IMAGE] = observation[self.image_key]
        keys = [self.vector_key] if self.vector_scale else []
        if self.privileged_scale and self.privileged_key in observation:
            keys.append(self.privileged_key)
        if keys:
            vectors = [observation[key] for key in keys]
            seen[VECTOR] = vectors[0] if len(vectors) == 1 else np.concatenate(vectors)
        return seen


def network_spec(
    config: LearningConfig,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    vector_scale: np.ndarray,
    privileged_scale: np.ndarray = NOTHING,
) -> NetworkSpec:
    """Derive the networks' shape from an environment's spaces and the configuration.

    `vector_scale` is the usual magnitude of each entry of the vector, and `privileged_scale` of
    those that only the critic sees. Raises ConfigError if the observations lack a configured key.
    """
    assert isinstance(observation_space, gymnasium.spaces.Dict)
    assert action_space.shape is not None
    for setting in ("image_key", "vector_key"):
        key = getattr(config, setting)
        if key and key not in observation_space.spaces:
            raise ConfigError(
                f"learning.{setting} is {key!r}, but the observations have "
                f"{', '.join(observation_space.spaces)}"
            )
    spec = NetworkSpec(
        image=observation_space[config.image_key].shape if config.image_key else None,
        vector_scale=tuple(map(float, vector_scale)) if config.vector_key else (),
        actions=action_space.shape[0],
        channels=config.channels,
        image_features=config.image_features,
        hidden=config.hidden,
        image_key=config.image_key,
        vector_key=config.vector_key,
        image_layer_norm=config.image_layer_norm,
        privileged_scale=tuple(map(float, privileged_scale)),
        critic=config.critic,
        encoders=config.encoders,
    )
    try:
        weights_of(Critic, spec)
    except ValueError as error:
        raise ConfigError(f"learning.channels, image_features and hidden: {error}") from None
    return spec


def scale_image(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map uint8 stacks (B, stack, [channels,] h, w) to [-0.5, 0.5], (B, images, h, w).

    The result is channels-last in memory, the fastest layout for convolutions. A float image is
    returned as it is.
    """
    if image.is_floating_point():
        return image
    image = image.flatten(1, -3)
    if image.device.type == "cpu":
        # The same as the conversion below, in half the time.
        image = torch.stack(image.unbind(1), dim=-1).movedim(-1, 1)
    image = image.contiguous(memory_format=torch.channels_last)
    # In this order only the last step rounds: bfloat16 holds every multiple of 1/2 up to 127.5.
    return image.to(dtype).sub_(127.5).mul_(1 / 255)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def _convolved(side: int) -> int:
    """Return what the convolutions leave of a side of an image; ValueError if that is nothing."""
    left = side
    for kernel, stride in _CONVOLUTIONS:
        left = (left - kernel) // stride + 1
    if left < 1:
        raise ValueError(f"an image with a side of {side} px is too small to be convolved")
    return left


def _bounded(inputs: int, outputs: int) -> nn.Sequential:
    """Return a layer whose features stay within [-1, 1] (Yarats et al., 2019, 2021)."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.Tanh())


def in_full_precision(head: nn.Sequential, inputs: Tensor) -> Tensor:
    """Apply a head, with its last layer outside autocast.

    In bfloat16, tanh is exactly 1 and its gradient exactly 0 from 3.47 on, and a Q-value has only
    two or three digits.
    """
    *layers, last = head
    for layer in layers:
        inputs = layer(inputs)
    with torch.autocast(inputs.device.type, enabled=False):
        return last(inputs.to(_dtype(last)))


class Encoder(nn.Module):
    """Observation to state: the convolutions of Mnih et al. (2015), then the scaled vector.

    LayerNorm and tanh keep the image features within [-1, 1], like the scaled vector beside them.
    Either key may be left out.
    """

    vector_scale: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        if spec.image:
            self._add_image(spec)
        if spec.vector_scale:
            self.register_buffer("vector_scale", torch.tensor(spec.vector_scale))

    def _add_image(self, spec: NetworkSpec) -> None:
        assert spec.image is not None
        *stacked, height, width = spec.image
        layers: list[nn.Module] = []
        inputs = math.prod(stacked)
        for outputs, (kernel, stride) in zip(spec.channels, _CONVOLUTIONS, strict=True):
            layers += [nn.Conv2d(inputs, outputs, kernel, stride), nn.ReLU(inplace=True)]
            inputs = outputs
        self.convolutions = nn.Sequential(*layers, nn.Flatten())
        # The fastest layout for convolutions, on CPU and GPU alike.
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        flat = inputs * _convolved(height) * _convolved(width)
        self.trunk = (
            _bounded(flat, spec.image_features)
            if spec.image_layer_norm
            else nn.Sequential(nn.Linear(flat, spec.image_features), nn.ReLU(inplace=True))
        )

    def look_through(self, other: Encoder) -> None:
        """Take over another encoder's layers for the image; the vector's scale stays its own."""
        self.convolutions, self.trunk = other.convolutions, other.trunk

    def encoded(self, observations: Observations) -> Observations:
        """Return observations with the features of the image, which is then not encoded again.

        They are for this encoder, and for one that looks through its layers.
        """
        if not self.spec.image:
            return observations
        image = scale_image(observations[IMAGE], _dtype(self.convolutions))
        return {**observations, FEATURES: self.trunk(self.convolutions(image))}

    def forward(self, observations: Observations) -> Tensor:
        """Map {"image": (B, stack, [channels,] h, w), "vector": (B, n)} to (B, state_size).

        The image is uint8, or already scaled by `scale_image`. It is left alone in observations
        that are `encoded`.
        """
        parts = []
        if self.spec.image:
            if FEATURES not in observations:
                observations = self.encoded(observations)
            parts.append(observations[FEATURES])
        if self.spec.vector_scale:
            vector, seen = observations[VECTOR], len(self.spec.vector_scale)
            # The rest is the critic's.
            vector = vector if vector.shape[1] == seen else vector[:, :seen]
            parts.append(vector / self.vector_scale)
        return torch.cat(parts, dim=1)


class Actor(nn.Module):
    """The policy: maps observations to actions in [-1, 1]."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.head = _mlp(spec.state_size, spec.hidden, spec.actions)

    def pre_tanh(self, observations: Observations) -> Tensor:
        """Return the activations before the tanh, (B, actions)."""
        return in_full_precision(self.head, self.encoder(observations))

    def forward(self, observations: Observations) -> Tensor:
        """Return actions in [-1, 1], (B, actions)."""
        return torch.tanh(self.pre_tanh(observations))


class Critic(nn.Module):
    """Twin Q-functions on one encoder; they take observations, never others' features."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        spec = spec.of_critic
        self.encoder = Encoder(spec)
        self.form = FORMS[spec.critic]
        inputs = spec.state_size + spec.actions
        self.q1 = _mlp(inputs, spec.hidden, self.form.outputs)
        self.q2 = _mlp(inputs, spec.hidden, self.form.outputs)
        for head in (self.q1, self.q2):
            last = head[-1]
            assert isinstance(last, nn.Linear)
            self.form.begin(last)

    def forward(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return what both heads give: Q-values, (B,), or the logits of their distributions."""
        inputs = torch.cat([self.encoder(observations), actions], dim=1)
        q1, q2 = (in_full_precision(head, inputs).squeeze(1) for head in (self.q1, self.q2))
        return q1, q2

    def q_values(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return both Q-values, each (B,)."""
        q1, q2 = map(self.form.values, self(observations, actions))
        return q1, q2

    def q1_of_action(self, observations: Observations, actions: Tensor) -> Tensor:
        """Return Q1, (B,), differentiable only in the action, with this critic's own features."""
        with torch.no_grad():
            state = self.encoder(observations)
        outputs = in_full_precision(self.q1, torch.cat([state, actions], dim=1)).squeeze(1)
        return self.form.values(outputs)


def weights_of(kind: type[Actor | Critic], spec: NetworkSpec) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a network's weights and buffers by name, without making them.

    Raises ValueError if they are more than `MOST_WEIGHTS`, or see nothing.
    """
    if not all(each.image or each.vector_scale for each in (spec, spec.of_critic)):
        raise ValueError("networks that see neither an image nor a vector")
    if spec.image and spec.vector_scale and spec.image_key == spec.vector_key:
        raise ValueError("networks whose image is their vector: image_key is vector_key")
    if spec.privileged_scale and spec.privileged_key in (spec.image_key, spec.vector_key):
        raise ValueError(f"networks with two entries under one key, {spec.privileged_key!r}")
    with torch.device("meta"):
        state = kind(spec).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    weights = sum(map(math.prod, shapes.values()))
    if weights > MOST_WEIGHTS:
        raise ValueError(f"networks of {weights:,} weights; at most {MOST_WEIGHTS:,} are possible")
    return shapes


DORMANT_ACTIVITY = 0.025
"""A unit with at most this share of its layer's mean activity is dormant (Sokar et al., 2023)."""
DORMANT_SPREAD = 0.01
"""A feature (in [-1, 1]) whose deviation over a batch is at most this is dormant."""
DORMANCY_SAMPLES = 64


@torch.no_grad()
def dormant_share(encoder: Encoder, observations: Observations) -> Tensor:
    """Return the share of units that carry no image information, in the encoder's worst layer."""
    hidden = scale_image(observations[IMAGE][:DORMANCY_SAMPLES], _dtype(encoder.convolutions))
    shares = []
    for layer in encoder.convolutions:
        hidden = layer(hidden)
        if isinstance(layer, nn.ReLU):
            activity = hidden.mean(dim=(0, 2, 3))
            shares.append((activity <= DORMANT_ACTIVITY * activity.mean()).float().mean())
    features = encoder.trunk(hidden)
    shares.append((features.std(dim=0) <= DORMANT_SPREAD).float().mean())
    return torch.stack(shares).max()


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the 2-norm of the parameters' gradients as one tensor."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.tensor(math.nan)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
