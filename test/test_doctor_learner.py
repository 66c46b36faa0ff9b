# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The doctor's check of how a machine learns."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from td3_driver import cli
from td3_driver.config import build
from td3_driver.doctor import learner
from td3_driver.doctor.findings import Finding, Verdict
from td3_driver.learning.execution import GraphedUpdates
from td3_driver.learning.td3 import UpdateKind

SMALL = {
    "learning": {
        "channels": [4, 4, 4],
        "image_features": 8,
        "hidden": [8],
        "device": "cpu",
        "precision": "float32",
    }
}


def examine() -> dict[str, Finding]:
    found = learner.examine(build(SMALL, "the test"), lambda line: None, timed_s=0.0)
    return {finding.check: finding for finding in found}


def test_it_says_what_learns_and_how_fast() -> None:
    found = examine()
    assert set(found) == {"device", "bfloat16", "speed, batch 64", "speed, batch 256"}
    assert found["device"].found.startswith("CPU")
    for batch in (64, 256):
        speed = found[f"speed, batch {batch}"]
        rate, unit, rest = speed.found.split(" ", 2)
        assert float(rate.replace(",", "")) > 0.0 and unit == "updates/s"
        assert "float32, eager" in rest
    assert all(finding.verdict is Verdict.OK for finding in found.values())


class Captured(GraphedUpdates):
    """Captures updates on a CPU."""

    replays = True

    def _capture(self, kind: UpdateKind) -> Any:
        self.batch = self.replay.draw(4, torch.Generator())
        replay = (lambda: self.update_eagerly(kind)) if self.replays else lambda: None
        return SimpleNamespace(replay=replay)


@pytest.mark.parametrize("right", [True, False])
def test_captured_updates_are_compared_with_eager_ones(
    right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Captured, "replays", right)
    monkeypatch.setattr(learner, "make_updates", Captured)
    monkeypatch.setattr(learner, "BATCHES", (4,))
    found = examine()
    compared = found["CUDA graphs, batch 4"]
    if right:
        assert (compared.verdict, compared.found) == (
            Verdict.OK,
            "equal to eager updates, 6 compared",
        )
        assert "CUDA graphs" in found["speed, batch 4"].found
    else:
        assert compared.verdict is Verdict.WARNING and "random numbers" in compared.found
        assert "eager" in found["speed, batch 4"].found


def test_a_gpu_that_cannot_be_used_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(wanted: str, say: Any) -> torch.device:
        say("warning: the GPU cannot be used (too old): going on on the CPU")
        return torch.device("cpu")

    monkeypatch.setattr(learner, "choose_device", choose)
    monkeypatch.setattr(learner, "BATCHES", ())
    device = examine()["device"]
    assert device.verdict is Verdict.WARNING and device.found.startswith("the GPU cannot be used")
    assert device.remedy


def test_the_command_prints_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(learner, "BATCHES", ())
    assert cli.main(["doctor", "--learner", "--json", "--config", "first_drive"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "device" in json.dumps(told) and "bfloat16" in json.dumps(told)
