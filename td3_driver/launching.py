"""Makes a launch description of a command; the launch files are made of this."""

from __future__ import annotations

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from td3_driver import supervision
from td3_driver.processes import COMMANDS, PACKAGE, Command, Option, Process


def launch_description(command_name: str) -> LaunchDescription:
    """Return the launch description of `train`, `drive` or `simulate`."""
    command = COMMANDS[command_name]

    def nodes(context: LaunchContext) -> list[Node]:
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


def _nodes(command: Command, context: LaunchContext) -> list[Node]:
    values = {
        option.name: option.parse(LaunchConfiguration(option.name).perform(context))
        for option in command.options
    }
    return [_node(process) for process in command.processes(values)]


def _node(process: Process) -> Node:
    return Node(
        package=PACKAGE,
        executable=process.name,
        ros_arguments=process.ros_arguments(),
        output="screen",
        emulate_tty=True,
        sigterm_timeout=str(process.stop_timeout_s),
        sigkill_timeout=str(supervision.KILL_TIMEOUT_S),
        on_exit=Shutdown(reason=f"{process.name} has ended") if process.essential else None,
    )
