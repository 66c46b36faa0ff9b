"""Actor and critic for dict observations, each with an image encoder of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Observations = dict[str, Tensor]


@dataclass(frozen=True)
class NetworkSpec:
    """The sizes that fix the networks; saved beside their weights."""

    image: tuple[int, int, int]
    """Shape of the image stack: (stack, height, width)."""
    vector_scale: tuple[float, ...]
    """Usual magnitude of each entry of the vector, which is divided by it."""
    actions: int
    channels: tuple[int, int, int]
    image_features: int
    hidden: tuple[int, ...]

    @property
    def state_size(self) -> int:
        """Size of an encoder's output: image features and the vector."""
        return self.image_features + len(self.vector_scale)


def scale_image(image: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Map a uint8 image to [-0.5, 0.5], channels last; an image of floats is taken as it is."""
    if image.is_floating_point():
        return image
    return image.contiguous(memory_format=torch.channels_last).to(dtype).mul_(1 / 255).sub_(0.5)


def _mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


class Encoder(nn.Module):
    """Observation to state: the convolutions of Mnih et al. (2015), then the scaled vector.

    The image features pass through LayerNorm and tanh (Yarats et al., 2019, 2021), so that they
    stay within [-1, 1] like the scaled vector beside them.
    """

    vector_scale: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        stack, height, width = spec.image
        first, second, third = spec.channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(stack, first, 8, stride=4),
            nn.ReLU(),
            nn.Conv2d(first, second, 4, stride=2),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        # The layout that convolutions are quickest in, on CPU and GPU alike.
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        with torch.no_grad():
            flat = self.convolutions(torch.zeros(1, stack, height, width)).shape[1]
        self.trunk = nn.Sequential(
            nn.Linear(flat, spec.image_features),
            nn.LayerNorm(spec.image_features),
            nn.Tanh(),
        )
        self.register_buffer("vector_scale", torch.tensor(spec.vector_scale))

    def forward(self, observations: Observations) -> Tensor:
        """Map {"image": (B, stack, h, w), "vector": (B, n)} to (B, state_size).

        The image is uint8, or what `scale_image` made of it.
        """
        image = scale_image(observations["image"], self.vector_scale.dtype)
        features = self.trunk(self.convolutions(image))
        return torch.cat([features, observations["vector"] / self.vector_scale], dim=1)


class Actor(nn.Module):
    """The policy: observations to actions in [-1, 1]."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.head = _mlp(spec.state_size, spec.hidden, spec.actions)

    def pre_tanh(self, observations: Observations) -> Tensor:
        """Return the activations before the squashing, (B, actions)."""
        return self.head(self.encoder(observations))

    def forward(self, observations: Observations) -> Tensor:
        """Return actions in [-1, 1], (B, actions)."""
        return torch.tanh(self.pre_tanh(observations))


class Critic(nn.Module):
    """Twin Q-functions over one encoder; they take observations, never another's features."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.encoder = Encoder(spec)
        self.q1 = _mlp(spec.state_size + spec.actions, spec.hidden, 1)
        self.q2 = _mlp(spec.state_size + spec.actions, spec.hidden, 1)

    def forward(self, observations: Observations, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Return both Q-values, each (B,)."""
        inputs = torch.cat([self.encoder(observations), actions], dim=1)
        return self.q1(inputs).squeeze(1), self.q2(inputs).squeeze(1)

    def q1_of_action(self, observations: Observations, actions: Tensor) -> Tensor:
        """Return Q1, (B,), differentiable in the action only: the state is this critic's own."""
        with torch.no_grad():
            state = self.encoder(observations)
        return self.q1(torch.cat([state, actions], dim=1)).squeeze(1)


DORMANT_ACTIVITY = 0.025
"""A unit this much less active than its layer's mean is dormant (Sokar et al., 2023)."""
DORMANT_SPREAD = 0.01
"""A feature, within [-1, 1], that varies less than this over a batch is dormant."""
DORMANCY_SAMPLES = 64


@torch.no_grad()
def dormant_share(encoder: Encoder, observations: Observations) -> Tensor:
    """Return the share of units that tell nothing of the image, in an encoder's worst layer."""
    hidden = scale_image(observations["image"][:DORMANCY_SAMPLES], encoder.vector_scale.dtype)
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
