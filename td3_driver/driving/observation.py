# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The dict observation: stacked images and a vector in SI units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from td3_driver.config import DrivingConfig, PrivilegedPart
from td3_driver.driving.navigator import Direction, instruction
from td3_driver.driving.others import nearby
from td3_driver.driving.route import Projection, RouteTracker
from td3_driver.driving.world import Other, Pose

Observation = dict[str, np.ndarray]

IMAGE, VECTOR, PRIVILEGED = "image", "vector", "privileged"
"""The observation's keys; the last is there only for a privileged critic."""

ACTIONS = ("steering", "speed")


def image_shape(config: DrivingConfig) -> tuple[int, ...]:
    """Return the shape of a stack: (stack, size, size), or in colour (stack, 3, size, size)."""
    side = config.image_size_px
    channels = () if config.image_channels == 1 else (config.image_channels,)
    return (config.image_stack, *channels, side, side)


def vector_names(config: DrivingConfig) -> list[str]:
    """Return the name of each entry of the observation's vector, units included."""
    return [name for part in config.vector for name, _ in _entries(part, config)]


def privileged_scale(config: DrivingConfig) -> np.ndarray:
    """Return what `vector_scale` does, for what only the critic sees."""
    return _scale(config.privileged, config)


def vector_scale(config: DrivingConfig) -> np.ndarray:
    """Return the usual magnitude of each entry of the vector, float32, for networks to divide by.

    A waypoint's y is scaled by the lane's limits near the car and by its distance further out.
    """
    return _scale(config.vector, config)


def _scale(parts: Sequence[PrivilegedPart], config: DrivingConfig) -> np.ndarray:
    scale = [scale for part in parts for _, scale in _entries(part, config)]
    return np.array(scale, dtype=np.float32)


def _entries(part: PrivilegedPart, config: DrivingConfig) -> list[tuple[str, float]]:
    """Return the name and the usual magnitude of each entry of a part."""
    if part == "speed":
        return [("speed_mps", config.max_speed_mps)]
    if part == "lateral":
        return [("lateral_m", config.lateral_limit_m)]
    if part == "heading":
        return [("heading_error_rad", config.heading_limit_rad)]
    if part == "previous_action":
        return [(f"previous_{name}", 1.0) for name in ACTIONS]
    if part == "advice":
        return [(f"advised_{name}", 1.0) for name in ACTIONS]
    if part == "command":
        directions = [(f"command_{direction.value}", 1.0) for direction in Direction]
        return [*directions, ("command_distance_m", config.command_ahead_m)]
    entries: list[tuple[str, float]] = []
    if part == "others":
        for index in range(1, config.privileged_others + 1):
            entries.append((f"other_{index}_gap_m", OTHERS_SCALE_M))
            entries.append((f"other_{index}_left_m", 1.0))
            entries.append((f"other_{index}_right_m", 1.0))
            entries.append((f"other_{index}_speed_mps", config.max_speed_mps))
            entries.append((f"other_{index}_sideways_mps", config.max_speed_mps))
        return entries
    for index in range(1, config.waypoints + 1):
        distance_m = index * config.waypoint_spacing_m
        entries.append((f"waypoint_{index}_x_m", distance_m))
        entries.append((f"waypoint_{index}_y_m", max(config.lateral_limit_m, 0.5 * distance_m)))
    return entries


UNITS = {"mps": "m/s", "m": "m", "rad": "rad"}
"""Units by the last part of a name; any other name has none."""


def unit_of(name: str) -> str:
    """Return the unit of an entry of the vector, "1" if it has none."""
    return UNITS.get(name.rsplit("_", 1)[-1], "1")


OTHERS_AHEAD_M, OTHERS_BEHIND_M = 40.0, 5.0
"""How far ahead of the car and behind it others count, by their middles: two cars that are 5 m
apart no longer touch."""
OTHERS_SCALE_M = 10.0
NOBODY = (OTHERS_AHEAD_M, 0.0, 0.0, 0.0, 0.0)
"""The entries of one who is not there."""

# Values beyond this many scales say no more than "far off", and keep the space bounded.
VECTOR_BOUND_SCALES = 10.0


def grey_image(bgra: np.ndarray, size_px: int) -> np.ndarray:
    """Reduce a `bgra8` image, uint8 (height, width, 4), to grey, uint8 (size, size)."""
    # Shrinking first is cheaper, and area averaging commutes with the channels' weighting.
    small = cv2.resize(bgra, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGRA2GRAY)


