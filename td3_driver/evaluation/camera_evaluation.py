# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The camera test of a run: its report and its picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from td3_driver.config import ConfigError
from td3_driver.evaluation.camera_test import CameraTest, camera_test, conditions_of
from td3_driver.evaluation.evaluate import Choice, prepare
from td3_driver.evaluation.pictures import draw_camera_test
from td3_driver.files import write_json
from td3_driver.runs import RunFolder

CAMERA_TEST_EPISODES = 10


def evaluate_camera(
    run: str | Path, choice: Choice, out: Path | None = None
) -> tuple[CameraTest, list[Path]]:
    """Test whether a policy drives by its camera; return the outcome and the files written.

    Episodes default to 10, `out` to `camera_test.json` in the run's folder; a picture is drawn
    beside it. Raises ConfigError, also for a single episode.
    """
    if choice.episodes == 1:
        raise ConfigError("--episodes: the camera test needs two or more; each lends its images")
    folder = RunFolder(run)
    out = out or folder.path / "camera_test.json"
    fixed, act = prepare(folder, replace(choice, episodes=choice.episodes or CAMERA_TEST_EPISODES))
    total = conditions_of(folder.config) * len(fixed.starts)
    with tqdm(total=total, desc="camera test", unit="episode") as progress:

        def done(name: str, completion: float) -> None:
            progress.set_postfix_str(f"{name}: {completion:.2f}")
            progress.update()

        result = camera_test(fixed.env, act, fixed.starts, folder.config, done)
    fixed.env.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, result.as_dict())
    picture = out.with_suffix(".png")
    draw_camera_test(result, picture)
    return result, [out, picture]
