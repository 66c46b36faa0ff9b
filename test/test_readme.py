# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The README's commands for a ROS 2 distribution, typed as they stand there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAUNCH_S = 240.0
END_S = 60.0


def commands_under(heading: str) -> list[str]:
    """Return the lines of the first shell block under a heading, without their comments."""
    section = (ROOT / "README.md").read_text().split(f"\n## {heading}\n")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.join(shlex.split(line, comments=True)) for line in block[1].splitlines()]


def test_a_distributions_commands_are_those_that_are_typed_below() -> None:
    words = [line.split()[0] for line in commands_under("In a ROS 2 distribution")]
    assert words == ["make", "colcon", ".", "ros2", "ros2", "ros2"]


class Terminal:
    """A workspace in which commands are typed, each in a new shell that is sourced as a user's."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.sourced = ""

    def type(self, line: str, until: Callable[[], bool] | None = None) -> str:
        """Run a command, to Ctrl-C once something holds if given; return what it says.

        Fails unless it ends well.
        """
        log = self.workspace / "output.txt"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"{self.sourced} exec {line}"],
                cwd=self.workspace,
                env={k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        try:
            if until is not None:
                wait_for(lambda: until() or process.poll() is not None, LAUNCH_S)
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGINT)
            code = process.wait(END_S if until is not None else None)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        said = log.read_text()
        assert code == 0, f"{line}: exit code {code}\n{said[-4000:]}"
        assert "Traceback" not in said, f"{line}:\n{said[-4000:]}"
        return said


def wait_for(condition: Callable[[], bool], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.2)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A workspace with this repository's sources in it, and nothing built."""
    sources = tmp_path / "src" / "td3_driver"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, sources / name, follow_symlinks=False)
    return Terminal(tmp_path)


@pytest.mark.long
@pytest.mark.network
@pytest.mark.ros
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not shutil.which("ros2"), reason="no ROS 2 distribution is sourced")
@pytest.mark.skipif(not shutil.which("colcon"), reason="colcon is not installed")
def test_a_distributions_commands_work_as_they_stand(terminal: Terminal) -> None:
    setup, build, source, train, drive, replay = commands_under("In a ROS 2 distribution")
    assert shlex.split(train)[-1] == "config:=first_drive"
    metrics = terminal.workspace / "runs" / "latest" / "metrics.csv"
    bag = terminal.workspace / "bags" / "drive"

    terminal.type(setup)
    # The shell expands what is quoted by now.
    terminal.type(build.replace("'", ""))
    terminal.sourced = f"{source};"
    terminal.type(train, until=lambda: metrics.is_file() and metrics.read_text().count("\n") > 1)
    assert (metrics.parent / "checkpoints" / "latest").exists()

    recorded_s = 10.0
    begun: list[float] = []

    def has_recorded() -> bool:
        if not begun and any(bag.glob("*.mcap")):
            begun.append(time.monotonic())
        return bool(begun) and time.monotonic() > begun[0] + recorded_s

    terminal.type(drive, until=has_recorded)
    assert (bag / "metadata.yaml").is_file()
    said = terminal.type(replay, until=lambda: False)
    assert re.search(r"played all of bags/drive: \d+ messages", said)
