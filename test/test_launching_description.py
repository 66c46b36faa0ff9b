# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The launch files: the same processes and options as the command line.

Their structure is checked against stand-ins for `launch`; where the real one is installed they
are also run.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from bag_drives import drive, write

from td3_driver import interpreter
from td3_driver.config import Config
from td3_driver.launching import answers, carla_bridge, fastdds
from td3_driver.launching.commands import LAUNCHES, TRAINER_STOP_TIMEOUT_S
from td3_driver.launching.parts import Process
from td3_driver.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = {
    "train": ROOT / "launch" / "train.launch.py",
    "drive": ROOT / "launch" / "drive.launch.py",
    "replay": ROOT / "launch" / "replay.launch.py",
    "simulate": ROOT / "launch" / "simulator.launch.py",
    "carla": ROOT / "launch" / "carla.launch.py",
}


@dataclass
class Argument:
    name: str
    default_value: str | None = None
    description: str | None = None
    choices: Any = None


@dataclass
class Context:
    configurations: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    is_shutdown: bool = False

    @property
    def launch_configurations(self) -> dict[str, str]:
        return self.configurations


@dataclass
class Configuration:
    name: str

    def perform(self, context: Context) -> str:
        return context.configurations[self.name]


@dataclass
class Function:
    function: Any


@dataclass
class ShutdownAll:
    reason: str


@dataclass
class Node:
    package: str
    executable: str
    namespace: str
    ros_arguments: list[str]
    output: str
    emulate_tty: bool
    sigterm_timeout: str
    sigkill_timeout: str
    on_exit: Any


@dataclass
class Group:
    actions: list[Any]
    scoped: bool


@dataclass
class Include:
    source: str
    launch_arguments: Any


@dataclass
class Environment:
    name: str
    value: str


@dataclass
class Handler:
    event_handler: Any


@dataclass
class ProcessExit:
    on_exit: Any


@dataclass
class Description:
    entities: list[Any] = field(default_factory=list)

    @property
    def arguments(self) -> dict[str, Argument]:
        return {item.name: item for item in self.entities if isinstance(item, Argument)}

    def actions(
        self,
        environment: dict[str, str] | None = None,
        context: dict[str, str] | None = None,
        /,
        **given: str,
    ) -> list[Any]:
        """Return what a launch with the given arguments does, in an including file's context."""
        values = {
            name: given.get(name, argument.default_value)
            for name, argument in self.arguments.items()
        }
        assert set(given) <= set(values) and None not in values.values()
        (function,) = (item.function for item in self.entities if isinstance(item, Function))
        scope = Context({**(context or {}), **values}, {**os.environ, **(environment or {})})
        (group,) = function(scope)
        assert isinstance(group, Group) and group.scoped  # nothing leaks into an including file
        return group.actions

    def nodes(self, context: dict[str, str] | None = None, /, **given: str) -> list[Any]:
        """Return the nodes that a launch starts."""
        actions = self.actions({}, context, **given)
        return [action for action in actions if isinstance(action, Node)]

    def includes(self, **given: str) -> dict[str, dict[str, str]]:
        """Return the arguments of each launch file that is included, by its path."""
        groups = [action for action in self.actions(**given) if isinstance(action, Group)]
        assert all(group.scoped and len(group.actions) == 1 for group in groups)
        return {
            group.actions[0].source: dict(group.actions[0].launch_arguments) for group in groups
        }


def answered_here(
    command: list[str], env: dict[str, str] | None, **how: bool
) -> subprocess.CompletedProcess[str]:
    """Answer a launch file as the process of `answers.py` does, in this one."""
    assert command[:3] == [interpreter.find(), "-m", answers.__name__]
    assert how == {"capture_output": True, "text": True}
    printed = io.StringIO()
    environment = dict(os.environ if env is None else env)
    with (
        mock.patch.dict(os.environ, environment, clear=True),
        contextlib.redirect_stdout(printed),
    ):
        answers.main(command[3:])
    return subprocess.CompletedProcess(command, 0, printed.getvalue(), "")


