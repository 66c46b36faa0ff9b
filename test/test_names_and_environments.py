# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Odd names of files and runs, and odd environments: they work, or are refused in one line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from carla_graph import own_domain
from node_process import start_node
from rclpy.context import Context
from rclpy.node import Node

from td3_driver import cli
from td3_driver.bridge import driver_topics, runtime, topics
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import CarlaConfig, Config, ConfigError, override
from td3_driver.doctor.findings import Verdict
from td3_driver.doctor.map_file import examine
from td3_driver.launching.commands import COMMANDS
from td3_driver.launching.parts import Process
from td3_driver.roads.map_files import MAPS_FOLDER
from td3_driver.runs import RunError, RunFolder

ROOT = Path(__file__).resolve().parent.parent
NOT_UTF8 = os.fsdecode(b"r\xff\xfe")
ODD_NAMES = (
    "l\u00e4uft \U0001f697",
    "run #1?%25",
    "\\ud83d\\ude97 is no car",
    "\\\U0001f697",
    "a\nb\tc\x01\x7f\x85\u2028\ufeff",
    "'\"$HOME{}[]:= -p",
    "~",
    "0012",
)


def test_ros_reads_every_name_as_it_is() -> None:
    names = {f"learning.{key}": name for key, name in zip("abcdefgh", ODD_NAMES, strict=True)}
    context = Context()
    arguments = ["--ros-args", *Process("trainer", names).ros_arguments()]
    assert all(text.isascii() for text in arguments)
    context.init(args=arguments, domain_id=own_domain())
    own = dict.fromkeys(names, ("", "A name."))
    node = ConfiguredNode("trainer", [], own=own, context=context)
    try:
        assert {name: node.get_parameter(name).value for name in names} == names
    finally:
        node.destroy_node()
        context.try_shutdown()


def values_of(command: str, **given: object) -> dict[str, object]:
    return {option.name: option.default for option in COMMANDS[command].options} | given


@pytest.mark.parametrize(
    "command, given", [("train", {"run": NOT_UTF8}), ("drive", {"baseline": True, "record": "."})]
)
def test_a_name_that_ros_cannot_be_given_is_refused_before_anything_starts(
    command: str, given: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "record" in given:
        given = {**given, "record": str(tmp_path / NOT_UTF8)}
    with pytest.raises(ConfigError, match=r"ROS takes no text that is not UTF-8.*\\udcff") as told:
        COMMANDS[command].processes(values_of(command, **given))
    assert str(told.value).isprintable()


def test_a_run_is_found_and_made_under_any_name_that_is_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ODD_NAMES:
        assert RunFolder.create(name, Config()).path == RunFolder(name).path
    with pytest.raises(RunError, match="has to be UTF-8"):
        RunFolder.create(NOT_UTF8, Config())
    (tmp_path / NOT_UTF8).mkdir()
    shutil.copy(tmp_path / "runs" / "0012" / "config.yaml", tmp_path / NOT_UTF8)
    with pytest.raises(RunError, match="has to be UTF-8"):
        RunFolder(NOT_UTF8)
    monkeypatch.chdir(NOT_UTF8)
    with pytest.raises(RunError, match="has to be UTF-8"):
        RunFolder.create("plain", Config())
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", ["$\\foo$", NOT_UTF8, "t\u00f6wn \U0001f697.v3", "%s {0}"])
def test_the_doctor_draws_a_map_of_any_name(name: str, tmp_path: Path) -> None:
    file = shutil.copy(MAPS_FOLDER / "ring_meadow.xodr", tmp_path / f"{name}.xodr")
    found = examine(file, tmp_path / "map.png")
    assert {finding.verdict for finding in found} == {Verdict.OK}
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_a_name_that_cannot_be_printed_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(run: str, out: object) -> None:
        ("<html>" * 1000 + run).encode()

    monkeypatch.setattr("td3_driver.deployment.export.export_run", write)
    assert cli.main(["export", NOT_UTF8]) == 2
    told = capsys.readouterr().err
    assert told.startswith("td3-driver: a name that is not UTF-8: ") and "r\\udcff" in told
    assert len(told) < 300 and told.count("\n") == 1


def command(*arguments: str | bytes, **how: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "td3_driver.startup", "td3-driver", *arguments],
        cwd=ROOT,
        text=True,
        errors="surrogateescape",
        **how,
    )


