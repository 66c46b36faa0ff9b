# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A run's folder: made once, found by path or name, and its configuration kept exactly."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import yaml

from td3_driver import runs
from td3_driver.config import (
    VECTOR_PARTS,
    Config,
    DrivingConfig,
    EvaluationConfig,
    LearningConfig,
    SimulatorConfig,
    TrainingConfig,
    override,
)
from td3_driver.learning.manifest import seal
from td3_driver.learning.policy import CheckpointError
from td3_driver.runs import RunError, RunFolder, git_revision

OTHER = Config(
    driving=DrivingConfig(vector=VECTOR_PARTS, heading_limit_rad=1 / 3),
    learning=LearningConfig(actor_learning_rate=1e-7, hidden=(64,), channels=(8, 16, 24), tau=1),
    training=TrainingConfig(maps=("a map: with signs",), updates_per_step=0.1),
    evaluation=EvaluationConfig(seed=7),
)


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("config", [Config(), OTHER], ids=["defaults", "others"])
def test_the_configuration_comes_back_equal(config: Config) -> None:
    assert config == RunFolder.create("one", config).config
    assert RunFolder("one").config == config


def test_a_run_is_found_by_name_and_by_path(working_folder: Path) -> None:
    run = RunFolder.create("one", Config())
    assert run.path == working_folder / "runs" / "one"
    assert run.checkpoints == run.path / "checkpoints"
    for name in ("one", "runs/one", str(run.path), run.path):
        assert RunFolder(name).path == run.path


def test_a_run_may_be_made_elsewhere(working_folder: Path) -> None:
    run = RunFolder.create("elsewhere/two", Config())
    assert run.path == working_folder / "elsewhere" / "two"
    assert not (working_folder / "runs").exists()


def test_without_a_name_it_is_the_time_of_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs.time, "strftime", lambda form: "20260102-030405")
    assert RunFolder.create("", Config()).path.name == "20260102-030405"


def test_an_existing_run_is_refused_and_left_as_it_is() -> None:
    run = RunFolder.create("one", OTHER)
    before = (run.path / "config.yaml").read_bytes()
    both = r"\(--resume runs/one; with ros2 launch: resume:=runs/one\)"
    with pytest.raises(RunError, match=rf"runs/one exists: resume it {both}"):
        RunFolder.create("one", Config())
    assert (run.path / "config.yaml").read_bytes() == before


def test_an_unknown_run_is_refused_with_those_there_are(working_folder: Path) -> None:
    with pytest.raises(RunError, match=r"'three'.*runs there: none"):
        RunFolder("three")
    RunFolder.create("two", Config())
    RunFolder.create("one", Config())
    (working_folder / "runs" / "no_run").mkdir()
    with pytest.raises(RunError, match=r"'three'.*runs there: one, two"):
        RunFolder("three")
    with pytest.raises(RunError, match="'no_run'"):
        RunFolder("no_run")


def test_the_kept_configuration_names_what_it_was_made_with() -> None:
    text = (RunFolder.create("one", Config()).path / "config.yaml").read_text()
    heading = [line for line in text.splitlines() if line.startswith("# ")]
    said = {line.split()[1]: line.split()[2] for line in heading}
    assert set(said) >= {"python", "torch", "numpy", "gymnasium", "git"}
    assert said["git"] == git_revision()
    assert set(yaml.safe_load(text)) == {"/**"}


def test_the_latest_checkpoint_is_the_last_complete_one() -> None:
    run = RunFolder.create("one", Config())
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        run.latest_checkpoint()
    for name in ("000000100", "000000200", ".unfinished-300"):
        (run.checkpoints / name).mkdir(parents=True)
        for file in ("actor.safetensors", "networks.json"):
            (run.checkpoints / name / file).touch()
        seal(run.checkpoints / name)
    assert run.latest_checkpoint() == run.checkpoints / "000000200"


def test_latest_is_the_newest_run_of_the_runs_folder(working_folder: Path) -> None:
    RunFolder.create("one", Config())
    assert RunFolder("latest").path.name == "one"
    newest = RunFolder.create("two", Config())
    RunFolder.create("elsewhere/three", Config())
    assert RunFolder("latest").path == newest.path
    with pytest.raises(RunError, match=r"runs there: one, two\)"):
        RunFolder("nonesuch")


