# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The policy that drives, and newer ones taken over while it does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from td3_driver.learning.checkpoint import list_checkpoints
from td3_driver.learning.manifest import CheckpointError, recorded_digest
from td3_driver.learning.policy import WEIGHTS, Policy
from td3_driver.learning.q_values import Evaluator, load_critic

PROBES = 4


class Acts(Protocol):
    """What drives: a checkpoint's actor, or an exported one."""

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return the action for one observation."""


@dataclass(frozen=True)
class Served:
    """A checkpoint's networks, or an exported actor, loaded and tried."""

    checkpoint: Path
    """The folder, or the file."""
    policy: Acts
    evaluator: Evaluator | None
    """None where there is no critic."""
    actor_sha256: str

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        check: Callable[[Policy], None],
        observation: dict[str, np.ndarray],
    ) -> Served:
        """Load and try a checkpoint; raise CheckpointError where it is not fit to drive.

        `check` raises CheckpointError for an actor of a wrong shape; `observation` is one of the
        right shape.
        """
        policy = Policy.load(checkpoint)
        check(policy)
        rng = np.random.default_rng(0)
        # The first inference is slow, too: it must not be the first of a drive.
        for _ in range(PROBES):
            action = policy.act(_random_like(observation, rng))
            if not np.all(np.isfinite(action)):
                raise CheckpointError(f"{checkpoint}: the actor answers {action}, not numbers")
        evaluator = load_critic(checkpoint)
        if evaluator is not None:
            q_values = evaluator.q_values(observation, action)
            if not np.all(np.isfinite(q_values)):
                raise CheckpointError(f"{checkpoint}: the critic answers {q_values}")
        return cls(checkpoint, policy, evaluator, recorded_digest(checkpoint, WEIGHTS))


def _random_like(
    observation: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    return {
        key: rng.integers(0, 256, value.shape, np.uint8)
        if value.dtype == np.uint8
        else rng.standard_normal(value.shape).astype(value.dtype)
        for key, value in observation.items()
    }


class Reloader:
    """A thread that loads newer checkpoints of a folder beside the policy that drives."""

    def __init__(
        self,
        folder: Path,
        running: Path,
        load: Callable[[Path], Served],
        refused: Callable[[Path, str], None],
        period_s: float | None,
    ) -> None:
        """Take the checkpoint that is `running`; `load` raises CheckpointError.

        `refused` is called, in the thread, with each checkpoint that cannot be used and why.
        With `period_s` None the folder is looked at only when told.
        """
        self._folder = folder
        self._newest = running.name
        self._load = load
        self._refused = refused
        self._period_s = period_s
        self._known_bad: set[str] = set()
        self._ready: Served | None = None
        self._look = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="reloader", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def end(self) -> None:
        """End, and wait for it."""
        self._ended = True
        self._look.set()
        self._thread.join()

    def newer(self) -> Path | None:
        """Return the newest checkpoint if it is newer than the one that runs."""
        found = list_checkpoints(self._folder)
        return found[-1] if found and found[-1].name > self._newest else None

    def look(self) -> None:
        """Have the thread look now, also at what has been refused before."""
        self._known_bad.clear()
        self._look.set()

    def take(self) -> Served | None:
        """Return a newer policy that is ready, once."""
        ready, self._ready = self._ready, None
        return ready

    def _run(self) -> None:
        while not self._ended:
            self._look.wait(self._period_s)
            self._look.clear()
            if not self._ended:
                self._load_newer()

    def _load_newer(self) -> None:
        """Load the newest checkpoint that is newer than the running one and usable."""
        for checkpoint in reversed(list_checkpoints(self._folder)):
            if checkpoint.name <= self._newest:
                return
            if checkpoint.name in self._known_bad:
                continue
            try:
                served = self._load(checkpoint)
            except (CheckpointError, OSError) as error:
                self._known_bad.add(checkpoint.name)
                self._refused(checkpoint, str(error))
                continue
            self._ready = served
            self._newest = checkpoint.name
            return
