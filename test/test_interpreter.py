# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The Python that has the packages is found from one that has none of them, as a system's has.

The one without is a bare virtual environment, with nothing but stand-ins for `launch`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from td3_driver import interpreter
from td3_driver.launching.answers import in_order_of_stopping
from td3_driver.launching.commands import LAUNCHES

ROOT = Path(__file__).resolve().parent.parent

# What the launch files take of launch: classes that keep what they are given.
LAUNCH = """
class Kept:
    def __init__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs

class LaunchDescription:
    def __init__(self, entities=()):
        self.entities = list(entities)
    def get_launch_arguments_with_include_launch_description_actions(self):
        return [e for e in self.entities if isinstance(e, DeclareLaunchArgument)]

class DeclareLaunchArgument(Kept): pass

class OpaqueFunction(Kept): pass

class Node(Kept): pass

class LaunchConfiguration(Kept):
    def perform(self, context):
        return context.launch_configurations[self.args[0]]
"""
STAND_INS = {
    "launch/__init__.py": LAUNCH + "class LaunchContext: pass\n",
    "launch/actions.py": "from launch import *\n"
    "ExecuteProcess = GroupAction = IncludeLaunchDescription = RegisterEventHandler = Kept\n"
    "SetEnvironmentVariable = Shutdown = Kept\n",
    "launch/event_handlers.py": "from launch import Kept as OnProcessExit\n",
    "launch/launch_description_sources.py": (
        "from launch import Kept as PythonLaunchDescriptionSource\n"
    ),
    "launch/substitutions.py": "from launch import LaunchConfiguration\n",
    "launch_ros/__init__.py": "",
    "launch_ros/actions.py": "from launch import Node\n",
    "ament_index_python/__init__.py": "",
    "ament_index_python/packages.py": "class PackageNotFoundError(KeyError): pass\n"
    "def get_package_share_directory(name): raise PackageNotFoundError(name)\n",
}
# Prints a launch file's arguments, and the nodes that it starts with those given.
SHOW = """
import json, runpy, sys, types
from launch import Node, OpaqueFunction
description = runpy.run_path(sys.argv[1])["generate_launch_description"]()
try:
    arguments = description.get_launch_arguments_with_include_launch_description_actions()
    texts = {a.kwargs["name"]: a.kwargs["default_value"] for a in arguments}
    context = types.SimpleNamespace(
        launch_configurations={**texts, **json.loads(sys.argv[2])}, environment=None)
    (function,) = [e for e in description.entities if isinstance(e, OpaqueFunction)]
    (group,) = function.kwargs["function"](context)
    started = group.args[0]
except RuntimeError as error:  # as ros2cli does
    sys.exit(str(error))
nodes = {a.kwargs["executable"]: a.kwargs["ros_arguments"] for a in started if isinstance(a, Node)}
print(json.dumps([list(texts), nodes]))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a virtual environment with stand-ins for launch, and nothing else."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    for name, text in STAND_INS.items():
        (packages / name).parent.mkdir(exist_ok=True)
        (packages / name).write_text(text)
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Return a folder with a copy of this package, and no environment beside it."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("td3_driver", "executables", "launch", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignore)
    return tmp_path


def run_bare(
    bare: Path, workspace: Path, *command: str | Path, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run the bare Python in a sourced workspace, where no environment is active."""
    kept = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", interpreter.VARIABLE)}
    return subprocess.run(
        [bare / "bin" / "python", *command],
        env={**kept, "PYTHONPATH": str(workspace), **environ},
        cwd=bare,
        capture_output=True,
        text=True,
        check=False,
    )


