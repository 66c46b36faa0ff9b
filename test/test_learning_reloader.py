# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The critic on its own, and newer checkpoints beside the policy that drives."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from driver_runs import add_checkpoint, make_run, small_config
from safetensors.torch import save_file

from td3_driver.deployment.loading import LoadedPolicy, load_checkpoint
from td3_driver.learning.checkpoint import LEARNER
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.manifest import CheckpointError, seal
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import save_actor
from td3_driver.learning.reloader import Reloader
from td3_driver.learning.saved_networks import SavedNetworks
from td3_driver.learning.td3 import TD3
from td3_driver.runs import RunFolder
from td3_driver.workers import Failure

SPEC = NetworkSpec((2, 36, 36), (2.0, 4.0), 2, (4, 4, 4), 8, (16,))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", small_config(), critic=True)


def load(checkpoint: Path) -> LoadedPolicy:
    return load_checkpoint(checkpoint, small_config().driving)


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_the_q_values_are_those_of_the_learner_s_critic(tmp_path: Path) -> None:
    learner = TD3(SPEC, small_config().learning, seed=3)
    save_actor(tmp_path, learner.actor, SPEC)
    save_file(learner_tensors(learner, {}), tmp_path / LEARNER)
    seal(tmp_path)
    rng = np.random.default_rng(0)
    observation = {
        "image": rng.integers(0, 256, (2, 36, 36), np.uint8),
        "vector": rng.standard_normal(2).astype(np.float32),
    }
    action = np.array([0.3, -0.6], np.float32)
    networks = SavedNetworks.load(tmp_path)
    assert networks.critic is not None
    batch = {key: torch.from_numpy(value)[None] for key, value in observation.items()}
    with torch.no_grad():
        q1, q2 = learner.critic(batch, torch.from_numpy(action)[None])
    assert networks.q_values(observation, action) == pytest.approx((q1.item(), q2.item()))
    assert q1.item() != q2.item()


def test_a_policy_without_its_critic_is_served_all_the_same(run: RunFolder) -> None:
    assert load(add_checkpoint(run, 2)).q_values is None
    assert load(run.checkpoints / "000000001").q_values is not None


def test_a_critic_that_does_not_fit_or_is_damaged_is_refused(run: RunFolder) -> None:
    checkpoint = run.checkpoints / "000000001"
    save_file({"critic.q1.0.bias": torch.zeros(3)}, checkpoint / LEARNER)
    with pytest.raises(CheckpointError, match="damaged"):
        load(checkpoint)
    seal(checkpoint)
    with pytest.raises(CheckpointError, match="has no critic that fits"):
        load(checkpoint)


def test_a_newer_checkpoint_is_ready_once_and_an_older_one_never(run: RunFolder) -> None:
    running = add_checkpoint(run, 5)
    refused: list[tuple[str, str]] = []
    reloader = Reloader(
        run.checkpoints, running, load, lambda path, why: refused.append((path.name, why)), 0.02
    )
    reloader.start()
    try:
        time.sleep(0.1)
        assert reloader.newer() is None and reloader.take() is None
        newer = add_checkpoint(run, 6, seed=1)
        taken: list[LoadedPolicy] = []

        def take() -> bool:
            served = reloader.take()
            taken.extend([served] if served else [])
            return bool(taken)

        assert eventually(take) and taken[0].source == newer
        time.sleep(0.1)
        assert reloader.take() is None and not refused
    finally:
        reloader.end()


def test_a_bad_checkpoint_is_refused_once_and_the_next_good_one_is_taken(run: RunFolder) -> None:
    elsewhere = make_run(run.path.parent / "elsewhere", small_config())
    bad = add_checkpoint(elsewhere, 2)
    (bad / "actor.safetensors").write_bytes(b"nothing")
    refused: list[str] = []
    reloader = Reloader(
        run.checkpoints,
        run.checkpoints / "000000001",
        load,
        lambda path, why: refused.append(f"{path.name}: {why}"),
        0.02,
    )
    reloader.start()
    try:
        bad.rename(run.checkpoints / bad.name)
        assert eventually(lambda: bool(refused))
        time.sleep(0.2)
        assert len(refused) == 1 and "000000002" in refused[0] and "damaged" in refused[0]
        good = add_checkpoint(run, 3)
        assert eventually(lambda: reloader.newer() is None)
        served = reloader.take()
        assert served is not None and served.source == good
    finally:
        reloader.end()


DEEP = "[" * 100_000


def deep_networks(checkpoint: Path) -> None:
    (checkpoint / "networks.json").write_text(DEEP)
    seal(checkpoint)


def deep_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").write_text(DEEP)


@pytest.mark.parametrize("spoil", [deep_networks, deep_manifest])
def test_no_checkpoint_ends_the_search_for_newer_ones(
    run: RunFolder, spoil: Callable[[Path], None]
) -> None:
    elsewhere = make_run(run.path.parent / "elsewhere", small_config())
    bad = add_checkpoint(elsewhere, 2)
    spoil(bad)
    bad.rename(run.checkpoints / bad.name)
    refused: list[str] = []
    first = run.checkpoints / "000000001"
    reloader = Reloader(run.checkpoints, first, load, lambda path, why: refused.append(why), 0.02)
    reloader.start()
    try:
        assert eventually(lambda: bool(refused))
        assert "nested more than 32 levels deep" in refused[0] and len(refused[0]) < 600
        add_checkpoint(run, 3)
        assert eventually(lambda: reloader.newer() is None) and reloader.worker.failure is None
    finally:
        reloader.end()


def test_an_error_that_nobody_thought_of_is_a_refusal_or_told(run: RunFolder) -> None:
    told: list[str] = []
    failures: list[Failure] = []

    def load_or_fail(checkpoint: Path) -> LoadedPolicy:
        if checkpoint.name == "000000002":
            raise RecursionError("too deep")
        return load(checkpoint)

    def refused(checkpoint: Path, why: str) -> None:
        told.append(why)
        raise RuntimeError("nobody listens")

    first = run.checkpoints / "000000001"
    reloader = Reloader(run.checkpoints, first, load_or_fail, refused, 0.02, failures.append)
    reloader.start()
    try:
        add_checkpoint(run, 2)
        assert eventually(lambda: bool(failures))
        assert "RecursionError('too deep')" in told[0] and "nobody listens" in str(failures[0])
        add_checkpoint(run, 3)
        assert eventually(lambda: reloader.newer() is None)
    finally:
        reloader.end()


def test_without_a_period_it_looks_only_when_told(run: RunFolder) -> None:
    reloader = Reloader(
        run.checkpoints, run.checkpoints / "000000001", load, lambda path, why: None, None
    )
    reloader.start()
    try:
        newer = add_checkpoint(run, 2)
        time.sleep(0.2)
        assert reloader.take() is None and reloader.newer() == newer
        reloader.look()
        assert eventually(lambda: reloader.newer() is None)
    finally:
        reloader.end()
