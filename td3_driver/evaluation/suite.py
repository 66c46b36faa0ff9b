# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Suites: files of fixed routes, traffic and looks that any driver can be examined with.

They follow NoCrash (Codevilla et al., ICCV 2019): empty, regular and dense traffic; places and
looks of the training, and new ones.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from os.path import isfile
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError, field_validator

from td3_driver.config import (
    CONFIG_FOLDER,
    LONGEST,
    ConfigError,
    DrivingConfig,
    Section,
    SimulatorConfig,
    in_words,
    shown,
)
from td3_driver.documents import DocumentError, parse_yaml, read_text
from td3_driver.files import is_utf8

SUITES_FOLDER = CONFIG_FOLDER / "suites"
ALL = "all"
"""What results call all groups together."""
TOLD = 3
"""Wrong settings that the one line of a refusal names."""
MOST_EPISODES = 10_000
"""Of a suite."""

SEEN_WITH = (
    "fixed_delta_s",
    "image_width_px",
    "image_height_px",
    "camera_fov_deg",
    "camera_x_m",
    "camera_z_m",
    "camera_pitch_deg",
)
"""Settings of the simulator that belong to the driver: the camera that it has learnt with, and the
time between its decisions. All others are the suite's, or their defaults."""
ENDS = (
    "lateral_limit_m",
    "off_lane_ticks",
    "wrong_way_rad",
    "collision_impulse_ns",
    "stuck_speed_mps",
    "stuck_time_s",
    "stuck_grace_s",
    "time_limit_s",
    "goal_tolerance_m",
)
"""Settings of driving that belong to the suite: what ends an episode is the same for all.

Of these, lateral_limit_m also says how an observation is bounded, at ten times as much: that is
beyond where an episode ends, for the limits that make sense.
"""


class Group(Section):
    """Episodes under the same conditions: one part of a suite."""

    name: str = Field(min_length=1, max_length=80)
    maps: tuple[Annotated[str, Field(max_length=LONGEST)], ...] = Field(
        min_length=1, max_length=100
    )
    """Shipped names, or paths; driven on in turn."""
    episodes: int = Field(ge=1, le=1000)
    seed: int = Field(0, ge=0, lt=2**31)
    """Of the first episode; a map, a seed and a length say where an episode starts and leads."""
    route_length_m: float = Field(300.0, ge=20.0, le=1e5)
    simulator: SimulatorConfig = SimulatorConfig()
    """What is given here holds in the group: traffic_vehicles, seed (the looks), ..."""

    @field_validator("simulator")
    @classmethod
    def _leaves_maps_to_maps(cls, value: SimulatorConfig) -> SimulatorConfig:
        if "map" in value.model_fields_set:
            raise ValueError("map is not for here: name it in maps")
        return value

    def simulator_for(self, own: SimulatorConfig) -> SimulatorConfig:
        """Return the settings of the group's world for a driver with a camera of its `own`."""
        seen = {name: getattr(own, name) for name in SEEN_WITH}
        given = self.simulator.model_dump(include=self.simulator.model_fields_set)
        return SimulatorConfig.model_validate({**seen, **given, "map": self.maps[0]})


class SuiteFile(Section):
    """The contents of a suite's file."""

    description: str = Field(max_length=2000)
    ends: DrivingConfig = DrivingConfig()
    groups: tuple[Group, ...]

    @field_validator("ends")
    @classmethod
    def _only_ends(cls, value: DrivingConfig) -> DrivingConfig:
        if others := sorted(value.model_fields_set.difference(ENDS)):
            raise ValueError(f"{others[0]} does not end an episode; only {', '.join(ENDS)} do")
        return value

    @field_validator("groups")
    @classmethod
    def _some_that_differ_in_name(cls, value: tuple[Group, ...]) -> tuple[Group, ...]:
        if not value:
            raise ValueError("there has to be one at least")
        names = [group.name for group in value]
        if ALL in names:
            raise ValueError(f"none can be named {ALL!r}, as all of them together are")
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two groups are named {shown(twice[0])}")
        if (episodes := sum(group.episodes for group in value)) > MOST_EPISODES:
            raise ValueError(f"{episodes:,} episodes are more than {MOST_EPISODES:,}")
        return value


@dataclass(frozen=True)
class Suite:
    """A suite and the file that it is from."""

    name: str
    path: Path
    sha256: str
    """Of the file: results with the same digest are of the same suite."""
    contents: SuiteFile

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups, in the file's order."""
        return self.contents.groups

    def driving_for(self, own: DrivingConfig) -> DrivingConfig:
        """Return a driver's `own` settings with the suite's ends of episodes."""
        ends = {name: getattr(self.contents.ends, name) for name in ENDS}
        return DrivingConfig.model_validate({**own.model_dump(), **ends})

    @classmethod
    def load(cls, name_or_path: str) -> Suite:
        """Read a shipped suite by name, or any by path; raises ConfigError in one line."""
        path = find_suite(name_or_path)
        if not is_utf8(path):
            raise ConfigError(
                f"a suite's path has to be UTF-8, unlike {shown(str(path))}: rename it"
            )
        try:
            text = read_text(path, "YAML")
            document = parse_yaml(text, str(path))
        except DocumentError as error:
            raise ConfigError(str(error)) from None
        if not isinstance(document, dict):
            raise ConfigError(f"{path} is no suite: it has to say description and groups")
        try:
            contents = SuiteFile.model_validate(document)
        except ValidationError as error:
            problems = [line.strip() for line in in_words(error).splitlines()[:TOLD]]
            if (more := error.error_count() - len(problems)) > 0:
                problems.append(f"and {more} more")
            raise ConfigError(f"{path} is no suite: {'; '.join(problems)}") from None
        return cls(path.stem, path, hashlib.sha256(text.encode()).hexdigest(), contents)


def shipped_suites() -> list[str]:
    """Return the names of the suites that come with the package."""
    return sorted(path.stem for path in SUITES_FOLDER.glob("*.yaml"))


def find_suite(name_or_path: str) -> Path:
    """Return the path of a suite given by path or by name; raises ConfigError."""
    for path in (Path(name_or_path), SUITES_FOLDER / f"{name_or_path}.yaml"):
        if isfile(path):  # It takes any name, however long.
            return path
    raise ConfigError(
        f"no suite {shown(name_or_path)}: not a file, nor one of {', '.join(shipped_suites())}"
    )
