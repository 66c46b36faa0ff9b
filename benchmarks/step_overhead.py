# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Time an environment step over ROS topics against the same step in process.

The simulator's node runs in its own process, as users run it. Blocks of steps alternate between
the two, so that both run under the same load. Run it on an otherwise idle machine:

    python benchmarks/step_overhead.py
    python benchmarks/step_overhead.py --size 800x600 --compare-profiles

The second command alternates between Fast DDS's own settings and the shipped profile, with large
images.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import rclpy

from td3_driver.config import CarlaConfig, SimulatorConfig
from td3_driver.driving.world import Start, VehicleControl, World, WorldError
from td3_driver.launching import fastdds
from td3_driver.lockstep.world import CarlaWorld
from td3_driver.simulator.world import SimulatedWorld

BLOCK_STEPS = 25
WARM_UP_STEPS = 50
ROUTE_M = 200.0
RESET_TRIES = 20


def time_steps(world: World, steps: int) -> list[float]:
    """Return the milliseconds that each of `steps` steps takes, even if one loses its image."""
    control = VehicleControl(throttle=0.3)
    times_ms = []
    for _ in range(steps):
        start = time.perf_counter()
        with contextlib.suppress(WorldError):
            world.step(control)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return times_ms


def reset(world: World, start: Start) -> int:
    """Reset a world; return how often that failed first: best-effort images can be lost."""
    for failed in range(RESET_TRIES):
        try:
            world.reset(start)
        except WorldError as error:
            print(f"reset: {error}")
        else:
            return failed
    raise WorldError(f"{RESET_TRIES} resets failed")


def measure(steps: int, width_px: int, height_px: int) -> dict[str, float]:
    """Return medians in milliseconds, from `steps` steps of each kind."""
    size: dict[str, Any] = {"image_width_px": width_px, "image_height_px": height_px}
    config = SimulatorConfig(**size)
    in_process = SimulatedWorld(config)
    pose, goal = in_process.road_map.random_start(np.random.default_rng(0), ROUTE_M)
    start = Start(config.map, pose, goal)
    rclpy.init(args=[])
    given = [part for name, value in size.items() for part in ("-p", f"simulator.{name}:={value}")]
    simulator = subprocess.Popen(
        [sys.executable, "-m", "td3_driver.nodes.simulator", "--ros-args", *given]
    )
    try:
        over_topics = CarlaWorld(rclpy.create_node("step_overhead"), CarlaConfig())
        worlds: dict[str, World] = {"in_process_ms": in_process, "topics_ms": over_topics}
        times: dict[str, list[float]] = {name: [] for name in worlds}
        failed_resets = 0
        for world in worlds.values():
            failed_resets += reset(world, start)
            time_steps(world, WARM_UP_STEPS)
        while len(times["topics_ms"]) < steps:
            for name, world in worlds.items():
                failed_resets += reset(world, start)
                times[name] += time_steps(world, BLOCK_STEPS)
        print(f"counters: {over_topics.counters}; failed resets: {failed_resets}")
        lost = over_topics.counters.incomplete_ticks
        ticks = over_topics.counters.ticks
        over_topics.close()
    finally:
        simulator.send_signal(signal.SIGINT)
        simulator.wait(timeout=10)
        rclpy.try_shutdown()
    for name, values in times.items():
        low, high = np.percentile(values, (5, 95))
        print(f"{name}: median {median(values):.3f}, 5 % {low:.3f}, 95 % {high:.3f}")
    result = {name: median(values) for name, values in times.items()}
    overhead_ms = result["topics_ms"] - result["in_process_ms"]
    return {**result, "overhead_ms": overhead_ms, "lost_share": lost / ticks}


def compare_profiles(steps: int, size: str, rounds: int) -> dict[str, float]:
    """Return medians over `rounds` measurements without and with the shipped profile."""
    found: dict[str, list[dict[str, float]]] = {"none": [], "shipped": []}
    for _ in range(rounds):
        # The profile is read when ROS is loaded, so each measurement runs in its own process.
        for profile, results in found.items():
            command = [sys.executable, __file__, "--steps", str(steps), "--size", size]
            done = subprocess.run(
                [*command, "--profile", profile, "--domain", os.environ["ROS_DOMAIN_ID"]],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            print(f"--- profile: {profile}\n{done.stdout}", flush=True)
            results.append(json.loads(done.stdout.splitlines()[-1]))
    return {
        f"{profile}_{name}": median(result[name] for result in results)
        for profile, results in found.items()
        for name in ("topics_ms", "overhead_ms", "lost_share")
    }


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="steps of each kind")
    parser.add_argument("--domain", default="87", help="ROS_DOMAIN_ID to use")
    parser.add_argument("--size", default="160x120", help="size of the camera images")
    parser.add_argument(
        "--profile",
        choices=("yours", "none", "shipped"),
        default="yours",
        help="Fast DDS profile: the environment's, none, or the shipped one",
    )
    parser.add_argument(
        "--compare-profiles", action="store_true", help="no profile and shipped one"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = options.domain
    if options.profile != "yours":
        for name in fastdds.CHOICES:
            os.environ.pop(name, None)
    if options.profile == "shipped":
        os.environ.update(fastdds.environment(os.environ))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"load average before: {load}; {os.cpu_count()} cores")
    if options.compare_profiles:
        result = compare_profiles(options.steps, options.size, options.rounds)
    else:
        width_px, height_px = map(int, options.size.split("x"))
        result = measure(options.steps, width_px, height_px)
    print(json.dumps({name: round(value, 4) for name, value in result.items()}))


if __name__ == "__main__":
    main()
