"""Run folders with an untrained actor, for tests of what drives with one."""

from __future__ import annotations

from pathlib import Path

import torch

from td3_driver.config import Config, build
from td3_driver.driving.observation import ACTIONS, vector_scale
from td3_driver.learning import checkpoint
from td3_driver.learning.manifest import seal
from td3_driver.learning.networks import Actor, NetworkSpec
from td3_driver.learning.policy import save_actor
from td3_driver.runs import RunFolder


def small_config(**driving: object) -> Config:
    """Settings of small networks, and others of the driving task."""
    learning = {"channels": [4, 4, 4], "image_features": 8, "hidden": [16]}
    return build({"learning": learning, "driving": driving}, "the test")


def make_run(folder: Path, config: Config) -> RunFolder:
    """Make a run whose actor has random weights."""
    run = RunFolder.create(str(folder), config)
    driving, learning = config.driving, config.learning
    spec = NetworkSpec(
        image=(driving.image_stack, driving.image_size_px, driving.image_size_px),
        vector_scale=tuple(vector_scale(driving).tolist()),
        actions=len(ACTIONS),
        channels=learning.channels,
        image_features=learning.image_features,
        hidden=learning.hidden,
    )
    step = run.checkpoints / "000000001"
    step.mkdir(parents=True)
    torch.manual_seed(0)
    save_actor(step, Actor(spec), spec)
    seal(step)
    checkpoint.point_latest(run.checkpoints, step)
    return run
