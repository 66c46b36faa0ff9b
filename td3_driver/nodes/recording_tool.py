# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs another program that records, such as `ros2 bag record`, and ends it in good time.

Out of reach of a terminal's Ctrl-C, it takes down the driver's stop, too. Where the program fails,
another goes on in its place: a drive that was to be recorded is.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from td3_driver.bridge import outlasting, runtime
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import ConfigError
from td3_driver.driving.world import WorldError

NODE_NAME = "recording_tool"
SECTIONS = ()
OWN_PARAMETERS = {
    "command": ("", "Command line of the program; SIGINT ends it."),
    "fallback": (
        "",
        "Command line of the node that goes on recording where the program ends by itself; "
        "empty = none.",
    ),
    "bag": ("", "Folder of the new bag; the fallback takes the next free name if it is used."),
    **outlasting.OWN_PARAMETERS,
}


class RecordingToolNode(ConfiguredNode):
    """Waits for the nodes that are to be recorded to their end."""

    def __init__(self) -> None:
        """Start the program; raises ConfigError where nothing can be started."""
        super().__init__(NODE_NAME, SECTIONS, own=OWN_PARAMETERS)
        self._outlasted = outlasting.Outlasted(self)
        self._fallback: str = self.get_parameter("fallback").value
        self._bag = Path(self.get_parameter("bag").value)
        command = shlex.split(self.get_parameter("command").value)
        if not command:
            raise ConfigError("name the program that records: command:=...")
        try:
            self._start(command)
        except ConfigError as error:
            if not self._fallback:
                raise
            self._fall_back(str(error))

    def run(self) -> None:
        """Serve until told to end; raises WorldError if the last program ends before that."""
        while self._ended_by_itself():
            why = f"{self._name} has ended by itself (exit code {self._program.returncode})"
            if not self._fallback or self._outlasted.begun:
                raise WorldError(why)
            self._fall_back(why)

    def finish(self) -> None:
        """Have the program complete what it records."""
        if self._program.poll() is None:
            self._program.send_signal(signal.SIGINT)
            self._program.wait()

    def _ended_by_itself(self) -> bool:
        runtime.spin(
            self, until=lambda: self._program.poll() is not None, outlasted=self._outlasted
        )
        return self._program.poll() is not None

    def _fall_back(self, why: str) -> None:
        bag = free_name(self._bag)
        self.get_logger().error(f"{why}; the package's own recorder goes on, into {bag}")
        command = [*shlex.split(self._fallback), "-p", f"bag:={json.dumps(str(bag))}"]
        self._fallback = ""
        self._start(command)

    def _start(self, command: list[str]) -> None:
        """Start a program in a session of its own; raises ConfigError where it cannot be run."""
        self._name = command[0]
        try:
            self._program = subprocess.Popen(command, start_new_session=True)
        except OSError as error:
            raise ConfigError(f"{self._name} cannot be run ({error.strerror})") from None


def free_name(folder: Path) -> Path:
    """Return `folder`, or the first of `folder_2`, `folder_3`, ... that is not used."""
    number, free = 1, folder
    while free.exists():
        number += 1
        free = folder.with_name(f"{folder.name}_{number}")
    return free


def main(args: list[str] | None = None) -> None:
    """Run the process."""
    sys.exit(runtime.run(lambda: runtime.run_and_finish(RecordingToolNode), args))


if __name__ == "__main__":
    main()
