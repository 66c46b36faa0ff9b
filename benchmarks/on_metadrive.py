# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Drive policies on MetaDrive's roads, which nobody here made, until they leave the lane.

    python benchmarks/on_metadrive.py --policy runs/plain runs/strong --baseline straight_on

In an environment of this project, it needs more packages:

    pip install --no-deps -r benchmarks/requirements-metadrive.txt

It renders off-screen, with EGL; without a display or GPU, Mesa's software renderer does:
EGL_PLATFORM=surfaceless. The policies are driven as they are, without noise, from the same starts.
A drive ends as in training: two decisions in a row more than `driving.lateral_limit_m` beside the
lane's middle. `--strip` saves what the first driver saw on the first road. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from metadrive_world import MetaDriveWorld

from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import Frame, Start
from td3_driver.evaluation.contenders import Contender, find_contenders
from td3_driver.evaluation.rollout import drive_episode

PICTURES = 6
"""In a strip."""
NEVER = 1_000_000
"""Ticks between two pictures for a baseline, which does not look."""
SHOWN_EVERY = 50
"""Decisions between two lines of progress."""


@dataclass(frozen=True)
class Drive:
    """How far one driver came on one road."""

    driver: str
    seed: int
    metres: float
    """Along the lane, from the start to where the drive ended."""
    ended_by: str
    mean_speed_mps: float
    off_centre_m: float
    """Mean distance from the lane's middle, over all decisions."""
    cpu_s: float


def drive(
    world: MetaDriveWorld, contender: Contender, start: Start, strip: Path | None = None
) -> Drive:
    """Drive once; save what was seen as `strip`, if there is to be one."""
    env = DrivingEnv(world, lambda _: start, contender.driving)
    world.drawn_every = NEVER if contender.baseline else contender.driving.action_repeat
    off_centre_m: list[float] = []
    images: list[np.ndarray] = []

    def watch(frame: Frame) -> None:
        place = env.task.projection
        off_centre_m.append(abs(place.lateral_m))
        images.append(frame.image)
        if len(images) % SHOWN_EVERY == 0:
            say(f"{contender.label}, road {start.seed}: {place.progress_m:.0f} m")

    begin_s = time.process_time()
    summary = drive_episode(env, contender.act(), start, watch).summary
    if strip is not None:
        save_strip(images, strip)
    return Drive(
        driver=contender.label,
        seed=start.seed,
        metres=round(summary.route_completion * summary.route_length_m, 1),
        ended_by=summary.ended_by,
        mean_speed_mps=round(summary.distance_m / summary.duration_s, 2),
        off_centre_m=round(mean(off_centre_m), 2),
        cpu_s=round(time.process_time() - begin_s, 1),
    )


def say(line: str) -> None:
    """Show how far it is."""
    print(line, file=sys.stderr, flush=True)


def save_strip(images: Sequence[np.ndarray], path: Path) -> None:
    """Save pictures of a drive, evenly apart, side by side."""
    from PIL import Image

    chosen = np.linspace(0, len(images) - 1, PICTURES).astype(int)
    strip = np.concatenate([images[which][:, :, 2::-1] for which in chosen], axis=1)
    Image.fromarray(np.ascontiguousarray(strip)).quantize(64).save(path, optimize=True)


def table(drives: Sequence[Drive]) -> str:
    """Return the drives as a table, a line for each driver."""
    lines = ["| driver | metres, mean | each | ended by |", "|---|---|---|---|"]
    for driver in dict.fromkeys(each.driver for each in drives):
        its = [each for each in drives if each.driver == driver]
        each_m = ", ".join(f"{one.metres:.0f}" for one in its)
        ends = ", ".join(one.ended_by for one in its)
        lines.append(f"| {driver} | {mean(one.metres for one in its):.0f} | {each_m} | {ends} |")
    return "\n".join(lines)


def main() -> None:
    """Drive all drivers on the first road, then on the next."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", nargs="*", default=[], help="run, or folder of a checkpoint")
    parser.add_argument("--baseline", nargs="*", default=[], help="such as straight_on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3], help="of the roads")
    parser.add_argument("--length", type=float, default=150.0, help="metres of each road")
    parser.add_argument("--strip", type=Path, help="PNG file of what the first driver saw")
    given = parser.parse_args()
    contenders = find_contenders(given.policy, given.baseline)
    world = MetaDriveWorld(contenders[0].simulator)
    drives: list[Drive] = []
    for seed in given.seeds:
        for contender in contenders:
            start = world.start_on(seed, given.length)
            drives.append(drive(world, contender, start, None if drives else given.strip))
            say(str(drives[-1]))
    world.close()
    print(table(drives))
    print(json.dumps({"length_m": given.length, "drives": [asdict(each) for each in drives]}))


if __name__ == "__main__":
    main()
