# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Good files with one thing wrong at a time: loaded rightly, or refused by their kind's error.

TD3_DRIVER_SPOILT_DOCUMENTS is how many of each kind are tried; docs/safety.md has the counts of a
long run.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from document_spoiler import (
    COUNT,
    LONG,
    Spoilt,
    as_json,
    as_yaml,
    check,
    spoil_bytes,
    spoil_values,
)

from td3_driver import config as configuration
from td3_driver.bridge import spawn_objects
from td3_driver.bridge.driver_messages import policy_info_from_message
from td3_driver.bridge.messages import ConversionError
from td3_driver.config import Config, ConfigError, LearningConfig
from td3_driver.launching.settings import effective_settings
from td3_driver.learning import checkpoint
from td3_driver.learning.assembly import restore_counters
from td3_driver.learning.batch import ReplaySpec
from td3_driver.learning.health import HealthMonitor
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.manifest import CheckpointError, seal, verify
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.saved_networks import SavedNetworks
from td3_driver.learning.td3 import TD3
from td3_driver.learning.trainer import Standing
from td3_driver.learning.validation import Validation
from td3_driver.lockstep.starts import STARTS_FOLDER, read_starts
from td3_driver.runs import RunFolder

pytestmark = [
    pytest.mark.timeout(3600 if LONG else 240),
    *([pytest.mark.long] if LONG else []),
]

SPEC = NetworkSpec((2, 36, 36), (1.0, 0.7854), 2, (2, 3, 2), 4, (5, 6))


def all_finite(values: Any) -> bool:
    """Return whether nothing in nested values is NaN or infinite."""
    if isinstance(values, dict):
        return all(map(all_finite, values.values()))
    if isinstance(values, list | tuple):
        return all(map(all_finite, values))
    return not isinstance(values, float) or math.isfinite(values)


def load_config(path: Path) -> str:
    loaded = configuration.load(path)
    again = configuration.build(loaded.model_dump(), "itself")
    return "" if loaded == again and all_finite(loaded.model_dump()) else f"loaded as {loaded!r}"


def test_a_run_s_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = RunFolder.create("run", Config()).path / "config.yaml"
    good = yaml.safe_load(path.read_text())
    check("config.yaml", spoil_values(good, as_yaml, COUNT, 1), path, load_config, ConfigError)


def test_a_parameter_file_of_several_nodes(tmp_path: Path) -> None:
    good = {
        "/**": {"ros__parameters": {"learning.tau": 0.25, "training": {"seed": 3}}},
        "left": {"driver": {"ros__parameters": {"driver": {"camera_timeout_s": 0.2}}}},
        "trainer": {"ros__parameters": {"learning": {"hidden": [64, 64], "channels": [8, 8, 8]}}},
    }

    def load(path: Path) -> str:
        given = effective_settings({"set": [], "params_file": str(path)}, "")
        return load_config(path) if all_finite(given.model_dump()) else f"loaded as {given!r}"

    spoilt = spoil_values(good, as_yaml, COUNT, 2)
    check("parameter file", spoilt, tmp_path / "parameters.yaml", load, ConfigError)


def test_a_file_of_starts(tmp_path: Path) -> None:
    def load(path: Path) -> str:
        towns = read_starts(path)
        values = {town: [start.model_dump() for start in starts] for town, starts in towns.items()}
        return "" if all_finite(values) else f"loaded as {values}"

    good = yaml.safe_load((STARTS_FOLDER / "carla_towns.yaml").read_text())
    spoilt = spoil_values(good, as_yaml, COUNT, 3)
    check("starts", spoilt, tmp_path / "starts.yaml", load, ConfigError)


def test_an_objects_file(tmp_path: Path) -> None:
    def load(path: Path) -> str:
        found = spawn_objects.load(path, Config())["objects"]
        return "" if any(item["id"] == "ego_vehicle" for item in found) else "no vehicle"

    good = json.loads(spawn_objects.SHIPPED.read_text())
    spoilt = spoil_values(good, as_json, COUNT, 4)
    check("objects file", spoilt, tmp_path / "objects.json", load, ConfigError)


def test_a_policy_in_an_older_bag(tmp_path: Path) -> None:
    def load(path: Path) -> str:
        try:
            text = path.read_bytes().decode("utf-8", "surrogatepass")
            found = policy_info_from_message(SimpleNamespace(data=text))
        except ConversionError as error:
            raise ConversionError(f"{path.name}: {error}") from None
        return "" if found.step is None or 0 <= found.step < 10**40 else f"step {found.step}"

    good = {
        "checkpoint": "runs/one/checkpoints/000000100",
        "step": "000000100",
        "actor_sha256": "0" * 64,
        "critic": True,
        "refused": "",
    }
    spoilt = spoil_values(good, as_json, COUNT, 11)
    check("~/policy as JSON", spoilt, tmp_path / "policy.json", load, ConversionError)