def colour_image(bgra: np.ndarray, size_px: int) -> np.ndarray:
    """Reduce a `bgra8` image, uint8 (height, width, 4), to red, green, blue, (3, size, size)."""
    small = cv2.resize(bgra, (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(small[:, :, 2::-1].transpose(2, 0, 1))


@dataclass(frozen=True)
class Course:
    """Where the car is on its route."""

    tracker: RouteTracker
    pose: Pose
    projection: Projection
    others: tuple[Other, ...] | None = None
    """Who else is on the road, if that is known."""
    advice: np.ndarray | None = None
    """What one would do who knows it: an action, if there is somebody to ask."""

    def parts(
        self, names: Sequence[PrivilegedPart], config: DrivingConfig
    ) -> dict[str, np.ndarray | list[float]]:
        """Return those of some parts that are read off the route."""
        read: dict[str, Callable[[], np.ndarray | list[float]]] = {
            "lateral": lambda: [self.projection.lateral_m],
            "heading": lambda: [self.projection.heading_error_rad],
            "waypoints": lambda: self.ahead(config).ravel(),
            "command": lambda: self.command(config),
            "others": lambda: self.next_others(config.privileged_others),
            "advice": lambda: self.advice if self.advice is not None else [],
        }
        return {name: read[name]() for name in names if name in read}

    def tells(self, names: Sequence[PrivilegedPart]) -> bool:
        """Whether all that some parts need is known."""
        known = {"others": self.others is not None, "advice": self.advice is not None}
        return all(known.get(name, True) for name in names)

    def ahead(self, config: DrivingConfig) -> np.ndarray:
        """Return the observed points of the route in the car's frame, float64 (waypoints, 2)."""
        progress_m = self.projection.progress_m
        return self.tracker.ahead(
            self.pose, progress_m, config.waypoints, config.waypoint_spacing_m
        )

    def command(self, config: DrivingConfig) -> list[float]:
        """Return the navigator's command: its direction, one-hot, and the distance to the turn."""
        progress_m = self.projection.progress_m
        given = instruction(self.tracker.turns, progress_m, config.command_ahead_m)
        return [*(float(given.direction is each) for each in Direction), given.distance_m]

    def next_others(self, count: int) -> list[float]:
        """Return five numbers for each of the next others on the route, the nearest first.

        The room along the route, how far the car must move left or right to pass (m), and the
        other's speed along the route and to the left (m/s).
        """
        here, numbers = self.projection, []
        found = nearby(
            self.tracker, here.progress_m, self.others or (), OTHERS_BEHIND_M, OTHERS_AHEAD_M
        )
        for each in found[:count]:
            ways_m = each.ways_round_m(here.lateral_m)
            numbers += [each.gap_m, *ways_m, each.speed_mps, each.sideways_mps]
        return numbers + [*NOBODY] * (count - len(found))


class Observer:
    """Builds observations; the same code serves training, the driver and bags."""

    def __init__(self, config: DrivingConfig) -> None:
        self._config = config
        self._bound = VECTOR_BOUND_SCALES * vector_scale(config)
        self._privileged_bound = VECTOR_BOUND_SCALES * privileged_scale(config)
        self._reduce = grey_image if config.image_channels == 1 else colour_image
        self._stack: np.ndarray | None = None

    def reset(self) -> None:
        """Forget earlier images; the next one fills the whole stack."""
        self._stack = None

    def observe(
        self,
        image: np.ndarray,
        speed: float,
        previous_action: np.ndarray,
        course: Course | None = None,
        truth: Course | None = None,
    ) -> Observation:
        """Return {"image": uint8 of `image_shape`, "vector": float32 (entries,)}.

        The newest image comes last. `previous_action` is in [-1, 1]^2. For a privileged critic,
        "privileged" is float32 (entries,), of the `truth` where `course` is wrong. Without a
        `course` there is nothing privileged, and only a vector without the route's parts can be
        built.
        """
        latest = self._reduce(image, self._config.image_size_px)
        if self._stack is None:
            self._stack = np.repeat(latest[None], self._config.image_stack, axis=0)
        else:
            self._stack = np.concatenate([self._stack[1:], latest[None]])
        parts: dict[str, np.ndarray | list[float]] = {
            "speed": [speed],
            "previous_action": previous_action,
        }
        config = self._config
        if course is not None:
            parts |= course.parts(config.vector, config)
        observation = {IMAGE: self._stack.copy(), VECTOR: _held(parts, config.vector, self._bound)}
        known = truth or course
        # Only a world tells who else is there: a driver and a bag do not know.
        if known is not None and config.privileged and known.tells(config.privileged):
            parts = known.parts(config.privileged, config)
            observation[PRIVILEGED] = _held(parts, config.privileged, self._privileged_bound)
        return observation


def _held(
    parts: Mapping[str, np.ndarray | list[float]],
    names: Sequence[PrivilegedPart],
    bound: np.ndarray,
) -> np.ndarray:
    """Return some parts in one vector, float32, within bounds either way."""
    entries = np.concatenate([parts[name] for name in names]).astype(np.float32)
    return np.clip(entries, -bound, bound)
