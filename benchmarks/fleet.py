# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How many decisions a second several simulators feed to one learner.

    python benchmarks/fleet.py
    python benchmarks/fleet.py --collectors 1 4 --seconds 20 --engines process
    python benchmarks/fleet.py --pace 0

Every simulator is the embedded one, held to CARLA's pace. Of each collector, the rate is that from
its first chunk after all have begun to its last one. `trainer` is a training without collectors in
one such world. The ratio is that of all updates of a run to all of its decisions; while it runs,
the updates of what has just arrived are still to be done.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
# Read when Ray is imported; and its sockets have a name of at most 107 characters.
RAY_FOLDER = tempfile.mkdtemp(prefix="fb", dir="/tmp")
atexit.register(shutil.rmtree, RAY_FOLDER, ignore_errors=True)
os.environ["RAY_TMPDIR"] = RAY_FOLDER
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(FOLDER.parent), str(FOLDER), os.environ.get("PYTHONPATH", "")]
)

import numpy as np
from paced_world import paced

from td3_driver.config import Config, load, override
from td3_driver.deployment.task_networks import networks_of
from td3_driver.driving.observation import vector_scale
from td3_driver.fleet.collector import Engine
from td3_driver.fleet.gathering import EMBEDDED, Brief
from td3_driver.fleet.processes import ProcessEngine
from td3_driver.fleet.training import fleet_training
from td3_driver.learning.assembly import online_training

NEVER_ENDING = 10**8
START_S = 240.0
STORE_BYTES = 256 << 20
WARM_STEPS = 50
"""Decisions before a training without collectors is measured."""
CARLAS_TICKS_PER_S = 20.0


@dataclass
class Measured:
    """What one run showed."""

    decisions_per_s: float
    ratio_held: float
    lag_median: float = 0.0
    lag_longest: float = 0.0
    learner_idle_share: float = 0.0
    collectors_idle_share: float = 0.0
    start_s: float = 0.0


@dataclass
class Arrivals:
    """When which decisions had arrived, and how many updates had been done by then."""

    times: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    updates: list[int] = field(default_factory=list)

    def note(self, step: int, updates: int) -> None:
        """Note an arrival."""
        self.times.append(time.monotonic())
        self.steps.append(step)
        self.updates.append(updates)

    def rate(self) -> float:
        """Return the decisions a second between the first and the last arrival."""
        passed_s = self.times[-1] - self.times[0] if len(self.times) > 1 else 0.0
        return (self.steps[-1] - self.steps[0]) / passed_s if passed_s else float("nan")

    def ratio(self) -> float:
        """Return the updates for each decision meanwhile."""
        steps = self.steps[-1] - self.steps[0]
        return (self.updates[-1] - self.updates[0]) / steps if steps else float("nan")


def settings(options: argparse.Namespace, collectors: int) -> Config:
    """Return the settings of a run."""
    return override(
        load("first_drive"),
        {
            "training.total_steps": NEVER_ENDING,
            "training.random_steps": 0,
            "training.checkpoint_interval_steps": NEVER_ENDING,
            "training.updates_per_step": options.ratio,
            "training.torch_threads": 1,
            "validation.interval_steps": 0,
            "simulator.realtime_factor": (options.pace or CARLAS_TICKS_PER_S) / CARLAS_TICKS_PER_S,
            "learning.replay_capacity": 100_000,
            "fleet.collectors": collectors,
            "fleet.chunk_decisions": options.chunk,
            "fleet.start_timeout_s": START_S,
        },
        "the benchmark",
    )


def measure_fleet(config: Config, engine: Engine, seconds: float, world: str) -> Measured:
    """Train with collectors, for that long after all have begun."""
    count = config.fleet.collectors
    with tempfile.TemporaryDirectory() as folder:
        training = fleet_training(config, Path(folder), engine, say=lambda line: None, world=world)
        fleet, trainer = training.fleet, training.trainer
        arrivals = [Arrivals() for _ in range(count)]
        began_s, all_begun_s, end_s = time.monotonic(), 0.0, float("inf")
        heard: set[int] = set()
        plain = fleet.look

        def look(timeout_s: float) -> list[Any]:
            nonlocal all_begun_s, end_s
            chunks = plain(timeout_s)
            heard.update(post.number for post, _ in chunks)
            now_s = time.monotonic()
            if not all_begun_s and len(heard) == count:
                all_begun_s, end_s = now_s, now_s + seconds
            if now_s > end_s or now_s - began_s > START_S + seconds:
                end_s = float("inf")
                # What is under way is the last: the run ends as one with so many decisions does.
                last = trainer.standing.step + fleet.outstanding
                trainer.settings = trainer.settings.model_copy(update={"total_steps": last})
            if all_begun_s and end_s < float("inf"):
                for post, chunk in chunks:
                    before = arrivals[post.number].steps[-1:] or [0]
                    arrivals[post.number].note(before[0] + chunk.decisions, 0)
            return chunks

        fleet.look = look  # type: ignore[method-assign]
        training.run()
        assert training.figures is not None
        row = training.figures.figures()
    return Measured(
        sum(each.rate() for each in arrivals),
        trainer.learner.updates / trainer.standing.step,
        row.get("policy_lag_median", 0.0),
        row.get("policy_lag_longest", 0.0),
        row["learner_idle_share"],
        row.get("collectors_idle_share", 0.0),
        all_begun_s - began_s,
    )


