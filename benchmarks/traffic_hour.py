# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Let the embedded simulator's traffic drive for an hour of simulated time, without a camera.

The mean speed in every ten minutes shows whether the traffic still flows, and the longest stand of
any vehicle whether some of it waits for ever:

    python benchmarks/traffic_hour.py
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from td3_driver.driving.world import Pose
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.shapes import Rectangle
from td3_driver.simulator.traffic import Traffic

DT_S = 0.05
STANDING_MPS = 0.1
ELSEWHERE = Rectangle(Pose(1e4, 1e4, 0.0), 4.8, 1.9)
"""The ego is in nobody's way."""


def drive(name: str, count: int, seed: int, seconds: float, part_s: float) -> dict[str, object]:
    """Return the mean speed of each part (m/s), and the longest stand of a vehicle (s)."""
    traffic = Traffic(RoadMap.load(name))
    traffic.populate(count, np.random.default_rng(seed), ELSEWHERE.pose)
    stands_s: np.ndarray = np.zeros(len(traffic.vehicles))
    longest_s, means, speeds = 0.0, [], []
    for tick in range(1, round(seconds / DT_S) + 1):
        traffic.step(DT_S, ELSEWHERE, 0.0)
        now = np.array([vehicle.speed for vehicle in traffic.vehicles])
        stands_s = np.where(now < STANDING_MPS, stands_s + DT_S, 0.0)
        longest_s = max(longest_s, float(stands_s.max()))
        speeds.append(float(now.mean()))
        if tick % round(part_s / DT_S) == 0:
            means.append(round(float(np.mean(speeds)), 2))
            speeds.clear()
    return {"means_mps": means, "longest_stand_s": round(longest_s, 1)}


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--maps", nargs="+", default=["ring_meadow", "grid_old_town"])
    parser.add_argument("--vehicles", type=int, nargs="+", default=[8, 20])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600.0, help="simulated time")
    parser.add_argument("--part", type=float, default=600.0, help="seconds of one mean")
    given = parser.parse_args()
    rows = {}
    for name in given.maps:
        for count in given.vehicles:
            begin_s = time.process_time()
            row = drive(name, count, given.seed, given.seconds, given.part)
            rows[f"{name}, {count}"] = row
            print(f"{name}, {count} vehicles: {row}, {time.process_time() - begin_s:.0f} CPU s")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
