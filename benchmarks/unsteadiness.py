# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Why a policy that drives stops driving for a while: one training, measured while it goes on.

    python benchmarks/unsteadiness.py --task camera_lane --seed 1 --out seed1.json

The training and its examinations are those of tasks.py. At each examination it also notes

- churn: the mean change of the action (in [-1, 1]) since the examination before, and over 100
  updates, averaged over the interval; always on the same observations, from the drives of the
  best examination;
- over-estimate: the smaller Q of the policy's action at the drives' starts, less the discounted
  sum of the rewards that followed without noise;
- forgetting: the mean absolute TD error, and the mean distance of the policy's action from the
  action taken, on the oldest and on the newest quarter of the replay.

The first table has a row for each examination. The second sets the examinations with a completion
below 0.9, among those after the first with 0.95, against the others. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from in_process import Examiner, acting, changes_of, settings_of, spread, train
from tasks import KEPT, PASSED
from torch import Tensor

from td3_driver.evaluation.fixed_drives import FixedDrives
from td3_driver.evaluation.rollout import Act
from td3_driver.learning.batch import Batch
from td3_driver.learning.networks import NetworkSpec, Observations
from td3_driver.learning.online import OnlineTraining
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.td3 import TD3
from td3_driver.learning.trainer import Progress
from td3_driver.offline.networks import batch_of

BLOCK = 100
"""Updates between two copies of the policy."""
PROBES = 256
"""Observations, or transitions of a quarter of the replay, that a figure is taken on."""
FIGURES = (
    "churn",
    "churn_of_block",
    "over_estimate",
    "td_error_old",
    "td_error_new",
    "distance_old",
    "distance_new",
)


Row = dict[str, Any]


@dataclass
class Drives:
    """What an examination's drives were like."""

    completions: list[float] = field(default_factory=list)
    returns: list[float] = field(default_factory=list)
    """Discounted sums of all rewards of a drive."""
    values: list[float] = field(default_factory=list)
    """What the critic expected at the start."""
    seen: list[dict[str, np.ndarray]] = field(default_factory=list)


def drive(learner: TD3, act: Act, drives: FixedDrives, episodes: int) -> Drives:
    """Drive the first episodes without noise."""
    done = Drives()
    for start in drives.starts[:episodes]:
        observation, _ = drives.env.reset(options={"start": start})
        done.values.append(value_of(learner, batch_of(learner.spec, [observation])))
        total, factor, over = 0.0, 1.0, False
        while not over:
            done.seen.append(observation)
            step = drives.env.step(act(observation))
            observation, reward, terminated, truncated, info = step
            total += factor * reward
            factor *= learner.settings.discount
            over = terminated or truncated
        done.returns.append(total)
        done.completions.append(info["summary"].route_completion)
    return done


@torch.no_grad()
def value_of(learner: TD3, observations: Observations) -> float:
    """Return the smaller Q of the policy's action, averaged, in the units of the rewards."""
    q = torch.minimum(*learner.critic.q_values(observations, learner.actor(observations)))
    return float(q.mean() / learner.reward_norm.scale())


def quarters(replay: ReplayBuffer) -> tuple[Batch, Batch]:
    """Return transitions spread over the oldest and over the newest quarter; draws nothing."""
    first, end = replay.queue[:, 0].tolist()
    quarter = (end - first) // 4
    return (
        spread(replay, first, first + quarter, PROBES),
        spread(replay, end - quarter, end, PROBES),
    )


@torch.no_grad()
def forgotten(learner: TD3, batch: Batch) -> tuple[float, float]:
    """Return the mean absolute TD error (without smoothing), and the distance of the actions."""
    following = batch.next_observations
    acted = learner.actor_target(following)
    least = torch.minimum(*learner.critic_target.q_values(following, acted))
    bootstrap = (1.0 - batch.terminated) * learner.settings.discount**batch.steps
    target = learner.reward_norm(batch.rewards) + bootstrap * least
    twins = learner.critic.q_values(batch.observations, batch.actions)
    error = mean(float((q - target).abs().mean()) for q in twins)
    distance = (learner.actor(batch.observations) - batch.actions).abs().mean()
    return error / float(learner.reward_norm.scale()), float(distance)