class Saved:
    """A checkpoint, and what loads it."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        learner, replay = self.new()
        sampling = torch.Generator().manual_seed(0)
        for step in range(40):
            image = rng.integers(0, 256, (2, 36, 36), np.uint8)
            seen = {"image": image, "vector": rng.normal(size=2).astype(np.float32)}
            if step % 10 == 0:
                replay.begin(seen)
            else:
                replay.add(rng.uniform(-1, 1, 2), 0.5, seen, terminated=step % 10 == 9)
        for _ in range(2):
            learner.update(replay.sample(4, sampling))
        monitor = HealthMonitor(lambda line: None)
        counters = {
            **Standing(step=36, episodes=4).counters(),
            "health": monitor.state(),
            "environment": np.random.default_rng(1).bit_generator.state,
            "online": True,
        }
        counters |= {"returns": [1.5, 2.0], "completions": [0.5, 1.0]}
        snapshot = checkpoint.take(36, learner, replay, counters, {"sampling": sampling})
        self.path = checkpoint.write(folder, snapshot, keep=1)

    @staticmethod
    def new() -> tuple[TD3, ReplayBuffer]:
        """Return what a checkpoint is loaded into; the buffer has gone round once."""
        settings = LearningConfig(actor_warmup_updates=0)
        return TD3(SPEC, settings, seed=3), ReplayBuffer(ReplaySpec((2, 36, 36), 2, 2), 30)

    def load(self, path: Path) -> str:
        """Resume from the checkpoint; return what is wrong with what that gives."""
        seal(self.path)  # as somebody would who means harm
        learner, replay = self.new()
        sampling = torch.Generator()
        counters = checkpoint.load(self.path, learner, replay, {"sampling": sampling})
        monitor, starts = HealthMonitor(lambda line: None), np.random.default_rng(2)
        standing = restore_counters(self.path, counters, monitor, starts, Validation.none())
        progress = sum(standing.returns) + sum(standing.completions)
        tensors = learner_tensors(learner, {})
        finite = math.isfinite(progress) and all(map(_is_finite, tensors.values()))
        learner.update(replay.sample(8, sampling))
        return "" if finite and 0.0 <= starts.random() < 1.0 else "resumed with NaN"

    def act(self, path: Path) -> str:
        """Load the checkpoint's networks; return what is wrong with their answers."""
        seal(self.path)
        networks = SavedNetworks.load(self.path)
        seen = {
            key: np.zeros(shape, np.float32) for key, shape in networks.policy.observed.items()
        }
        action = networks.policy.act({**seen, "image": np.zeros((2, 36, 36), np.uint8)})
        return "" if action.shape == (2,) else f"acts {action}"


def _is_finite(tensor: torch.Tensor) -> bool:
    return bool(tensor.isfinite().all()) if tensor.is_floating_point() else True


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    torch.set_num_threads(1)
    return Saved(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture
def whole(saved: Saved, tmp_path: Path) -> Iterator[Saved]:
    """Give a checkpoint that is put back after the test."""
    shutil.copytree(saved.path, tmp_path / "good")
    yield saved
    for file in (tmp_path / "good").iterdir():
        shutil.copy(file, saved.path / file.name)


def test_the_networks_of_a_checkpoint(whole: Saved) -> None:
    path = whole.path / "networks.json"
    spoilt = spoil_values(json.loads(path.read_text()), as_json, COUNT, 5)
    check("networks.json", spoilt, path, whole.act, CheckpointError)


def test_the_counters_of_a_checkpoint(whole: Saved) -> None:
    path = whole.path / "counters.json"
    spoilt = spoil_values(json.loads(path.read_text()), as_json, COUNT, 6)
    check("counters.json", spoilt, path, whole.load, CheckpointError)


def test_the_manifest_of_a_checkpoint(whole: Saved) -> None:
    def load(path: Path) -> str:
        verify(path.parent)
        return ""

    path = whole.path / "manifest.json"
    spoilt = spoil_values(json.loads(path.read_text()), as_json, COUNT, 7)
    check("manifest.json", spoilt, path, load, CheckpointError)


@pytest.mark.parametrize("name", ["actor", "learner", "replay"])
def test_the_tensors_of_a_checkpoint(whole: Saved, name: str) -> None:
    path = whole.path / f"{name}.safetensors"
    good = path.read_bytes()
    size = struct.unpack("<Q", good[:8])[0]
    header, rest = json.loads(good[8 : 8 + size]), good[8 + size :]

    def with_data(values: Spoilt) -> Spoilt:
        return Spoilt(values.what, struct.pack("<Q", len(values.data)) + values.data + rest)

    def spoilt() -> Iterator[Spoilt]:
        yield from spoil_bytes(good, COUNT // 2, 8, header=8 + size)
        yield from map(with_data, spoil_values(header, as_json, COUNT - COUNT // 2, 9))

    load = whole.act if name == "actor" else whole.load
    check(path.name, spoilt(), path, load, CheckpointError)
