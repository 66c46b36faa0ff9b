"""Makes a launch description of a command; the launch files are made of this."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from td3_driver import supervision
from td3_driver.processes import COMMANDS, PACKAGE, Command, Option, Process


def launch_description(command_name: str) -> LaunchDescription:
    """Return the launch description of one of `COMMANDS`."""
    command = COMMANDS[command_name]

    def nodes(context: LaunchContext) -> list[ExecuteProcess]:
        return _nodes(command, context)

    arguments = [_argument(option) for option in command.options]
    return LaunchDescription([*arguments, OpaqueFunction(function=nodes)])


def _argument(option: Option) -> DeclareLaunchArgument:
    return DeclareLaunchArgument(
        option.name,
        default_value=option.format(),
        description=option.description,
        choices=option.choices or None,
    )


def _nodes(command: Command, context: LaunchContext) -> list[ExecuteProcess]:
    values = {
        option.name: option.parse(LaunchConfiguration(option.name).perform(context))
        for option in command.options
    }
    return [_node(process) for process in command.processes(values)]


def _node(process: Process) -> ExecuteProcess:
    if process.tool:
        return ExecuteProcess(cmd=process.command_line(), name=process.name, output="screen")
    return Node(
        package=PACKAGE,
        executable=process.name,
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
        if event.returncode != 0 and not context.is_shutdown:
            raise RuntimeError(f"{process.name} has died (exit code {event.returncode})")
        return [Shutdown(reason=f"{process.name} has ended")]

    return ended
