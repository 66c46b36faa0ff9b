# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Change one option of the learner at a time, train, and see how soon and how well it drives.

    python benchmarks/ablations.py                  every variant, three seeds
    python benchmarks/ablations.py --table          only the table of earlier measurements

Each training is a shortened `config/first_drive.yaml` in the embedded simulator, in process and on
one thread, with updates and decisions taking turns. Now and then the policy drives held-out maps
without noise. Rows are added to a CSV file as they are measured; rows already in it are not
measured again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from in_process import Examiner, completion_of, settings_of, train
from tqdm import tqdm

from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.trainer import Progress

WANTED = 0.95
"""Mean route completion on held-out maps that counts as driving."""
EVALUATE_EVERY = 250
TOTAL_STEPS = 2000
"""Enough to judge: the base configuration drives well before that."""
BASE = "base"
VARIANTS: dict[str, dict[str, Any]] = {
    BASE: {},
    "n_step 3": {"learning.n_step": 3},
    "image layer norm off": {"learning.image_layer_norm": False},
    "normalised rewards": {"learning.normalize_rewards": True},
    "LAP": {"learning.replay_sampling": "lap", "learning.huber_threshold": 0.1},
    "gradients clipped at 1": {"learning.gradient_clip_norm": 1.0},
    "learning rates decay to 0.1": {"learning.learning_rate_decay_updates": 1500},
    "noise 0.4 decays to 0.05": {
        "learning.exploration_noise": 0.4,
        "learning.exploration_noise_decay_steps": 1000,
    },
    "no image shift": {"learning.image_shift_px": 0},
    "no guards of the tanh": {
        "learning.pre_tanh_penalty": 0.0,
        "learning.actor_warmup_updates": 0,
    },
    "vector alone": {"learning.image_key": ""},
    "image alone": {"learning.vector_key": ""},
}


@dataclass(frozen=True)
class Point:
    """How a policy drove at some decision of its training."""

    step: int
    training_cpu_s: float
    completion: float


def train_variant(variant: str, seed: int, folder: Path) -> list[Point]:
    """Train once; return how the policy drove at each examination."""
    changes = {"training.total_steps": TOTAL_STEPS, **VARIANTS[variant]}
    config = settings_of(seed, changes)
    points: list[Point] = []
    examining_s = 0.0
    began = time.process_time()

    def examine(progress: Progress, training: OnlineTraining, examiner: Examiner) -> None:
        nonlocal examining_s
        if progress.step % EVALUATE_EVERY or progress.step <= config.training.random_steps:
            return
        paused = time.process_time()
        completion = completion_of(training, examiner)
        examining_s += time.process_time() - paused
        points.append(Point(progress.step, time.process_time() - began - examining_s, completion))

    train(config, folder, examine)
    return points


COLUMNS = ("variant", "seed", "steps_to_wanted", "cpu_s_to_wanted", "final", "mean", "points")


def row_of(variant: str, seed: int, points: Sequence[Point]) -> dict[str, Any]:
    """Return a training's row; steps and seconds are empty if it never drove well enough."""
    reached = next((point for point in points if point.completion >= WANTED), None)
    return {
        "variant": variant,
        "seed": seed,
        "steps_to_wanted": reached.step if reached else "",
        "cpu_s_to_wanted": round(reached.training_cpu_s, 1) if reached else "",
        "final": round(points[-1].completion, 4),
        "mean": round(mean(point.completion for point in points), 4),
        "points": " ".join(f"{point.step}:{point.completion:.3f}" for point in points),
    }


def measured(path: Path) -> list[dict[str, str]]:
    """Return the rows of earlier runs."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, Any]) -> None:
    """Add a row to the file, with its heading if it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return the variants as a Markdown table, with each figure's median over the seeds."""
    lines = [
        "| variant | seeds | decisions to 0.95 | CPU seconds to 0.95 | final completion | "
        "mean of all examinations |",
        "|---|---|---|---|---|---|",
    ]
    for variant in VARIANTS:
        mine = [row for row in rows if row["variant"] == variant]
        if not mine:
            continue
        lines.append(
            f"| {variant} | {len(mine)} | {_reached(mine, 'steps_to_wanted')} | "
            f"{_reached(mine, 'cpu_s_to_wanted')} | {_spread(mine, 'final')} | "
            f"{_spread(mine, 'mean')} |"
        )
    return "\n".join(lines)


def _reached(rows: Sequence[dict[str, str]], column: str) -> str:
    """Return the median and each seed's figure; a seed that never got there counts as infinite."""
    values = [float(row[column]) if row[column] else float("inf") for row in rows]
    shown = ", ".join("never" if value == float("inf") else f"{value:,.0f}" for value in values)
    middle = median(values)
    return f"{'never' if middle == float('inf') else f'**{middle:,.0f}**'} ({shown})"


def _spread(rows: Sequence[dict[str, str]], column: str) -> str:
    values = [float(row[column]) for row in rows]
    return f"**{mean(values):.3f}** ({', '.join(f'{value:.2f}' for value in values)})"


def run_one(variant: str, seed: int, path: Path) -> None:
    """Train in this process and write the row."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        append(path, row_of(variant, seed, train_variant(variant, seed, Path(folder))))


def run_all(variants: Sequence[str], seeds: int, jobs: int, path: Path) -> None:
    """Run all trainings that have not been measured yet, several processes at a time."""
    done = {(row["variant"], int(row["seed"])) for row in measured(path)}
    todo = [
        (variant, seed)
        for seed in range(seeds)
        for variant in variants
        if (variant, seed) not in done
    ]

    def one(job: tuple[str, int]) -> None:
        variant, seed = job
        command = [sys.executable, __file__, "--one", variant, str(seed), "--out", str(path)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)

    with ThreadPoolExecutor(jobs) as pool:
        list(tqdm(pool.map(one, todo), "trainings", len(todo)))


def main() -> None:
    """Measure, and print the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/ablations.csv"), help="CSV file")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default 2)")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        run_one(options.one[0], int(options.one[1]), options.out)
        return
    if not options.table:
        run_all(options.variants, options.seeds, options.jobs, options.out)
    rows = measured(options.out)
    print(table(rows))
    print(json.dumps({"trainings": len(rows), "load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