@pytest.fixture
def stand_ins_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-ins in the place of `launch` and `launch_ros`."""
    contents = {
        "launch": {"LaunchContext": Context, "LaunchDescription": Description},
        "launch.actions": {
            "DeclareLaunchArgument": Argument,
            "GroupAction": Group,
            "IncludeLaunchDescription": Include,
            "OpaqueFunction": Function,
            "RegisterEventHandler": Handler,
            "SetEnvironmentVariable": Environment,
            "Shutdown": ShutdownAll,
        },
        "launch.event_handlers": {"OnProcessExit": ProcessExit},
        "launch.launch_description_sources": {"PythonLaunchDescriptionSource": str},
        "launch.substitutions": {"LaunchConfiguration": Configuration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules.pop("td3_driver.launching.launch_description", None)
    yield
    sys.modules.pop("td3_driver.launching.launch_description", None)


@pytest.fixture
def stand_ins(stand_ins_alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have launch files answered in this process, too: one of their own takes half a second."""
    module = importlib.import_module("td3_driver.launching.launch_description")
    monkeypatch.setattr(module, "subprocess", SimpleNamespace(run=answered_here))


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(RunFolder.create(str(tmp_path / "run"), Config()).path)


@pytest.fixture
def bag(tmp_path: Path) -> str:
    messages = drive(ticks=2).messages
    return str(write(tmp_path / "bag", messages))


def describe(command: str) -> Description:
    return runpy.run_path(str(LAUNCH_FILES[command]))["generate_launch_description"]()


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("command", LAUNCHES)
def test_every_option_is_a_launch_argument(command: str) -> None:
    arguments = describe(command).arguments
    assert list(arguments) == [option.name for option in LAUNCHES[command].options]
    for option in LAUNCHES[command].options:
        argument = arguments[option.name]
        assert argument.description == option.description
        assert argument.default_value == option.format()
        assert tuple(argument.choices or ()) == option.choices


def default_values(command: str) -> dict[str, Any]:
    return {option.name: option.default for option in LAUNCHES[command].options}


