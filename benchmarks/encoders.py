# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Time updates with each kind of encoders, with features reused, and with self-prediction.

    python benchmarks/encoders.py                        the times
    python benchmarks/encoders.py --differences          what reusing changes, in one training

The times: one thread, float32, with the batch drawn and shifted as in training. Blocks of updates
take turns, so that all run under the same load, and a figure is the median over the turns of a
block's time against that of the separate encoders beside it. It is the processor's time that
counts; on an idle machine the clock's is the same.

The differences: a training with `reuse_critic_features`, in which every 50th update of the actor
is also worked out on features of the critic as it is after its step. The last line is JSON.
"""

from __future__ import annotations

from td3_driver.memory import keep_freed_memory

# As a trainer does, before what asks for memory is imported.
keep_freed_memory()

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from in_process import Examiner, completion_of, settings_of, train
from torch import Tensor

from td3_driver.config import Config, load, override
from td3_driver.deployment.task_networks import networks_of
from td3_driver.driving.environment import observation_space
from td3_driver.learning.execution import Updates
from td3_driver.learning.networks import Observations
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.replay import make_replay
from td3_driver.learning.self_prediction import Ahead
from td3_driver.learning.td3 import TD3
from td3_driver.learning.trainer import Progress

SEPARATE = "separate"
VARIANTS: dict[str, dict[str, Any]] = {
    SEPARATE: {},
    "separate, features reused": {"learning.reuse_critic_features": True},
    "critic": {"learning.encoders": "critic"},
    "separate, self-prediction": {"learning.self_prediction": 1.0},
    "separate, self-prediction of both": {
        "learning.self_prediction": 1.0,
        "learning.self_prediction_of": "both",
    },
    "separate, self-prediction of 3 steps": {
        "learning.self_prediction": 1.0,
        "learning.self_prediction_steps": 3,
    },
    "separate, self-prediction of 5 steps": {
        "learning.self_prediction": 1.0,
        "learning.self_prediction_steps": 5,
    },
}
TASKS = {"camera_lane": "camera_lane", "defaults": ""}
BATCHES = (64, 256)
TRANSITIONS = 500
BLOCK = 4
COMPARED_EVERY = 50
"""Updates of the actor between two that are worked out twice."""
ROW = 1000
"""Updates in a row of the table of differences."""


def make(task: str, batch: int, changes: dict[str, Any]) -> Updates:
    """Return updates of a task's networks on a buffer full of noise."""
    ours = {
        "learning.device": "cpu",
        "learning.precision": "float32",
        "learning.batch_size": batch,
        "learning.actor_warmup_updates": 0,
        "learning.replay_capacity": TRANSITIONS,
    }
    base = load(task) if task else Config()
    config = override(base, ours | changes, "the benchmark")
    learning, spec = config.learning, networks_of(config)
    replay = make_replay(spec, learning, "cpu")
    space, random = observation_space(config.driving), np.random.default_rng(0)
    space.seed(0)
    replay.begin(spec.select(space.sample()))
    for _ in range(TRANSITIONS):
        action = random.uniform(-1.0, 1.0, spec.actions)
        replay.add(action, random.normal(), spec.select(space.sample()), terminated=False)
    learner = TD3(spec, learning, "cpu")
    return Updates(learner, replay, torch.Generator().manual_seed(0))


def timed(updates: Updates) -> tuple[float, float]:
    """Return the seconds of an update, by the processor and by the clock."""
    processor, wall = time.process_time(), time.perf_counter()
    for _ in range(BLOCK):
        updates()
    return (time.process_time() - processor) / BLOCK, (time.perf_counter() - wall) / BLOCK


