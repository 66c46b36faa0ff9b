# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Ctrl-C while a process still imports; streams that are closed, or whose reader goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from td3_driver.parameter_files import NODES

ROOT = Path(__file__).resolve().parent.parent
ENTRIES = [
    *(
        pytest.param([str(ROOT / "executables" / name)], "rclpy", id=f"lib/{name}")
        for name in NODES
    ),
    *(
        pytest.param(["-m", "td3_driver.startup", name, "--ros-args"], "rclpy", id=f"-m {name}")
        for name in NODES
    ),
    pytest.param(
        ["-c", "from td3_driver.startup import run; run('td3-driver')", "--help"],
        "pydantic",
        id="td3-driver",
    ),
]


@pytest.mark.parametrize("arguments, imported", ENTRIES)
def test_ctrl_c_during_the_imports_is_an_end_without_a_traceback(
    arguments: list[str], imported: str, tmp_path: Path
) -> None:
    slow = tmp_path / imported
    slow.mkdir()
    (slow / "__init__.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    )
    # As a whole rclpy has: without it, another Python would be looked for.
    (slow / f"_rclpy_pybind11{EXTENSION_SUFFIXES[0]}").touch()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert (process.returncode, said) == (128 + signal.SIGINT, "")


TELLING = """
import pathlib, subprocess, sys
from td3_driver import startup
startup.ready_streams()
for _ in range(3):
    print("x" * 100_000, file=sys.stderr, flush=True)
subprocess.run([sys.executable, "-c", "import os; [os.fstat(n) for n in (0, 1, 2)]"], check=True)
with pathlib.Path(sys.argv[1]).open("w") as file:
    assert file.fileno() > 2
    print("told")
    file.write("done")
"""


@pytest.mark.parametrize("closed", ["2>&1 >/dev/null | true", "2>&-", "<&- >&- 2>&-"])
def test_what_nobody_hears_ends_no_work(closed: str, tmp_path: Path) -> None:
    done = tmp_path / "done"
    command = f"('{sys.executable}' -c '{TELLING}' '{done}'; echo $? > '{tmp_path}/code') {closed}"
    subprocess.run(["sh", "-c", command], cwd=ROOT, timeout=60, check=False)
    assert (tmp_path / "code").read_text() == "0\n"
    assert done.read_text() == "done"