@pytest.mark.parametrize(
    "command, answers_with",
    [
        ("train", "stand_ins"),  # in a process of its own in `test_interpreter`
        ("drive", "stand_ins_alone"),
        ("replay", "stand_ins_alone"),
        ("simulate", "stand_ins"),
    ],
)
def test_the_nodes_are_the_described_processes(
    command: str, answers_with: str, run: str, bag: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(answers_with)
    given = {} if command in ("train", "simulate") else {"run": run}
    if command == "replay":
        given["bag"] = bag
    described = LAUNCHES[command].processes(default_values(command) | given)
    assert [as_process(node) for node in describe(command).nodes(**given)] == [
        (process.name, process.namespace, process.ros_arguments())
        for process in answers.in_order_of_stopping(described)
    ]


def as_process(node: Node) -> tuple[str, str, list[str]]:
    assert node.package == "td3_driver"
    return node.executable, node.namespace, node.ros_arguments


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize(
    "pushed, given, role_name, expected",
    [
        ("", "", "ego_vehicle", "/"),
        ("", "", "left", "/left"),
        ("", "fleet/left", "left", "/fleet/left"),
        ("/fleet", "", "left", "/fleet"),
        ("/fleet", "left", "ego_vehicle", "/fleet/left"),
        ("/fleet", "/left", "ego_vehicle", "/left"),
        ("/fleet", "/", "left", "/"),
    ],
)
def test_the_nodes_namespace_is_the_argument_under_the_pushed_one_or_the_role_name(
    pushed: str, given: str, role_name: str, expected: str
) -> None:
    context = {"ros_namespace": pushed} if pushed else {}
    nodes = describe("train").nodes(context, namespace=given, role_name=role_name)
    assert {node.namespace for node in nodes} == {expected}


@pytest.mark.usefixtures("stand_ins")
def test_the_end_of_one_node_is_the_end_of_all() -> None:
    for node in describe("train").nodes():
        alive, shutting_down = (
            SimpleNamespace(is_shutdown=False),
            SimpleNamespace(is_shutdown=True),
        )
        well, badly = SimpleNamespace(returncode=0), SimpleNamespace(returncode=-9)
        for event, context in ((well, alive), (well, shutting_down), (badly, shutting_down)):
            (action,) = node.on_exit(event, context)
            assert isinstance(action, ShutdownAll) and "has ended" in action.reason
        with pytest.raises(RuntimeError, match=r"has died \(exit code -9\)"):
            node.on_exit(badly, alive)
        assert node.output == "screen" and not node.emulate_tty


@pytest.mark.usefixtures("stand_ins")
def test_the_trainer_has_the_time_to_write_its_checkpoint() -> None:
    _, trainer = describe("train").nodes()
    assert float(trainer.sigterm_timeout) == TRAINER_STOP_TIMEOUT_S
    assert float(trainer.sigkill_timeout) > 0.0


@pytest.mark.usefixtures("stand_ins")
def test_each_outlasts_those_that_start_after_it_even_if_they_are_killed(
    run: str, tmp_path: Path
) -> None:
    given = {"run": run, "record": str(tmp_path / "bag"), "ackermann_controller": "true"}
    nodes = describe("drive").nodes(**given)
    assert [node.executable for node in nodes][-1] == "driver"
    for number, node in enumerate(nodes[:-1]):
        later = nodes[number + 1 :]
        names = " ".join(other.executable for other in later)
        assert f'outlasts:="{names}"' in node.ros_arguments
        (text,) = (a for a in node.ros_arguments if a.startswith("outlasts_timeout_s:="))
        bound_s = float(text.partition(":=")[2])
        for other in later:
            assert bound_s >= float(other.sigterm_timeout) + float(other.sigkill_timeout)
        assert float(node.sigterm_timeout) > bound_s
    assert not any(a.startswith("outlasts") for a in nodes[-1].ros_arguments)
    (alone,) = describe("simulate").nodes()
    assert not any(a.startswith("outlasts") for a in alone.ros_arguments)


@pytest.mark.usefixtures("stand_ins")
def test_launch_arguments_reach_the_nodes(run: str) -> None:
    (driver,) = describe("drive").nodes(
        run=run,
        world="carla",
        start_bridge="false",
        random_goal="false",
        set="driving.max_speed_mps=7",
    )
    for assignment in (f'run:="{run}"', "random_goal:=false", "driving.max_speed_mps:=7.0"):
        assert assignment in driver.ros_arguments


@pytest.mark.usefixtures("stand_ins")
def test_a_recorder_comes_first_and_its_end_is_not_the_end_of_all(
    run: str, tmp_path: Path
) -> None:
    recorder, _, driver = describe("drive").nodes(run=run, record=str(tmp_path / "bag"))
    assert recorder.executable == "recorder"
    assert recorder.on_exit is None and driver.on_exit is not None


@pytest.fixture
def ros2bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install `ros2 bag` without a plugin for MCAP; return where the plugins are listed."""
    tool = tmp_path / "ros2"
    tool.touch(mode=0o755)
    (tmp_path / "ros2bag").mkdir()
    (tmp_path / "ros2bag" / "__init__.py").touch()
    plugins = tmp_path / "share/ament_index/resource_index/rosbag2_storage__pluginlib__plugin"
    plugins.mkdir(parents=True)
    (plugins / "rosbag2_storage_sqlite3").touch()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    return plugins


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("sourced", [True, False])
def test_the_own_recorder_records_where_ros2_bag_cannot_write_mcap(
    sourced: bool, run: str, tmp_path: Path, ros2bag: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sourced:
        monkeypatch.delenv("AMENT_PREFIX_PATH")
    recorder, *_ = describe("drive").nodes(run=run, record=str(tmp_path / "bag"))
    assert as_process(recorder)[0] == "recorder"


@pytest.mark.usefixtures("stand_ins")
def test_ros2_bag_records_where_it_can_write_mcap(run: str, tmp_path: Path, ros2bag: Path) -> None:
    (ros2bag / "rosbag2_storage_mcap").touch()
    recorder, *_ = describe("drive").nodes(run=run, record=str(tmp_path / "bag"), role_name="hero")
    assert recorder.executable == "recording_tool"
    (text,) = (a for a in recorder.ros_arguments if a.startswith("command:="))
    *command, pattern = shlex.split(json.loads(text.removeprefix("command:=")))
    assert 'outlasts:="simulator driver"' in recorder.ros_arguments
    assert command == f"ros2 bag record -s mcap -o {tmp_path / 'bag'} --regex".split()
    for name in ("/carla/hero/rgb_front/image", "/clock", "/tf", "/hero/driver/policy_output"):
        assert re.match(pattern, name)
    assert not re.match(pattern, "/driver/policy_output")
    assert not re.match(pattern, "/carla/other/rgb_front/image")
    assert not re.match(pattern, "/carla/hero/rgb_front/image/compressedDepth")


@pytest.mark.usefixtures("stand_ins")
def test_a_replay_needs_a_run_and_a_drive_that_or_the_baseline() -> None:
    assert describe("replay").arguments["run"].default_value is None
    assert describe("drive").arguments["run"].default_value == ""
    *_, driver = describe("drive").nodes(baseline="true")
    assert "baseline:=true" in driver.ros_arguments


# --- CARLA -------------------------------------------------------------------------------------


def install(folder: Path, *packages: str) -> None:
    """Put packages, with nothing in them, into the ament index under `folder`."""
    index = folder / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True, exist_ok=True)
    for package in packages:
        (index / package).touch()
        (folder / "share" / package).mkdir()


@pytest.fixture
def bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the bridge's packages; return where their launch files are."""
    install(tmp_path, *carla_bridge.PACKAGES)
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    return tmp_path / "share"


@pytest.mark.usefixtures("stand_ins")
def test_carla_is_brought_up_with_every_argument_given(bridge: Path) -> None:
    includes = describe("train").includes(world="carla", town="Town03", role_name="hero")
    assert list(includes) == [
        f"{bridge}/{name}/{name}.launch.py" for name in carla_bridge.PACKAGES
    ]
    server, spawn, route = includes.values()
    assert server == {
        "host": "localhost",
        "port": "2000",
        "timeout": "60",
        "passive": "False",
        "synchronous_mode": "True",
        "synchronous_mode_wait_for_vehicle_control_command": "False",
        "fixed_delta_seconds": "0.05",
        "town": "Town03",
        "register_all_sensors": "False",
        "ego_vehicle_role_name": '["hero"]',
    }
    assert route == {"host": "localhost", "port": "2000", "timeout": "60", "role_name": "hero"}
    waiting = describe("train").includes(world="carla", wait_for_command="true")
    waits = "synchronous_mode_wait_for_vehicle_control_command"
    assert next(iter(waiting.values()))[waits] == "True"
    (vehicle,) = json.loads(Path(spawn["objects_definition_file"]).read_text())["objects"]
    assert vehicle["id"] == "hero"


@pytest.mark.usefixtures("stand_ins", "bridge")
@pytest.mark.parametrize("command", ["train", "drive"])
def test_carla_takes_the_simulator_s_place_or_is_joined(command: str, run: str) -> None:
    given = {"world": "carla", "run": run}
    (node,) = describe(command).nodes(**given)
    (joining,) = describe(command).nodes(**given, start_bridge="false")
    assert (
        node.executable == joining.executable == {"train": "trainer", "drive": "driver"}[command]
    )
    assert len(describe(command).includes(**given)) == len(carla_bridge.PACKAGES)
    assert not describe(command).includes(**given, start_bridge="false")
    assert not describe(command).includes(run=run)


@pytest.mark.usefixtures("stand_ins", "bridge")
def test_the_bridge_starts_alone_to_be_joined() -> None:
    assert not describe("carla").nodes()
    server = next(iter(describe("carla").includes(town="ring_meadow").values()))
    assert Path(server["town"]).is_file() and server["town"].endswith("/ring_meadow.xodr")


@pytest.mark.usefixtures("stand_ins")
def test_missing_packages_are_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "carla_ros_bridge")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(RuntimeError) as told:
        describe("carla").actions()
    line = str(told.value)
    assert line.startswith("not installed: carla_spawn_objects, carla_waypoint_publisher; build ")
    assert "start_bridge:=false" in line and "\n" not in line
    assert len(describe("train").nodes(world="carla", start_bridge="false")) == 1


