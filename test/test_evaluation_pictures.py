# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The pictures that a training leaves."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from driver_runs import make_run, small_config

from td3_driver.evaluation import evaluate, pictures


def test_a_run_is_illustrated_by_a_curve_a_sheet_and_a_short_film(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "FILM_S", 0.5)
    run = make_run(tmp_path / "run", small_config(time_limit_s=2.0))
    (run.path / "metrics.csv").write_text(
        "step,route_completion_mean,return_mean,q1_mean,critic_loss,actor_loss,saturated_share,"
        "validation_completion\n10,0.1,1,0,0,,0,\n20,0.3,2,1,1,1,0.5,0.25\n"
    )
    drives = evaluate.drive_run(
        run, evaluate.Choice(["ring_meadow", "ring_quarry"], episodes=2), filmed=1
    )
    assert len(drives[0].images) > 10  # longer than the film may be
    written = pictures.illustrate(run, drives)
    assert [path.name for path in written] == [
        "evaluation.json",
        "learning_curve.png",
        "drives.png",
        "drive.mp4",
    ]
    sheet = cv2.imread(str(run.path / "drives.png"))
    assert sheet is not None and sheet.shape[1] > 1.5 * sheet.shape[0]  # two panels
    film = cv2.VideoCapture(str(run.path / "drive.mp4"))
    frames = int(film.get(cv2.CAP_PROP_FRAME_COUNT))
    rate = film.get(cv2.CAP_PROP_FPS)
    assert frames / rate == 0.5 and rate == 20.0
    # The drives' starts are green, their paths over the grey of lanes.
    green = (sheet[..., 1] > 120) & (sheet[..., 0] < 80) & (sheet[..., 2] < 80)
    assert np.count_nonzero(green) > 20
