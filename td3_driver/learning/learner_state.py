# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A learner's state as named tensors: weights, moments of the optimisers, random states."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from td3_driver.documents import in_short
from td3_driver.learning.health import not_finite
from td3_driver.learning.manifest import CheckpointError
from td3_driver.learning.policy import unlike
from td3_driver.learning.td3 import TD3

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What the optimisers (Adam) keep for each parameter."""
RANDOM_STATE_SHAPES = ((5056,), (16,))
"""Shapes of the random states of PyTorch's generators, on the CPU and on CUDA."""


def _networks(learner: TD3) -> dict[str, nn.Module]:
    return {
        "actor": learner.actor,
        "critic": learner.critic,
        "actor_target": learner.actor_target,
        "critic_target": learner.critic_target,
        "reward_norm": learner.reward_norm,
        **{f"{name}_prediction": head for name, head in learner.predictions.heads.items()},
    }


def _optimizers(learner: TD3) -> dict[str, torch.optim.Optimizer]:
    return {
        "actor_optimizer": learner.actor_optimizer,
        "critic_optimizer": learner.critic_optimizer,
        **{
            f"{name}_prediction_optimizer": optimizer
            for name, optimizer in learner.predictions.optimizers.items()
        },
    }


def live_tensors(learner: TD3) -> dict[str, list[Tensor]]:
    """Return what an update changes: the tensors themselves, by network and moment."""
    # Layers of the critics that the actors look through are listed with the critics alone.
    critics = (learner.critic, learner.critic_target)
    of_critics = {value.data_ptr() for critic in critics for value in critic.state_dict().values()}
    tensors = {
        name: [
            value
            for value in network.state_dict().values()
            if network in critics or value.data_ptr() not in of_critics
        ]
        for name, network in _networks(learner).items()
    }
    for name, optimizer in _optimizers(learner).items():
        for moments in optimizer.state_dict()["state"].values():
            for moment, value in moments.items():
                tensors.setdefault(f"{name}.{moment}", []).append(value)
    return tensors


def learner_tensors(learner: TD3, generators: dict[str, torch.Generator]) -> dict[str, Tensor]:
    """Return a copy of weights, optimiser and random states by name, in host memory."""
    tensors = {
        f"{name}.{key}": value
        for name, network in _networks(learner).items()
        for key, value in network.state_dict().items()
    }
    for name, optimizer in _optimizers(learner).items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in moments.items()}
    for name, generator in (generators | {"learner": learner.generator}).items():
        tensors[f"generator.{name}"] = generator.get_state()
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def restore_learner(
    learner: TD3,
    generators: dict[str, torch.Generator],
    tensors: dict[str, Tensor],
    source: Path,
) -> None:
    """Restore what `learner_tensors` returned; raise CheckpointError if it does not fit."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.partition(".")
        groups.setdefault(owner, {})[key] = tensor
    try:
        _check_numbers(tensors)
        for name, network in _networks(learner).items():
            saved = groups.get(name, {})
            if not saved and network in learner.predictions.heads.values():
                continue  # the checkpoint is from before self-prediction: it begins now
            if wrong := unlike(_shapes(saved), _shapes(network.state_dict())):
                raise ValueError(f"of {name}, {wrong}")
            network.load_state_dict(saved)
        for name, optimizer in _optimizers(learner).items():
            parameters = [
                parameter for group in optimizer.param_groups for parameter in group["params"]
            ]
            state: dict[int, dict[str, Tensor]] = {}
            saved = groups.get(name, {})
            if saved:
                _check_moments(name, saved, parameters)
            for key, tensor in saved.items():
                index, _, moment = key.partition(".")
                if moment != "step":
                    # The fused step expects the moments in the weights' memory layout.
                    tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
                state.setdefault(int(index), {})[moment] = tensor
            layout = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": layout})
        for name, generator in (generators | {"learner": learner.generator}).items():
            _restore_generator(generator, groups["generator"][name])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{source} does not fit the configuration: {in_short(error)}"
        ) from None


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check_moments(
    name: str, saved: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]
) -> None:
    """Raise ValueError unless an optimiser has what Adam keeps, for every parameter."""
    expected = {
        f"{index}.{moment}": () if moment == "step" else tuple(parameter.shape)
        for index, parameter in enumerate(parameters)
        for moment in MOMENTS
    }
    if wrong := unlike(_shapes(saved), expected):
        raise ValueError(f"of {name}, {wrong}")
    negative = [
        key for key in saved if not key.endswith(".exp_avg") and bool((saved[key] < 0).any())
    ]
    if negative:
        raise ValueError(f"of {name}, {negative[0]} is negative")


def _check_numbers(tensors: Mapping[str, Tensor]) -> None:
    if wrong := not_finite(tensors):
        raise ValueError(f"NaN or infinity in {wrong[0]}")


def _restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Restore a random state; one from the other kind of device is used as a seed."""
    if state.shape in RANDOM_STATE_SHAPES and state.shape != generator.get_state().shape:
        generator.manual_seed(zlib.crc32(state.numpy().tobytes()))
    else:
        generator.set_state(state)