@pytest.mark.usefixtures("stand_ins", "bridge")
def test_the_death_of_a_bridge_s_node_ends_everything() -> None:
    (handler,) = (item for item in describe("carla").actions() if isinstance(item, Handler))
    on_exit = handler.event_handler.on_exit

    def exits(package: str, returncode: int, is_shutdown: bool = False) -> None:
        event = SimpleNamespace(
            action=SimpleNamespace(node_package=package), returncode=returncode
        )
        on_exit(event, SimpleNamespace(is_shutdown=is_shutdown))

    exits("td3_driver", 1)
    exits("carla_spawn_objects", 0)
    exits("carla_spawn_objects", -2, is_shutdown=True)
    with pytest.raises(RuntimeError, match=r"carla_spawn_objects has died \(exit code 1\)"):
        exits("carla_spawn_objects", 1)


@pytest.mark.usefixtures("stand_ins")
def test_the_launch_files_choose_shared_memory_for_large_images_unless_the_user_has_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ROS_DISTRO", *fastdds.CHOICES):
        monkeypatch.delenv(name, raising=False)
    chosen = [item for item in describe("simulate").actions() if isinstance(item, Environment)]
    assert {item.name: item.value for item in chosen} == fastdds.environment({})
    environment = {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml"}
    actions = describe("simulate").actions(environment)
    assert not any(isinstance(item, Environment) for item in actions)


# --- with the real launch ----------------------------------------------------------------------

# Of a launch, on a machine with much else to do.
END_S = 45.0

LAUNCH = """
import json, sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

file, arguments = sys.argv[1], json.loads(sys.argv[2])
service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file), launch_arguments=list(arguments.items()))]))
sys.exit(service.run())
"""

EXECUTABLE = """#!{python}
import json, os, signal, sys, time
name = os.path.basename(sys.argv[0])
def note(what):
    with open({log!r}, "a") as log:
        log.write(json.dumps([name, what, sys.argv[1:]]) + "\\n")
def stop(number, frame):
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
note("started")
time.sleep(float(os.environ.get("LIFE_OF_" + name, "60")))
sys.exit(5)
"""


def write_executable(folder: Path, package: str, name: str) -> None:
    """Write an executable of a package that only logs its start and its end."""
    script = folder / "lib" / package / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(EXECUTABLE.format(python=sys.executable, log=str(folder / "log")))
    script.chmod(0o755)


class Launched:
    """A launch file run for real, over executables that only write a log."""

    def __init__(self, folder: Path, command: str, arguments: dict[str, str], **env: str) -> None:
        self.log = folder / "log"
        self.log.touch()
        install(folder, "td3_driver")
        for name in ("simulator", "trainer", "driver"):
            write_executable(folder, "td3_driver", name)
        prefixes = [str(folder), *filter(None, [os.environ.get("AMENT_PREFIX_PATH")])]
        self.process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, str(LAUNCH_FILES[command]), json.dumps(arguments)],
            env={**os.environ, "AMENT_PREFIX_PATH": os.pathsep.join(prefixes), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    def events(self, what: str) -> dict[str, list[str]]:
        """Return the command line of each process that logged `what`, by name."""
        events = [json.loads(line) for line in self.log.read_text().splitlines()]
        return {name: arguments for name, event, arguments in events if event == what}

    def wait_until_started(self, count: int) -> None:
        deadline = time.monotonic() + END_S
        while len(self.events("started")) < count:
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def real_launch() -> None:
    pytest.importorskip("launch_ros")


@pytest.mark.usefixtures("real_launch")
def test_a_launch_file_starts_the_described_processes_and_ctrl_c_ends_them(tmp_path: Path) -> None:
    launched = Launched(tmp_path, "train", {"map": "ring_quarry", "set": "training.seed=3"})
    launched.wait_until_started(2)
    launched.process.send_signal(signal.SIGINT)
    output, _ = launched.process.communicate(timeout=END_S)
    assert set(launched.events("stopped")) == {"simulator", "trainer"}, output
    started = launched.events("started")
    values = default_values("train") | {"map": "ring_quarry", "set": ("training.seed=3",)}
    for process in answers.in_order_of_stopping(LAUNCHES["train"].processes(values)):
        assert_command_line(started[process.name], process)


def assert_command_line(arguments: list[str], process: Process) -> None:
    assert arguments[0] == "--ros-args"
    assert arguments[1 : 1 + len(process.ros_arguments())] == process.ros_arguments()


@pytest.mark.usefixtures("real_launch")
def test_a_dead_process_ends_the_launch(tmp_path: Path, run: str) -> None:
    launched = Launched(tmp_path, "drive", {"run": run}, LIFE_OF_simulator="1.0")
    output, _ = launched.process.communicate(timeout=END_S)
    assert "driver" in launched.events("stopped"), output
    assert launched.process.returncode == 1


BRIDGE_LAUNCH = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

ARGUMENTS = {arguments!r}

def generate_launch_description():
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value="unset") for name in ARGUMENTS),
        Node(package={package!r}, executable={package!r}, output="screen",
             arguments=[[name, "=", LaunchConfiguration(name)] for name in ARGUMENTS]),
    ])