def measure_trainer(config: Config, seconds: float, make: Callable[[Brief], Any]) -> Measured:
    """Train in one such world without collectors."""
    arrivals, began_s = Arrivals(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        env = make(Brief(0, 1, 0, config, networks_of(config)))

        def show(progress: Any) -> None:
            if progress.step < WARM_STEPS:
                return
            arrivals.note(progress.step, progress.updates)
            if arrivals.times[-1] - arrivals.times[0] > seconds:
                training.stop()

        training = online_training(
            env,
            vector_scale(config.driving),
            config.learning,
            config.training,
            Path(folder),
            say=lambda line: None,
            show=show,
        )
        training.run()
    return Measured(arrivals.rate(), arrivals.ratio(), start_s=arrivals.times[0] - began_s)


def embedded_world(brief: Brief) -> Any:
    """Return the world that is as fast as it can be."""
    from td3_driver.fleet.worlds import embedded

    return embedded(brief)


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--collectors", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=("trainer", "process", "ray"),
        default=["trainer", "process", "ray"],
    )
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--pace", type=float, default=CARLAS_TICKS_PER_S, help="0 = none")
    parser.add_argument("--ratio", type=float, default=0.25)
    parser.add_argument("--chunk", type=int, default=64)
    options = parser.parse_args()
    world = "paced_world:paced" if options.pace else EMBEDDED
    rates: dict[str, dict[str, float]] = {}
    held, lags, spilled = [], [], 0

    def note(engine: str, count: int, found: Measured) -> None:
        rates.setdefault(engine, {})[str(count)] = round(found.decisions_per_s, 2)
        held.append(found.ratio_held)
        lags.append(found.lag_median)
        print(
            f"{engine}, {count}: {found.decisions_per_s:.1f} decisions/s, ratio "
            f"{found.ratio_held:.4f} of {options.ratio:g}, lag {found.lag_median:.0f} (at most "
            f"{found.lag_longest:.0f}) updates, idle: learner {found.learner_idle_share:.0%}, "
            f"collectors {found.collectors_idle_share:.0%}; all had begun after "
            f"{found.start_s:.0f} s; load {os.getloadavg()[0]:.1f}",
            flush=True,
        )

    if "trainer" in options.engines:
        make = paced if options.pace else embedded_world
        note("trainer", 1, measure_trainer(settings(options, 0), options.seconds, make))
    if "process" in options.engines:
        for count in options.collectors:
            config = settings(options, count)
            note("process", count, measure_fleet(config, ProcessEngine(), options.seconds, world))
    if "ray" in options.engines:
        from ray.cluster_utils import Cluster

        from td3_driver.fleet.ray_engine import RayEngine

        Path(RAY_FOLDER, "ray").mkdir()
        cluster = Cluster(
            initialize_head=True,
            head_node_args={
                "num_cpus": 1,
                "object_store_memory": STORE_BYTES,
                "include_dashboard": False,
                "resources": {"slot": max(options.collectors)},
            },
        )
        try:
            for count in options.collectors:
                engine = RayEngine(cluster.address, count)
                config = settings(options, count)
                note("ray", count, measure_fleet(config, engine, options.seconds, world))
                spilled = max(spilled, engine.spilled)
        finally:
            cluster.shutdown()
    worst = held[int(np.argmax([abs(ratio - options.ratio) for ratio in held]))]
    print(
        json.dumps(
            {
                "decisions_per_s": rates,
                "ratio_wanted": options.ratio,
                "ratio_held": round(worst, 5),
                "spilled_bytes": spilled,
                "lag_median": float(np.max(lags)),
                "pace_ticks_per_s": options.pace,
            }
        )
    )


if __name__ == "__main__":
    main()
