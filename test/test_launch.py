"""The launch files: the same processes and options as the command line.

Their structure is checked against stand-ins for `launch`; where the real one is installed they
are also run.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from bag_drives import drive, write

from td3_driver import processes
from td3_driver.config import Config
from td3_driver.processes import COMMANDS, Process
from td3_driver.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_FILES = {
    "train": ROOT / "launch" / "train.launch.py",
    "drive": ROOT / "launch" / "drive.launch.py",
    "replay": ROOT / "launch" / "replay.launch.py",
    "simulate": ROOT / "launch" / "simulator.launch.py",
}


@dataclass
class Argument:
    name: str
    default_value: str | None = None
    description: str | None = None
    choices: Any = None


@dataclass
class Configuration:
    name: str

    def perform(self, context: dict[str, str]) -> str:
        return context[self.name]


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
    ros_arguments: list[str]
    output: str
    emulate_tty: bool
    sigterm_timeout: str
    sigkill_timeout: str
    on_exit: Any


@dataclass
class Executed:
    cmd: list[str]
    name: str
    output: str


@dataclass
class Description:
    entities: list[Any] = field(default_factory=list)

    @property
    def arguments(self) -> dict[str, Argument]:
        return {item.name: item for item in self.entities if isinstance(item, Argument)}

    def nodes(self, **given: str) -> list[Node]:
        """Return the nodes that a launch with the given arguments starts."""
        context = {
            name: given.get(name, argument.default_value)
            for name, argument in self.arguments.items()
        }
        assert set(given) <= set(context) and None not in context.values()
        (function,) = (item.function for item in self.entities if isinstance(item, Function))
        return function(context)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-ins in the place of `launch` and `launch_ros`."""
    contents = {
        "launch": {"LaunchContext": dict, "LaunchDescription": Description},
        "launch.actions": {
            "DeclareLaunchArgument": Argument,
            "ExecuteProcess": Executed,
            "OpaqueFunction": Function,
            "Shutdown": ShutdownAll,
        },
        "launch.substitutions": {"LaunchConfiguration": Configuration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": Node},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules.pop("td3_driver.launching", None)
    yield
    sys.modules.pop("td3_driver.launching", None)


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
@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_a_launch_argument(command: str) -> None:
    arguments = describe(command).arguments
    assert list(arguments) == [option.name for option in COMMANDS[command].options]
    for option in COMMANDS[command].options:
        argument = arguments[option.name]
        assert argument.description == option.description
        assert argument.default_value == option.format()
        assert tuple(argument.choices or ()) == option.choices


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("command", COMMANDS)
def test_the_nodes_are_the_described_processes(command: str, run: str, bag: str) -> None:
    given = {} if command == "simulate" else {"run": run}
    if command == "replay":
        given["bag"] = bag
    values = {option.name: option.default for option in COMMANDS[command].options} | given
    described = COMMANDS[command].processes(values)
    assert [as_process(node) for node in describe(command).nodes(**given)] == [
        (process.name, process.ros_arguments()) for process in described
    ]


def as_process(node: Node) -> tuple[str, list[str]]:
    assert node.package == "td3_driver"
    return node.executable, node.ros_arguments


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
    simulator, trainer = describe("train").nodes()
    assert float(trainer.sigterm_timeout) > float(simulator.sigterm_timeout)
    assert float(trainer.sigkill_timeout) > 0.0


@pytest.mark.usefixtures("stand_ins")
def test_launch_arguments_reach_the_nodes(run: str) -> None:
    (driver,) = describe("drive").nodes(
        run=run, world="carla", random_goal="false", set="driving.max_speed_mps=7"
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


@pytest.mark.usefixtures("stand_ins")
def test_ros2_bag_records_where_it_is_installed(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_has_ros2_bag", lambda: True)
    recorder, *_ = describe("drive").nodes(run=run, record=str(tmp_path / "bag"), role_name="hero")
    *command, pattern = recorder.cmd
    assert command == f"ros2 bag record -s mcap -o {tmp_path / 'bag'} --regex".split()
    for name in ("/carla/hero/rgb_front/image", "/clock", "/tf", "/driver/policy_output"):
        assert re.match(pattern, name)
    assert not re.match(pattern, "/carla/other/rgb_front/image")
    assert not re.match(pattern, "/carla/hero/rgb_front/image/compressedDepth")


@pytest.mark.usefixtures("stand_ins")
def test_a_replay_needs_a_run_and_a_drive_that_or_the_baseline() -> None:
    assert describe("replay").arguments["run"].default_value is None
    assert describe("drive").arguments["run"].default_value == ""
    *_, driver = describe("drive").nodes(baseline="true")
    assert "baseline:=true" in driver.ros_arguments


# --- with the real launch ----------------------------------------------------------------------

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


class Launched:
    """A launch file run for real, over executables that only write a log."""

    def __init__(self, folder: Path, command: str, arguments: dict[str, str], **env: str) -> None:
        self.log = folder / "log"
        self.log.touch()
        index = folder / "share" / "ament_index" / "resource_index" / "packages"
        executables = folder / "lib" / "td3_driver"
        index.mkdir(parents=True)
        executables.mkdir(parents=True)
        (index / "td3_driver").touch()
        for name in ("simulator", "trainer", "driver"):
            script = executables / name
            script.write_text(EXECUTABLE.format(python=sys.executable, log=str(self.log)))
            script.chmod(0o755)
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
        deadline = time.monotonic() + 20.0
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
    output, _ = launched.process.communicate(timeout=10.0)
    assert set(launched.events("stopped")) == {"simulator", "trainer"}, output
    started = launched.events("started")
    values = {option.name: option.default for option in COMMANDS["train"].options}
    values |= {"map": "ring_quarry", "set": ("training.seed=3",)}
    for process in COMMANDS["train"].processes(values):
        assert_command_line(started[process.name], process)


def assert_command_line(arguments: list[str], process: Process) -> None:
    assert arguments[0] == "--ros-args"
    assert arguments[1 : 1 + len(process.ros_arguments())] == process.ros_arguments()


@pytest.mark.usefixtures("real_launch")
def test_a_dead_process_ends_the_launch(tmp_path: Path, run: str) -> None:
    launched = Launched(tmp_path, "drive", {"run": run}, LIFE_OF_simulator="1.0")
    output, _ = launched.process.communicate(timeout=15.0)
    assert "driver" in launched.events("stopped"), output
    assert launched.process.returncode == 1


@pytest.mark.usefixtures("real_launch")
def test_the_simulator_launches_alone(tmp_path: Path) -> None:
    launched = Launched(tmp_path, "simulate", {})
    launched.wait_until_started(1)
    launched.process.send_signal(signal.SIGINT)
    launched.process.communicate(timeout=10.0)
    assert set(launched.events("started")) == {"simulator"}
