# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Going on from a checkpoint of another run, with its transitions kept.

A run that goes on from another keeps a copy of the checkpoint it began with in its folder: the
recorded transitions stay there, and its own checkpoints hold only what is new.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from td3_driver.config import LearningConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import load_tensors
from td3_driver.learning.replay import ReplayBuffer, make_replay, replay_spec
from td3_driver.learning.td3 import TD3

ORIGIN = "origin"
"""Folder in the run's for the checkpoint that it began with."""


def adopt(source: Path, folder: Path) -> None:
    """Let a new run's folder begin with a checkpoint of another run."""
    shutil.copytree(source, folder / ORIGIN)


def has_origin(folder: Path) -> bool:
    """Return whether a run began with a checkpoint of another."""
    return (folder / ORIGIN).is_dir()


def recorded_replay(
    folder: Path, spec: NetworkSpec, config: LearningConfig, device: torch.device
) -> ReplayBuffer:
    """Return the transitions that a run began with; raise CheckpointError if they are unfit."""
    source = folder / ORIGIN
    verify(source)
    state = load_tensors(source / checkpoint.REPLAY)
    try:
        return restored(state, spec, config, device)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{source / checkpoint.REPLAY} does not fit: {error}") from None


def restored(
    state: dict[str, torch.Tensor],
    spec: NetworkSpec,
    config: LearningConfig,
    device: torch.device | str,
) -> ReplayBuffer:
    """Return a buffer just large enough, with what `ReplayBuffer.state` returned."""
    least = replay_spec(spec).stack + config.n_step + 1
    replay = make_replay(spec, config, device, max(len(state["images"]), least))
    replay.restore(state)
    return replay


def begin_with_origin(folder: Path, learner: TD3, recorded: ReplayBuffer, seed: int) -> None:
    """Take over networks, targets and optimisers of the checkpoint that a run began with."""
    checkpoint.load(folder / ORIGIN, learner, recorded, {})
    # Its updates go on being counted, so that the critic is not left alone once more.
    learner.generator.manual_seed(seed)
