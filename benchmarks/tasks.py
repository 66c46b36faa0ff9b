# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Train a task with several seeds, in process on one thread, and examine it while it learns.

    python benchmarks/tasks.py --task camera_lane --seeds 0 1 2 3 4

Every `--interval` decisions the policy drives without noise on the held-out maps, always from the
same starts. Training goes on to the task's last step whatever it reaches, to show whether it stays
there. In examinations obstacles are placed by default, as in the suite, even if they are denser in
training. `--no-image` is the control: the same without the camera. A policy that is given commands
is given wrong ones after the last examination. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from in_process import (
    Examined,
    Examiner,
    acting,
    changes_of,
    off_advice_in_replay,
    settings_of,
    train,
)

from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.trainer import Progress

PASSED = 0.95
"""Route completion at which a policy drives."""
KEPT = 0.9
"""Route completion below which a policy has lost it again."""


def train_one(
    task: str, seed: int, changes: dict[str, Any], interval: int, episodes: int
) -> dict[str, Any]:
    """Train once; return the completions by step, and the CPU time to the first that passes."""
    config = settings_of(seed, changes, task)
    curve: dict[int, Examined] = {}
    spent_s: dict[int, float] = {}
    learnt: dict[int, float | None] = {}
    obedience: dict[str, Any] | None = None
    examining_s = 0.0
    began_s = time.process_time()

    def examine(progress: Progress, training: OnlineTraining, examiner: Examiner) -> None:
        nonlocal examining_s, obedience
        step = progress.step
        if step % interval or not progress.updates:
            return
        begin_s = time.process_time()
        spent_s[step] = begin_s - began_s - examining_s
        act = acting(training)
        curve[step] = examiner.examined(act, episodes)
        if step + interval > config.training.total_steps:
            wrong = examiner.wrong_commands(act, episodes)
            obedience = None if wrong is None else wrong.as_dict()
        learnt[step] = off_advice_in_replay(training)
        examining_s += time.process_time() - begin_s
        print(
            progress_line(seed, step, curve[step], spent_s[step], learnt[step]),
            file=sys.stderr,
            flush=True,
        )

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", examine)
    return {
        **result_of(seed, curve, spent_s),
        "off_advice_in_replay": list(learnt.values()),
        "wrong_commands": obedience,
    }


def progress_line(
    seed: int, step: int, examined: Examined, spent_s: float, in_replay: float | None = None
) -> str:
    """Return an examination in a line."""
    advice = ""
    if examined.off_advice is not None and in_replay is not None:
        advice = f"{examined.off_advice:.3f} off the advice ({in_replay:.3f} in the replay), "
    return (
        f"seed {seed} step {step:6,}: completion {examined.completion:.3f}, "
        f"{examined.collisions_per_km:.2f} collisions/km, "
        f"{examined.hit_first:.2f} at the first obstacle, {examined.left_lane:.2f} left the lane, "
        f"{examined.off_centre_m:.2f} m off its centre, {advice}{spent_s:.0f} CPU s"
    )


def result_of(
    seed: int, examined: Mapping[int, Examined], spent_s: Mapping[int, float]
) -> dict[str, Any]:
    """Return when a seed first passed, and what became of it after that."""
    curve = {step: each.completion for step, each in examined.items()}
    passed = next((step for step, completion in curve.items() if completion >= PASSED), None)
    after = [completion for step, completion in curve.items() if passed and step > passed]
    return {
        "seed": seed,
        "passed_step": passed,
        "passed_cpu_s": None if passed is None else round(spent_s[passed]),
        "least_after": min(after, default=None),
        "best": max(curve.values()),
        "last": list(curve.values())[-1],
        "curve": {step: round(completion, 3) for step, completion in curve.items()},
        "collisions_per_km": [round(each.collisions_per_km, 2) for each in examined.values()],
        "hit_first": [round(each.hit_first, 2) for each in examined.values()],
        "left_lane": [round(each.left_lane, 2) for each in examined.values()],
        "off_centre_m": [round(each.off_centre_m, 2) for each in examined.values()],
        "off_advice": [each.off_advice for each in examined.values()],
    }


def main() -> None:
    """Train the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="camera_lane", help="name of a configuration")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--interval", type=int, default=500, help="decisions between examinations")
    parser.add_argument("--episodes", type=int, default=20, help="drives in an examination")
    parser.add_argument("--no-image", action="store_true", help="leave the camera out")
    parser.add_argument("--set", nargs="*", default=[], help="section.setting=value (JSON) ...")
    given = parser.parse_args()
    changes = changes_of(given.set)
    if given.no_image:
        changes["learning.image_key"] = ""
    rows = []
    for seed in given.seeds:
        load = os.getloadavg()[0]
        row = train_one(given.task, seed, changes, given.interval, given.episodes)
        rows.append(row)
        print(f"{row}  load average before: {load:.2f}", flush=True)
    good = sum(row["passed_step"] is not None for row in rows)
    kept = sum((row["least_after"] or 0.0) >= KEPT for row in rows)
    print(json.dumps({"task": given.task, "passed": good, "kept": kept, "rows": rows}))


if __name__ == "__main__":
    main()