def test_a_reader_that_goes_ends_a_command_without_a_word(tmp_path: Path) -> None:
    """As in `td3-driver doctor | head -1`."""
    picture = tmp_path / "map.png"
    for arguments in ("--help",), ("doctor", "--map", "ring_meadow", "--picture", str(picture)):
        ours, theirs = os.pipe()
        os.close(ours)
        process = command(*arguments, stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        _, said = process.communicate(timeout=60)
        assert said == ""
    assert process.returncode == 128 + signal.SIGPIPE and picture.is_file()


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["C", "ASCII"],
)
def test_names_are_printed_in_every_locale(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = command(
        *("simulate", "--map", f"{tmp_path}/l\u00e4uft \U0001f697 ".encode() + b"\xff.xodr"),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 2 and printed == ""
    assert said.startswith("td3-driver: no map ") and said.count("\n") == 1


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.mark.parametrize("domain", ["abc", "-1", "1.5", "233", "9" * 5000, "\udcff"])
def test_a_domain_that_there_is_not_is_told_in_a_line(
    domain: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(ConfigError, match=r"^ROS_DOMAIN_ID is '.*not a number from 0 to 232"):
        runtime.begin_ros(lambda: context.init(args=[]))
    assert not context.ok()


def test_arguments_that_ros_does_not_take_are_told_in_a_line(context: Context) -> None:
    for wrong in ("-p", "no assignment"), ("--log-level", "loud"):
        with pytest.raises(ConfigError, match=r"^ROS cannot start: ") as told:
            runtime.begin_ros(lambda wrong=wrong: context.init(args=["--ros-args", *wrong]))
        assert "\n" not in str(told.value) and ".c:" not in str(told.value)
    with pytest.raises(ConfigError, match="ROS takes no argument that is not UTF-8"):
        runtime.begin_ros(lambda: context.init(args=[NOT_UTF8]))


@pytest.mark.parametrize("what", ["simulator", "td3-driver doctor"])
def test_a_full_shared_memory_is_told_where_ros_would_die_of_it(what: str) -> None:
    full = "mount -t tmpfs -o size=64k tmpfs /dev/shm && cat /dev/zero 2>&- >/dev/shm/full"
    start = f"{sys.executable} -m td3_driver.startup {what}"
    outcome = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", f"({full}); test -s /dev/shm/full || exit 1; {start}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if outcome.returncode == 1:
        pytest.skip("no /dev/shm of its own here")
    assert outcome.returncode == 2
    assert "/dev/shm is full: remove " in outcome.stderr
    assert outcome.stderr.count("\n") == 1


LONG = "a" * 81


@pytest.mark.parametrize(
    "setting, value",
    [
        *((name, LONG) for name in ("role_name", "camera", "control", "topic_names")),
        ("camera", "a/" * 41 + "a"),
        *(("topic_names", f"image={name}") for name in (f"/{LONG}", "/a\u00e9", "/a//b", "/a/")),
    ],
)
def test_a_name_that_ros_does_not_take_is_refused_by_its_setting(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"carla\.{setting}") as told:
        carla = override(Config(), {f"carla.{setting}": value}, "the test").carla
        topics.IMAGE.name(carla)
    assert len(str(told.value)) < 500


def test_the_longest_names_are_topics_of_ros(context: Context) -> None:
    longest = dict.fromkeys(("role_name", "camera", "control"), "a" * 80)
    renamed = f"image=/{'b' * 77}/" + "{role}"
    carla = CarlaConfig(**longest, topic_names=renamed)
    context.init(args=[], domain_id=own_domain())
    node = Node("node", context=context, namespace="/" + "n" * 79)
    try:
        for topic in (*topics.TOPICS, *driver_topics.DRIVER_TOPICS):
            node.resolve_topic_name(topic.name(carla))
            node.create_publisher(topic.message_type_in(carla), topic.name(carla), 1)
    finally:
        node.destroy_node()
        context.try_shutdown()


def test_a_namespace_that_ros_does_not_take_is_told_in_a_line(context: Context) -> None:
    for given in ("left-hand", "/1st", "/" + "n" * 80):
        with pytest.raises(ConfigError, match=r"^namespace: .* is none"):
            COMMANDS["simulate"].processes(values_of("simulate", namespace=given))
    context.init(args=["--ros-args", "-r", f"__ns:=/{'n' * 300}"], domain_id=own_domain())
    with pytest.raises(ConfigError, match=r"^ROS cannot start: .*namespace should not exceed"):
        ConfiguredNode("trainer", [], context=context)
    context.try_shutdown()


@pytest.mark.parametrize(
    "variable, value, words",
    [
        ("ROS_DOMAIN_ID", "abc", "unset ROS_DOMAIN_ID"),
        ("ROS_LOG_DIR", "/proc/none", "set ROS_LOG_DIR to a folder that can be written"),
    ],
)
def test_a_node_that_cannot_start_says_why_in_one_line(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    process = start_node("simulator", stderr=subprocess.PIPE)
    _, said = process.communicate(timeout=60.0)
    assert process.returncode == 2
    assert said is not None and said.startswith("error: ") and words in said
    assert said.count("\n") == 1
