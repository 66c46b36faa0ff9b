# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The commands that people type."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from driver_runs import make_run, small_config

from td3_driver import cli
from td3_driver.launching import supervision
from td3_driver.launching.commands import COMMANDS
from td3_driver.launching.parts import Process
from td3_driver.looks import HELD_OUT, NAMED
from td3_driver.simulator.camera import Camera

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """Collect what would be started; the exit code of running it is 7."""
    collected: list[Process] = []

    def run(processes: Sequence[Process]) -> int:
        collected.extend(processes)
        return 7

    monkeypatch.setattr(supervision, "run", run)
    return collected


def help_of(*command: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--help"])
    assert end.value.code == 0
    return " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_on_the_command_line_with_its_description(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(command, capsys=capsys)
    for option in COMMANDS[command].options:
        if option.launch_only:
            assert option.description not in text
            continue
        dashed = "--" + option.name.replace("_", "-")
        bare = option.default is None or option.positional
        assert (option.name.upper() if bare else dashed) in text
        assert option.description in text


def test_the_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys=capsys)
    for command in (
        *COMMANDS,
        *("evaluate", "doctor", "export", "inspect", "pretrain", "repair"),
    ):
        assert command in text


def test_the_help_waits_for_no_large_library() -> None:
    code = (
        "import sys, td3_driver.cli; "
        "sys.exit(' '.join({'torch', 'rclpy', 'cv2', 'carla', 'gymnasium'} & set(sys.modules)))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert outcome.stderr.strip() == ""


def test_train_starts_the_described_processes(started: list[Process]) -> None:
    given = "--config first_drive --run a --evaluate --map ring_quarry"
    settings = "--set training.seed=3 --set simulator.seed=4"
    code = cli.main(["train", *given.split(), *settings.split()])
    assert code == 7
    values = {option.name: option.default for option in COMMANDS["train"].options} | {
        "config": "first_drive",
        "run": "a",
        "evaluate": True,
        "map": "ring_quarry",
        "set": ("training.seed=3", "simulator.seed=4"),
    }
    assert started == COMMANDS["train"].processes(values)


def test_drive_takes_a_run_by_its_name(
    started: list[Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "runs" / "a", small_config())
    monkeypatch.chdir(tmp_path)
    assert cli.main(["drive", "a", "--no-random-goal", "--seed", "5"]) == 7
    simulator, driver = started
    assert simulator.parameters["config"] == str(tmp_path / "runs" / "a" / "config.yaml")
    assert driver.parameters["run"] == "a"
    assert (driver.parameters["random_goal"], driver.parameters["seed"]) == (False, 5)


@pytest.mark.parametrize(
    "arguments, reason",
    [
        (["drive", "nonesuch"], "no run 'nonesuch'"),
        (["train", "--resume", "nonesuch"], "no run 'nonesuch'"),
        (["train", "--from", "nonesuch"], "no run 'nonesuch'"),
        (["train", "--from", "a", "--resume", "b"], "give one"),
        (["drive"], "name the run to drive with"),
        (["evaluate", "nonesuch"], "no run 'nonesuch'"),
        (["export", "nonesuch"], "no run 'nonesuch'"),
        (["pretrain", "nonesuch", "--out", "a"], "nonesuch"),
        (["pretrain", "bag", "--out", "a", "--set", "learning.bc_alfa=1"], "no such setting"),
        (["inspect", "nonesuch", "--run", "a"], "there is no bag nonesuch"),
        (["repair", "nonesuch"], "there is no bag nonesuch"),
        (["replay", "nonesuch", "nonesuch"], "no run 'nonesuch'"),
        (["train", "--config", "nonesuch"], "no configuration 'nonesuch'"),
        (["simulate", "--map", "nonesuch"], "no map 'nonesuch'"),
        (["train", "--set", "training.sed=1"], "training.sed: there is no such setting"),
        (["train", "--set", "training.seed"], "section.setting=value"),
        (["train", "--world", "carla", "--map", "ring_quarry"], "map"),
    ],
)
def test_wrong_input_is_told_in_plain_words(
    arguments: list[str],
    reason: str,
    started: list[Process],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("td3-driver: ") and reason in told
    assert not started


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["pretrain"],
        ["pretrain", "bag"],
        ["train", "--world", "mars"],
        ["evaluate", "a", "--episodes", "0"],
        ["doctor", "--watch", "0"],
        ["doctor", "--world", "mars"],
        ["drive", "a", "--town", "x"],
    ],
)
def test_wrong_usage_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2


def test_a_run_without_a_checkpoint_cannot_be_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a", small_config())
    (run.checkpoints / "latest").unlink()
    (run.checkpoints / "000000001").rename(tmp_path / "elsewhere")
    assert cli.main(["evaluate", str(run.path)]) == 2
    assert capsys.readouterr().err.startswith("td3-driver: ")


def test_an_unknown_map_is_told_by_evaluate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a", small_config())
    assert cli.main(["evaluate", str(run.path), "--map", "nonesuch"]) == 2
    assert "no map 'nonesuch'" in capsys.readouterr().err


def test_evaluate_prints_a_table_and_writes_the_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "a", small_config(time_limit_s=1.0))
    out = tmp_path / "report.json"
    arguments = ["evaluate", str(run.path), "--map", "ring_quarry", "--episodes", "2"]
    assert cli.main([*arguments, "--seed", "3", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "ring_quarry" in table and "completion" in table
    assert out.is_file()
    worn = []
    wear = Camera.wear
    monkeypatch.setattr(
        Camera, "wear", lambda camera, look: (worn.append(look), wear(camera, look))
    )
    assert cli.main([*arguments, "--look", "held_out", "--out", str(out)]) == 0
    assert worn and set(worn) <= {NAMED[name] for name in HELD_OUT}


@pytest.mark.long
def test_export_writes_a_file_that_evaluate_drives_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a", small_config(time_limit_s=1.0, lateral_limit_m=3.0))
    file = tmp_path / "elsewhere" / "small.onnx"
    assert cli.main(["export", str(run.path), "--out", str(file)]) == 0
    said = capsys.readouterr().out
    assert str(file) in said and "largest difference" in said
    options = ["--map", "ring_quarry", "--episodes", "1", "--seed", "3"]
    assert cli.main(["evaluate", str(run.path), *options]) == 0
    assert cli.main(["evaluate", str(run.path), *options, "--policy", str(file)]) == 0
    by_checkpoint, by_file = (
        json.loads(report.read_text())["episodes"][0]
        for report in (run.path / "evaluation.json", file.with_suffix(".evaluation.json"))
    )
    assert by_checkpoint["distance_m"] == pytest.approx(by_file["distance_m"], abs=1e-3)
    assert by_checkpoint["distance_m"] > 0.1
    # In a suite, the ends of episodes are others than in the file.
    suite = tmp_path / "short.yaml"
    group = {"name": "one", "maps": ["ring_quarry"], "episodes": 1, "seed": 3}
    limit = {"time_limit_s": 1.0}
    suite.write_text(json.dumps({"description": "", "ends": limit, "groups": [group]}))
    options = ["--suite", str(suite), "--policy", str(file), "--jobs", "1"]
    assert cli.main(["evaluate", str(run.path), *options]) == 0
    (driver,) = json.loads((run.path / "suite-short.json").read_text())["contenders"]
    assert driver["name"] == "a, small.onnx" and driver["policy"] == str(file)
    assert driver["episodes"][0]["distance_m"] == pytest.approx(by_file["distance_m"], abs=1e-3)


def test_a_camera_test_says_that_an_untrained_policy_is_not_shown_to_look(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", small_config(time_limit_s=1.5))
    arguments = ["evaluate", str(run.path), "--camera-test", "--map", "ring_quarry"]
    assert cli.main([*arguments, "--episodes", "1"]) == 2
    assert "--episodes: the camera test needs two or more" in capsys.readouterr().err
    assert cli.main([*arguments, "--episodes", "2"]) == 0
    said = capsys.readouterr().out
    assert "It is not shown to drive by its camera: it completes only 0." in said
    outcome = json.loads((run.path / "camera_test.json").read_text())
    assert not outcome["looks"]
    assert [len(each["completions"]) for each in outcome["conditions"]] == [2] * 8
    assert (run.path / "camera_test.png").read_bytes().startswith(b"\x89PNG")
    assert f"  {run.path / 'camera_test.png'}" in said.splitlines()


@pytest.mark.parametrize("command", ["drive", "evaluate"])
def test_a_policy_file_that_cannot_be_used_is_told(
    command: str, started: list[Process], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a", small_config())
    assert cli.main([command, str(run.path), "--policy", str(tmp_path / "none.onnx")]) == 2
    assert "none.onnx" in capsys.readouterr().err
    assert not started


@pytest.mark.long
def test_an_export_to_where_nothing_can_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "a", small_config())
    assert cli.main(["export", str(run.path), "--out", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
