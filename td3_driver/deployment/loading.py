# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Loads the policy to drive with: a run's newest checkpoint, or an exported file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from td3_driver.config import ConfigError, DrivingConfig
from td3_driver.deployment.description import check_observed, check_same_task, describe_task
from td3_driver.deployment.onnx_policy import OnnxPolicy
from td3_driver.driving.environment import observation_space
from td3_driver.driving.observation import Observation
from td3_driver.runs import RunFolder


@dataclass(frozen=True)
class LoadedPolicy:
    """A policy that fits the task at hand, and has acted once: the first inference is slow."""

    act: Callable[[Observation], np.ndarray]
    """From one observation to one action, float32 (2,) in [-1, 1]."""
    origin: str
    """Where it comes from, for people to read."""
    actor_sha256: str
    """Digest of the actor's weights in the checkpoint that it comes from."""


def load_policy(
    run: RunFolder,
    policy_file: str | Path,
    driving: DrivingConfig,
    fixed_delta_s: float,
    warn: Callable[[str], object] = warnings.warn,
) -> LoadedPolicy:
    """Load the policy file, or where that is empty the run's newest usable checkpoint.

    Raises ConfigError where there is none, or it was made for other settings than these.
    """
    if policy_file:
        return _from_file(Path(policy_file), driving, fixed_delta_s)
    return _from_checkpoint(run, driving, warn)


def _from_file(path: Path, driving: DrivingConfig, fixed_delta_s: float) -> LoadedPolicy:
    policy = OnnxPolicy.load(path)
    made_for = policy.description.task
    here = describe_task(driving, fixed_delta_s, made_for.observation)
    check_same_task(made_for, here, str(path))
    checkpoint = policy.description.checkpoint
    origin = f"{path} (step {checkpoint.step})"
    return LoadedPolicy(policy.act, origin, checkpoint.actor_sha256)


def _from_checkpoint(
    run: RunFolder, driving: DrivingConfig, warn: Callable[[str], object]
) -> LoadedPolicy:
    # PyTorch comes with it, which an exported file does without.
    from td3_driver.learning.manifest import recorded_digest
    from td3_driver.learning.policy import WEIGHTS, CheckpointError, Policy

    try:
        checkpoint = run.latest_checkpoint(warn)
        policy = Policy.load(checkpoint)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    check_observed(policy.observed, driving, str(checkpoint))
    spaces = observation_space(driving).spaces
    policy.act({key: np.zeros(space.shape, space.dtype) for key, space in spaces.items()})
    return LoadedPolicy(policy.act, str(checkpoint), recorded_digest(checkpoint, WEIGHTS))
