# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs another program that records, such as `ros2 bag record`, and ends it in good time.

Out of reach of a terminal's Ctrl-C, it takes down the driver's stop, too.
"""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys

from td3_driver.bridge import outlasting, runtime
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import ConfigError
from td3_driver.driving.world import WorldError

NODE_NAME = "recording_tool"
SECTIONS = ()
OWN_PARAMETERS = {
    "command": ("", "Command line of the program; SIGINT ends it."),
    **outlasting.OWN_PARAMETERS,
}


class RecordingToolNode(ConfiguredNode):
    """Waits for the nodes that are to be recorded to their end."""

    def __init__(self) -> None:
        """Start the program; raises ConfigError where that cannot be."""
        super().__init__(NODE_NAME, SECTIONS, own=OWN_PARAMETERS)
        command = shlex.split(self.get_parameter("command").value)
        if not command:
            raise ConfigError("name the program that records: command:=...")
        self._name = command[0]
        try:
            self._program = subprocess.Popen(command, start_new_session=True)
        except OSError as error:
            raise ConfigError(f"{self._name} cannot be run ({error.strerror})") from None

    def run(self) -> None:
        """Serve until the program ends, or until told to end; raises WorldError if it failed."""
        runtime.spin(
            self,
            until=lambda: self._program.poll() is not None,
            outlasted=outlasting.Outlasted(self),
        )
        if code := self._program.poll():
            raise WorldError(f"{self._name} has failed (exit code {code})")

    def finish(self) -> None:
        """Have the program complete what it records."""
        if self._program.poll() is None:
            self._program.send_signal(signal.SIGINT)
            self._program.wait()


def main(args: list[str] | None = None) -> None:
    """Run the process."""
    sys.exit(runtime.run(lambda: runtime.run_and_finish(RecordingToolNode), args))


if __name__ == "__main__":
    main()