def compare(task: str, batch: int, turns: int) -> dict[str, dict[str, float]]:
    """Let all variants update in turn; return their figures."""
    variants = {name: make(TASKS[task], batch, changes) for name, changes in VARIANTS.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for updates in variants.values():
        timed(updates)  # libraries initialise
    for _ in range(turns):
        for name, updates in variants.items():
            times[name].append(timed(updates))
    beside = np.array(times[SEPARATE])
    figures = {}
    for name, measured in times.items():
        ratios = beside / np.array(measured)
        figures[name] = {
            "processor_ms": 1e3 * median(processor for processor, _ in measured),
            "times_as_many": float(np.median(ratios[:, 0])),
            "times_as_many_by_clock": float(np.median(ratios[:, 1])),
        }
        print(
            f"| {task} | {batch} | {name} | {figures[name]['processor_ms']:.1f} ms | "
            f"{figures[name]['times_as_many']:.2f} | "
            f"{figures[name]['times_as_many_by_clock']:.2f} |",
            flush=True,
        )
    return figures


@dataclass(frozen=True)
class Difference:
    """What features from before the critic's step change in one update of the actor."""

    q: float
    """Mean absolute difference of Q1 of the actor's actions, over Q1's standard deviation."""
    cosine: float
    """Of the angle between the gradients of all of the actor's weights."""
    length: float
    """Ratio of the gradients' lengths."""


def watch(learner: TD3, found: dict[int, Difference]) -> None:
    """Make a learner note the differences, by update."""
    update_actor = learner._update_actor

    def compared(
        observations: Observations,
        recorded: Tensor,
        measure: bool,
        encoded: Observations | None,
        ahead: dict[str, Ahead],
    ) -> dict[str, Tensor]:
        if learner.updates // learner.settings.policy_freq % COMPARED_EVERY == 0:
            sides = [learner.actor_loss(observations, recorded, each) for each in (encoded, None)]
            reused, fresh = (
                torch.cat([part.flatten() for part in torch.autograd.grad(loss, weights)])
                for loss, *_ in sides
            )
            before, after = (q.detach() for *_, q in sides)
            found[learner.updates] = Difference(
                float((before - after).abs().mean() / after.std()),
                float(torch.cosine_similarity(reused, fresh, dim=0)),
                float(reused.norm() / fresh.norm()),
            )
        return update_actor(observations, recorded, measure, encoded, ahead)

    weights = list(learner.actor.parameters())
    learner._update_actor = compared  # type: ignore[method-assign]


def differences(task: str, seed: int, steps: int, interval: int, episodes: int) -> dict[str, Any]:
    """Train once with features reused; return the differences and the examinations."""
    changes = {"learning.reuse_critic_features": True, "training.total_steps": steps}
    config = settings_of(seed, changes, task)
    found: dict[int, Difference] = {}
    curve: dict[int, float] = {}

    def examine(progress: Progress, training: OnlineTraining, examiner: Examiner) -> None:
        if progress.step == 1:
            watch(training.trainer.learner, found)
        if progress.updates and progress.step % interval == 0:
            curve[progress.step] = round(completion_of(training, examiner, episodes), 3)
            print(f"step {progress.step:6,}: completion {curve[progress.step]:.3f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", examine)
    print("| updates | difference of Q, in deviations of Q | cosine | least | ratio of lengths |")
    print("|---|---|---|---|---|")
    for first in range(0, max(found) + 1, ROW):
        some = [each for update, each in found.items() if first < update <= first + ROW]
        if some:
            cosines = [each.cosine for each in some]
            print(
                f"| to {first + ROW:,} | {mean(each.q for each in some):.4f} | "
                f"{mean(cosines):.4f} | {min(cosines):.4f} | "
                f"{mean(each.length for each in some):.3f} |"
            )
    return {"seed": seed, "curve": curve}


def main() -> None:
    """Compare at every size, or what reusing changes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=25, help="blocks of each variant")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--differences", action="store_true", help="train, instead of timing")
    parser.add_argument("--task", default="camera_lane", help="to train")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=4000, help="decisions to train for")
    parser.add_argument("--interval", type=int, default=500, help="decisions between examinations")
    parser.add_argument("--episodes", type=int, default=10, help="drives in an examination")
    given = parser.parse_args()
    if given.differences:
        size = given.steps, given.interval, given.episodes
        print(json.dumps(differences(given.task, given.seed, *size)))
        return
    torch.set_num_threads(1)
    load_average = os.getloadavg()[0]
    print("| networks | batch | encoders | processor, an update | times as many | by the clock |")
    print("|---|---|---|---|---|---|")
    result = {
        f"{task}, {batch}": compare(task, batch, given.turns)
        for task in given.tasks
        for batch in given.batches
    }
    print(json.dumps({"load_average": load_average, "torch": torch.__version__, **result}))


if __name__ == "__main__":
    main()
