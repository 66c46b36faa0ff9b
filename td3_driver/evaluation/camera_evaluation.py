# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The camera test of a run: its report and its picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from td3_driver.config import ConfigError, LookChoice
from td3_driver.evaluation.camera_test import CONDITIONS, CameraTest, camera_test
from td3_driver.evaluation.evaluate import prepare
from td3_driver.evaluation.pictures import draw_camera_test
from td3_driver.files import replacing
from td3_driver.runs import RunFolder

CAMERA_TEST_EPISODES = 10


def evaluate_camera(
    run: str | Path,
    maps: Sequence[str] | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    out: Path | None = None,
    policy_file: Path | None = None,
    look: LookChoice | None = None,
) -> tuple[CameraTest, list[Path]]:
    """Test whether a policy drives by its camera; return the outcome and the files written.

    The arguments are those of `evaluate_run`, with 10 episodes and `camera_test.json` as defaults;
    a picture is drawn beside it. Raises ConfigError, also for a single episode.
    """
    if episodes == 1:
        raise ConfigError("--episodes: the camera test needs two or more; each lends its images")
    folder = RunFolder(run)
    out = out or folder.path / "camera_test.json"
    prepared = prepare(folder, maps, episodes or CAMERA_TEST_EPISODES, seed, policy_file, look)
    with tqdm(
        total=CONDITIONS * len(prepared.starts), desc="camera test", unit="episode"
    ) as progress:

        def done(name: str, completion: float) -> None:
            progress.set_postfix_str(f"{name}: {completion:.2f}")
            progress.update()

        result = camera_test(prepared.env, prepared.act, prepared.starts, folder.config, done)
    prepared.env.close()
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as new:
        new.write_text(json.dumps(result.as_dict(), indent=1) + "\n")
    picture = out.with_suffix(".png")
    draw_camera_test(result, picture)
    return result, [out, picture]
