# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A process whose stderr takes nothing more goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

LOGS = """
import sys
import rclpy, rclpy.logging
from td3_driver.nodes.unblocked import never_wait_for_stderr
never_wait_for_stderr()
rclpy.init()
for number in range(2000):
    rclpy.logging.get_logger("driver").error(f"line {number} " + 200 * "x")
print("done", flush=True)
sys.stdin.readline()
rclpy.logging.get_logger("driver").error("the last line")
"""


@pytest.mark.timeout(120)
def test_logging_does_not_wait_for_a_pipe_that_nobody_reads() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LOGS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdin and process.stderr
        # 400 kB do not fit into a pipe.
        assert process.stdout.readline() == "done\n"
        os.set_blocking(process.stderr.fileno(), False)
        logged = os.read(process.stderr.fileno(), 1 << 20).decode()
        os.set_blocking(process.stderr.fileno(), True)
        process.stdin.write("\n")
        process.stdin.close()
        logged += process.stderr.read()
        assert process.wait() == 0
    assert "line 0 " in logged and "line 1999 " not in logged
    assert "the last line" in logged  # read again, it logs again


def test_a_file_keeps_what_it_has(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("a") as stderr:
        subprocess.run(
            [sys.executable, "-c", LOGS], input="\n", stderr=stderr, text=True, check=True
        )
    lines = log.read_text().splitlines()
    assert lines[0] == "before" and len(lines) == 2002
