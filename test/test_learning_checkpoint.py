# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints: complete or absent, exact, and refused with the file's name where unfit."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from td3_driver.config import LearningConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.batch import ReplaySpec
from td3_driver.learning.manifest import seal
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import CheckpointError, Policy, load_spec
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.td3 import TD3

torch.set_num_threads(1)  # the networks are too small for more

SPEC = NetworkSpec((2, 36, 36), (1.0, 0.7854), 2, (2, 3, 2), 4, (5, 6))
REPLAY_SPEC = ReplaySpec((2, 36, 36), 2, 2)
FILES = {
    "actor.safetensors",
    "networks.json",
    "learner.safetensors",
    "replay.safetensors",
    "counters.json",
    "manifest.json",
}


def observation(random: np.random.Generator) -> dict[str, np.ndarray]:
    return {
        "image": random.integers(0, 256, SPEC.image, np.uint8),
        "vector": random.normal(size=2).astype(np.float32),
    }


class Run:
    """A learner with its replay buffer and generators, as a training run has them."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.learner = TD3(SPEC, LearningConfig(actor_warmup_updates=0), seed=seed)
        self.replay = ReplayBuffer(REPLAY_SPEC, 30)
        self.generators = {"sampling": torch.Generator().manual_seed(seed)}
        self.step = 0

    def go_on(self, steps: int = 8) -> Run:
        self.replay.begin(observation(self.random))
        for _ in range(steps):
            self.step += 1
            self.replay.add(
                self.random.uniform(-1, 1, 2), 0.5, observation(self.random), terminated=False
            )
            self.learner.update(self.replay.sample(4, self.generators["sampling"]))
        return self

    def save(self, folder: Path, keep: int = 2) -> Path:
        snapshot = checkpoint.take(
            self.step, self.learner, self.replay, {"episodes": 3}, self.generators
        )
        return checkpoint.write(folder, snapshot, keep)

    def load(self, path: Path) -> dict[str, Any]:
        counters = checkpoint.load(path, self.learner, self.replay, self.generators)
        self.step = counters["step"]
        return counters

    def everything(self) -> dict[str, torch.Tensor]:
        state = {f"replay.{name}": value for name, value in self.replay.state().items()}
        for name in ("actor", "critic", "actor_target", "critic_target"):
            for key, value in getattr(self.learner, name).state_dict().items():
                state[f"{name}.{key}"] = value.clone()
        for name in ("actor_optimizer", "critic_optimizer"):
            for index, moments in getattr(self.learner, name).state_dict()["state"].items():
                for key, value in moments.items():
                    state[f"{name}.{index}.{key}"] = value.clone()
        state["learner's generator"] = self.learner.generator.get_state()
        state["sampling's generator"] = self.generators["sampling"].get_state()
        state["updates"] = torch.tensor(self.learner.updates)
        return state


def assert_equal(one: Run, other: Run) -> None:
    mine, theirs = one.everything(), other.everything()
    assert set(mine) == set(theirs)
    for name, value in mine.items():
        assert value.dtype == theirs[name].dtype and torch.equal(value, theirs[name]), name


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the checkpoint of `Run().go_on()`."""
    return Run().go_on().save(tmp_path_factory.mktemp("written"))


@pytest.fixture
def saved(written: Path, tmp_path: Path) -> Path:
    """Give a copy of that checkpoint, to do with as one likes."""
    return Path(shutil.copytree(written, tmp_path / written.name))


@pytest.mark.long
def test_a_loaded_checkpoint_is_equal_bit_for_bit_and_goes_on_equally(tmp_path: Path) -> None:
    run = Run().go_on()
    saved = run.save(tmp_path)
    other = Run(seed=9)
    assert not torch.equal(run.everything()["updates"], other.everything()["updates"])
    counters = other.load(saved)
    assert counters == {"step": 8, "updates": 8, "episodes": 3}
    assert_equal(run, other)
    other.random = np.random.default_rng(1)
    run.random = np.random.default_rng(1)
    assert_equal(run.go_on(), other.go_on())


