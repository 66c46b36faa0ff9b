# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Trainings on a Ray cluster of several raylets on this machine, in a process of its own.

`python ray_trials.py FOLDER`: the last line is JSON of what happened, for `test_fleet_ray`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from unittest import mock

FOLDER = Path(sys.argv[1])
# Read when Ray is imported. Sockets below it have a name of at most 107 characters.
os.environ["RAY_TMPDIR"] = str(FOLDER)
(FOLDER / "ray").mkdir()

import numpy as np
import ray
from ray.cluster_utils import Cluster
from test_fleet import make, settings

from td3_driver.config import ConfigError
from td3_driver.fleet import ray_engine
from td3_driver.fleet.ray_engine import RayEngine

STORE_BYTES = 80 << 20
# Slots need no processors, and each processor has a worker started that may never be used.
MACHINE = {"num_cpus": 0, "object_store_memory": STORE_BYTES}


def placed(engine: RayEngine) -> list[str]:
    """Return the machines that slots are on."""
    from ray._private.state import actors

    alive = {
        actor["ActorID"]: actor["Address"]["NodeID"]
        for actor in actors().values()
        if actor["State"] == "ALIVE"
    }
    slots = [collector.slot for collector in engine._collectors.values() if collector.slot]
    return [alive[slot._actor_id.hex()] for slot in slots if slot._actor_id.hex() in alive]


def exists(pid: int) -> bool:
    """Return whether a process runs, and is not only waiting to be forgotten."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def main() -> None:
    """Kill a collector, a slot and a machine during one training; add a machine."""
    told: dict[str, object] = {}
    ray_engine.SPILL_CHECK_S = 0.5
    # "auto" finds whatever runs on the machine, such as another test's cluster.
    with mock.patch("ray._private.services.find_gcs_addresses", return_value=set()):
        try:
            RayEngine("auto", 1)
        except ConfigError as error:
            told["refused"] = str(error)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            **MACHINE,
            "include_dashboard": False,
            "include_log_monitor": False,
            "no_monitor": True,
            "resources": {"slot": 1},
        },
    )
    second = cluster.add_node(**MACHINE, resources={"slot": 2})
    engine = RayEngine(cluster.address, 3)
    told |= {
        "describe": engine.describe(),
        "slots": [f.slots for f in engine.facts],
    }
    lines: list[str] = []
    config = settings(
        total_steps=10**6,
        collectors=3,
        chunk_decisions=32,
        silence_timeout_s=60.0,
        updates_per_step=0.01,
        weights_period_s=0.1,
        synchronous_updates=False,
        replay_capacity=1_000_000,
        checkpoint_interval_steps=10**6,
    )
    training = make(FOLDER, config, engine, lines, world="bandit_training:unhurried")
    fleet = training.fleet
    stages = iter(["collector", "slot", "machine", "added", "spill", "end"])
    stage, mark, dead = next(stages), 0, []
    held: list[object] = []
    deadline = time.monotonic() + 400.0

    def show(progress: object) -> None:
        nonlocal stage, mark
        step = training.trainer.standing.step
        if time.monotonic() > deadline:
            training.stop()
        # Every collector has handed something back since the last event.
        full = all(post.deaths == 0 for post in fleet.posts)
        if step < mark + 300 or not ((fleet.running == 3 and full) or stage in ("added",)):
            return
        slots = [collector.slot for collector in engine._collectors.values()]
        if stage == "collector":
            told["placed"] = len(set(placed(engine)))
            pid = ray.get(slots[0].child_pid.remote())
            os.kill(pid, signal.SIGKILL)
            dead.append(pid)
        elif stage == "slot":
            pids = ray.get([slots[1].own_pid.remote(), slots[1].child_pid.remote()])
            os.kill(pids[0], signal.SIGKILL)
            dead.extend(pids)
        elif stage == "machine":
            cluster.remove_node(second, allow_graceful=False)
        elif stage == "added":
            if fleet.running > 1:
                return
            told["left"] = fleet.running
            cluster.add_node(**MACHINE, resources={"slot": 2})
        elif stage == "spill":
            told["back"], told["spilled"] = fleet.running, engine.spilled
            # 120 MiB do not fit into a store of 80.
            held.extend(ray.put(np.zeros(30 << 20, np.uint8)) for _ in range(4))
        else:
            if not any("written to disk" in line for line in lines):
                return
            training.stop()
        stage, mark = next(stages, "end"), step

    training._show = show
    training.run()
    told |= {
        "stage": stage,
        "lines": [line for line in lines if not line.startswith("updates ")],
        "step": training.trainer.standing.step,
        "stored": len(training.trainer.replay),
        "repeats": [intake.repeats for intake in training.intakes],
        "gaps": [len(intake.gaps) for intake in training.intakes],
        "survivors": [pid for pid in dead if exists(pid)],
    }
    told["machines"] = [facts.versions == engine.facts[0].versions for facts in engine.facts]
    cluster.shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
