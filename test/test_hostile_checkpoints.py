# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints and runs made to do harm: networks in excess, other people's files, links."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from td3_driver.config import Config, ConfigError, LearningConfig
from td3_driver.driving.environment import observation_space
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import ReplaySpec
from td3_driver.learning.learner_state import learner_tensors, restore_learner
from td3_driver.learning.manifest import CheckpointError, seal, verify
from td3_driver.learning.networks import Actor, Critic, NetworkSpec, network_spec, weights_of
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.td3 import TD3
from td3_driver.learning.warm_start import adopt, has_warm_start
from td3_driver.runs import RunError, RunFolder

SPEC = NetworkSpec(None, (1.0, 0.7854), 2, (2, 3, 2), 4, (5, 6))


@pytest.fixture(scope="module")
def learner() -> TD3:
    torch.set_num_threads(1)
    return TD3(SPEC, LearningConfig(), seed=0)


def save(folder: Path, learner: TD3, step: int = 1) -> Path:
    replay = ReplayBuffer(ReplaySpec(None, 2, 2), 30)
    return checkpoint.write(folder, checkpoint.take(step, learner, replay, {}, {}), keep=5)


@pytest.fixture
def saved(learner: TD3, tmp_path: Path) -> Path:
    return save(tmp_path / "checkpoints", learner)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"hidden": [40_000, 40_000]}, "hidden.0: .*4096 .it is 40000"),
        ({"hidden": [8] * 200_000}, "nested|more than 100,000 values|at most 16"),
        ({"hidden": [8] * 20_000}, "hidden: .*at most 16 items"),
        (
            {"image": [4, 999, 999], "channels": [99] * 3, "image_features": 999},
            "of [0-9,]+ weights; at most 268,435,456",
        ),
        ({"image": [4, 9, 9]}, "a side of 9 px is too small"),
        ({"image": [1] * 50}, "image: .*at most 4 items"),
        ({"vector_scale": []}, "neither an image nor a vector"),
        ({"image": [2, 36, 36], "image_key": "vector"}, "image_key is vector_key"),
        ({"vector_scale": [0.0, 1.0]}, "vector_scale.0: .*greater than 0"),
        ({"actions": 10**30}, "actions: "),
        ({"vector_key": "x" * 1000}, "vector_key: .*at most 256 characters"),
    ],
)
def test_networks_in_excess_are_refused_before_they_are_made(
    saved: Path, changes: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads((saved / "networks.json").read_text())
    (saved / "networks.json").write_text(json.dumps(values | changes))
    seal(saved)
    monkeypatch.setattr(Policy, "like", lambda spec: pytest.fail("they were made"))
    with pytest.raises(CheckpointError, match=rf"networks\.json .*({said})") as refusal:
        Policy.load(saved)
    assert len(str(refusal.value)) < 800 and len(str(refusal.value).splitlines()) == 1


def test_networks_that_the_weights_do_not_fill_are_not_made(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = json.loads((saved / "networks.json").read_text())
    (saved / "networks.json").write_text(json.dumps(values | {"hidden": [4096] * 15}))
    seal(saved)
    monkeypatch.setattr(Policy, "like", lambda spec: pytest.fail("they were made"))
    with pytest.raises(CheckpointError, match=r"actor\.safetensors does not fit networks\.json"):
        Policy.load(saved)


def test_settings_of_networks_in_excess_are_refused_by_name() -> None:
    config = Config()
    space = observation_space(config.driving)
    learning = LearningConfig(hidden=(4096,) * 16, image_features=4096)
    actions = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    with pytest.raises(ConfigError, match=r"learning\.channels, .*hidden: networks of [0-9,]+"):
        network_spec(learning, space, actions, np.ones(23))


@pytest.mark.parametrize("kind", [Actor, Critic])
@pytest.mark.parametrize("image", [None, (2, 40, 36), (2, 3, 36, 44)])
def test_the_shapes_of_networks_are_those_that_they_have(
    kind: type[Actor | Critic], image: tuple[int, ...] | None
) -> None:
    spec = NetworkSpec(image, (1.0, 2.0), 2, (2, 3, 2), 4, (5, 6))
    shapes = {name: tuple(tensor.shape) for name, tensor in kind(spec).state_dict().items()}
    assert weights_of(kind, spec) == shapes


@pytest.mark.parametrize("name", ["../../secret", "/dev/zero", "a/b", ".", "", "x\n"])
def test_a_manifest_names_no_files_elsewhere(saved: Path, name: str) -> None:
    (saved / "manifest.json").write_text(json.dumps({name: "0" * 64}))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged") as refusal:
        verify(saved)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("file", ["actor.safetensors", "networks.json", "manifest.json"])
def test_a_pipe_or_a_device_in_the_place_of_a_file_is_not_waited_for(
    saved: Path, file: str
) -> None:
    for place in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
        (saved / file).unlink()
        place(saved / file)
        with pytest.raises(CheckpointError, match="it is not a regular file"):
            Policy.load(saved)


def test_a_linked_file_is_read_where_it_is(saved: Path, tmp_path: Path) -> None:
    (saved / "actor.safetensors").rename(tmp_path / "elsewhere")
    (saved / "actor.safetensors").symlink_to(tmp_path / "elsewhere")
    Policy.load(saved)


def test_weights_of_another_kind_of_numbers_are_refused(saved: Path) -> None:
    header = b'{"head.0.bias":{"dtype":"F8_E8M0","shape":[1],"data_offsets":[0,1]}}'
    data = len(header).to_bytes(8, "little") + header + b"\x00"
    (saved / "actor.safetensors").write_bytes(data)
    seal(saved)
    with pytest.raises(CheckpointError, match=r"actor\.safetensors"):
        Policy.load(saved)


@pytest.mark.parametrize(
    "moment, value, said",
    [
        ("0.exp_avg_sq", -1.0, "exp_avg_sq is negative"),
        ("0.step", -3.0, "step is negative"),
        ("0.exp_avg", float("nan"), "NaN or infinity in critic_optimizer.0.exp_avg"),
        ("0.step", None, "it has no 0.step"),
        ("999.step", 1.0, "it has 999.step, which has no place"),
    ],
)
def test_moments_that_no_optimiser_has_are_refused(
    tmp_path: Path, moment: str, value: float | None, said: str
) -> None:
    learner = TD3(SPEC, LearningConfig(), seed=0)
    tensors = learner_tensors(learner, {})
    every = [p for group in learner.critic_optimizer.param_groups for p in group["params"]]
    for index, parameter in enumerate(every):
        tensors[f"critic_optimizer.{index}.step"] = torch.tensor(1.0)
        for name in ("exp_avg", "exp_avg_sq"):
            tensors[f"critic_optimizer.{index}.{name}"] = torch.zeros_like(parameter.data)
    restore_learner(learner, {}, dict(tensors), tmp_path)
    name = f"critic_optimizer.{moment}"
    if value is None:
        del tensors[name]
    else:
        tensors[name] = torch.full_like(tensors.get(name, torch.tensor(0.0)), value)
    with pytest.raises(CheckpointError, match=said):
        restore_learner(learner, {}, tensors, tmp_path)


@pytest.mark.parametrize(
    "name, row, value",
    [
        ("transitions", 0, 10**6),
        ("transitions", 0, -1),
        ("stacked", 1, 200),
        ("rewards", 3, float("nan")),
        ("vectors", 3, float("inf")),
        ("priorities", 0, -1.0),
        ("counters", 0, 2),
        ("counters", 1, -5),
        ("counters", 2, 10**9),
    ],
)
def test_a_replay_that_contradicts_itself_is_refused(name: str, row: int, value: float) -> None:
    replay = ReplayBuffer(ReplaySpec(None, 2, 2), 30)
    seen = {"vector": torch.zeros(2).numpy()}
    replay.begin(seen)
    for _ in range(6):
        replay.add(torch.zeros(2).numpy(), 1.0, seen, terminated=False)
    state = {key: tensor.clone() for key, tensor in replay.state().items()}
    ReplayBuffer(ReplaySpec(None, 2, 2), 30).restore(state)
    state[name][row] = value
    with pytest.raises(ValueError, match="contradicts itself"):
        ReplayBuffer(ReplaySpec(None, 2, 2), 30).restore(state)


def test_links_in_the_place_of_checkpoints(learner: TD3, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    first = save(folder, learner)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("precious")
    for name, target in (
        ("000000007", "000000007"),  # a cycle
        ("000000008", "nothing"),
        (".unfinished-x", str(elsewhere)),
        (".latest-0123", str(elsewhere)),
    ):
        (folder / name).symlink_to(target)
    assert checkpoint.list_checkpoints(folder) == [first]
    first.rename(tmp_path / "moved")
    first.symlink_to(tmp_path / "moved")  # as somebody does who needs room
    assert checkpoint.latest(folder) == first
    for step in range(2, 8):
        save(folder, learner, step)
    assert not first.is_symlink() and (tmp_path / "moved" / "manifest.json").is_file()
    assert (elsewhere / "precious").read_text() == "precious"
    assert sorted(path.name for path in folder.iterdir() if path.name[0] == ".") == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_no_link_keeps_the_name_latest_and_that_is_told(
    learner: TD3, tmp_path: Path, kind: str
) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "latest").mkdir() if kind == "folder" else (folder / "latest").write_text("")
    with pytest.raises(CheckpointError, match=r"000000001 is complete, but .*latest cannot be"):
        save(folder, learner)
    assert checkpoint.latest(folder).name == "000000001"
    (folder / "latest").rmdir() if kind == "folder" else (folder / "latest").unlink()
    for target in ("latest", "nothing"):
        (folder / "latest").unlink(missing_ok=True)
        (folder / "latest").symlink_to(target)
        saved = save(folder, learner)
        assert os.readlink(folder / "latest") == saved.name


@pytest.mark.parametrize("target", ["origin", "nothing", "file"])
def test_an_origin_that_has_gone_is_told(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("")
    assert not has_warm_start(tmp_path)
    (tmp_path / "origin").symlink_to(target)
    with pytest.raises(CheckpointError, match=r"origin is no folder, and no link to one"):
        has_warm_start(tmp_path)


def test_an_origin_may_be_a_link_and_is_adopted_whole_or_not_at_all(
    saved: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "origin").symlink_to(saved)
    assert has_warm_start(run)
    (run / "origin").unlink()
    os.mkfifo(saved / "pipe")
    with pytest.raises(CheckpointError, match="cannot be copied"):
        adopt(saved, run)
    assert list(run.iterdir()) == []
    (saved / "pipe").unlink()
    adopt(saved, run)
    assert [path.name for path in run.iterdir()] == ["origin"] and has_warm_start(run)


def test_links_in_the_place_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name, target in (("cycle", "cycle"), ("dangling", "nothing")):
        (tmp_path / "runs" / name).symlink_to(target)
        with pytest.raises(RunError, match=f"no run '{name}'"):
            RunFolder(name)
        with pytest.raises(RunError, match="a link to nothing: choose another name"):
            RunFolder.create(name, Config())
    with pytest.raises(RunError, match="cannot be made: Too many levels"):
        RunFolder.create("runs/cycle/one", Config())
    Path("runs/latest").mkdir()
    for name in ("one", ""):
        with pytest.raises(RunError, match="runs/latest is not the link that it should be"):
            RunFolder.create(name, Config())
    assert sorted(os.listdir("runs")) == ["cycle", "dangling", "latest"]
    Path("runs/latest").rmdir()
    Path("runs/latest").symlink_to("latest")
    assert RunFolder.create("one", Config()).path == RunFolder("latest").path
