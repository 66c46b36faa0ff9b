# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Collectors on a Ray cluster of several machines, which are raylets on this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from td3_driver.config import ConfigError, build
from td3_driver.doctor import cluster
from td3_driver.doctor.findings import Verdict, healthy
from td3_driver.fleet.engines import make_engine
from td3_driver.fleet.machines import Facts

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(480)


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
            timeout=450,
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
    # On a busy machine Ray loses touch with others, too; they come back like these.
    ended = "".join(line for line in told["lines"] if "has ended" in line)
    assert "collector 0 has ended (killed by SIGKILL); up to " in ended
    assert "collector 1 has ended (its slot has gone: " in ended


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


@pytest.mark.long
def test_a_store_that_is_written_to_disk_is_warned_of(told: dict[str, Any]) -> None:
    assert told["spilled"] == 0
    (line,) = [line for line in told["lines"] if "written to disk" in line]
    assert line.startswith("warning: Ray's object stores have been written to disk (")


@pytest.mark.long
def test_every_machine_says_what_it_has(told: dict[str, Any]) -> None:
    assert told["machines"] == [True, True]


def facts(machine: str, slots: int = 4, **changes: object) -> Facts:
    versions = {"python": "3.12.4", "ray": "2.60.0", "td3_driver": "0.1.0", "source": "abc"}
    values = {"shared_memory_bytes": 1 << 30, "object_store_bytes": 256 << 20, "tokens": True}
    return Facts(machine, slots, versions, **{**values, **changes})  # type: ignore[arg-type]


def test_the_doctor_finds_machines_alike_or_says_what_is_not() -> None:
    alike = cluster.judge([facts("learner", 0), facts("one"), facts("two")])
    assert healthy(alike) and {finding.verdict for finding in alike} == {Verdict.OK}
    assert "slots" in alike[1].check and alike[1].found == "8"

    older = facts("two")
    older = replace(older, versions={**older.versions, "python": "3.12.3", "source": "abd"})
    found = {finding.check: finding for finding in cluster.judge([facts("one"), older])}
    assert found["versions"].verdict is Verdict.FAILED
    assert found["versions"].found == (
        "two has python 3.12.3, one has 3.12.4; two has source abd, one has abc"
    )
    assert "make setup" in found["versions"].remedy


def test_the_doctor_counts_shared_memory_slots_and_tokens() -> None:
    # 256 MiB for the store, and 16 MiB for each of two processes of 4 slots: 384 MiB.
    small = facts("small", shared_memory_bytes=383 << 20, tokens=False)
    found = {finding.check: finding for finding in cluster.judge([small])}
    memory = found["small: shared memory"]
    assert memory.verdict is Verdict.WARNING and "384 MiB are needed" in memory.found
    assert "--shm-size=385m" in memory.remedy
    assert "RAY_AUTH_MODE=token" in found["small: access"].remedy
    large = cluster.judge(
        [facts("large", 0, object_store_bytes=20 << 30, shared_memory_bytes=64 << 30)]
    )
    assert [finding.verdict for finding in large] == [Verdict.OK, Verdict.FAILED, Verdict.WARNING]


@pytest.mark.long
def test_without_a_cluster_it_is_said_how_to_start_one(told: dict[str, Any]) -> None:
    assert told["refused"].startswith("no Ray cluster at 'auto': ")
    assert "ray start --head" in told["refused"]


@pytest.mark.parametrize(
    "address, reason", [("127.0.0.1:1", "refused"), ("somewhere", "an address is host:port")]
)
def test_an_address_where_nobody_listens_is_told_at_once(address: str, reason: str) -> None:
    pytest.importorskip("ray")
    (finding,) = cluster.examine(address)
    assert finding.verdict is Verdict.FAILED and reason in finding.found
    assert "ray start --head" in finding.found and "docs/fleet.md" in finding.remedy


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "td3_driver.fleet.ray_engine", None)
    config = build({"fleet": {"collectors": 2, "cluster": "auto"}}, "the test")
    with pytest.raises(ConfigError, match=r"fleet.cluster needs Ray .*pip install .*\[fleet\]"):
        make_engine(config, print)
