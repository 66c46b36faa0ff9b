# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Compare learning from bags of the baseline, then continuing online, with starting fresh.

    python benchmarks/offline.py

The baseline drives the training maps for 20 minutes of simulated time, recorded into bags. For
each seed, one policy is pretrained on these (`config/first_drive.yaml`), drives held-out maps and
continues online; another starts fresh. Both drive the held-out maps without noise every 100
decisions, and every 400 once they drive well. Everything runs in process, with one thread per
training, and updates and decisions take turns. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ackermann_msgs.msg import AckermannDrive
from carla_msgs.msg import CarlaStatus
from in_process import Examiner, completion_of, settings_of, train
from rclpy.serialization import serialize_message
from safetensors.torch import save_file
from std_msgs.msg import Float32
from tqdm import tqdm

from td3_driver.bridge import conversion, topics
from td3_driver.bridge.topics import Topic
from td3_driver.config import Config, override
from td3_driver.deployment.task_networks import networks_of
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.control import AT_REST, Command, stopping
from td3_driver.driving.pilot import Halt, Pilot
from td3_driver.driving.world import Frame
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.policy import Policy, load_tensors
from td3_driver.learning.trainer import Progress
from td3_driver.learning.warm_start import adopt, restored
from td3_driver.offline.bag import Bag
from td3_driver.offline.frames import BagFrames
from td3_driver.offline.pretraining import (
    offline_config,
    read_transitions,
    train_on,
)
from td3_driver.offline.writer import BagWriter
from td3_driver.roads.starts import StartSampler
from td3_driver.runs import RunFolder
from td3_driver.simulator.world import SimulatedWorld

WANTED = 0.95
"""Mean route completion on held-out maps that counts as driving."""
EXAMINE_EVERY = 100
EXAMINE_RARELY = 400
"""Decisions between examinations, once the policy drives."""
ALONE_EPISODES = 15
ONLINE_STEPS = 4000
FRESH_STEPS = 2500
EPOCH_NS = 1_700_000_000_000_000_000
TICK_NS = 50_000_000
RECORDED = "recorded.safetensors"


# --- recording -------------------------------------------------------------------------------


def record(config: Config, minutes: float, folder: Path) -> list[Path]:
    """Let the baseline drive each training map; return a bag for each, new or existing."""
    ticks = int(60.0 * minutes / config.simulator.fixed_delta_s / len(config.training.maps))
    bags = []
    for name in tqdm(config.training.maps, "record", unit="map"):
        bags.append(folder / name)
        if bags[-1].exists():
            continue
        with BagWriter(bags[-1]) as writer:
            write_drive(writer, config, name, ticks)
    return bags


def write_drive(writer: BagWriter, config: Config, name: str, ticks: int) -> None:
    """Record the baseline on a map, start after start, as a bridge and a driver publish it."""
    known: set[Topic] = set()

    def write(log_ns: int, told: Iterable[tuple[Topic, Any]]) -> None:
        for place, (topic, message) in enumerate(told):
            if topic not in known:
                known.add(topic)
                writer.add_topic(topic.name(config.carla), topic.type_name)
            writer.write(
                topic.name(config.carla), log_ns + place * 500_000, serialize_message(message)
            )

    for tick, (frame, command, new_route) in enumerate(driven(config, name, ticks)):
        route = [(topics.WAYPOINTS, conversion.route_to_path(frame.route, header_of(frame)))]
        write(
            EPOCH_NS + tick * TICK_NS,
            chain(route if new_route else (), told(frame), answered(frame, command)),
        )


def driven(config: Config, name: str, ticks: int) -> Iterator[tuple[Frame, Command, bool]]:
    """Yield frames with the baseline's commands, and whether the route is new."""
    world = SimulatedWorld(config.simulator.model_copy(update={"map": name}))
    starts = StartSampler([name], config.training.route_length_m)
    rng = np.random.default_rng(0)
    pilot = Pilot(config.driving, world.fixed_delta_s, RouteFollower(config.driving).act)
    # Time must continue from one episode to the next, as in a running simulator.
    frame = world.reset(starts(rng))
    new_route, command = True, AT_REST
    for _ in range(ticks):
        decision = pilot.drive(frame)
        arrived = isinstance(decision, Halt)
        command = stopping(command) if isinstance(decision, Halt) else decision
        yield frame, command, new_route
        new_route = arrived
        frame = world.reset(starts(rng)) if new_route else world.step(command.control)


def header_of(frame: Frame) -> Any:
    """Return a header with the frame's time."""
    return conversion.make_header(frame.stamp_ns)


def told(frame: Frame) -> Iterator[tuple[Topic, Any]]:
    """Yield what the bridge publishes for a tick."""
    header = header_of(frame)
    yield (
        topics.STATUS,
        CarlaStatus(frame=frame.frame, fixed_delta_seconds=1e-9 * TICK_NS, synchronous_mode=True),
    )
    status = (frame.pose, frame.speed, (0.0, 0.0, 0.0), frame.control, header)
    yield topics.VEHICLE_STATUS, conversion.vehicle_status_to_message(*status)
    yield topics.IMAGE, conversion.image_to_message(frame.image, header)
    for collision in frame.collisions:
        yield topics.COLLISION, conversion.collision_to_message(collision, "collision")
    for invasion in frame.lane_invasions:
        yield topics.LANE_INVASION, conversion.lane_invasion_to_message(invasion, "lane_invasion")
    velocity = (frame.speed, 0.0, frame.yaw_rate)
    yield topics.ODOMETRY, conversion.odometry_to_message(frame.pose, velocity, header, "ego")
    yield topics.SPEEDOMETER, Float32(data=frame.speed)


