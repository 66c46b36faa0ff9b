# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Measure how long a checkpoint with a full replay buffer holds up training.

    python benchmarks/checkpoint_pause.py --frames 100000

Training runs with the default networks on a buffer of noise. The copying of each checkpoint is
timed, and so are the gaps between environment steps and between updates while it is being written.
The gaps include the time of a step or an update itself, so those without a checkpoint are given as
well. The first checkpoint is of a buffer that has just been resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from noise_environment import NoiseEnv

from td3_driver.config import LearningConfig, TrainingConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.assembly import online_training
from td3_driver.learning.replay import ReplayBuffer

IMAGES = (4, 84, 84)


def fill(replay: ReplayBuffer) -> None:
    """Fill a buffer with episodes of noise, as in a resumed run."""
    frames, spec = replay.capacity, replay.spec
    assert spec.image is not None
    replay.restore(
        {
            "images": torch.randint(0, 256, (frames, *spec.image[1:]), dtype=torch.uint8),
            "vectors": torch.rand(frames, spec.vector),
            "actions": torch.rand(frames, spec.actions),
            "rewards": torch.rand(frames),
            "terminated": torch.zeros(frames, dtype=torch.bool),
            "stacked": torch.full((frames,), spec.stack - 1, dtype=torch.uint8),
            "priorities": (torch.arange(frames) < frames - 1).float(),
            "transitions": torch.arange(frames),
            "counters": torch.tensor([frames, 0, frames - 1]),
            "greatest_priority": torch.tensor(1.0),
        }
    )


def measure(frames: int, checkpoints: int, interval: int, batch: int) -> dict[str, float]:
    """Train across several checkpoints; return times in seconds."""
    steps: list[float] = []
    updates: list[float] = []
    copied: list[tuple[float, float]] = []
    written: list[float] = []
    learning = LearningConfig(
        replay_capacity=frames, batch_size=batch, device="cpu", replay_memory_fraction=0.9
    )
    training = TrainingConfig(
        total_steps=interval * (checkpoints + 1) - 1,
        random_steps=interval // 2,
        checkpoint_interval_steps=interval,
    )
    with tempfile.TemporaryDirectory() as name:
        run = online_training(
            NoiseEnv(IMAGES),
            np.ones(23, np.float32),
            learning,
            training,
            Path(name),
            show=lambda progress: steps.append(time.perf_counter()),
        )
        trainer = run.trainer
        assert isinstance(trainer.replay, ReplayBuffer)
        fill(trainer.replay)
        plain_update, plain_save = trainer.learner.update, trainer.save
        plain_write = checkpoint.write

        def update(*arguments: object) -> object:
            result = plain_update(*arguments)  # type: ignore[arg-type]
            updates.append(time.perf_counter())
            return result

        def save(counters: Mapping[str, Any]) -> None:
            start = time.perf_counter()
            plain_save(counters)
            copied.append((start, time.perf_counter() - start))

        def write(*arguments: object) -> object:
            start = time.perf_counter()
            result = plain_write(*arguments)  # type: ignore[arg-type]
            written.append(time.perf_counter() - start)
            return result

        trainer.learner.update = update  # type: ignore
        trainer.save = save  # type: ignore[method-assign]
        checkpoint.write = write  # type: ignore[assignment]
        run.run()
        size = sum(
            file.stat().st_size for file in checkpoint.latest(Path(name) / "checkpoints").iterdir()
        )
    copied.pop()  # the last one, at the end of the run, holds nobody up
    written.pop()
    for (_, pause), writing in zip(copied, written, strict=True):
        print(
            f"training stood still for {pause:.3f} s; the checkpoint was written in {writing:.2f}"
        )
    windows = [
        (start, start + pause + writing)
        for (start, pause), writing in zip(copied, written, strict=True)
    ]
    result = {"checkpoint_mb": size / 1e6, "write_s": max(written)}
    result["longest_pause_s"] = max(pause for _, pause in copied)
    for kind, times in (("step", steps), ("update", updates)):
        gaps = list(zip(times, np.diff(times), strict=False))
        inside = [
            gap for at, gap in gaps if any(at < end and at + gap > start for start, end in windows)
        ]
        outside = [gap for _, gap in gaps if gap not in inside]
        result[f"longest_{kind}_gap_s"] = max(inside)
        result[f"longest_{kind}_gap_without_s"] = max(outside)
    return result


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--checkpoints", type=int, default=2)
    parser.add_argument("--interval", type=int, default=400, help="steps between checkpoints")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"load average before: {load}; {os.cpu_count()} cores")
    result = measure(options.frames, options.checkpoints, options.interval, options.batch)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
