# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Collectors whose simulators are processes of their own, over topics."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from td3_driver.config import Config, ConfigError, build
from td3_driver.deployment.task_networks import networks_of
from td3_driver.fleet.chunk import Chunk, Grant
from td3_driver.fleet.collector import Ended, Event, Ready
from td3_driver.fleet.gathering import Brief
from td3_driver.fleet.processes import ProcessEngine
from td3_driver.learning.policy import Policy
from td3_driver.nodes import collector_world
from td3_driver.nodes.trainer import OVER_TOPICS

pytestmark = pytest.mark.timeout(90)


def settings(**fleet: object) -> Config:
    return build(
        {
            "fleet": {"simulator": "node", **fleet},
            "learning": {"channels": [4, 4, 4], "image_features": 8, "hidden": [8]},
            "training": {"maps": ["ring_meadow"], "random_steps": 0},
        },
        "the test",
    )


def test_a_slot_has_a_domain_and_ports_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ROS_DISTRO", raising=False)
    variables = collector_world.environment(settings(), 3)
    assert variables["ROS_DOMAIN_ID"] == "113" and variables["SLOT"] == "3"
    assert variables["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    assert variables["CARLA_PORT"] == "2030" and variables["TRAFFIC_MANAGER_PORT"] == "8003"
    monkeypatch.setenv("ROS_DISTRO", "humble")
    assert collector_world.environment(settings(), 0)["ROS_LOCALHOST_ONLY"] == "1"
    with pytest.raises(ConfigError, match=r"would be 233: lower fleet.first_domain_id"):
        collector_world.environment(settings(first_domain_id=230), 3)


def test_two_on_a_machine_never_have_the_same_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_world, "_held", [])
    assert [collector_world.take_slot(tmp_path) for _ in range(3)] == [0, 1, 2]
    os.close(collector_world._held.pop(1))
    assert collector_world.take_slot(tmp_path) == 1
    for file in collector_world._held:
        os.close(file)


def test_a_command_is_what_the_user_says(tmp_path: Path) -> None:
    given = settings(simulator="command", simulator_command="exec carla.sh $CARLA_PORT")
    assert collector_world.command(given, tmp_path / "unused") == [
        "/bin/sh",
        "-c",
        "exec carla.sh $CARLA_PORT",
    ]
    with pytest.raises(ConfigError, match="simulator_command is empty"):
        collector_world.command(settings(simulator="command"), tmp_path)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


@pytest.mark.ros
@pytest.mark.long
def test_simulator_and_collector_end_together_and_start_together() -> None:
    engine = ProcessEngine()
    collector = engine.collector(0)
    config = settings()
    spec = networks_of(config)
    weights = Policy.like(spec).weights()

    def until(kind: type[Event], timeout_s: float = 60.0) -> Event:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for _, event in engine.receive(0.2):
                if isinstance(event, kind):
                    return event
                assert not isinstance(event, Ended), event
        raise AssertionError(f"no {kind.__name__}")

    try:
        simulators = []
        for kill in ("simulator", "collector"):
            collector.start(Brief(0, 1, 3, config, spec, OVER_TOPICS))
            until(Ready)
            collector.grant(Grant(0, 0, 10, 0), weights)
            chunk = until(Chunk)
            assert isinstance(chunk, Chunk) and chunk.decisions == 10 and chunk.clean.all()
            assert chunk.images.std() > 1.0  # it has seen something
            pid = collector.child.pid if collector.child else 0
            simulators += children_of(pid)
            os.kill(simulators[-1] if kill == "simulator" else pid, signal.SIGKILL)
            ended = until(Ended, 10.0)
            assert isinstance(ended, Ended)
            assert ended.reason == (
                "its simulator has ended" if kill == "simulator" else "killed by SIGKILL"
            )
        assert len(simulators) == 2
        deadline = time.monotonic() + 5.0
        while any(map(exists, simulators)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(exists, simulators))
    finally:
        engine.close()


def exists(pid: int) -> bool:
    """Return whether a process runs, and is not only waiting to be forgotten."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
