# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Warm start: a new run that starts from another run's checkpoint, with its transitions.

The run keeps a copy of that checkpoint in its folder: the recorded transitions stay there, and
its own checkpoints contain only new ones.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from td3_driver.config import LearningConfig
from td3_driver.documents import in_short
from td3_driver.learning import checkpoint, saved_rings
from td3_driver.learning.batch import replay_spec
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import load_tensors
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.td3 import TD3

WARM_START = "origin"
"""Folder in the run's folder for the checkpoint that it started from."""


def adopt(source: Path, folder: Path) -> None:
    """Copy another run's checkpoint into a new run's folder, to start from.

    The copy is complete or absent. Raises CheckpointError.
    """
    unfinished = Path(tempfile.mkdtemp(prefix=f".{WARM_START}-", dir=folder))
    try:
        copied = shutil.copytree(source, unfinished / source.name)
        copied.rename(folder / WARM_START)
    except OSError as error:  # shutil's own errors are such, too
        raise CheckpointError(
            f"{source} cannot be copied to {folder}: {in_short(error)}"
        ) from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def has_warm_start(folder: Path) -> bool:
    """Return whether a run started from another run's checkpoint.

    Raises CheckpointError where that checkpoint has gone, and left a link.
    """
    origin = folder / WARM_START
    if os.path.lexists(origin) and not origin.is_dir():
        raise CheckpointError(
            f"{origin} is no folder, and no link to one: put back the checkpoint that the run "
            "started from"
        )
    return origin.is_dir()


def recorded_replay(
    folder: Path, spec: NetworkSpec, config: LearningConfig, device: torch.device
) -> ReplayBuffer:
    """Return the transitions that a run started with; raises CheckpointError if they don't fit."""
    source = folder / WARM_START
    verify(source)
    state = load_tensors(source / checkpoint.REPLAY)
    try:
        return restored(state, spec, config, device)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{source / checkpoint.REPLAY} does not fit: {in_short(error)}"
        ) from None


def restored(
    state: dict[str, torch.Tensor],
    spec: NetworkSpec,
    config: LearningConfig,
    device: torch.device | str,
) -> ReplayBuffer:
    """Return a buffer that is just large enough, restored from `ReplayBuffer.state()`.

    What was recorded was all there from the start: its priorities do not fade.
    """
    least = replay_spec(spec).stack + config.n_step + 1
    replay = make_replay(spec, config, device, max(saved_rings.slots(state), least), fading=False)
    replay.restore(state)
    return replay


def load_warm_start(folder: Path, learner: TD3, recorded: ReplayBuffer, seed: int) -> None:
    """Load networks, targets and optimisers from the checkpoint that a run started from."""
    checkpoint.load(folder / WARM_START, learner, recorded, {})
    # The count of updates continues, so that the critic-only warm-up is not repeated.
    learner.generator.manual_seed(seed)