def test_trainings_started_in_the_same_second_get_a_folder_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("td3_driver.runs.time.strftime", lambda form: "20261126-120000")
    names = [RunFolder.create("", Config()).path.name for _ in range(3)]
    assert names == ["20261126-120000", "20261126-120000-2", "20261126-120000-3"]


@pytest.mark.parametrize("name", ["latest", ".", "..", "runs/latest", "./", "runs/.."])
def test_a_name_that_no_run_can_have_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    RunFolder.create("first", Config())
    with pytest.raises(RunError, match="cannot be a run's name"):
        RunFolder.create(name, Config())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_a_run_on_a_full_disk_does_not_take_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("td3_driver.files.flush", full)
        with pytest.raises(OSError, match="No space"):
            RunFolder.create(str(run), Config())
    assert list(run.iterdir()) == []
    assert RunFolder.create(str(run), Config()).config == Config()


@pytest.mark.parametrize(
    "kind", ["maps/town.xodr", "../town #1.xodr", "t\u00f6wn \U0001f697.v3.xodr"]
)
def test_a_run_with_relative_paths_means_the_same_files_in_any_folder(
    working_folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    here = working_folder / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    file = here / kind
    file.parent.mkdir(exist_ok=True)
    file.touch()
    Path("starts.yaml").touch()
    config = Config(
        simulator=SimulatorConfig(map=kind),
        training=TrainingConfig(starts_file="starts.yaml"),
    )
    several = [name for name, section in config if hasattr(section, "maps")]
    for name in several:
        config = override(config, {f"{name}.maps": (kind, "ring_meadow", "not there")}, "all")
    kept = RunFolder.create("one", config).config
    monkeypatch.chdir("/")
    absolute = str(file.resolve())
    assert kept.simulator.map == absolute
    assert kept.training.starts_file == str(here / "starts.yaml")
    assert {"training", "evaluation"} <= set(several)
    for name in several:
        assert getattr(kept, name).maps == (absolute, "ring_meadow", "not there")
    assert Path(kept.simulator.map).is_file()


def test_only_one_process_trains_in_a_run() -> None:
    run = RunFolder.create("one", Config())
    with run.claimed():
        with (
            pytest.raises(RunError, match=r"another process is training in .*runs/one: wait"),
            RunFolder("one").claimed(),
        ):
            pytest.fail("claimed twice")
        with RunFolder.create("two", Config()).claimed():
            pass
    with RunFolder("one").claimed():
        pass


def test_where_no_claim_can_be_laid_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(file: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with RunFolder.create("one", Config()).claimed():
        pass


def test_a_file_with_a_shipped_maps_name_does_not_take_its_place(working_folder: Path) -> None:
    (working_folder / "ring_meadow").touch()
    assert RunFolder.create("one", Config()).config.simulator.map == "ring_meadow"


def test_a_run_goes_on_another_machine_but_not_as_another_task() -> None:
    run = RunFolder.create("one", Config())
    elsewhere = LearningConfig(
        device="cpu",
        replay_device="cpu",
        precision="float32",
        cuda_graphs=False,
        replay_memory_fraction=0.9,
    )
    both = ("driving", "learning")
    run.check_same(Config(learning=elsewhere), both)
    run.check_same(Config(training=TrainingConfig(torch_threads=1)), both)
    other = Config(
        driving=DrivingConfig(max_speed_mps=7.5),
        learning=LearningConfig(device="cpu", batch_size=64, hidden=(9,) * 16),
    )
    with pytest.raises(RunError) as told:
        run.check_same(other, both)
    message = str(told.value)
    assert "driving.max_speed_mps is 7.5, the run's 8.0; " in message
    assert "learning.batch_size is 64, the run's 256; " in message
    assert "learning.hidden is (9, 9" in message and "device" not in message
    assert len(message) < 600
    with pytest.raises(RunError, match="max_speed_mps") as told:
        run.check_same(other, ("driving",))
    assert "batch_size" not in str(told.value)
