# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The trainer's process when its simulator dies, comes back, or stays away."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from carla_graph import Observer, own_domain, ros_node, simulator_process
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from trainer_process import Trainer

from td3_driver.learning import checkpoint


@contextmanager
def training(run: Path, **parameters: str) -> Iterator[tuple[Trainer, subprocess.Popen[str]]]:
    """A trainer that learns from a simulator of its own, both in processes."""
    simulator = simulator_process(own_domain())
    trainer = Trainer(run, **parameters)
    try:
        trainer.wait_for("updates 40: ")
        yield trainer, simulator
    finally:
        trainer.kill()
        simulator.kill()
        simulator.communicate()


@pytest.mark.timeout(240)
def test_training_goes_on_when_the_simulator_is_back(tmp_path: Path) -> None:
    simulators = []
    with (
        ros_node("monitor", own_domain()) as node,
        training(tmp_path / "run") as (trainer, simulator),
    ):
        observer = Observer(node)
        heard: list[DiagnosticStatus] = []

        def hear(array: DiagnosticArray) -> None:
            heard.extend(s for s in array.status if s.name == "trainer: simulation")

        node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
        observer.wait(lambda: bool(heard))
        assert heard[-1].level != DiagnosticStatus.ERROR
        simulator.kill()
        trainer.wait_for("Waiting for the simulator to come back")
        observer.wait(lambda: heard[-1].level == DiagnosticStatus.ERROR)
        assert "Waiting for the simulator" in heard[-1].message
        simulators.append(simulator_process(own_domain()))
        try:
            trainer.wait_for("the simulator is back")
            observer.wait(lambda: heard[-1].level != DiagnosticStatus.ERROR)
            assert {pair.key: pair.value for pair in heard[-1].values}["outages"] == "1"
            trainer.wait_for("updates/s")
            simulators[0].kill()
            trainer.wait_for("Waiting for the simulator to come back")
            trainer.process.send_signal(signal.SIGINT)
            trainer.wait_for("stopped. The run is saved")
            assert trainer.wait() == 0
        finally:
            simulators[0].kill()
            simulators[0].communicate()
    assert checkpoint.latest(tmp_path / "run" / "checkpoints", pytest.fail)


@pytest.mark.timeout(240)
def test_training_ends_with_everything_saved_when_it_stays_away(tmp_path: Path) -> None:
    with training(tmp_path / "run", carla__outage_timeout_s="1.0") as (trainer, simulator):
        simulator.kill()
        trainer.wait_for("error: the simulator was away for 1 s: nothing on /carla/")
        assert trainer.wait() == 1
        said = "".join(trainer.lines)
        assert f"resume it with td3-driver train --resume {tmp_path / 'run'}" in said
        assert f"ros2 launch td3_driver train.launch.py resume:={tmp_path / 'run'}" in said
        assert "Traceback" not in said
    saved = checkpoint.latest(tmp_path / "run" / "checkpoints", pytest.fail)
    assert int(saved.name) > 20
