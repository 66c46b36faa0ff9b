# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Kill a training with SIGKILL at random instants, and resume it each time.

    python benchmarks/kill_and_resume.py --kills 30

The training is small and saves every few steps, so many kills happen while a checkpoint is being
written; kills are aimed there whenever possible. Each time, the run must continue from a
checkpoint at least as new as the newest complete one before the kill.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from noise_environment import NoiseEnv

from td3_driver.config import LearningConfig, TrainingConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.assembly import online_training

# The trainings are forked: this process has imported all that they need, and does nothing else.
FORK = multiprocessing.get_context("fork")
NEVER_ENDING = 10**9
LONGEST_LIFE_S = 1.0
START_TIMEOUT_S = 120.0


def train(folder: Path, begun_from: Connection) -> None:
    """Resume whatever there is, send the step from which it continues, and train until killed."""
    learning = LearningConfig(
        batch_size=4,
        channels=(4, 4, 4),
        image_features=8,
        hidden=(16,),
        replay_capacity=4000,
        actor_warmup_updates=0,
        device="cpu",
    )
    training = TrainingConfig(
        total_steps=NEVER_ENDING,
        random_steps=10,
        checkpoint_interval_steps=20,
        torch_threads=1,
    )
    resume = (folder / "checkpoints").is_dir() and bool(
        checkpoint.list_checkpoints(folder / "checkpoints")
    )
    run = online_training(
        NoiseEnv((2, 84, 84)),
        np.ones(23, np.float32),
        learning,
        training,
        folder,
        resume=resume,
        say=lambda line: None,
    )
    begun_from.send(run.trainer.standing.step)
    run.run()


def newest(folder: Path) -> int:
    """Return the step of the newest complete checkpoint; 0 if there is none."""
    names = [path.name for path in checkpoint.list_checkpoints(folder / "checkpoints")]
    return int(names[-1][:9]) if names else 0


def kill_one(folder: Path, chance: random.Random) -> dict[str, int]:
    """Start the training, kill it after a while; return where it started and what was there."""
    before = newest(folder)
    begun_from, child_end = FORK.Pipe(duplex=False)
    process = FORK.Process(target=train, args=(folder, child_end))
    process.start()
    child_end.close()
    try:
        try:
            if not begun_from.poll(START_TIMEOUT_S):
                raise SystemExit(f"the run does not start again within {START_TIMEOUT_S:.0f} s")
            step = begun_from.recv()
        except EOFError:
            process.join()
            raise SystemExit(
                f"the run does not start again from {before}: exit {process.exitcode}"
            ) from None
        time.sleep(chance.uniform(0.0, LONGEST_LIFE_S))
        if chance.random() < 0.5:  # wait until a checkpoint is being written
            deadline = time.monotonic() + LONGEST_LIFE_S
            while time.monotonic() < deadline and not _unfinished(folder):
                time.sleep(0.0005)
    finally:
        process.kill()
        process.join()
    return {"from": step, "before": before, "while_writing": int(_unfinished(folder))}


def _unfinished(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".unfinished-*"))


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kills = []
        for number in range(options.kills):
            kills.append(kill_one(folder, chance))
            print(f"kill {number + 1}: {kills[-1]}", flush=True)
        reached = newest(folder)
        refused = len(list((folder / "checkpoints").glob(f"{checkpoint.REFUSED}*")))
    result = {
        "kills": len(kills),
        "resumed_from_newest": sum(kill["from"] == kill["before"] for kill in kills),
        "killed_while_writing": sum(kill["while_writing"] for kill in kills),
        "refused_checkpoints": refused,
        "step_reached": reached,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
