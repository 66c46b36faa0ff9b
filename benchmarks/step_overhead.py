"""Time an environment step over ROS topics against the same step in process.

The simulator's node runs in a process of its own, as users run it. Blocks of steps alternate
between the two, so that both meet the same machine. Run on a machine that does nothing else:

    python benchmarks/step_overhead.py
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from statistics import median

import numpy as np
import rclpy

from td3_driver.carla.world import CarlaWorld
from td3_driver.config import CarlaConfig, SimulatorConfig
from td3_driver.driving.world import Start, VehicleControl, World
from td3_driver.simulator.world import SimulatedWorld

BLOCK_STEPS = 25
WARM_UP_STEPS = 50
ROUTE_M = 200.0


def time_steps(world: World, steps: int) -> list[float]:
    """Return the milliseconds that each of `steps` steps takes."""
    control = VehicleControl(throttle=0.3)
    times_ms = []
    for _ in range(steps):
        start = time.perf_counter()
        world.step(control)
        times_ms.append((time.perf_counter() - start) * 1e3)
    return times_ms


def measure(steps: int) -> dict[str, float]:
    """Return medians in milliseconds, from `steps` steps of each kind."""
    config = SimulatorConfig()
    in_process = SimulatedWorld(config)
    pose, goal = in_process.road_map.random_start(np.random.default_rng(0), ROUTE_M)
    start = Start(config.map, pose, goal)
    rclpy.init(args=[])
    simulator = subprocess.Popen([sys.executable, "-m", "td3_driver.nodes.simulator"])
    try:
        over_topics = CarlaWorld(rclpy.create_node("step_overhead"), CarlaConfig())
        worlds: dict[str, World] = {"in_process_ms": in_process, "topics_ms": over_topics}
        times: dict[str, list[float]] = {name: [] for name in worlds}
        for world in worlds.values():
            world.reset(start)
            time_steps(world, WARM_UP_STEPS)
        while len(times["topics_ms"]) < steps:
            for name, world in worlds.items():
                world.reset(start)
                times[name] += time_steps(world, BLOCK_STEPS)
        print(f"counters: {over_topics.counters}")
        over_topics.close()
    finally:
        simulator.send_signal(signal.SIGINT)
        simulator.wait(timeout=10)
        rclpy.try_shutdown()
    for name, values in times.items():
        low, high = np.percentile(values, (5, 95))
        print(f"{name}: median {median(values):.3f}, 5 % {low:.3f}, 95 % {high:.3f}")
    result = {name: median(values) for name, values in times.items()}
    return {**result, "overhead_ms": result["topics_ms"] - result["in_process_ms"]}


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500, help="steps of each kind")
    parser.add_argument("--domain", default="87", help="ROS_DOMAIN_ID to use")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = options.domain
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"load average before: {load}; {os.cpu_count()} cores")
    result = measure(options.steps)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
