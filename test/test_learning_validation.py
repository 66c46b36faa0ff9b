# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Examinations during training: when, which policy is the best, and when a run stops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bandit_training import Bandit, Heard, make, rows_of

from td3_driver.config import ValidationConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.manifest import verify
from td3_driver.learning.policy import WEIGHTS, Policy
from td3_driver.learning.saved_networks import SavedNetworks
from td3_driver.learning.validation import Act, Validation

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]


class Examiner:
    """Gives marks from a list, the last one again and again."""

    def __init__(self, marks: Iterable[float]) -> None:
        self.marks = list(marks)
        self.actions: list[float] = []
        """What each examined policy does under the same picture."""
        self.steps: list[int] = []
        self.env: Bandit | None = None

    def __call__(self, act: Act) -> float:
        self.actions.append(float(act(bright())[0]))
        self.steps.append(-1 if self.env is None else self.env.steps)
        return self.marks.pop(0) if len(self.marks) > 1 else self.marks[0]


def bright() -> dict[str, np.ndarray]:
    return {"image": np.full((2, 36, 36), 220, np.uint8), "vector": np.zeros(2, np.float32)}


def validation(examiner: Examiner, **settings: Any) -> Validation:
    return Validation(ValidationConfig(**{"interval_steps": 20, **settings}), examiner)


def test_the_best_policy_of_a_run_is_kept_as_it_was_examined(tmp_path: Path) -> None:
    examiner, heard = Examiner([0.2, 0.8, 0.5, 0.4]), Heard()
    examiner.env = env = Bandit()
    make(tmp_path, env, heard=heard, validation=validation(examiner)).run()
    # At the first end of an episode in each interval, once there were updates (from step 20), and
    # at the end of the run. Episodes have 4 steps, and a checkpoint every 25 ends one.
    assert examiner.steps == [24, 41, 62, 80]
    best = checkpoint.best(tmp_path / "checkpoints")
    assert best is not None and best.name == "best-000000041"
    verify(best)
    assert float(Policy.load(best).act(bright())[0]) == examiner.actions[1]
    assert SavedNetworks.load(best).critic is not None
    assert checkpoint.to_drive(tmp_path / "checkpoints") == [best]
    assert checkpoint.step_of(best) == 41
    assert sum(path.is_dir() for path in (tmp_path / "checkpoints").glob("best-*")) == 1
    said = [line for line in heard.lines if line.startswith("examination")]
    assert said == [
        "examination at step 24: completion 0.20, the best so far",
        "examination at step 41: completion 0.80, the best so far",
        "examination at step 62: completion 0.50",
        "examination at step 80: completion 0.40",
    ]
    column = [row["validation_completion"] for row in rows_of(tmp_path)]
    # A row every 10 updates, that is at steps 30, 40, ...
    assert column == ["0.2", "0.2", "0.8", "0.8", "0.5", "0.5"]


def test_a_run_stops_after_two_examinations_in_a_row_that_pass(tmp_path: Path) -> None:
    examiner = Examiner([0.95, 0.5, 0.97, 0.95])
    examiner.env = env = Bandit()
    checks = validation(examiner, stop_at_completion=0.95)
    training = make(tmp_path, env, total_steps=1000, validation=checks)
    saved = training.run()
    assert examiner.steps == [24, 41, 62, 83]
    assert training.complete and saved.name == "000000083" and env.steps == 83
    best = checkpoint.best(tmp_path / "checkpoints")
    assert best is not None and best.name == "best-000000062"
    # Going on means passing again.
    again = Examiner([0.96])
    resumed = make(
        tmp_path,
        resume=True,
        total_steps=1000,
        validation=validation(again, stop_at_completion=0.95),
    )
    assert not resumed.complete and resumed.validation.best_completion == 0.97
    resumed.run()
    assert len(again.actions) == 2 and resumed.trainer.standing.step in range(120, 125)


def test_a_run_that_is_interrupted_is_examined_as_one_that_is_not(tmp_path: Path) -> None:
    marks = [0.1, 0.96, 0.3, 0.2, 0.1]
    whole, first, second = Examiner(marks), Examiner(marks[:3]), Examiner(marks[3:])
    settings: dict[str, Any] = {"synchronous_updates": True, "checkpoint_interval_steps": 25}
    passing = {"stop_at_completion": 0.95}
    make(
        tmp_path / "a", total_steps=125, validation=validation(whole, **passing), **settings
    ).run()
    interrupted = make(
        tmp_path / "b",
        total_steps=125,
        show=lambda progress: progress.step == 75 and interrupted.stop(),
        validation=validation(first, **passing),
        **settings,
    )
    interrupted.run()
    resumed = make(
        tmp_path / "b",
        resume=True,
        total_steps=125,
        validation=validation(second, **passing),
        **settings,
    )
    resumed.run()
    assert first.actions + second.actions == whole.actions
    kept = [checkpoint.best(tmp_path / name / "checkpoints") for name in "ab"]
    assert [path and path.name for path in kept] == ["best-000000041"] * 2


def test_without_examinations_the_newest_checkpoints_drive(tmp_path: Path) -> None:
    make(tmp_path).run()
    folder = tmp_path / "checkpoints"
    assert checkpoint.best(folder) is None
    assert checkpoint.to_drive(folder) == checkpoint.list_checkpoints(folder)


def test_a_damaged_best_policy_is_passed_over_as_other_checkpoints_are(tmp_path: Path) -> None:
    make(tmp_path, validation=validation(Examiner([0.5]))).run()
    folder, warnings = tmp_path / "checkpoints", list[str]()
    best = checkpoint.best(folder)
    assert best is not None and checkpoint.to_choose(folder, warnings.append) == best
    (best / WEIGHTS).write_bytes(b"damaged")
    assert checkpoint.to_choose(folder, warnings.append).name == "000000080"
    (line,) = warnings
    assert best.name in line and line.endswith("going back to checkpoint 000000080")


def test_an_examination_changes_nothing_of_the_training(tmp_path: Path) -> None:
    examined = make(
        tmp_path / "a", synchronous_updates=True, validation=validation(Examiner([0.5]))
    )
    plain = make(tmp_path / "b", synchronous_updates=True)
    examined.run()
    plain.run()
    for one, other in zip(
        examined.trainer.learner.actor.parameters(),
        plain.trainer.learner.actor.parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)
