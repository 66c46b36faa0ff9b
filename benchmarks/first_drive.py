# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Train the first drive with several seeds, as `make train` does, and evaluate each.

    python benchmarks/first_drive.py --seeds 5

Each seed is one `td3-driver train --config first_drive --evaluate`, with the simulator and the
trainer as two processes that communicate over topics. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean

COMPLETION_WANTED = 0.95
FAILURES_ALLOWED = 1


def train(seed: int, folder: Path, config: str, settings: list[str]) -> dict[str, float]:
    """Train and evaluate one seed; return the result and how long it took in seconds."""
    overrides = [f"training.seed={seed}", *settings]
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "td3_driver.cli", "train", "--config", config, "--evaluate"]
        + ["--run", str(folder)]
        + [part for override in overrides for part in ("--set", override)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    total_s = time.monotonic() - begin
    result = json.loads((folder / "evaluation.json").read_text())
    rows = (folder / "metrics.csv").read_text().splitlines()
    wall_s = float(rows[-1].split(",")[rows[0].split(",").index("wall_s")])
    episodes = result["episodes"]
    return {
        "seed": seed,
        "route_completion_mean": result["route_completion_mean"],
        "failed": sum(episode["ended_by"] != "route_end" for episode in episodes),
        "episodes": len(episodes),
        "steering_change_mean": round(
            mean(episode["steering_change_mean"] for episode in episodes), 4
        ),
        "training_s": round(wall_s, 1),
        "total_s": round(total_s, 1),
    }


def main() -> None:
    """Run the seeds one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds (default 5)")
    parser.add_argument("--config", default="first_drive", help="configuration to train with")
    parser.add_argument("--set", nargs="*", default=[], help="section.setting=value ...")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            load = os.getloadavg()[0]
            row = train(seed, Path(scratch) / f"seed-{seed}", arguments.config, arguments.set)
            rows.append(row)
            print(f"{row}  load average before: {load:.2f}", flush=True)
    good = sum(
        row["route_completion_mean"] >= COMPLETION_WANTED and row["failed"] <= FAILURES_ALLOWED
        for row in rows
    )
    print(json.dumps({"seeds": len(rows), "good_seeds": good, "rows": rows}))


if __name__ == "__main__":
    main()
