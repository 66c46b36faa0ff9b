# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The examples run as their users run them."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from bag_drives import drive, write

from td3_driver.config import load

ROOT = Path(__file__).resolve().parent.parent


def run(name: str, *arguments: str | Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.long
@pytest.mark.skipif(not find_spec("stable_baselines3"), reason="stable-baselines3 is missing")
def test_stable_baselines3_trains_on_the_environment(tmp_path):
    # It draws actions for 100 steps, and learns in the other, which takes long.
    lines = run("train_sb3.py", "--steps", "101", "--out", tmp_path / "policy.zip")
    assert lines[-1].startswith("101 steps trained")
    assert (tmp_path / "policy.zip").is_file()


def test_a_bags_decisions_are_a_table(tmp_path):
    driven = drive(60, load("first_drive").driving)
    lines = run("read_decisions.py", write(tmp_path / "bag", driven.messages), "--every", "5")
    head, *rows = (line.split() for line in lines)
    assert head == ["time/s", "speed/(m/s)", "lateral/m", "steering", "reward", "end"]
    assert len(rows) == 6  # Two ticks a decision: every tenth of 60.
    speeds = [float(row[1]) for row in rows]
    assert speeds[0] == pytest.approx(driven.frames[0].speed, abs=0.01)
    assert speeds[-1] == pytest.approx(driven.frames[50].speed, abs=0.01)
    assert all(float(row[4]) > 0.0 for row in rows[1:])
