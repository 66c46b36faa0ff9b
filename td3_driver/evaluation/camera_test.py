# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Does a policy drive by its camera? Drives with tampered images, and everything else right."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from td3_driver.config import Config, DrivingConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import IMAGE, VECTOR, Observation, vector_names
from td3_driver.driving.world import Start
from td3_driver.evaluation.rollout import Act, drive_episode
from td3_driver.evaluation.wrong_command import WrongCommands, swapped, wrong_commands
from td3_driver.simulator.pinhole import Intrinsics, Mounting
from td3_driver.simulator.world import SimulatedWorld

REAL = "real"
LATE_S = 0.5
LOOKS_SHARE = 0.3
"""A policy that drives by its camera completes at most this without what it needs to see."""
DRIVES_SHARE = 0.95
UNDISTURBED_SHARE = 0.85
"""It completes at least this where only the sky is hidden."""
NEEDED = ("black", "frozen", "foreign", "mirrored", "road hidden")
"""Conditions under which the image does not say where the road is."""
IMAGES = 8
"""Images that are driven under, the real one among them."""

# The signs of the vector's entries change in a mirror where they are about left and right.
_SIDEWAYS = ("lateral_m", "heading_error_rad", "_y_m", "previous_steering")

Tamper = Callable[[np.ndarray], np.ndarray]
"""Changes a decision's image stack, uint8 (stack, [channels,] size, size); one per episode."""


def conditions_of(config: Config) -> int:
    """Return how many conditions are driven under, the real image and a wrong command counted."""
    return IMAGES + ("command" in config.driving.vector)


def horizon_row(config: Config) -> int:
    """Return the first row of the observed image, from above, that shows the ground."""
    k, pitch = Intrinsics.of(config.simulator), Mounting.of(config.simulator).pitch
    share = (k.cy - k.focal * math.tan(pitch)) / k.height
    return min(max(round(share * config.driving.image_size_px), 0), config.driving.image_size_px)


def black() -> Tamper:
    """Return a tamper that shows nothing."""
    return np.zeros_like


def frozen() -> Tamper:
    """Return a tamper that shows an episode's first images for all of it."""
    first: list[np.ndarray] = []

    def tamper(image: np.ndarray) -> np.ndarray:
        first.append(image)
        return first[0]

    return tamper


def foreign(others: Sequence[np.ndarray]) -> Tamper:
    """Return a tamper that shows the images of another episode, over and over."""
    shown = -1

    def tamper(image: np.ndarray) -> np.ndarray:
        nonlocal shown
        shown += 1
        return others[shown % len(others)]

    return tamper


def late(decisions: int) -> Tamper:
    """Return a tamper that shows what was to be seen some decisions ago."""
    seen: deque[np.ndarray] = deque(maxlen=decisions + 1)

    def tamper(image: np.ndarray) -> np.ndarray:
        seen.append(image)
        return seen[0]

    return tamper


def mirrored() -> Tamper:
    """Return a tamper that swaps left and right."""
    return lambda image: np.ascontiguousarray(image[..., ::-1])


def hidden(first_row: int, end_row: int) -> Tamper:
    """Return a tamper that covers some rows with their mean, each image with its own."""

    def tamper(image: np.ndarray) -> np.ndarray:
        covered = image.copy()
        rows = covered[..., first_row:end_row, :]
        if rows.size:
            rows[...] = np.round(rows.mean(axis=(-2, -1), keepdims=True))
        return covered

    return tamper


def mirrored_vector(vector: np.ndarray, config: DrivingConfig) -> np.ndarray:
    """Return an observation's vector as it is in a mirror."""
    names = vector_names(config)
    signs = np.array([-1.0 if name.endswith(_SIDEWAYS) else 1.0 for name in names], np.float32)
    turned = vector * signs
    return swapped(turned, config) if "command" in config.vector else turned


@dataclass
class Condition:
    """What came of drives under one condition."""

    name: str
    completions: list[float] = field(default_factory=list)

    @property
    def completion(self) -> float:
        """Mean route completion."""
        return float(np.mean(self.completions))


