# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Makes a launch description of a command; the launch files are made of this."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
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

from td3_driver.bridge.outlasting import OUTLASTING
from td3_driver.config import ConfigError
from td3_driver.launching import fastdds, supervision
from td3_driver.launching.commands import LAUNCHES
from td3_driver.launching.parts import PACKAGE, Include, LaunchCommand, Option, Process
from td3_driver.launching.settings import under_namespace

WELL = (0, supervision.EXIT_INTERRUPTED)
"""Exit codes of what has done its work, or was told to end before it could begin."""
PUSHED_NAMESPACE = "ros_namespace"
"""Where launch_ros keeps what PushROSNamespace has pushed."""
HOW_TO_GET_THE_BRIDGE = (
    "build https://github.com/carla-simulator/ros-bridge (on Jazzy "
    "https://github.com/ika-rwth-aachen/carla-ros-bridge) and source its workspace, or start the "
    "bridge elsewhere and join it with start_bridge:=false"
)


def launch_description(command_name: str) -> LaunchDescription:
    """Return the launch description of one of `commands.LAUNCHES`."""
    command = LAUNCHES[command_name]

    def actions(context: LaunchContext) -> list[Any]:
        return _actions(command, context)

    arguments = [_argument(option) for option in command.options]
    return LaunchDescription([*arguments, OpaqueFunction(function=actions)])


def _argument(option: Option) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        option.name,
        default_value=option.format(),
        description=option.description,
        choices=option.choices or None,
    )


def _actions(command: LaunchCommand, context: LaunchContext) -> list[Any]:
    values = {
        option.name: option.parse(LaunchConfiguration(option.name).perform(context))
        for option in command.options
    }
    if "namespace" in values:
        pushed = context.launch_configurations.get(PUSHED_NAMESPACE, "")
        values["namespace"] = under_namespace(pushed, str(values["namespace"]))
    # Both refuse wrong values; nothing is to be started before that.
    processes, includes = command.processes(values), command.includes(values)
    environment = fastdds.environment(context.environment)
    actions = [
        *(SetEnvironmentVariable(name, value) for name, value in environment.items()),
        *_included(includes),
        *(_node(process) for process in in_order_of_stopping(processes)),
    ]
    # An including launch file's other nodes keep their environment.
    return [GroupAction(actions, scoped=True)]


def in_order_of_stopping(processes: Sequence[Process]) -> list[Process]:
    """Return the processes, each told to outlast those that start after it, where it can.

    Ctrl-C reaches all of them at once, where `supervision` stops one after the other.
    """
    ordered: list[Process] = []
    bound_s = 0.0
    for process in map(_within_reach, reversed(processes)):
        if ordered and process.name in OUTLASTING:
            names = " ".join(other.name for other in ordered)
            outlasting = {"outlasts": names, "outlasts_timeout_s": bound_s}
            process = replace(
                process,
                parameters={**process.parameters, **outlasting},
                stop_timeout_s=process.stop_timeout_s + bound_s,
            )
        ordered.insert(0, process)
        bound_s = max(bound_s, process.stop_timeout_s + supervision.KILL_TIMEOUT_S)
    return ordered


def _within_reach(process: Process) -> Process:
    """Return a tool as a node's task, as it would end at Ctrl-C; others as they are."""
    if not process.tool:
        return process
    own = {"command": shlex.join(process.tool)}
    return replace(process, name="recording_tool", parameters=own, parameters_file="", tool=())


def _included(includes: Sequence[Include]) -> list[Any]:
    """Return the actions for other packages' launch files; raises ConfigError without those."""
    folders, missing = {}, []
    for include in includes:
        try:
            folders[include.package] = Path(get_package_share_directory(include.package))
        except PackageNotFoundError:
            missing.append(include.package)
    if missing:
        raise ConfigError(f"not installed: {', '.join(missing)}; {HOW_TO_GET_THE_BRIDGE}")
    groups = [_group(include, folders[include.package]) for include in includes]
    if not groups:
        return []
    packages = tuple(include.package for include in includes)
    return [RegisterEventHandler(OnProcessExit(on_exit=_death_of(packages))), *groups]


def _group(include: Include, folder: Path) -> GroupAction:
    """Return a launch file in a scope of its own: its arguments must not reach the next one."""
    source = PythonLaunchDescriptionSource(str(folder / include.file))
    arguments = include.arguments.items()
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments)], scoped=True)


def _node(process: Process) -> Node:
    return Node(
        package=PACKAGE,
        executable=process.name,
        namespace=process.namespace,
        ros_arguments=process.ros_arguments(),
        output="screen",
        # Not a terminal: launch shows whole lines only, so none may renew itself in place.
        emulate_tty=False,
        sigterm_timeout=str(process.stop_timeout_s),
        sigkill_timeout=str(supervision.KILL_TIMEOUT_S),
        on_exit=_ending(process) if process.essential else None,
    )


def _ending(process: Process) -> Callable[[Any, LaunchContext], list[Shutdown]]:
    """Return what launch does at the end of a process: end the rest, and tell a death by 1.

    Launch itself ends with 0 however its processes do; an error in a handler is what it counts.
    """

    def ended(event: Any, context: LaunchContext) -> list[Shutdown]:
        if event.returncode not in WELL and not context.is_shutdown:
            raise RuntimeError(f"{process.name} has died (exit code {event.returncode})")
        return [Shutdown(reason=f"{process.name} has ended")]

    return ended


def _death_of(packages: tuple[str, ...]) -> Callable[[Any, LaunchContext], None]:
    """Return what launch does when a node of `packages` dies: without it nothing can go on."""

    def ended(event: Any, context: LaunchContext) -> None:
        package = getattr(event.action, "node_package", None)
        if package in packages and event.returncode != 0 and not context.is_shutdown:
            raise RuntimeError(f"{package} has died (exit code {event.returncode})")

    return ended
