# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Inspect a recorded drive (see `bag_recording.py`) and measure time and memory.

It is measured twice: with the run given, and with the default configuration's full networks,
untrained and deciding on every image, which is the most expensive case. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from td3_driver.config import Config
from td3_driver.driving.observation import ACTIONS, vector_scale
from td3_driver.learning import checkpoint, manifest
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import save_actor
from td3_driver.learning.td3 import TD3
from td3_driver.runs import RunFolder


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bag", type=Path, default=Path("bags/benchmark"))
    parser.add_argument("--run", default="latest")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = {"given": given.run, "full": str(untrained_run(Path(folder) / "full").path)}
        results = {
            name: inspect(given.bag, run, Path(folder) / "page.html") for name, run in runs.items()
        }
    for name, result in results.items():
        print(f"{name}: {result}")
    print(json.dumps({"benchmark": "bag_inspection", **results}))


def untrained_run(path: Path) -> RunFolder:
    """Make a run with the default configuration's networks, actor and learner."""
    config = Config()
    run = RunFolder.create(str(path), config)
    driving, learning = config.driving, config.learning
    spec = NetworkSpec(
        image=(driving.image_stack, driving.image_size_px, driving.image_size_px),
        vector_scale=tuple(vector_scale(driving).tolist()),
        actions=len(ACTIONS),
        channels=learning.channels,
        image_features=learning.image_features,
        hidden=learning.hidden,
    )
    learner = TD3(spec, learning, torch.device("cpu"))
    step = run.checkpoints / "000000001"
    step.mkdir(parents=True)
    save_actor(step, learner.actor, spec)
    save_file(learner_tensors(learner, {}), step / checkpoint.LEARNER)
    manifest.seal(step)
    return run


def inspect(bag: Path, run: str, page: Path) -> dict[str, float]:
    """Run `td3-driver inspect` as users do."""
    load = os.getloadavg()[0]
    before, begin_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "td3_driver.cli", "inspect", str(bag), "--run", run]
    subprocess.run([*command, "--out", str(page)], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "wall_s": round(time.monotonic() - begin_s, 1),
        "cpu_s": round(cpu_s, 1),
        "peak_memory_mb": round(after.ru_maxrss / 1e3),
        "page_mb": round(page.stat().st_size / 1e6, 1),
        "load_average_before": round(load, 1),
    }


if __name__ == "__main__":
    main()
