# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the launch files ask of a command, as JSON: its options, and what it starts.

`ros2 launch` runs on a Python that need not have this package's packages. It asks here, on the one
that has them: `python -m td3_driver.launching.answers COMMAND [VALUES NAMESPACE]`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from td3_driver.bridge.outlasting import OUTLASTING
from td3_driver.config import ConfigError
from td3_driver.launching import fastdds, supervision
from td3_driver.launching.commands import LAUNCHES
from td3_driver.launching.parts import LaunchCommand, Process
from td3_driver.launching.settings import under_namespace

GOOD_ENDS = (0, supervision.EXIT_INTERRUPTED)
"""Exit codes of a process that has done its work, or was ended before it could begin."""


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


def actions(command: LaunchCommand, texts: Mapping[str, str], pushed: str) -> dict[str, Any]:
    """Return what to start for launch arguments given as text; raises ConfigError.

    `pushed` is the namespace that the including launch file has pushed, empty for none.
    """
    values = {option.name: option.parse(texts[option.name]) for option in command.options}
    if "namespace" in values:
        values["namespace"] = under_namespace(pushed, str(values["namespace"]))
    # Both refuse wrong values; nothing is to be started before that.
    processes, includes = command.processes(values), command.includes(values)
    return {
        "environment": fastdds.environment(os.environ),
        "includes": [dataclasses.asdict(include) for include in includes],
        "processes": [_process(process) for process in in_order_of_stopping(processes)],
    }


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
            process = dataclasses.replace(
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
    own = {
        "command": shlex.join(process.tool),
        "fallback": shlex.join(dataclasses.replace(process, tool=()).command_line()),
        "bag": process.parameters["bag"],
    }
    return dataclasses.replace(
        process, name="recording_tool", parameters=own, parameters_file="", tool=()
    )


def _process(process: Process) -> dict[str, Any]:
    return {
        "name": process.name,
        "namespace": process.namespace,
        "ros_arguments": process.ros_arguments(),
        "essential": process.essential,
        "stop_timeout_s": process.stop_timeout_s,
        "kill_timeout_s": supervision.KILL_TIMEOUT_S,
        "good_ends": GOOD_ENDS,
    }


def main(arguments: Sequence[str]) -> None:
    """Print the answer, or why there is none."""
    name, *given = arguments
    command = LAUNCHES[name]
    try:
        answer = actions(command, json.loads(given[0]), given[1]) if given else options(command)
    except ConfigError as error:
        print(json.dumps({"refused": str(error)}))
    else:
        print(json.dumps({"answer": answer}))


if __name__ == "__main__":
    main(sys.argv[1:])
