# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Time a tick of the embedded simulator in process: plain, under a look, with traffic, and so on.

Blocks of ticks alternate between the worlds, so that all run under the same load. The look is the
costliest, with rain, haze, blur and noise. Run it on an otherwise idle machine:

    python benchmarks/simulator_tick.py
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median

import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Start, VehicleControl
from td3_driver.simulator.world import SimulatedWorld

MAP = "ring_meadow"
LOOK = "drizzle"
VEHICLES, MANY_VEHICLES = 8, 30
OBSTACLES = 8
BLOCK_TICKS = 50
ROUTE_M = 200.0
FORWARD = VehicleControl(throttle=0.3)


def time_ticks(world: SimulatedWorld, ticks: int) -> list[float]:
    """Return the milliseconds of each tick."""
    times_ms = []
    for _ in range(ticks):
        begin = time.perf_counter()
        world.step(FORWARD)
        times_ms.append((time.perf_counter() - begin) * 1e3)
    return times_ms


def measure(blocks: int) -> dict[str, float]:
    """Return medians in milliseconds, and their ratios to a plain tick."""
    plain = SimulatorConfig(map=MAP)
    configs = {
        "plain": plain,
        "look": plain.model_copy(update={"look": LOOK}),
        "traffic": plain.model_copy(update={"traffic_vehicles": VEHICLES}),
        "dense": plain.model_copy(update={"traffic_vehicles": MANY_VEHICLES}),
        "obstacles": plain.model_copy(update={"obstacles": OBSTACLES}),
        "drawn": plain.model_copy(update={"looks": "strong"}),
        "roadside": plain.model_copy(update={"roadside": True}),
    }
    worlds = {name: SimulatedWorld(config) for name, config in configs.items()}
    pose, goal = worlds["plain"].road_map.random_start(np.random.default_rng(0), ROUTE_M)
    ticks: dict[str, list[float]] = {name: [] for name in worlds}
    resets: dict[str, list[float]] = {name: [] for name in worlds}
    for block in range(blocks):
        for name, world in worlds.items():
            begin = time.perf_counter()
            world.reset(Start(MAP, pose, goal, seed=block))
            resets[name].append((time.perf_counter() - begin) * 1e3)
            ticks[name] += time_ticks(world, BLOCK_TICKS)
    result = {f"{name}_ms": median(times) for name, times in ticks.items()}
    result |= {f"{name}_reset_ms": median(times) for name, times in resets.items()}
    result["longest_drawn_reset_ms"] = max(resets["drawn"])
    for name in configs.keys() - {"plain"}:
        result[f"{name}_ratio"] = result[f"{name}_ms"] / result["plain_ms"]
    return result


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=40, help="blocks of ticks in each world")
    result = measure(parser.parse_args().blocks)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