def watched(
    task: str, seed: int, changes: dict[str, Any], interval: int, episodes: int
) -> list[Row]:
    """Train once; return a row for each examination."""
    config = settings_of(seed, changes, task)
    drives = FixedDrives.of(config.simulator, config.driving, config.evaluation)
    rows: list[Row] = []
    best = Drives()
    policies: dict[int, dict[str, Tensor]] = {}  # weights by the update that they are from
    spec: NetworkSpec | None = None
    extra_s, began_s = 0.0, time.process_time()

    def examine(progress: Progress, training: OnlineTraining, _: Examiner) -> None:
        nonlocal extra_s, best, spec
        learner, replay = training.trainer.learner, training.trainer.replay
        if not progress.updates:
            return
        begin_s, spec = time.process_time(), learner.spec
        if progress.updates % BLOCK == 0:
            weights = learner.actor.state_dict()
            policies[progress.updates] = {name: value.clone() for name, value in weights.items()}
        if progress.step % interval == 0:
            assert isinstance(replay, ReplayBuffer)
            done = drive(learner, acting(training), drives, episodes)
            best = max(best, done, key=lambda each: sum(each.completions))
            old, new = (forgotten(learner, batch) for batch in quarters(replay))
            row = {
                "step": progress.step,
                "updates": progress.updates,
                "cpu_s": begin_s - began_s - extra_s,
                "completion": mean(done.completions),
                "completions": done.completions,
                "value": mean(done.values),
                "over_estimate": mean(done.values) - mean(done.returns),
                "td_error_old": old[0],
                "td_error_new": new[0],
                "distance_old": old[1],
                "distance_new": new[1],
            }
            rows.append(row)
            print(
                f"seed {seed} step {progress.step:6,}: completion {row['completion']:.3f}, "
                f"lost drives {lost(row)}, over-estimate {row['over_estimate']:.2f}, "
                f"{row['cpu_s']:.0f} CPU s",
                file=sys.stderr,
                flush=True,
            )
        extra_s += time.process_time() - begin_s

    with tempfile.TemporaryDirectory() as folder:
        train(config, Path(folder) / "run", examine)
    assert spec is not None
    apart = max(len(best.seen) // PROBES, 1)
    actions = actions_of(Policy.like(spec), policies, batch_of(spec, best.seen[::apart]))
    for row, earlier in zip(rows[1:], rows, strict=False):
        row |= churn(actions, int(earlier["updates"]), int(row["updates"]))
    return rows


@torch.no_grad()
def actions_of(
    policy: Policy, policies: Mapping[int, Mapping[str, Tensor]], seen: Observations
) -> dict[int, Tensor]:
    """Return the actions (observations, actions) of each policy, by its update."""
    actions = {}
    for updates, weights in policies.items():
        policy.take(weights)
        actions[updates] = policy.actor(seen)
    return actions


def churn(actions: Mapping[int, Tensor], first: int, last: int) -> dict[str, float]:
    """Return the mean change of the actions over the interval, and over its blocks."""

    def changed(one: int, other: int) -> float:
        return float((actions[other] - actions[one]).abs().mean())

    starts = range(first, last, BLOCK)
    return {
        "churn": changed(first, last),
        "churn_of_block": mean(changed(start, start + BLOCK) for start in starts),
    }


def lost(row: Row) -> str:
    """Return the numbers, from 0, of the drives that ended before nine tenths of their routes."""
    return ", ".join(str(n) for n, each in enumerate(row["completions"]) if each < KEPT) or "none"


def in_words(row: Row) -> str:
    """Return a row of the Markdown table."""
    figures = " | ".join(f"{row[name]:.3f}" if name in row else "" for name in FIGURES)
    return (
        f"| {row['step']:,} | {row['completion']:.3f} | {lost(row)} | {row['value']:.1f} | "
        f"{figures} |"
    )


def compared(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return each figure's mean where it fell and where it did not, and the ranks' correlation.

    Spearman's correlation is with 1 - completion. Counted from the first that passed.
    """
    steps = [row["step"] for row in rows if row["completion"] >= PASSED]
    after = [row for row in rows if steps and row["step"] > steps[0]]
    fell = [row for row in after if row["completion"] < KEPT]
    kept = [row for row in after if row["completion"] >= KEPT]
    if not (fell and kept):
        return {}
    missed = [1.0 - row["completion"] for row in after]
    return {
        name: {
            "fell": mean(row[name] for row in fell),
            "kept": mean(row[name] for row in kept),
            "correlation": correlation([row[name] for row in after], missed),
        }
        for name in FIGURES
    }


def correlation(ones: Sequence[float], others: Sequence[float]) -> float:
    """Return Spearman's correlation of ranks; equal values share their mean rank."""

    def ranks(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values)
        below, equal = array[:, None] > array, array[:, None] == array
        return below.sum(axis=1) + 0.5 * equal.sum(axis=1)

    return float(np.corrcoef(ranks(ones), ranks(others))[0, 1])


def main() -> None:
    """Train, or read what trainings left, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="camera_lane", help="name of a configuration")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--interval", type=int, default=500, help="decisions between examinations")
    parser.add_argument("--episodes", type=int, default=10, help="drives in an examination")
    parser.add_argument("--set", nargs="*", default=[], help="section.setting=value (JSON) ...")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--rows", type=Path, nargs="+", help="such files, instead of a training")
    given = parser.parse_args()
    changes = changes_of(given.set)
    if given.rows:
        trainings = [json.loads(path.read_text()) for path in given.rows]
    else:
        trainings = [watched(given.task, given.seed, changes, given.interval, given.episodes)]
        if given.out:
            given.out.write_text(json.dumps(trainings[0]))
    for rows in trainings:
        print("| decisions | completion | lost drives | value | " + " | ".join(FIGURES) + " |")
        print("|---" * (4 + len(FIGURES)) + "|")
        print("\n".join(map(in_words, rows)) + "\n")
    results = [compared(rows) for rows in trainings]
    print(json.dumps({"task": given.task, "set": changes, "compared": results}))


if __name__ == "__main__":
    main()
