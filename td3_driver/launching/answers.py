# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the launch files ask of a command, as JSON: its options, and what it starts.

`ros2 launch` runs on a Python that need not have this package's packages. It asks here, on the one
that has them: `python -m td3_driver.launching.answers COMMAND [VALUES]`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from td3_driver.config import ConfigError
from td3_driver.launching import fastdds, supervision
from td3_driver.launching.commands import LAUNCHES
from td3_driver.launching.parts import LaunchCommand, Process


def options(command: LaunchCommand) -> list[dict[str, Any]]:
    """Return the launch arguments: name, default, description and choices of each option."""
    return [
        {
            "name": option.name,
            "default_value": option.format(),
            "description": option.description,
            "choices": option.choices or None,
        }
        for option in command.options
    ]


def actions(command: LaunchCommand, texts: Mapping[str, str]) -> dict[str, Any]:
    """Return what to start for launch arguments given as text; raises ConfigError."""
    values = {option.name: option.parse(texts[option.name]) for option in command.options}
    # Both refuse wrong values; nothing is to be started before that.
    processes, includes = command.processes(values), command.includes(values)
    return {
        "environment": fastdds.environment(os.environ),
        "includes": [dataclasses.asdict(include) for include in includes],
        "processes": [_process(process) for process in processes],
    }


def _process(process: Process) -> dict[str, Any]:
    return {
        "name": process.name,
        "ros_arguments": process.ros_arguments(),
        "tool": process.tool,
        "essential": process.essential,
        "stop_timeout_s": process.stop_timeout_s,
        "kill_timeout_s": supervision.KILL_TIMEOUT_S,
    }


def main(arguments: Sequence[str]) -> None:
    """Print the answer, or why there is none."""
    name, *values = arguments
    command = LAUNCHES[name]
    try:
        answer = actions(command, json.loads(values[0])) if values else options(command)
    except ConfigError as error:
        print(json.dumps({"refused": str(error)}))
    else:
        print(json.dumps({"answer": answer}))


if __name__ == "__main__":
    main(sys.argv[1:])
