# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Makes a launch description of a command; the launch files are made of this.

It runs in `ros2 launch`, on the system's Python, and so needs the standard library and launch
alone. `answers.py` says what to start, on the Python that has the packages.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from td3_driver import interpreter

PACKAGE = "td3_driver"
PUSHED_NAMESPACE = "ros_namespace"
"""Where launch_ros keeps what PushROSNamespace has pushed."""
HOW_TO_GET_THE_BRIDGE = (
    "build https://github.com/carla-simulator/ros-bridge (on Jazzy "
    "https://github.com/ika-rwth-aachen/carla-ros-bridge) and source its workspace, or start the "
    "bridge elsewhere and join it with start_bridge:=false"
)


class LaunchRefusedError(RuntimeError):
    """Nothing is started; the message is one line that says why."""


class _Refusal(LaunchDescription):
    """Stands in for a description that cannot be made: whoever looks into it gets the reason.

    An exception while a launch file is loaded would be shown with its traceback.
    """

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self._error = error

    def get_launch_arguments_with_include_launch_description_actions(
        self, *_: Any, **__: Any
    ) -> list[Any]:
        raise self._error


def launch_description(command_name: str) -> LaunchDescription:
    """Return the launch description of one of `commands.LAUNCHES`."""

    def actions(context: LaunchContext) -> list[Any]:
        texts = {name: LaunchConfiguration(name).perform(context) for name in names}
        pushed = context.launch_configurations.get(PUSHED_NAMESPACE, "")
        question = [command_name, json.dumps(texts), pushed]
        return _actions(_ask(question, context.environment))

    try:
        options = _ask([command_name])
    except (LaunchRefusedError, interpreter.NoEnvironmentError) as error:
        return _Refusal(error)
    names = [option["name"] for option in options]
    arguments = [DeclareLaunchArgument(**option) for option in options]
    return LaunchDescription([*arguments, OpaqueFunction(function=actions)])


def _ask(question: Sequence[str], environ: Mapping[str, str] | None = None) -> Any:
    """Return the answer of `answers.py`; raises LaunchRefusedError with its reason."""
    command = [interpreter.find(), "-m", f"{PACKAGE}.launching.answers", *question]
    asked = subprocess.run(command, env=environ, capture_output=True, text=True)
    if asked.returncode != 0:
        last = asked.stderr.strip().rpartition("\n")[2]
        raise LaunchRefusedError(f"{command[0]} cannot run {PACKAGE}: {last}")
    reply = json.loads(asked.stdout)
    if "refused" in reply:
        raise LaunchRefusedError(reply["refused"])
    return reply["answer"]


def _actions(answer: dict[str, Any]) -> list[Any]:
    included = _included(answer["includes"])  # Refuses before anything is started.
    actions = [
        *(SetEnvironmentVariable(name, value) for name, value in answer["environment"].items()),
        *included,
        *(_node(process) for process in answer["processes"]),
    ]
    # An including launch file's other nodes keep their environment.
    return [GroupAction(actions, scoped=True)]


def _included(includes: Sequence[dict[str, Any]]) -> list[Any]:
    """Return the actions for other packages' launch files; raises LaunchRefusedError without."""
    folders, missing = {}, []
    for include in includes:
        try:
            folders[include["package"]] = Path(get_package_share_directory(include["package"]))
        except PackageNotFoundError:
            missing.append(include["package"])
    if missing:
        raise LaunchRefusedError(f"not installed: {', '.join(missing)}; {HOW_TO_GET_THE_BRIDGE}")
    groups = [_group(include, folders[include["package"]]) for include in includes]
    if not groups:
        return []
    packages = tuple(include["package"] for include in includes)
    return [RegisterEventHandler(OnProcessExit(on_exit=_death_of(packages))), *groups]


def _group(include: dict[str, Any], folder: Path) -> GroupAction:
    """Return a launch file in a scope of its own: its arguments must not reach the next one."""
    source = PythonLaunchDescriptionSource(str(folder / include["file"]))
    arguments = include["arguments"].items()
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments)], scoped=True)


def _node(process: dict[str, Any]) -> Node:
    return Node(
        package=PACKAGE,
        executable=process["name"],
        namespace=process["namespace"],
        ros_arguments=process["ros_arguments"],
        output="screen",
        # Not a terminal: launch shows whole lines only, so none may renew itself in place.
        emulate_tty=False,
        sigterm_timeout=str(process["stop_timeout_s"]),
        sigkill_timeout=str(process["kill_timeout_s"]),
        on_exit=_ending(process) if process["essential"] else None,
    )


def _ending(process: dict[str, Any]) -> Callable[[Any, LaunchContext], list[Shutdown]]:
    """Return what launch does at a process's end: end the rest, and exit with 1 after a failure.

    Launch itself ends with 0 however its processes do; an error in a handler is what it counts.
    """

    def ended(event: Any, context: LaunchContext) -> list[Shutdown]:
        if event.returncode not in process["good_ends"] and not context.is_shutdown:
            raise RuntimeError(f"{process['name']} has died (exit code {event.returncode})")
        return [Shutdown(reason=f"{process['name']} has ended")]

    return ended


def _death_of(packages: tuple[str, ...]) -> Callable[[Any, LaunchContext], None]:
    """Return what launch does when a node of `packages` dies: without it nothing can go on."""

    def ended(event: Any, context: LaunchContext) -> None:
        package = getattr(event.action, "node_package", None)
        if package in packages and event.returncode != 0 and not context.is_shutdown:
            raise RuntimeError(f"{package} has died (exit code {event.returncode})")

    return ended
