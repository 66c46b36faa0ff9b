# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Loads a policy to drive with: a run's checkpoint, an exported file or the baseline."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from td3_driver.config import ConfigError, DrivingConfig
from td3_driver.deployment.description import check_observed, check_same_task, describe_task
from td3_driver.deployment.onnx_policy import OnnxPolicy
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.environment import observation_space
from td3_driver.driving.observation import ACTIONS, Observation
from td3_driver.runs import RunFolder

if TYPE_CHECKING:
    from td3_driver.learning.saved_networks import SavedNetworks

PROBES = 4
"""Random observations that a policy is tried on before it drives: the first ones are slow."""


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that fits the task and is ready to drive."""

    act: Callable[[Observation], np.ndarray]
    """Maps one observation to one action, float32 (2,) in [-1, 1]."""
    name: str
    """What it is and where it comes from, for people to read."""
    source: Path | None = None
    """The checkpoint's folder or the exported file; None for the baseline."""
    is_checkpoint: bool = False
    step: int = 0
    """The training step at which it was saved; 0 for the baseline."""
    actor_sha256: str = ""
    """SHA-256 of the actor's weights in its checkpoint; empty for the baseline."""
    q_values: Callable[[Observation, np.ndarray], tuple[float, float]] | None = None
    """Q1 and Q2 of an observation and an action; None if there is no critic."""


def finite(policy: LoadedPolicy) -> Callable[[Observation], np.ndarray]:
    """Return what acts as the policy does; it raises ConfigError for an action that is not finite.

    A driver does not need it: it stops the car and goes on.
    """

    def act(observation: Observation) -> np.ndarray:
        action = policy.act(observation)
        if not np.all(np.isfinite(action)):
            raise ConfigError(f"{policy.name} acts {action}, which is not finite")
        return action

    return act


def baseline_policy(driving: DrivingConfig) -> LoadedPolicy:
    """Return the scripted driver, which follows the route by pure pursuit."""
    return LoadedPolicy(RouteFollower(driving).act, "the baseline")


def load_policy(
    run: RunFolder,
    policy_file: str | Path,
    driving: DrivingConfig,
    fixed_delta_s: float,
    warn: Callable[[str], object] = warnings.warn,
) -> LoadedPolicy:
    """Load a policy file, or the folder of a checkpoint; if empty, the run's best checkpoint.

    Raises ConfigError if there is none, or if it does not fit these settings.
    """
    if policy_file and not Path(policy_file).is_dir():
        return _load_file(Path(policy_file), driving, fixed_delta_s)
    # This imports PyTorch, which an exported file does not need.
    from td3_driver.learning.manifest import CheckpointError

    try:
        chosen = Path(policy_file).resolve() if policy_file else run.best_checkpoint(warn)
        return load_checkpoint(chosen, driving)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None


def _can_judge(networks: SavedNetworks, driving: DrivingConfig) -> bool:
    """Whether there is a critic that sees enough: a privileged one sees the route.

    One that was told of others is blind, as only training tells of them.
    """
    privileged = bool(networks.policy.spec.privileged_scale)
    enough = not driving.needs_others and (driving.needs_route or not privileged)
    return networks.critic is not None and enough


def load_checkpoint(checkpoint: Path, driving: DrivingConfig) -> LoadedPolicy:
    """Load a checkpoint's networks and try them; raise CheckpointError if they cannot drive."""
    from td3_driver.learning.checkpoint import step_of
    from td3_driver.learning.manifest import CheckpointError
    from td3_driver.learning.saved_networks import SavedNetworks

    networks = SavedNetworks.load(checkpoint)
    policy = networks.policy
    try:
        check_observed(policy.observed, driving, str(checkpoint))
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if policy.spec.actions != len(ACTIONS):
        raise CheckpointError(
            f"{checkpoint}: its actions have {policy.spec.actions} entries, not {len(ACTIONS)}"
        )
    loaded = LoadedPolicy(
        policy.act,
        str(checkpoint),
        checkpoint,
        is_checkpoint=True,
        step=step_of(checkpoint),
        actor_sha256=networks.actor_sha256,
        q_values=networks.q_values if _can_judge(networks, driving) else None,
    )
    try:
        _try(loaded, driving)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from None
    return loaded


def _load_file(path: Path, driving: DrivingConfig, fixed_delta_s: float) -> LoadedPolicy:
    policy = OnnxPolicy.load(path)
    made_for = policy.description.task
    here = describe_task(driving, fixed_delta_s, made_for.observation)
    check_same_task(made_for, here, str(path))
    checkpoint = policy.description.checkpoint
    name = f"{path} (step {checkpoint.step})"
    return LoadedPolicy(
        policy.act, name, path, step=checkpoint.step, actor_sha256=checkpoint.actor_sha256
    )


def _try(policy: LoadedPolicy, driving: DrivingConfig) -> None:
    """Try some actions; raise ValueError if they or their Q-values are not finite."""
    rng = np.random.default_rng(0)
    for _ in range(PROBES):
        observation = _random_observation(driving, rng)
        action = policy.act(observation)
        if not np.all(np.isfinite(action)):
            raise ValueError(f"the actor returns {action}, which is not finite")
    if policy.q_values is not None:
        q_values = policy.q_values(observation, action)
        if not np.all(np.isfinite(q_values)):
            raise ValueError(f"the critic returns {q_values}, which is not finite")


def _random_observation(driving: DrivingConfig, rng: np.random.Generator) -> Observation:
    return {
        key: rng.integers(0, 256, space.shape, np.uint8)
        if space.dtype == np.uint8
        else np.asarray(rng.standard_normal(space.shape), space.dtype)
        for key, space in observation_space(driving).spaces.items()
    }
