# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The inputs, outputs and task of an exported policy, described for other tools to read.

The description is JSON in the ONNX file's metadata, under `METADATA_KEY`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from td3_driver.config import ConfigError, DrivingConfig, Section, in_words, shown
from td3_driver.documents import in_short, parse_json
from td3_driver.driving.control import action_ranges
from td3_driver.driving.environment import observation_space
from td3_driver.driving.observation import IMAGE, Observation, unit_of, vector_names

METADATA_KEY = "td3_driver"
FORMAT: Final = 1
"""Increased whenever an older reader would misunderstand a newer file."""

OF_EPISODES = frozenset(
    (
        "target_speed_mps",
        "reward_speed_limit_mps",
        "off_lane_ticks",
        "wrong_way_rad",
        "steering_change_cost",
        "lane_invasion_cost",
        "failure_cost",
        "collision_impulse_ns",
        "stuck_speed_mps",
        "stuck_time_s",
        "stuck_grace_s",
        "time_limit_s",
        "goal_tolerance_m",
    )
)
"""Driving settings of the reward and of an episode's end: they change neither what a policy sees
nor what its action does."""
OF_THE_CAR = frozenset(("vehicle_max_steer_rad",))
"""Driving settings of the car in use: they only affect how it carries out a command."""
DIFFERENCES_TOLD = 8


class PolicyFileError(ConfigError):
    """A policy file cannot be used; the message says which and why."""


MOST_SIZE = 1 << 16
MOST_VALUES = 1 << 26
Name = Annotated[str, Field(max_length=256)]
_Size = Annotated[int, Field(ge=1, le=MOST_SIZE)]


class Entry(Section):
    """One entry of a vector or an action."""

    name: Name
    unit: Name
    """SI unit; "1" if it has none."""
    low: float
    high: float
    """The observation's bounds; for an action, what -1 and +1 stand for."""


class Array(Section):
    """One input or output, without the batch dimension in front."""

    dtype: Literal["uint8", "float32"]
    shape: Annotated[tuple[_Size, ...], Field(min_length=1, max_length=4)]
    axes: Annotated[tuple[Name, ...], Field(max_length=4)]
    entries: Annotated[tuple[Entry, ...], Field(max_length=MOST_SIZE)] = ()

    @model_validator(mode="after")
    def _fits_in_memory(self) -> Array:
        if math.prod(self.shape) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        if self.entries and self.shape != (len(self.entries),):
            raise ValueError("as many entries as its shape says are needed")
        return self


class TaskDescription(Section):
    """What a policy observes and commands, and the settings that shape both."""

    observation: Annotated[dict[Name, Array], Field(min_length=1, max_length=16)]
    """By key; only what the networks see."""
    action: Array
    """In [-1, 1]; steering + = left."""
    driving: DrivingConfig
    fixed_delta_s: float
    """Simulated time of one tick; a decision is held for `driving.action_repeat` of them."""


class Origin(Section):
    """The checkpoint that a policy was exported from."""

    step: Annotated[int, Field(ge=0)]
    actor_sha256: Name
    """SHA-256 of the checkpoint's `actor.safetensors`."""


class PolicyDescription(Section):
    """A policy file's metadata."""

    format: Literal[1] = FORMAT
    task: TaskDescription
    checkpoint: Origin
    example_action: tuple[float, ...]
    """The answer to `example_observation`, used to detect damage."""


def describe_task(
    driving: DrivingConfig, fixed_delta_s: float, keys: Iterable[str]
) -> TaskDescription:
    """Describe the task that these settings define, for a policy that sees these keys.

    Keys that the task does not have are left out.
    """
    spaces = observation_space(driving).spaces
    arrays = {key: _array(key, spaces[key], driving) for key in keys if key in spaces}
    ranges = action_ranges(driving)
    entries = tuple(Entry(name=r.name, unit=r.unit, low=r.low, high=r.high) for r in ranges)
    return TaskDescription(
        observation=arrays,
        action=Array(dtype="float32", shape=(len(entries),), axes=("entry",), entries=entries),
        driving=driving,
        fixed_delta_s=fixed_delta_s,
    )


