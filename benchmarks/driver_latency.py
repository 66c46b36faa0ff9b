# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Time from a camera message to the command that answers it, with the default networks on CPU.

The driver runs in its own process, as users run it. This process publishes the bridge's topics at
20 Hz, the image first, and receives the commands. Two times are measured for each image:

- round trip: from just before the image is published until its command is received, including DDS
  both ways and the wait for the odometry with the same stamp;
- in the driver: from the arrival of the image until its command is published, as on
  ~/policy_output.

Both processes use the shipped Fast DDS profile, as the launch files do: without it, 800x600 images
do not fit into Fast DDS's shared memory.

Run it on an otherwise idle machine:

    python benchmarks/driver_latency.py
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from scripted_car import TICK_S, ScriptedCar
from untrained_run import make_run

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import ns_from_stamp
from td3_driver.bridge.driver_topics import POLICY_OUTPUT, full_name
from td3_driver.config import CONFIG_FOLDER, Config

SIZES_PX = ((160, 120), (800, 600))
WARM_UP_FRAMES = 40
PROFILES = CONFIG_FOLDER / "fastdds_profiles.xml"
START_TIMEOUT_S = 120.0


def measure(run: Path, width_px: int, height_px: int, frames: int) -> dict[str, float]:
    """Return percentiles in milliseconds over `frames` images of one size."""
    node = rclpy.create_node("driver_latency")
    car = ScriptedCar(node, width_px, height_px)
    in_driver_s: list[float] = []

    def hear_output(message: Any) -> None:
        in_driver_s.append(message.image_to_command_s)

    name = full_name(POLICY_OUTPUT, Config().carla)
    node.create_subscription(POLICY_OUTPUT.message_type, name, hear_output, 10)
    parameters = [f"run:={json.dumps(str(run))}", "random_goal:=false"]
    driver = subprocess.Popen(
        [
            *(sys.executable, "-m", "td3_driver.nodes.driver", "--ros-args"),
            *("--log-level", "error"),
            *(part for parameter in parameters for part in ("-p", parameter)),
        ]
    )
    car.start()
    answers = car.commands[topics.VEHICLE_CONTROL]
    try:
        if not car.wait(car.told_to_drive, START_TIMEOUT_S):
            raise RuntimeError("the driver does not drive")
        _wait(car, in_driver_s, WARM_UP_FRAMES)
        answers.clear()
        in_driver_s.clear()
        _wait(car, in_driver_s, frames)
    finally:
        car.end()
        driver.send_signal(signal.SIGINT)
        driver.wait(timeout=10)
        node.destroy_node()
    round_trip_ms = [
        1e3 * (heard_s - car.images_s[stamp_ns])
        for heard_s, message in answers
        if (stamp_ns := ns_from_stamp(message.header.stamp)) in car.images_s
    ]
    p50, p99 = np.percentile(round_trip_ms, (50, 99))
    driver_p50, driver_p99 = np.percentile(1e3 * np.array(in_driver_s), (50, 99))
    return {
        "images": len(round_trip_ms),
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "max_ms": max(round_trip_ms),
        "in_driver_p50_ms": float(driver_p50),
        "in_driver_p99_ms": float(driver_p99),
    }


def _wait(car: ScriptedCar, answered: list[float], count: int) -> None:
    timeout_s = count * 2.0 * TICK_S + START_TIMEOUT_S
    if not car.wait(lambda: len(answered) >= count, timeout_s):
        raise RuntimeError(f"only {len(answered)} of {count} images were answered")


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000, help="images of each size")
    parser.add_argument("--domain", default="88", help="ROS_DOMAIN_ID to use")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = options.domain
    if PROFILES.is_file():
        for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
            os.environ.setdefault(name, str(PROFILES))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"load average before: {load}; {os.cpu_count()} cores")
    rclpy.init(args=[])
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder) / "run", Config(), critic=True).path
        for width_px, height_px in SIZES_PX:
            result = measure(run, width_px, height_px, options.frames)
            print(f"{width_px}x{height_px}: {result}", flush=True)
            results[f"{width_px}x{height_px}"] = {
                name: round(value, 2) for name, value in result.items()
            }
    rclpy.try_shutdown()
    print(f"load average after: {os.getloadavg()[0]:.2f}")
    print(json.dumps(results))


if __name__ == "__main__":
    main()