def show(
    bare: Path, workspace: Path, command: str, given: dict[str, str], **environ: str
) -> subprocess.CompletedProcess[str]:
    name = {"simulate": "simulator"}.get(command, command)
    file = workspace / "launch" / f"{name}.launch.py"
    return run_bare(bare, workspace, "-c", SHOW, file, json.dumps(given), **environ)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that a process ended with."""
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize("command", ["train", "simulate"])
def test_launch_files_need_no_packages_in_the_python_of_launch(
    command: str, bare: Path, workspace: Path
) -> None:
    named = {interpreter.VARIABLE: sys.executable}
    done = show(bare, workspace, command, {"map": "ring_quarry"}, **named)
    assert not done.stderr
    arguments, nodes = json.loads(done.stdout)
    assert arguments == [option.name for option in LAUNCHES[command].options]
    values = {option.name: option.default for option in LAUNCHES[command].options}
    processes = in_order_of_stopping(LAUNCHES[command].processes({**values, "map": "ring_quarry"}))
    assert nodes == {process.name: process.ros_arguments() for process in processes}


@pytest.mark.parametrize(
    "command, given, reason",
    [
        ("drive", {"run": "/no/such/run"}, "/no/such/run"),
        ("replay", {"run": "/no/such/run", "bag": "/no/bag"}, "/no/such/run"),
        ("carla", {"port": "x"}, "port is a whole number from 1 to 65533, not 'x'"),
        ("carla", {}, "not installed: carla_ros_bridge"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    command: str, given: dict[str, str], reason: str, bare: Path, workspace: Path
) -> None:
    done = show(bare, workspace, command, given, **{interpreter.VARIABLE: sys.executable})
    assert reason in only_line(done)


def environment_with_packages(folder: Path) -> Path:
    """Make a virtual environment that finds what this one has."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(p for p in sys.path if "site-packages" in p))
    return folder


def test_the_environment_is_found_beside_the_sources_or_where_it_was_at_the_build(
    bare: Path, workspace: Path, tmp_path: Path
) -> None:
    record = workspace / "td3_driver" / interpreter.BUILD_RECORD.name
    found = "from td3_driver import interpreter; print(interpreter.find())"

    def python(**environ: str) -> str:
        return run_bare(bare, workspace, "-c", found, **environ).stdout.strip()

    assert python() == ""
    for folder, note in (
        (tmp_path / "sources" / ".venv", {"checkout": str(tmp_path / "sources")}),
        (tmp_path / "own", {"checkout": "/gone", "environment": str(tmp_path / "own")}),
    ):
        environment_with_packages(folder)
        record.write_text(json.dumps(note))
        assert python() == f"{folder}/bin/python"
    # An active one that lacks the packages, such as colcon's own, is passed over.
    assert python(VIRTUAL_ENV=str(bare)) == f"{tmp_path}/own/bin/python"
    assert python(VIRTUAL_ENV=str(tmp_path / "sources" / ".venv")).startswith(f"{tmp_path}/sour")
    record.unlink()
    environment_with_packages(workspace / ".venv")
    assert python() == f"{workspace}/.venv/bin/python"


def test_without_an_environment_one_line_says_what_to_type(bare: Path, workspace: Path) -> None:
    for done in (
        run_bare(bare, workspace, workspace / "executables" / "driver"),
        run_bare(bare, workspace, "-c", "from td3_driver.interpreter import *; command_line()"),
        show(bare, workspace, "train", {}),
    ):
        line = only_line(done)
        assert f"{bare}/bin/python lacks gymnasium, pydantic, torch" in line
        assert f"{workspace}/.venv/bin/python is not there" in line
        assert f"Type: make -C {workspace} setup" in line
        assert f"export {interpreter.VARIABLE}=" in line


@pytest.mark.parametrize("wrong", ["/no/such/python", "/bin/false"])
def test_a_wrong_choice_is_named_and_not_passed_over(
    wrong: str, bare: Path, workspace: Path
) -> None:
    line = only_line(show(bare, workspace, "train", {}, **{interpreter.VARIABLE: wrong}))
    assert wrong in line and f"unset {interpreter.VARIABLE}" in line


def test_an_environment_for_another_python_than_ros_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rclpy").mkdir()
    (tmp_path / "rclpy" / "__init__.py").touch()
    (tmp_path / "rclpy" / "_rclpy_pybind11.cpython-37m-x86_64-linux-gnu.so").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rclpy", raising=False)
    assert interpreter.lacking() == ["rclpy for Python {}.{}".format(*sys.version_info)]


@pytest.mark.ros
def test_an_executable_runs_on_the_python_that_has_the_packages(
    bare: Path, workspace: Path
) -> None:
    driver = workspace / "executables" / "driver"
    arguments = ("--ros-args", "-p", "no_such:=1")
    done = run_bare(bare, workspace, driver, *arguments, **{interpreter.VARIABLE: sys.executable})
    assert done.returncode == 2
    assert "no_such" in done.stderr and "Traceback" not in done.stderr