def test_a_checkpoint_from_before_the_first_update_loads(tmp_path: Path) -> None:
    run, other = Run(), Run(seed=2)
    other.load(run.save(tmp_path))
    assert_equal(run, other)


def test_nothing_in_a_checkpoint_runs_when_loaded(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise AssertionError("a pickle was read")

    assert {path.name for path in saved.iterdir()} == FILES
    for path in saved.iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            header = int.from_bytes(path.read_bytes()[:8], "little")
            json.loads(path.read_bytes()[8 : 8 + header])
    for module, name in ((pickle, "loads"), (pickle, "load"), (pickle, "Unpickler")):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    Run(seed=1).load(saved)
    Policy.load(saved)


def test_the_newest_stay_and_the_link_points_at_the_last(tmp_path: Path) -> None:
    run = Run()
    for _ in range(4):
        saved = run.go_on(3).save(tmp_path, keep=2)
        assert (tmp_path / "latest").resolve() == saved.resolve()
        assert checkpoint.latest(tmp_path) == saved
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == [
        "000000009",
        "000000012",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000009", "000000012", "latest"]
    assert not os.path.isabs(os.readlink(tmp_path / "latest"))  # so that a run can be moved


def test_without_a_checkpoint_there_is_no_latest(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-5").mkdir()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoint.latest(tmp_path)


def test_leftovers_of_a_kill_are_removed_by_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".unfinished-5").mkdir()
    (tmp_path / ".unfinished-5" / "actor.safetensors").write_text("half")
    run = Run().go_on(5)
    assert run.save(tmp_path).name == "000000005"
    assert not list(tmp_path.glob(".unfinished-*"))


class Killed(BaseException):
    """Stands for the end of the process."""


class Killer:
    """Raises Killed at the n-th change of the disk, which it leaves half done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for owner, name in (
            (Path, "mkdir"),
            (Path, "write_text"),
            (Path, "rename"),
            (Path, "replace"),
            (Path, "symlink_to"),
            (Path, "unlink"),
            (os, "fsync"),
            (checkpoint, "save_actor"),
            (checkpoint, "seal"),
            (checkpoint, "save_file"),
        ):
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name)))
        monkeypatch.setattr(shutil, "rmtree", self._half_removed(shutil.rmtree))

    def kill_at(self, number: int) -> None:
        self.left = number

    def _dies(self) -> bool:
        self.left -= 1
        return self.left == -1

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self._dies():
                raise Killed
            return function(*arguments, **keywords)

        return call

    def _half_removed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Path) -> Any:
            if self._dies():
                for file in sorted(path.iterdir())[::2]:
                    os.remove(file)
                raise Killed
            return function(path)

        return call


@pytest.mark.long
@pytest.mark.parametrize("again_at_the_same_step", [False, True])
def test_a_kill_at_any_instant_leaves_a_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again_at_the_same_step: bool
) -> None:
    run = Run().go_on(3)
    old_updates = run.learner.updates
    run.save(tmp_path / "begun", keep=1)
    run.go_on(2)
    if again_at_the_same_step:
        run.step -= 2
    killer = Killer(monkeypatch)
    finished, kills = False, 0
    while not finished:
        folder = tmp_path / f"killed-{kills}"
        shutil.copytree(tmp_path / "begun", folder, symlinks=True)
        killer.kill_at(kills)
        try:
            run.save(folder, keep=1)
            finished = True
        except Killed:
            kills += 1
        killer.kill_at(-1)
        other = Run(seed=5)
        other.load(checkpoint.latest(folder))
        assert other.learner.updates in (old_updates, run.learner.updates)
        assert not finished or other.learner.updates == run.learner.updates
        Policy.load(folder / "latest")
        saved = other.go_on(1).save(folder, keep=1)
        assert sorted(path.name for path in folder.iterdir()) == [saved.name, "latest"]
    assert kills >= 15  # made folder, 6 files, 7 flushed, renamed, linked, old one removed


@pytest.mark.parametrize(
    "name",
    [
        "actor.safetensors",
        "networks.json",
        "learner.safetensors",
        "replay.safetensors",
        "counters.json",
        "manifest.json",
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "emptied", "foreign", "flipped", "missing"])
def test_a_damaged_file_is_refused_by_its_name(saved: Path, name: str, damage: str) -> None:
    path = saved / name
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        flipped = bytearray(content)
        flipped[-len(content) // 3] ^= 1
        damaged = {
            "truncated": content[: len(content) // 2],
            "emptied": b"",
            "foreign": b"PK\3\4" * 99,
            "flipped": bytes(flipped),
        }
        path.write_bytes(damaged[damage])
    # An altered digest accuses the file that it is of.
    accused = name if damage != "flipped" or name != "manifest.json" else "."
    with pytest.raises(CheckpointError, match=accused):
        Run(seed=1).load(saved)
    if name in ("actor.safetensors", "networks.json"):
        with pytest.raises(CheckpointError, match=name):
            Policy.load(saved)


def damage_weights(saved: Path) -> None:
    content = bytearray((saved / "actor.safetensors").read_bytes())
    content[-1] ^= 1
    (saved / "actor.safetensors").write_bytes(content)


def damage_replay(saved: Path) -> None:
    os.truncate(saved / "replay.safetensors", 1000)


def make_foreign(saved: Path) -> None:
    spec = NetworkSpec((2, 36, 36), (1.0, 0.7854), 2, (2, 3, 2), 4, (5, 7))
    other = TD3(spec, LearningConfig())
    replay = ReplayBuffer(REPLAY_SPEC, 30)
    shutil.rmtree(saved)
    written = checkpoint.write(saved.parent, checkpoint.take(0, other, replay, {}, {}), 9)
    written.rename(saved)


@pytest.mark.parametrize("damage", [damage_weights, damage_replay, make_foreign])
def test_resuming_goes_back_to_the_checkpoint_before_and_says_why(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    run = Run()
    good = run.go_on(3).save(tmp_path)
    at_good = run.everything()
    bad = run.go_on(3).save(tmp_path)
    damage(bad)
    other = Run(seed=5)
    warnings: list[str] = []
    used, counters = checkpoint.resume(
        tmp_path, other.learner, other.replay, other.generators, warnings.append
    )
    assert used == good and counters["step"] == 3
    assert all(torch.equal(value, at_good[name]) for name, value in other.everything().items())
    (warning,) = warnings
    assert bad.name in warning and warning.endswith("going back to checkpoint 000000003")
    # The refused one is out of the way: it is neither the newest nor does it count as kept.
    assert (tmp_path / "latest").resolve() == good.resolve()
    assert (tmp_path / f"refused-{bad.name}").is_dir()
    other.step = 5
    saved = other.save(tmp_path, keep=1)
    assert checkpoint.list_checkpoints(tmp_path) == [saved]


def test_the_newest_usable_policy_is_the_latest(tmp_path: Path) -> None:
    run = Run()
    first, second, third = (run.go_on(3).save(tmp_path, keep=3) for _ in range(3))
    damage_weights(third)
    warnings: list[str] = []
    assert checkpoint.latest(tmp_path, warnings.append) == second
    assert len(warnings) == 1 and "actor.safetensors is damaged" in warnings[0]
    # Who drives has no need of the replay.
    damage_replay(second)
    assert checkpoint.latest(tmp_path, warnings.append) == second
    for saved in (first, second):
        damage_weights(saved)
    with pytest.raises(CheckpointError, match=r"000000009/actor\.safetensors is damaged"):
        checkpoint.latest(tmp_path, warnings.append)


def test_a_snapshot_stays_as_it_was_while_training_goes_on(tmp_path: Path) -> None:
    run = Run().go_on(20)
    writer = checkpoint.Writer(tmp_path, keep=1)
    assert writer.wait() is None
    expected = run.everything()
    snapshot = checkpoint.take(run.step, run.learner, run.replay, {}, run.generators)
    run.go_on(20)  # past the ring's seam
    writer.start(snapshot)
    saved = writer.wait()
    assert saved is not None
    other = Run(seed=5)
    other.load(saved)
    assert all(torch.equal(value, expected[name]) for name, value in other.everything().items())


def test_what_goes_wrong_in_writing_is_raised_to_who_waits(tmp_path: Path) -> None:
    run = Run().go_on()
    (tmp_path / "file").write_text("")
    writer = checkpoint.Writer(tmp_path / "file", keep=1)
    writer.start(checkpoint.take(run.step, run.learner, run.replay, {}, run.generators))
    with pytest.raises(FileExistsError):
        writer.wait()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"step": 8}', '{"step": 8, "updates": "x"}', "\x00"]
)
def test_damaged_counters_are_refused_by_their_name(saved: Path, content: str) -> None:
    (saved / "counters.json").write_text(content)
    seal(saved)  # as by another version
    with pytest.raises(CheckpointError, match=r"counters\.json"):
        Run(seed=1).load(saved)


def without(tensors: dict[str, torch.Tensor], name: str) -> None:
    del tensors[name]


def reshaped(tensors: dict[str, torch.Tensor], name: str) -> None:
    tensors[name] = torch.zeros(3, 3)


@pytest.mark.parametrize("change", [without, reshaped])
@pytest.mark.parametrize(
    "file, name",
    [
        ("learner.safetensors", "critic.q1.0.weight"),
        ("learner.safetensors", "actor_target.encoder.trunk.0.bias"),
        ("learner.safetensors", "generator.learner"),
        ("learner.safetensors", "generator.sampling"),
        ("replay.safetensors", "images"),
        ("replay.safetensors", "vectors"),
        ("replay.safetensors", "counters"),
        ("actor.safetensors", "head.0.weight"),
    ],
)
def test_an_altered_file_is_refused_by_its_name(
    saved: Path, file: str, name: str, change: Callable[[dict[str, torch.Tensor], str], None]
) -> None:
    tensors = load_file(saved / file)
    change(tensors, name)
    save_file(tensors, saved / file)
    seal(saved)  # as by another version
    with pytest.raises(CheckpointError, match=file):
        if file == "actor.safetensors":
            Policy.load(saved)
        else:
            Run(seed=1).load(saved)


def test_a_checkpoint_of_other_networks_is_refused(tmp_path: Path) -> None:
    run = Run().go_on()
    saved = run.save(tmp_path)
    other = Run()
    other.learner.spec = NetworkSpec((2, 36, 36), (1.0, 0.7854), 2, (2, 3, 2), 4, (5, 7))
    with pytest.raises(CheckpointError, match="other networks"):
        other.load(saved)


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a complete checkpoint .* no manifest\.json"):
        Policy.load(tmp_path)


@pytest.mark.parametrize(
    "key, value",
    [("image", 7), ("channels", [2, 3]), ("hidden", ["x"]), ("image_features", -4), ("more", 1)],
)
def test_a_shape_that_describes_no_networks_is_refused(
    saved: Path, key: str, value: object
) -> None:
    values = json.loads((saved / "networks.json").read_text())
    (saved / "networks.json").write_text(json.dumps({**values, key: value}))
    seal(saved)  # as by another version
    with pytest.raises(CheckpointError, match=r"networks\.json"):
        Policy.load(saved)


def test_the_spec_survives_the_file_exactly(saved: Path) -> None:
    assert load_spec(saved) == SPEC


def test_a_loaded_policy_acts_as_the_actor_does(tmp_path: Path) -> None:
    run = Run().go_on()
    policy = Policy.load(run.save(tmp_path))
    seen = observation(run.random)
    action = policy.act(seen)
    batch = {key: torch.from_numpy(value)[None] for key, value in seen.items()}
    with torch.no_grad():
        expected = run.learner.actor(batch)[0].numpy()
    np.testing.assert_array_equal(action, expected)
    assert action.shape == (2,) and action.dtype == np.float32
    assert np.all(np.abs(action) <= 1.0)


def test_a_policy_follows_the_actor_when_told_and_not_before() -> None:
    run = Run()
    policy = Policy.like(SPEC)
    policy.follow(run.learner.actor)
    seen = observation(run.random)
    before = policy.act(seen)
    run.go_on()
    np.testing.assert_array_equal(policy.act(seen), before)
    policy.follow(run.learner.actor)
    assert np.all(policy.act(seen) != before)