"""
BRIDGE_ARGUMENTS = {
    "carla_ros_bridge": ["host", "timeout", "ego_vehicle_role_name", "objects_definition_file"],
    "carla_spawn_objects": ["objects_definition_file", "town", "role_name"],
    "carla_waypoint_publisher": ["port", "role_name", "town"],
}


@pytest.mark.usefixtures("real_launch")
def test_a_real_launch_of_carla_starts_all_and_keeps_arguments_apart(tmp_path: Path) -> None:
    install(tmp_path, *carla_bridge.PACKAGES)
    for package, arguments in BRIDGE_ARGUMENTS.items():
        file = tmp_path / "share" / package / f"{package}.launch.py"
        file.write_text(BRIDGE_LAUNCH.format(package=package, arguments=arguments))
        write_executable(tmp_path, package, package)
    launched = Launched(tmp_path, "train", {"world": "carla", "role_name": "hero"})
    launched.wait_until_started(4)
    launched.process.send_signal(signal.SIGINT)
    output, _ = launched.process.communicate(timeout=END_S)
    started = launched.events("started")
    assert set(started) == {"trainer", *carla_bridge.PACKAGES}, output

    def given(package: str) -> dict[str, str]:
        return dict(text.split("=", 1) for text in started[package] if "=" in text)

    server, spawn, route = (given(package) for package in carla_bridge.PACKAGES)
    assert server["host"] == "localhost" and server["timeout"] == "60"
    assert server["ego_vehicle_role_name"] == '["hero"]'
    assert server["objects_definition_file"] == "unset"
    assert Path(spawn["objects_definition_file"]).is_file()
    # `town` was the bridge's argument, and is one of ours too; only ours may be seen here.
    assert spawn["role_name"] == "hero" and spawn["town"] == "Town01"
    assert route["port"] == "2000" and route["role_name"] == "hero"
    assert json.dumps("hero") in " ".join(started["trainer"])


@pytest.mark.usefixtures("real_launch")
def test_a_real_launch_without_the_bridge_says_so_in_a_line(tmp_path: Path) -> None:
    launched = Launched(tmp_path, "drive", {"world": "carla", "run": str(tmp_path / "no run")})
    output, _ = launched.process.communicate(timeout=END_S)
    assert launched.process.returncode == 1 and "no run" in output
    (tmp_path / "again").mkdir()
    launched = Launched(tmp_path / "again", "carla", {})
    output, _ = launched.process.communicate(timeout=END_S)
    assert launched.process.returncode == 1
    assert "not installed: carla_ros_bridge, carla_spawn_objects" in output
    assert "Traceback" not in output


@pytest.mark.usefixtures("real_launch")
def test_a_dead_spawner_ends_the_launch(tmp_path: Path) -> None:
    install(tmp_path, *carla_bridge.PACKAGES)
    for package in carla_bridge.PACKAGES:
        file = tmp_path / "share" / package / f"{package}.launch.py"
        file.write_text(BRIDGE_LAUNCH.format(package=package, arguments=[]))
        write_executable(tmp_path, package, package)
    launched = Launched(tmp_path, "carla", {}, LIFE_OF_carla_spawn_objects="1.0")
    output, _ = launched.process.communicate(timeout=END_S)
    assert launched.process.returncode == 1
    assert "carla_spawn_objects has died (exit code 5)" in output


@pytest.mark.usefixtures("real_launch")
def test_the_simulator_launches_alone(tmp_path: Path) -> None:
    launched = Launched(tmp_path, "simulate", {})
    launched.wait_until_started(1)
    launched.process.send_signal(signal.SIGINT)
    launched.process.communicate(timeout=END_S)
    assert set(launched.events("started")) == {"simulator"}
