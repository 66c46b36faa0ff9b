# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks how this machine learns: device, precision, captured updates, and updates a second."""

from __future__ import annotations

import os

# PyTorch reads this when it is loaded; the trainer sets the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import time
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import torch

from td3_driver.config import Config, LearningConfig
from td3_driver.deployment.task_networks import networks_of
from td3_driver.doctor.findings import Finding, Group
from td3_driver.driving.environment import observation_space
from td3_driver.driving.observation import ACTIONS
from td3_driver.learning.devices import choose_device
from td3_driver.learning.execution import (
    CAPTURE_AFTER_UPDATES,
    CHECKED_REPLAYS,
    GraphedUpdates,
    Updates,
    choose_precision,
    has_bfloat16,
    make_updates,
)
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.td3 import TD3

GROUP = Group("learner")
BATCHES = (64, 256)
TIMED_S = 3.0
"""Time to measure each speed for, at least."""
LEAST_TIMED_UPDATES = 4
_TRANSITIONS = 300
_EPISODE = 50


def examine(
    config: Config, say: Callable[[str], object], timed_s: float = TIMED_S
) -> list[Finding]:
    """Return findings on learning as configured here; `say` hears what takes a while."""
    heard: list[str] = []
    device = choose_device(config.learning.device, say=heard.append)
    findings = [_device(device, heard), _precision(config.learning, device)]
    for batch_size in BATCHES:
        say(f"timing updates on batches of {batch_size} ...")
        learning = config.learning.model_copy(
            update={
                "batch_size": batch_size,
                "replay_capacity": _TRANSITIONS,
                "actor_warmup_updates": 0,
            }
        )
        updates = _updates(config, learning, device)
        if isinstance(updates, GraphedUpdates):
            findings.append(_captured(updates))
        findings.append(_speed(updates, timed_s))
    return findings


def _device(device: torch.device, heard: list[str]) -> Finding:
    if heard:
        remedy = "update the driver, or free the GPU's memory, and check again"
        return GROUP.warning("device", heard[0].removeprefix("warning: "), remedy)
    if device.type == "cuda":
        return GROUP.ok("device", torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return GROUP.ok("device", f"CPU, {threads} threads, {torch.backends.cpu.get_cpu_capability()}")


def _precision(learning: LearningConfig, device: torch.device) -> Finding:
    able = "has" if has_bfloat16(device) else "lacks"
    what = "device" if device.type == "cuda" else "processor"
    return GROUP.ok(
        "bfloat16", f"the {what} {able} it; learning.precision is {learning.precision}"
    )


def _updates(config: Config, learning: LearningConfig, device: torch.device) -> Updates:
    spec = networks_of(config.model_copy(update={"learning": learning}))
    learner = TD3(spec, learning, device, precision=choose_precision(learning, spec, device))
    replay = make_replay(spec, learning, device)
    _fill(replay, observation_space(config.driving), spec.select)
    return make_updates(learner, replay, torch.Generator(device).manual_seed(0), lambda line: None)


def _fill(
    replay: ReplayBuffer,
    observations: gymnasium.spaces.Dict,
    select: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    """Fill a buffer with episodes of noise."""
    observations.seed(0)
    random = np.random.default_rng(0)

    def observe() -> dict[str, np.ndarray]:
        return select(observations.sample())

    for number in range(replay.capacity):
        if number % _EPISODE == 0:
            replay.begin(observe())
        action = random.uniform(-1.0, 1.0, len(ACTIONS)).astype(np.float32)
        ended = number % _EPISODE == _EPISODE - 1
        replay.add(action, float(random.normal()), observe(), terminated=ended)


def _captured(updates: GraphedUpdates) -> Finding:
    """Update until every kind of update has been captured and compared with eager ones."""
    settings = updates.learner.settings
    # Of `policy_freq` updates, one is of the actor.
    for _ in range(settings.policy_freq * (CAPTURE_AFTER_UPDATES + CHECKED_REPLAYS)):
        updates()
    check = f"CUDA graphs, batch {settings.batch_size}"
    if updates.given_up:
        remedy = "nothing has to be done: training goes on without; a newer PyTorch may help"
        return GROUP.warning(check, f"not used: {updates.given_up}", remedy)
    return GROUP.ok(check, f"equal to eager updates, {sum(updates.checked.values())} compared")


def _speed(updates: Updates, timed_s: float) -> Finding:
    settings, device = updates.learner.settings, updates.learner.device
    updates()
    _wait(device)
    count, began_s = 0, time.monotonic()
    while count < LEAST_TIMED_UPDATES or time.monotonic() - began_s < timed_s:
        for _ in range(LEAST_TIMED_UPDATES):
            updates()
        _wait(device)
        count += LEAST_TIMED_UPDATES
    rate = count / (time.monotonic() - began_s)
    precision = str(updates.learner.precision).removeprefix("torch.")
    load = f", load {os.getloadavg()[0]:.1f}" if device.type == "cpu" else ""
    return GROUP.ok(
        f"speed, batch {settings.batch_size}",
        f"{rate:,.1f} updates/s ({precision}, {updates.mode}{load})",
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
