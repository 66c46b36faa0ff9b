# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Say how much of a training step over topics is ours, with a bridge as slow as CARLA's.

    python benchmarks/lock_step.py --tick-s 0.04

The embedded simulator's node holds every tick up for `--tick-s`, where CARLA renders. A real
training runs against it twice: with the learner's updates beside the steps, and without updates.
For both, the time of a step is split into the tick, the rest of the step over topics, the policy,
the wait for updates that are behind, and everything else between two steps.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import numpy as np
import rclpy

from td3_driver.config import Config, load, override
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import vector_scale
from td3_driver.driving.world import Frame, Start, VehicleControl
from td3_driver.learning.assembly import online_training
from td3_driver.learning.pacing import UpdatePacer
from td3_driver.lockstep.starts import make_sampler
from td3_driver.lockstep.world import CarlaWorld

RANDOM_STEPS = 100
NEVER = 10**6


class Clocked:
    """Sums how long a function takes, between two readings."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.spent_s = 0.0

    def __call__(self, *arguments: Any) -> Any:
        """Call the function."""
        start = time.perf_counter()
        try:
            return self._function(*arguments)
        finally:
            self.spent_s += time.perf_counter() - start


class TimedWorld:
    """A world whose steps, and the times between them, are noted."""

    def __init__(self, world: CarlaWorld) -> None:
        self._world = world
        self.fixed_delta_s = world.fixed_delta_s
        self.steps_s: list[float] = []
        self.between_s: list[float] = []
        self._returned_s: float | None = None

    def reset(self, start: Start) -> Frame:
        """Reset the world; the time around it is not noted."""
        self._returned_s = None
        return self._world.reset(start)

    def step(self, control: VehicleControl) -> Frame:
        """Step the world."""
        begin = time.perf_counter()
        if self._returned_s is not None:
            self.between_s.append(begin - self._returned_s)
        frame = self._world.step(control)
        self._returned_s = time.perf_counter()
        self.steps_s.append(self._returned_s - begin)
        return frame

    def close(self) -> None:
        """Close the world."""
        self._world.close()


def settings(steps: int, updates: bool) -> Config:
    """Return the configuration of one training."""
    config = load("first_drive")
    return override(
        config,
        {
            "training.total_steps": RANDOM_STEPS + steps,
            "training.random_steps": RANDOM_STEPS,
            "training.updates_per_step": config.training.updates_per_step if updates else 1e-6,
            "training.checkpoint_interval_steps": NEVER,
            "training.synchronous_updates": False,
            "learning.replay_capacity": 10_000,
        },
        "the benchmark",
    )


def train(carla: CarlaWorld, steps: int, updates: bool, tick_s: float) -> dict[str, float]:
    """Train, and return medians and 95th percentiles in milliseconds."""
    config = settings(steps, updates)
    world = TimedWorld(carla)
    env = DrivingEnv(world, make_sampler(config.training, carla), config.driving)
    waiting = Clocked(UpdatePacer.step_taken)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(UpdatePacer, "step_taken", lambda *arguments: waiting(*arguments)),
    ):
        training = online_training(
            env,
            vector_scale(config.driving),
            config.learning,
            config.training,
            Path(folder),
            say=lambda line: None,
        )
        acting = Clocked(training.policy.act)
        training.policy.act = acting  # type: ignore
        training.run()
    # The random steps are without updates and without the policy.
    step_ms = 1e3 * np.array(world.steps_s[RANDOM_STEPS:])
    between_ms = 1e3 * np.array(world.between_s[RANDOM_STEPS:])
    return {
        "step_ms": median(step_ms),
        "step_p95_ms": float(np.percentile(step_ms, 95)),
        "tick_ms": 1e3 * tick_s,
        "rest_of_step_ms": median(step_ms) - 1e3 * tick_s,
        "between_ms": median(between_ms),
        "between_p95_ms": float(np.percentile(between_ms, 95)),
        "policy_mean_ms": 1e3 * acting.spent_s / steps,
        "wait_for_updates_mean_ms": 1e3 * waiting.spent_s / steps,
        "steps_per_s": 1e3 / (float(np.mean(step_ms)) + float(np.mean(between_ms))),
    }


def measure(steps: int, tick_s: float) -> dict[str, dict[str, float]]:
    """Return the figures of a training with and of one without updates."""
    rclpy.init(args=[])
    faults = f"hang={tick_s}@1x{NEVER}"
    simulator = subprocess.Popen(
        [
            *(sys.executable, "-m", "td3_driver.nodes.simulator", "--ros-args"),
            *("-p", f'simulator.faults:="{faults}"'),
        ]
    )
    try:
        carla = CarlaWorld(rclpy.create_node("lock_step"), load("first_drive").carla)
        found = {
            name: train(carla, steps, updates, tick_s)
            for name, updates in (("without updates", False), ("with updates", True))
        }
        carla.close()
    finally:
        simulator.send_signal(signal.SIGINT)
        simulator.wait(timeout=10)
        rclpy.try_shutdown()
    return found


def main() -> None:
    """Run the benchmark; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="measured steps of each training")
    parser.add_argument("--tick-s", type=float, default=0.04, help="how long a tick takes")
    parser.add_argument("--domain", default="88", help="ROS_DOMAIN_ID to use")
    options = parser.parse_args()
    os.environ["ROS_DOMAIN_ID"] = options.domain
    load_average = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"load average before: {load_average}; {os.cpu_count()} cores")
    found = measure(options.steps, options.tick_s)
    for name, figures in found.items():
        print(f"{name}:")
        for figure, value in figures.items():
            print(f"  {figure:<26}{value:8.2f}")
    print(json.dumps({name: {k: round(v, 3) for k, v in f.items()} for name, f in found.items()}))


if __name__ == "__main__":
    main()
