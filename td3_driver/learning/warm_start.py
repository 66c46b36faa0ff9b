# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Warm start: a new run that starts from another run's checkpoint, with its transitions.

The run keeps a copy of that checkpoint in its folder: the recorded transitions stay there, and
its own checkpoints hold only what is new.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from td3_driver.config import LearningConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import replay_spec
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import load_tensors
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.td3 import TD3

WARM_START = "origin"
"""Folder in the run's for the checkpoint that it started from."""


def adopt(source: Path, folder: Path) -> None:
    """Copy a checkpoint of another run into a new run's folder, to start from."""
    shutil.copytree(source, folder / WARM_START)


def has_warm_start(folder: Path) -> bool:
    """Return whether a run started from a checkpoint of another."""
    return (folder / WARM_START).is_dir()


def recorded_replay(
    folder: Path, spec: NetworkSpec, config: LearningConfig, device: torch.device
) -> ReplayBuffer:
    """Return the transitions that a run started with; raise CheckpointError if they do not fit."""
    source = folder / WARM_START
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


def load_warm_start(folder: Path, learner: TD3, recorded: ReplayBuffer, seed: int) -> None:
    """Take over networks, targets and optimisers of the checkpoint that a run started from."""
    checkpoint.load(folder / WARM_START, learner, recorded, {})
    # Its updates continue to be counted, so that the critic is not left alone once more.
    learner.generator.manual_seed(seed)
