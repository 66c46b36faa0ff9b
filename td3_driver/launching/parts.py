# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a command is made of: its options, processes, and launch files of other packages."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from td3_driver import config
from td3_driver.files import is_utf8

PACKAGE = "td3_driver"

OptionValue = str | bool | tuple[str, ...]
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Option:
    """One option of a command: a launch argument, and an option of the command line."""

    name: str
    description: str
    default: OptionValue | None = ""
    """None: must be given. A bool: a switch. A tuple: may be given several times."""
    choices: tuple[str, ...] = ()
    launch_only: bool = False
    """Whether only the launch files have it."""
    positional: bool = False
    """Whether the command line takes it without dashes, though it may be left out."""

    def parse(self, text: str) -> OptionValue:
        """Return the value that a launch argument's text means; raises ConfigError."""
        if isinstance(self.default, bool):
            if text.lower() not in ("true", "false"):
                raise config.ConfigError(f"{self.name} is true or false, not {text!r}")
            return text.lower() == "true"
        if isinstance(self.default, tuple):
            return tuple(shlex.split(text))
        return text

    def format(self) -> str | None:
        """Return the default as a launch argument's text, None where there is no default."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return shlex.join(self.default)
        return self.default


@dataclass(frozen=True)
class Process:
    """One ROS node in a process of its own."""

    name: str
    """Name of the node, of its file in executables/ and of its module in `td3_driver.nodes`."""
    parameters: Parameters = field(default_factory=dict)
    essential: bool = True
    """The others end when this one does."""
    stop_timeout_s: float = 5.0
    """Time to end after SIGINT, before SIGTERM is sent."""
    tool: tuple[str, ...] = ()
    """Command line of another program that does the node's work."""
    namespace: str = "/"
    """Full namespace of the node."""
    log_level: str = ""
    """Least severity that the node logs; empty = ROS's default."""
    parameters_file: str = ""
    """ROS parameter file that the node reads before its `parameters`; empty = none."""

    def ros_arguments(self) -> list[str]:
        """Return what follows `--ros-args` on the node's command line, but for the namespace.

        Raises ConfigError for a text that ROS cannot be given.
        """
        file = ["--params-file", self.parameters_file] if self.parameters_file else []
        # Of this node alone: the middleware's own lines would drown it.
        logger = f"{self.namespace}/{self.name}".strip("/").replace("/", ".")
        level = ["--log-level", f"{logger}:={self.log_level}"] if self.log_level else []
        assignments = [
            f"{name}:={_in_yaml(name, value)}" for name, value in self.parameters.items()
        ]
        return [*file, *level, *(part for each in assignments for part in ("-p", each))]

    def command_line(self) -> list[str]:
        """Return the command that runs the node with this interpreter, or the tool."""
        if self.tool:
            return list(self.tool)
        place = ["-r", f"__ns:={self.namespace}"] if self.namespace != "/" else []
        start = [sys.executable, "-m", f"{PACKAGE}.startup", self.name]
        return [*start, "--ros-args", *place, *self.ros_arguments()]


def _in_yaml(name: str, value: Any) -> str:
    """Return a value as YAML in ASCII, which ROS reads in every locale; raises ConfigError.

    That is JSON, whose quotes keep "1" a text, but for characters that JSON writes as two.
    """
    text = json.dumps(value, ensure_ascii=False)
    if not is_utf8(text):
        raise config.ConfigError(
            f"{name}: ROS takes no text that is not UTF-8, such as {config.shown(value)}: rename "
            "the folder or file"
        )
    return re.sub(r"[^ -~]", lambda match: f"\\U{ord(match[0]):08x}", text)


@dataclass(frozen=True)
class Include:
    """A launch file of another package, with every argument it is to be given."""

    package: str
    file: str
    """Its name; in `share/<package>/`."""
    arguments: dict[str, str]


def _nothing(values: Mapping[str, Any]) -> list[Any]:
    return []


@dataclass(frozen=True)
class LaunchCommand:
    """A set of processes that is started together, and the options it takes."""

    summary: str
    options: tuple[Option, ...]
    build: Callable[[Mapping[str, Any]], list[Process]]
    build_includes: Callable[[Mapping[str, Any]], list[Include]] = _nothing

    def processes(self, values: Mapping[str, Any]) -> list[Process]:
        """Return the processes in the order of their start; they are stopped in reverse.

        `values` gives every option's value by name. The last process is the one that the others
        serve: its end is the end of the whole. Raises ConfigError naming a wrong value.
        """
        processes = self.build(values)
        for process in processes:
            process.ros_arguments()  # Refuses before anything is started.
        return processes

    def includes(self, values: Mapping[str, Any]) -> list[Include]:
        """Return what a launch file starts before the processes; raises ConfigError."""
        return self.build_includes(values)
