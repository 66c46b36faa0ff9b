# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Collectors on a Ray cluster of several machines, which are raylets on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from td3_driver.config import ConfigError, build
from td3_driver.fleet.engines import make_engine

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What happened when a collector, a slot and a machine were killed, and one was added."""
    pytest.importorskip("ray")
    paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # A short name: the sockets below it have one of at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        done = subprocess.run(
            [sys.executable, HERE / "ray_trials.py", folder],
            env=environment,
            capture_output=True,
            text=True,
            timeout=140,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
def test_collectors_are_placed_by_slots(told: dict[str, Any]) -> None:
    assert told["slots"] == [1, 2] and told["placed"] == 2
    assert told["describe"].startswith("3 collectors on a Ray cluster with 3 slots: ")


@pytest.mark.long
def test_what_is_killed_comes_back_and_nothing_survives_its_slot(told: dict[str, Any]) -> None:
    assert told["stage"] == "end" and told["survivors"] == []
    ended = [line for line in told["lines"] if "has ended" in line]
    assert "collector 0 has ended (killed by SIGKILL); up to " in ended[0]
    assert "collector 1 has ended (its slot has gone: " in ended[1]


@pytest.mark.long
def test_a_machine_that_goes_leaves_the_others_and_one_that_comes_is_used(
    told: dict[str, Any],
) -> None:
    assert told["left"] == 1 and told["back"] == 3


@pytest.mark.long
def test_no_decision_is_counted_twice_or_missed_without_a_mark(told: dict[str, Any]) -> None:
    assert told["stored"] == told["step"] > 1500
    assert told["repeats"] == [0, 0, 0]
    assert told["gaps"][0] >= 1 and told["gaps"][1] >= 2
    assert told["spilled"] == 0


@pytest.mark.long
def test_differing_versions_are_told_machine_by_machine(told: dict[str, Any]) -> None:
    (line,) = told["differences"]
    assert line.startswith("odd has python 3.10.1, this machine 3.")


@pytest.mark.long
def test_without_a_cluster_it_is_said_how_to_start_one(told: dict[str, Any]) -> None:
    assert told["refused"].startswith("no Ray cluster at 'auto': ")
    assert "ray start --head" in told["refused"]


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "td3_driver.fleet.ray_engine", None)
    config = build({"fleet": {"collectors": 2, "cluster": "auto"}}, "the test")
    with pytest.raises(ConfigError, match=r"fleet.cluster needs Ray .*pip install .*\[fleet\]"):
        make_engine(config, print)
