# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Run folders whose networks have random weights, for tests and measurements of driving."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from td3_driver.config import Config
from td3_driver.driving.observation import ACTIONS, image_shape, vector_scale
from td3_driver.files import point_link
from td3_driver.learning import checkpoint
from td3_driver.learning.manifest import seal
from td3_driver.learning.networks import Actor, Critic, NetworkSpec
from td3_driver.learning.policy import save_actor
from td3_driver.learning.saved_networks import CRITIC
from td3_driver.runs import RunFolder


def make_run(folder: Path, config: Config, critic: bool = False) -> RunFolder:
    """Make a run with one checkpoint; with `critic`, it holds a critic as well."""
    run = RunFolder.create(str(folder), config)
    add_checkpoint(run, 1, critic=critic)
    return run


def add_checkpoint(run: RunFolder, step: int, seed: int = 0, critic: bool = False) -> Path:
    """Add a checkpoint to a run; return its folder."""
    driving, learning = run.config.driving, run.config.learning
    spec = NetworkSpec(
        image=image_shape(driving),
        vector_scale=tuple(vector_scale(driving).tolist()),
        actions=len(ACTIONS),
        channels=learning.channels,
        image_features=learning.image_features,
        hidden=learning.hidden,
    )
    unfinished = run.checkpoints / f".unfinished-{step}"
    unfinished.mkdir(parents=True)
    torch.manual_seed(seed)
    save_actor(unfinished, Actor(spec), spec)
    if critic:
        weights = Critic(spec).state_dict()
        tensors = {f"{CRITIC}.{name}": tensor.contiguous() for name, tensor in weights.items()}
        save_file(tensors, unfinished / checkpoint.LEARNER)
    seal(unfinished)
    complete = run.checkpoints / f"{step:09d}"
    unfinished.rename(complete)
    point_link(run.checkpoints / checkpoint.LATEST, complete)
    return complete
