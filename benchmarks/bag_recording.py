# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Record a drive in the embedded simulator and count the camera frames missing from the bag.

The simulator, the driver and the recorder run as users start them (`td3-driver drive --record`).
The simulator stamps its images 0.05 s apart, so every missing image shows. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from td3_driver.bridge import topics
from td3_driver.bridge.messages import ns_from_stamp
from td3_driver.config import CarlaConfig
from td3_driver.offline.bag import Bag


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="latest", help="Run whose actor drives.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--map", default="ring_lakeside")
    parser.add_argument("--bag", type=Path, default=Path("bags/benchmark"), help="Overwritten.")
    given = parser.parse_args()
    shutil.rmtree(given.bag, ignore_errors=True)
    load_before = os.getloadavg()[0]
    cpu_s = record(given.run, given.map, given.bag, 60.0 * given.minutes)
    with Bag(given.bag) as bag:
        image = topics.IMAGE.name(CarlaConfig())
        stamps = [
            ns_from_stamp(bag.decode(message).header.stamp) for message in bag.messages([image])
        ]
        messages = sum(topic.count for topic in bag.topics.values())
        notes = bag.notes
    ticks = np.round(np.diff(np.array(stamps)) / 50e6).astype(int)
    size = sum(file.stat().st_size for file in given.bag.iterdir())
    result = {
        "benchmark": "bag_recording",
        "minutes": round(1e-9 * (stamps[-1] - stamps[0]) / 60.0, 2),
        "images": len(stamps),
        "lost_images": int(np.sum(ticks - 1)),
        "messages": messages,
        "megabytes": round(size / 1e6, 1),
        "cpu_share_of_all_processes": round(cpu_s / (60.0 * given.minutes), 3),
        "notes": notes,
        "load_average_before": round(load_before, 2),
        "load_average_after": round(os.getloadavg()[0], 2),
    }
    for name, value in result.items():
        print(f"{name + ':':<28}{value}")
    print(json.dumps(result))


def record(run: str, map_name: str, bag: Path, duration_s: float) -> float:
    """Drive and record; return the CPU time of all processes in seconds."""
    command = [sys.executable, "-m", "td3_driver.cli", "drive", run, "--map", map_name]
    begin_s = os.times().children_user + os.times().children_system
    process = subprocess.Popen([*command, "--record", str(bag)])
    time.sleep(duration_s)
    process.send_signal(signal.SIGINT)
    process.wait()
    return os.times().children_user + os.times().children_system - begin_s


if __name__ == "__main__":
    main()