@dataclass
class CameraTest:
    """The outcome of all conditions."""

    conditions: list[Condition]
    mirrored_correlation: float
    """Of the steering under real and under mirrored observations, at the same decisions.

    It is -1 for a policy that knows no difference between left and right, NaN if it always steers
    alike. The verdict does not depend on it: whoever has learnt to keep right has never seen the
    lane from the other side.
    """
    examples: dict[str, np.ndarray]
    """An image under each condition, uint8 (size, size) or (3, size, size)."""
    wrong_commands: WrongCommands | None = None
    """None for a policy that is given no commands. The verdict does not depend on it."""

    def __getitem__(self, name: str) -> float:
        """Return the mean completion under a condition."""
        return next(each.completion for each in self.conditions if each.name == name)

    @property
    def looks(self) -> bool:
        """Whether it drives, and by its camera."""
        return (
            self[REAL] >= DRIVES_SHARE
            and all(self[name] <= LOOKS_SHARE for name in NEEDED)
            and self["sky hidden"] >= UNDISTURBED_SHARE
        )

    def verdict(self) -> str:
        """Return the one line that says it."""
        blind = max(NEEDED, key=self.__getitem__)
        if self.looks:
            return (
                f"It drives by its camera: completion {self[REAL]:.2f}, and at most "
                f"{self[blind]:.2f} ({blind}) where the image does not show the road."
            )
        reasons = [
            (self[REAL] < DRIVES_SHARE, f"it completes only {self[REAL]:.2f} with its camera"),
            (
                self[blind] > LOOKS_SHARE,
                f"it completes {self[blind]:.2f} with the image {blind}",
            ),
            (
                self["sky hidden"] < UNDISTURBED_SHARE,
                f"it completes {self['sky hidden']:.2f} with the sky hidden: it goes by the sky",
            ),
        ]
        why = "; ".join(words for wrong, words in reasons if wrong)
        return f"It is not shown to drive by its camera: {why}."

    def table(self) -> str:
        """Return a line for each condition, and the verdict."""
        lines = [f"{'image':<16}{'completion':>12}{'least':>8}{'most':>8}"]
        lines += [
            f"{each.name:<16}{each.completion:>12.3f}{min(each.completions):>8.2f}"
            f"{max(each.completions):>8.2f}"
            for each in self.conditions
        ]
        lines.append(f"{'steering, real to mirrored':<28}{self.mirrored_correlation:>+8.2f}")
        return "\n".join([*lines, *self.says()])

    def says(self) -> list[str]:
        """Return the verdict, and where there are commands, what it does under wrong ones."""
        wrong = self.wrong_commands
        return [self.verdict(), *([] if wrong is None else [wrong.line()])]

    def as_dict(self) -> dict[str, Any]:
        """Return the contents of `camera_test.json`."""
        correlation = self.mirrored_correlation
        return {
            "looks": self.looks,
            "verdict": self.verdict(),
            "mirrored_correlation": None if math.isnan(correlation) else correlation,
            "conditions": [{**asdict(each), "mean": each.completion} for each in self.conditions],
            "wrong_commands": self.wrong_commands and self.wrong_commands.as_dict(),
        }


class _Watching:
    """Acts on tampered images, and keeps the real ones."""

    def __init__(self, act: Act, tamper: Tamper | None = None) -> None:
        self.observations: list[Observation] = []
        self.example: np.ndarray | None = None
        self._act = act
        self._tamper = tamper

    def __call__(self, observation: Observation) -> np.ndarray:
        self.observations.append(observation)
        if self._tamper is not None:
            observation = {**observation, IMAGE: self._tamper(observation[IMAGE])}
        if self.example is None or len(self.observations) == EXAMPLE_DECISION:
            self.example = observation[IMAGE][-1]
        return self._act(observation)


EXAMPLE_DECISION = 30
"""The decision whose image is shown as an example."""


def camera_test(
    env: DrivingEnv,
    act: Act,
    starts: Sequence[Start],
    config: Config,
    done: Callable[[str, float], object] = lambda name, completion: None,
) -> CameraTest:
    """Drive from each start under every condition; needs two starts or more.

    `done` is called with the condition and the completion after every episode. A policy that is
    given commands is also given wrong ones.
    """
    if len(starts) < 2:
        raise ValueError(
            "the camera test needs at least two episodes: each lends another its images"
        )
    real = Condition(REAL)
    seen: list[list[Observation]] = []
    examples: dict[str, np.ndarray] = {}

    def drive(condition: Condition, start: Start, acting: _Watching) -> None:
        completion = drive_episode(env, acting, start).summary.route_completion
        condition.completions.append(completion)
        assert acting.example is not None
        examples.setdefault(condition.name, acting.example)
        done(condition.name, completion)

    for start in starts:
        acting = _Watching(act)
        drive(real, start, acting)
        seen.append(acting.observations)
    conditions = [real]
    for name, make in _tampers(config, seen, env.world.fixed_delta_s).items():
        condition = Condition(name)
        for index, start in enumerate(starts):
            drive(condition, start, _Watching(act, make(index)))
        conditions.append(condition)
    wrong = None
    if "command" in config.driving.vector:
        assert isinstance(env.world, SimulatedWorld)
        wrong = wrong_commands(env.world, act, starts, config.driving, done)
    correlation = _mirrored_correlation(act, seen, config.driving)
    return CameraTest(conditions, correlation, examples, wrong)


def _tampers(
    config: Config, seen: Sequence[Sequence[Observation]], fixed_delta_s: float
) -> dict[str, Callable[[int], Tamper]]:
    """Return what makes each condition's tamper for the episode of an index."""
    horizon, size = horizon_row(config), config.driving.image_size_px
    late_decisions = max(round(LATE_S / (fixed_delta_s * config.driving.action_repeat)), 1)

    def images_of_another(index: int) -> list[np.ndarray]:
        return [observation[IMAGE] for observation in seen[(index + 1) % len(seen)]]

    return {
        "black": lambda index: black(),
        "frozen": lambda index: frozen(),
        "foreign": lambda index: foreign(images_of_another(index)),
        "half a second late": lambda index: late(late_decisions),
        "mirrored": lambda index: mirrored(),
        "road hidden": lambda index: hidden(horizon, size),
        "sky hidden": lambda index: hidden(0, horizon),
    }


def _mirrored_correlation(
    act: Act, seen: Sequence[Sequence[Observation]], config: DrivingConfig
) -> float:
    """Return how the steering correlates with that under the mirrored observations."""
    mirror = mirrored()
    plain, turned = [], []
    for observation in (each for episode in seen for each in episode):
        vector = mirrored_vector(observation[VECTOR], config)
        plain.append(act(observation)[0])
        turned.append(act({**observation, IMAGE: mirror(observation[IMAGE]), VECTOR: vector})[0])
    if np.std(plain) < 1e-6 or np.std(turned) < 1e-6:
        return math.nan
    return float(np.corrcoef(plain, turned)[0, 1])