def answered(frame: Frame, command: Command) -> Iterator[tuple[Topic, Any]]:
    """Yield what the driver publishes for a frame."""
    ackermann = command.ackermann
    yield (
        topics.ACKERMANN,
        AckermannDrive(steering_angle=ackermann.steering_angle, speed=ackermann.speed),
    )
    yield topics.VEHICLE_CONTROL, conversion.control_to_message(command.control, frame.stamp_ns)


# --- training --------------------------------------------------------------------------------


def train_online(
    config: Config, folder: Path, before: list[tuple[int, float]], stop_there: bool
) -> list[tuple[int, float]]:
    """Train online; return decisions and completion at each examination, after those given.

    Once the wanted completion is reached, the training ends, or is examined less often.
    """
    points = list(before)

    def examine(progress: Progress, training: OnlineTraining, examiner: Examiner) -> None:
        reached = any(completion >= WANTED for _, completion in points)
        if progress.step % (EXAMINE_RARELY if reached else EXAMINE_EVERY):
            return
        if progress.step <= config.training.random_steps:
            return
        points.append((progress.step, completion_of(training, examiner)))
        if stop_there and points[-1][1] >= WANTED:
            training.stop()

    train(config, folder, examine)
    return points


def fresh(seed: int, folder: Path) -> dict[str, Any]:
    """Train from nothing until it drives."""
    config = settings_of(seed, {"training.total_steps": FRESH_STEPS})
    run = RunFolder.create(f"{folder}/fresh-{seed}", config)
    points = train_online(config, run.path, [], stop_there=True)
    return {"kind": "fresh", "seed": seed, "points": points, "steps": steps_to_wanted(points)}


def continued(seed: int, folder: Path) -> dict[str, Any]:
    """Pretrain, examine, and continue online."""
    pretrained, checkpoint = pretrained_on(seed, folder)
    config = pretrained.config
    policy = Policy.load(checkpoint)
    examiner = Examiner(config)
    alone = examiner.completion(policy.act, ALONE_EPISODES)
    first = (0, examiner.completion(policy.act))
    # As `td3-driver train --from` does.
    own = {"training.random_steps": 0, "training.total_steps": ONLINE_STEPS}
    config = override(config, own, "the benchmark")
    run = RunFolder.create(f"{folder}/continued-{seed}", config)
    adopt(checkpoint, run.path)
    points = train_online(config, run.path, [first], stop_there=False)
    return {
        "kind": "continued",
        "seed": seed,
        "pretrained": round(alone, 4),
        "points": points,
        "steps": steps_to_wanted(points),
    }


def pretrained_on(seed: int, folder: Path) -> tuple[RunFolder, Path]:
    """Pretrain on the recordings; return the run and its checkpoint, new or existing."""
    path = folder / f"pretrained-{seed}"
    if (path / "checkpoints" / "latest").exists():
        run = RunFolder(path)
        return run, run.latest_checkpoint()
    run = RunFolder.create(str(path), offline_config(settings_of(seed, {})))
    config = run.config
    spec = networks_of(config)
    state = load_tensors(folder / RECORDED)
    recorded = restored(state, spec, config.learning, "cpu")
    return run, train_on(recorded, run).checkpoint


def steps_to_wanted(points: list[tuple[int, float]]) -> int | None:
    """Return the decisions until the completion was reached; None if it never was."""
    return next((step for step, completion in points if completion >= WANTED), None)


# --- all of it -------------------------------------------------------------------------------


def run_all(seeds: int, jobs: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Record, pretrain and train; return the results."""
    config = settings_of(0, {})
    bags = record(config, minutes, folder)
    if not (folder / RECORDED).exists():
        with ExitStack() as opened:
            sources = [BagFrames(opened.enter_context(Bag(bag)), config.carla) for bag in bags]
            save_file(read_transitions(sources, config).state(), folder / RECORDED)
    baseline = Examiner(config).completion(RouteFollower(config.driving).act, ALONE_EPISODES)
    work = [(kind, seed) for seed in range(seeds) for kind in ("continued", "fresh")]

    def one(job: tuple[str, int]) -> dict[str, Any]:
        kind, seed = job
        row = folder / f"{kind}-{seed}.json"
        if row.exists():  # measured before
            return json.loads(row.read_text())
        command = [sys.executable, __file__, "--one", kind, str(seed), "--folder", str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.loads(row.read_text())

    with ThreadPoolExecutor(jobs) as pool:
        rows = list(tqdm(pool.map(one, work), "trainings", len(work)))
    return {"bags": len(bags), "baseline": round(baseline, 4), "rows": rows}


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| seed | pretrained alone | decisions to 0.95: pretrained | fresh | worst on the way |",
        "|---|---|---|---|---|",
    ]
    rows = {(row["kind"], row["seed"]): row for row in results["rows"]}
    for seed in sorted({seed for _, seed in rows}):
        ours, other = rows["continued", seed], rows["fresh", seed]
        worst = min(completion for _, completion in ours["points"])
        lines.append(
            f"| {seed} | {ours['pretrained']:.3f} | {ours['steps']} | {other['steps']} | "
            f"{worst:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and print the table; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default 2)")
    parser.add_argument("--minutes", type=float, default=20.0, help="to record (default 20)")
    parser.add_argument(
        "--folder", type=Path, help="folder for bags and runs; continues with what is there"
    )
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        kind, seed = options.one[0], int(options.one[1])
        row = (fresh if kind == "fresh" else continued)(seed, options.folder)
        (options.folder / f"{kind}-{seed}.json").write_text(json.dumps(row))
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        results = run_all(options.seeds, options.jobs, options.minutes, folder)
    print(f"baseline: {results['baseline']:.3f}")
    print(table(results))
    took = {"took_s": round(time.monotonic() - began), "load_average": os.getloadavg()[0]}
    print(json.dumps(results | took))


if __name__ == "__main__":
    main()