def _array(key: str, space: Any, driving: DrivingConfig) -> Array:
    if key == IMAGE:
        colour = ("channel",) if len(space.shape) == 4 else ()
        axes = ("stack", *colour, "height", "width")
        return Array(dtype=space.dtype.name, shape=space.shape, axes=axes)
    bounds = zip(vector_names(driving), space.low, space.high, strict=True)
    entries = tuple(
        Entry(name=name, unit=unit_of(name), low=float(low), high=float(high))
        for name, low, high in bounds
    )
    return Array(dtype=space.dtype.name, shape=space.shape, axes=("entry",), entries=entries)


def check_observed(
    observed: Mapping[str, tuple[int, ...]], driving: DrivingConfig, source: str
) -> None:
    """Raise ConfigError unless a policy's observations, shapes by key, match the task's."""
    spaces = observation_space(driving).spaces
    here = {key: space.shape for key, space in spaces.items() if key in observed}
    if observed != here:
        raise ConfigError(
            f"{source} expects {_plural(observed)}, but the driving settings give "
            f"{_plural(here) or 'none of them'}: use the settings that it was trained with"
        )


def _plural(shapes: Mapping[str, tuple[int, ...] | None]) -> str:
    return " and ".join(f"{key}s {shape}" for key, shape in shapes.items())


def read(text: str, source: str) -> PolicyDescription:
    """Read a description from JSON; `source` says where it came from.

    Raises PolicyFileError.
    """
    try:
        values = parse_json(text, "its description")
        written = values["format"]
    except (ValueError, TypeError, KeyError) as error:
        raise PolicyFileError(f"{source} has a damaged description: {in_short(error)}") from None
    if written != FORMAT:
        raise PolicyFileError(
            f"{source} has a description of format {shown(written)}, but this version reads "
            f"{FORMAT}: export it again"
        )
    try:
        return PolicyDescription.model_validate(values)
    except ValidationError as error:
        raise PolicyFileError(
            f"{source} has a description that cannot be used:\n{in_words(error)}"
        ) from None


def example_observation(task: TaskDescription) -> Observation:
    """Return an observation that every reader of a description can reproduce.

    The image's bytes count 0, 1, ... 255, 0, ... in memory order; the vector's entries run evenly
    from -1/10 to 1/10 of their upper bounds.
    """
    observation = {}
    for key, array in task.observation.items():
        count = int(np.prod(array.shape))
        if array.dtype == "uint8":
            flat = np.arange(count).astype(np.uint8)
        else:
            high = np.array([entry.high for entry in array.entries])
            flat = (np.linspace(-0.1, 0.1, count) * high).astype(np.float32)
        observation[key] = flat.reshape(array.shape)
    return observation


def check_same_task(made_for: TaskDescription, here: TaskDescription, source: str) -> None:
    """Raise PolicyFileError, naming what differs, unless a policy fits this task."""
    found = list(_differences("", _binding(made_for), _binding(here)))
    if not found:
        return
    lines = [f"  {line}" for line in found[:DIFFERENCES_TOLD]]
    if len(found) > DIFFERENCES_TOLD:
        lines.append(f"  and {len(found) - DIFFERENCES_TOLD} more")
    raise PolicyFileError(
        f"{source} was made for another task; drive with the settings it was trained with, or "
        "export it again:\n" + "\n".join(lines)
    )


def _binding(task: TaskDescription) -> dict[str, Any]:
    """Return what must match, with the settings first: the rest mostly follows from them."""
    fields = set(TaskDescription.model_fields) - {"driving"}
    driving = task.driving.model_dump(mode="json", exclude=set(OF_EPISODES | OF_THE_CAR))
    return {"driving": driving, **task.model_dump(mode="json", include=fields)}


def _differences(name: str, theirs: Any, ours: Any) -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            inner = f"{name}.{key}" if name else key
            if key not in ours:
                yield f"{inner}: only the file has it"
            elif key not in theirs:
                yield f"{inner}: the file lacks it"
            else:
                yield from _differences(inner, theirs[key], ours[key])
    elif _is_table(theirs) and _is_table(ours):
        yield from _differences(name, _by_name(theirs), _by_name(ours))
    elif theirs != ours:
        yield f"{name}: {shown(theirs)} in the file, {shown(ours)} here"


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def _by_name(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {row["name"]: row for row in rows}
