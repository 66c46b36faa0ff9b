# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Kill collectors, simulators, slots and machines of a fleet during one training.

    python benchmarks/fleet_kills.py --kills 30

The machines are raylets on this one. Whenever every collector has handed something back since the
last kill, the next one follows. The training must end with its full count of decisions, none twice
and no gap that is not marked; what was killed must be back within 30 s.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

# Read when Ray is imported; and its sockets have a name of at most 107 characters.
FOLDER = Path(tempfile.mkdtemp(prefix="fk", dir="/tmp"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
(FOLDER / "ray").mkdir()
os.environ["RAY_TMPDIR"] = str(FOLDER)
BENCHMARKS = Path(__file__).resolve().parent
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(BENCHMARKS.parent), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
)

import ray
from ray.cluster_utils import Cluster

from td3_driver.config import Config, load, override
from td3_driver.fleet.ray_engine import RayEngine
from td3_driver.fleet.training import FleetTraining, fleet_training

KINDS = ("collector", "simulator", "slot", "machine")
WORLDS = {
    "in_process": "paced_world:paced",
    "node": "td3_driver.nodes.collector_world:over_topics",
}
MACHINE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}
SLOTS = 2
"""Of each machine."""


def settings(options: argparse.Namespace) -> Config:
    """Return the settings of the training."""
    return override(
        load("first_drive"),
        {
            "training.total_steps": options.decisions,
            "training.random_steps": 100,
            "training.checkpoint_interval_steps": 10**6,
            "training.updates_per_step": 0.05,
            "training.torch_threads": 1,
            "training.maps": ["ring_meadow"],
            "validation.interval_steps": 0,
            "learning.replay_capacity": 100_000,
            "fleet.collectors": options.collectors,
            "fleet.chunk_decisions": 16,
            "fleet.simulator": "node" if "simulator" in options.kinds else "in_process",
        },
        "the benchmark",
    )


class Killer:
    """Kills one thing after the other, as the training shows its progress."""

    def __init__(self, options: argparse.Namespace, cluster: Cluster, engine: RayEngine) -> None:
        self._left = options.kills
        self._kinds = options.kinds
        self._chance = random.Random(options.seed)
        self._cluster = cluster
        self._engine = engine
        self._machines = [
            cluster.add_node(**MACHINE, resources={"slot": SLOTS})
            for _ in range(options.collectors // SLOTS)
        ]
        self.training: FleetTraining | None = None
        self.kills: dict[str, int] = {}
        self.back_s: list[float] = []
        self._killed_s = 0.0
        self._hit: list[int] = []
        self._counts: list[int] = []

    @property
    def done(self) -> bool:
        """Whether all that was killed is back."""
        return not self._left and not self._hit

    def look(self, progress: object) -> None:
        """Kill the next one, if all are back from the one before."""
        assert self.training is not None
        posts = self.training.fleet.posts
        came = [intake.expected for intake in self.training.intakes]
        if self._hit and all(
            posts[number].state == "ready" and came[number] > self._counts[number]
            for number in self._hit
        ):
            self.back_s.append(time.monotonic() - self._killed_s)
            self._hit = []
        ready = all(post.state == "ready" and not post.deaths for post in posts)
        if not self._left or self._hit or not ready or min(came) < 1:
            return
        self._left -= 1
        self._kill(self._chance.choice(self._kinds))
        self._killed_s = time.monotonic()
        # What comes back is beyond all that had leave: that is given up.
        self._counts = [post.sequence for post in posts]

    def _kill(self, kind: str) -> None:
        self.kills[kind] = self.kills.get(kind, 0) + 1
        collectors = self._engine._collectors
        if kind == "machine":
            machine = self._machines.pop(0)
            where = {number: node_of(collector.slot) for number, collector in collectors.items()}
            self._hit = [number for number, node in where.items() if node == machine.node_id]
            self._cluster.remove_node(machine, allow_graceful=False)
            self._machines.append(self._cluster.add_node(**MACHINE, resources={"slot": SLOTS}))
            return
        number = self._chance.choice(sorted(collectors))
        slot = collectors[number].slot
        self._hit = [number]
        pid = ray.get(slot.own_pid.remote() if kind == "slot" else slot.child_pid.remote())
        if kind == "simulator":
            pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)


def node_of(slot: Any) -> str:
    """Return the machine that a slot is on."""
    from ray._private.state import actors

    return str(actors(slot._actor_id.hex())["Address"]["NodeID"])


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--collectors", type=int, default=4)
    parser.add_argument("--decisions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    config = settings(options)
    head: dict[str, Any] = {**MACHINE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    engine = RayEngine(cluster.address, options.collectors)
    killer = Killer(options, cluster, engine)
    try:
        training = fleet_training(
            config,
            FOLDER,
            engine,
            say=lambda line: print(line, flush=True) if "ended" in line else None,
            show=killer.look,
            world=WORLDS[config.fleet.simulator],
        )
        killer.training = training
        training.run()
        trainer = training.trainer
        result = {
            "kills": killer.kills,
            "all_done": killer.done,
            "longest_back_s": round(max(killer.back_s, default=0.0), 1),
            "decisions": trainer.standing.step,
            "wanted": options.decisions,
            "in_replay": len(trainer.replay),
            "updates": trainer.learner.updates,
            "repeats": sum(intake.repeats for intake in training.intakes),
            "gaps_marked": sum(len(gap) for intake in training.intakes for gap in intake.gaps),
            "never_came": sum(post.sequence for post in training.fleet.posts)
            - chunks_that_came(training),
            "spilled_bytes": engine.spilled,
        }
    finally:
        cluster.shutdown()
    print(json.dumps(result))


def chunks_that_came(training: FleetTraining) -> int:
    """Return the number of chunks that came."""
    return sum(
        intake.expected - sum(len(gap) for gap in intake.gaps) for intake in training.intakes
    )


if __name__ == "__main__":
    main()
