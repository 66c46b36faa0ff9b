# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Evaluates a bag with a policy: a table with a row for each decision, and a list of events.

The bag is read as a stream; only a row is kept for each decision, and none of its images.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from td3_driver.bridge import topics
from td3_driver.config import Config, ConfigError, DrivingConfig
from td3_driver.deployment.description import check_observed
from td3_driver.documents import in_short
from td3_driver.driving.observation import Observation
from td3_driver.driving.reward import RewardTerms
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.bag_findings import ODD_MESSAGE
from td3_driver.offline.decisions import Decision, decisions
from td3_driver.offline.events import Event, EventDetector
from td3_driver.offline.frames import BagFrame, BagFrames
from td3_driver.offline.networks import Networks, evaluate, load_networks
from td3_driver.offline.output import writing
from td3_driver.offline.policy_record import PolicyRecord
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.road_map import RoadMap
from td3_driver.runs import find_checkpoint

BATCH = 64
OF_REWARD = ("reward", *(f"reward_{name}" for name in RewardTerms.__dataclass_fields__))
OF_DECISION = (
    "time_s",
    "stamp_s",
    "x_m",
    "y_m",
    "yaw_rad",
    "speed_mps",
    "lateral_m",
    "heading_error_rad",
    "progress_m",
    "completion",
    "steering",
    "speed",
    *OF_REWARD,
    "data_age_ms",
    "inference_ms",
    "stretch",
)
OF_NETWORKS = (
    "policy_steering",
    "policy_speed",
    "disagreement",
    "q1",
    "q2",
    "q_gap",
    "policy_q",
    "advantage",
    "td_error_1",
    "td_error_2",
)


@dataclass(frozen=True)
class Stretch:
    """A part of a bag along one route, without interruption."""

    begin_s: float
    duration_s: float
    distance_m: float
    completion: float
    """Share of the route, from the start of the stretch, that was driven."""
    reward: float
    ended_by: str


@dataclass
class Inspection:
    """All results about a bag and its evaluation by one or two checkpoints."""

    bag: Path
    names: list[str]
    """Of the checkpoints."""
    columns: dict[str, np.ndarray]
    """An array for each signal, with an entry for each decision; NaN means not known."""
    events: list[Event]
    stretches: list[Stretch]
    routes: list[np.ndarray]
    path: np.ndarray
    """The position in every frame, with or without a decision, float64 (n, 2)."""
    facts: dict[str, str]
    """The summary, in words."""
    topics: list[tuple[str, str, int, float]]
    """Name, type, messages and messages per second of recorded time."""
    notes: list[str] = field(default_factory=list)
    road_map: RoadMap | None = None

    @property
    def decisions(self) -> int:
        """Number of decisions."""
        return len(self.columns["time_s"])


class Inspector:
    """A bag, and the checkpoints to evaluate it with."""

    def __init__(
        self,
        bag: Bag,
        run: str | Path,
        other: str | Path | None = None,
        names: Mapping[str, str | None] | None = None,
    ) -> None:
        """Load the checkpoints; raises BagError, RunError or CheckpointError in plain words.

        `names` gives `role_name` and `camera` if they cannot be found out from the bag.
        """
        # The networks are small: more threads would wait for one another longer than they work.
        torch.set_num_threads(1)
        folder, checkpoint = find_checkpoint(run)
        self.config: Config = folder.config
        self.networks: list[Networks] = [_networks(checkpoint, self.config)]
        observed = self.networks[0].saved.policy.observed
        check_observed(observed, self.config.driving, str(checkpoint))
        if other is not None:
            other_folder, other_checkpoint = find_checkpoint(other)
            _check_same_task(self.config.driving, other_folder.config.driving)
            self.networks.append(_networks(other_checkpoint, other_folder.config))
        self.bag = bag
        chosen = {key: value for key, value in (names or {}).items() if value is not None}
        self.frames = BagFrames(bag, self.config.carla.model_copy(update=chosen))

    def decisions(self, frames: Iterable[BagFrame] | None = None) -> Iterator[Decision]:
        """Yield the bag's decisions, the same every time and in the same order."""
        return decisions(
            self.frames if frames is None else frames,
            self.config.driving,
            self.frames.fixed_delta_s,
        )

    def inspect(self) -> Inspection:
        """Read the whole bag and evaluate every decision."""
        watch = EventDetector(self.frames)
        rows = _Rows(self.config, self.networks)
        with tqdm(desc="evaluate", total=self.frames.images, unit="image") as progress:
            for batch in _batches(self.decisions(watch.frames(progress)), BATCH):
                rows.add(batch, watch.time_of, self.frames.findings.policy_record.inference_s)
        if not rows.count:
            raise BagError(f"{self.bag.path} has no decisions to inspect: {watch.why_nothing()}")
        columns = rows.columns()
        stretches = _stretches(rows, columns)
        events = sorted([*watch.events(), *rows.ends], key=lambda event: event.time_s)
        road_map, notes = self._road_map()
        return Inspection(
            bag=self.bag.path,
            names=[networks.name for networks in self.networks],
            columns=columns,
            events=events,
            stretches=stretches,
            routes=watch.routes,
            path=np.array(watch.positions),
            facts=self._facts(watch, columns, events, stretches),
            topics=self._topics(watch),
            notes=[
                *self.bag.notes,
                *watch.notes(),
                *self.frames.findings.policy_record.notes(),
                *self._network_notes(),
                *notes,
            ],
            road_map=road_map,
        )

    def _road_map(self) -> tuple[RoadMap | None, list[str]]:
        try:
            world = self.frames.world_info()
            if world is None:
                name = topics.WORLD_INFO.name(self.frames.names)
                return None, [f"there is no map, because nothing was recorded on {name}"]
            return RoadMap.from_opendrive(world.map_name, world.opendrive), []
        except (RoadMapError, *ODD_MESSAGE) as error:
            return None, [f"the map cannot be drawn: {in_short(error)}"]

    def _network_notes(self) -> list[str]:
        return [
            f"{networks.name} was saved without its critic, or with one that knew who else was on "
            "the road: it gives no values and no TD errors"
            for networks in self.networks
            if networks.critic is None
        ]

    def _facts(
        self,
        watch: EventDetector,
        columns: dict[str, np.ndarray],
        events: Sequence[Event],
        stretches: Sequence[Stretch],
    ) -> dict[str, str]:
        findings = self.frames.findings
        counts = dict.fromkeys(("collision", "lane_invasion", "watchdog_stop"), 0)
        for event in events:
            if event.kind in counts:
                counts[event.kind] += 1
        duration_s = watch.duration_s
        rate_hz = (watch.count - 1) / duration_s if duration_s > 0.0 else 0.0
        age = columns["data_age_ms"]
        return {
            "duration": f"{duration_s:.1f} s",
            "distance": f"{watch.distance_m:.0f} m",
            "mean speed": f"{watch.distance_m / max(duration_s, 1e-9):.1f} m/s",
            "camera": f"{watch.size[1]} x {watch.size[0]}, {rate_hz:.1f} Hz",
            "gaps": f"{len(watch.gaps)}"
            + (f", longest {max(watch.gaps):.2f} s" if watch.gaps else ""),
            "dropped": f"{watch.dropped} images, {findings.unmatched_images} without odometry",
            "decisions": f"{len(age)}",
            "image to command": _spread(age, "ms"),
            "collisions": str(counts["collision"]),
            "lane invasions": str(counts["lane_invasion"]),
            "watchdog stops": str(counts["watchdog_stop"]),
            "return": f"{sum(stretch.reward for stretch in stretches):.1f}",
            "ended by": stretches[-1].ended_by,
            **_driver_facts(findings.policy_record),
        }

    def _topics(self, watch: EventDetector) -> list[tuple[str, str, int, float]]:
        span_s = watch.recorded_s
        return [
            (topic.name, topic.type_name, topic.count, topic.count / span_s if span_s else 0.0)
            for topic in sorted(self.bag.topics.values(), key=lambda topic: topic.name)
        ]


def _driver_facts(record: PolicyRecord) -> dict[str, str]:
    """Return what the recorded driver published about itself, if anything."""
    facts = {}
    if record.policies:
        facts["driven by"] = record.driven_by()
    inferences_s, differences_rad = record.inferences_s(), record.steering_differences_rad()
    if len(inferences_s):
        facts["inference"] = _spread(1e3 * inferences_s, "ms")
    if len(differences_rad):
        facts["shadow's steering"] = "differs by " + _spread(np.rad2deg(differences_rad), "deg")
    return facts


def _spread(values: np.ndarray, unit: str) -> str:
    known = values[np.isfinite(values)]
    if not len(known):
        return "not recorded"
    median, most = np.percentile(known, [50, 99])
    return f"{median:.1f} {unit} median, {most:.1f} {unit} p99"


# The settings that determine an observation, and when one is made.
_OBSERVED = (
    "image_size_px",
    "image_stack",
    "image_channels",
    "waypoints",
    "waypoint_spacing_m",
    "vector",
    "action_repeat",
    "max_steering_angle_rad",
    "max_speed_mps",
)


def _networks(checkpoint: Path, config: Config) -> Networks:
    return load_networks(checkpoint, config.learning, config.driving.needs_others)


def _check_same_task(first: DrivingConfig, other: DrivingConfig) -> None:
    """Raise ConfigError if two checkpoints cannot evaluate the same observations."""
    different = [name for name in _OBSERVED if getattr(first, name) != getattr(other, name)]
    if different:
        listed = ", ".join(
            f"driving.{name} ({getattr(first, name)} and {getattr(other, name)})"
            for name in different
        )
        raise ConfigError(
            f"the two runs cannot be compared, because they observe or act differently: {listed}"
        )


Item = TypeVar("Item")


def _batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


class _Rows:
    """Collects the rows of the table."""

    def __init__(self, config: Config, networks: Sequence[Networks]) -> None:
        self.count = 0
        self.ends: list[Event] = []
        self.ended_by: dict[int, str] = {}
        self._config = config
        self._networks = networks
        self._parts: dict[str, list[np.ndarray]] = {}
        self._latest_end: tuple[int, str] | None = None

    def add(
        self,
        batch: Sequence[Decision],
        time_of: Callable[[BagFrame], float],
        inference_s: Callable[[int], float],
    ) -> None:
        """Evaluate the next decisions.

        `inference_s` returns how long the recorded policy took for the image of a stamp.
        """
        rows = [
            {
                **_row(decision, time_of(decision.source)),
                "inference_ms": 1e3 * inference_s(decision.source.frame.stamp_ns),
            }
            for decision in batch
        ]
        for name in OF_DECISION:
            self._append(name, np.array([row[name] for row in rows]))
        actions = np.array([[row["steering"], row["speed"]] for row in rows], dtype=np.float32)
        rewards = np.array([row["reward"] for row in rows], dtype=np.float32)
        terminated = np.array(
            [decision.end is not None and decision.end.terminated for decision in batch],
            dtype=np.float32,
        )
        for suffix, networks in zip(("", "_other"), self._networks, strict=False):
            result = evaluate(
                networks,
                [decision.observation for decision in batch],
                actions,
                rewards,
                [decision.next_observation for decision in batch],
                terminated,
            )
            steering, speed = result.policy_action.T
            values = {
                "policy_steering": steering,
                "policy_speed": speed,
                "disagreement": np.abs(result.policy_action - actions).max(axis=1),
                "q1": result.q1,
                "q2": result.q2,
                "q_gap": result.q1 - result.q2,
                "policy_q": result.policy_q,
                "advantage": result.policy_q - np.minimum(result.q1, result.q2),
                "td_error_1": result.td_error_1,
                "td_error_2": result.td_error_2,
            }
            for name in OF_NETWORKS:
                self._append(name + suffix, values[name])
        self.count += len(batch)
        for decision, row in zip(batch, rows, strict=True):
            self._note_end(decision, row["time_s"])

    def columns(self) -> dict[str, np.ndarray]:
        """Return the table, column by column."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}

    def _append(self, name: str, values: np.ndarray) -> None:
        self._parts.setdefault(name, []).append(values.astype(np.float64))

    def _note_end(self, decision: Decision, time_s: float) -> None:
        """Note how an episode would have ended, once for as long as that end lasts."""
        end = None if decision.end is None else (decision.stretch, decision.end.value)
        if end is not None and end != self._latest_end:
            self.ends.append(Event(time_s, "end", end[1]))
        self._latest_end = end
        self.ended_by[decision.stretch] = end[1] if end else ""


def _row(decision: Decision, time_s: float) -> dict[str, float]:
    source, frame = decision.source, decision.source.frame
    reward = decision.reward
    terms = {f"reward_{name}": value for name, value in reward.as_dict().items()} if reward else {}
    answered = source.command_log_ns
    row = {
        "time_s": time_s,
        "stamp_s": 1e-9 * frame.stamp_ns,
        "x_m": frame.pose.x,
        "y_m": frame.pose.y,
        "yaw_rad": frame.pose.yaw,
        "speed_mps": frame.speed,
        "lateral_m": decision.projection.lateral_m,
        "heading_error_rad": decision.projection.heading_error_rad,
        "progress_m": decision.projection.progress_m,
        "completion": decision.completion,
        "reward": reward.total if reward else np.nan,
        "data_age_ms": np.nan if answered is None else 1e-6 * (answered - source.log_ns),
        "stretch": decision.stretch,
        **terms,
    }
    if decision.action is not None:
        row["steering"], row["speed"] = map(float, decision.action)
    return {name: float(row.get(name, np.nan)) for name in OF_DECISION}


def _stretches(rows: _Rows, columns: dict[str, np.ndarray]) -> list[Stretch]:
    stretches = []
    for number in np.unique(columns["stretch"]):
        part = columns["stretch"] == number
        time_s, x_m, y_m = (columns[name][part] for name in ("time_s", "x_m", "y_m"))
        ended_by = rows.ended_by[int(number)]
        stretches.append(
            Stretch(
                begin_s=float(time_s[0]),
                duration_s=float(time_s[-1] - time_s[0]),
                distance_m=float(np.sum(np.hypot(np.diff(x_m), np.diff(y_m)))),
                completion=float(columns["completion"][part].max()),
                reward=float(np.nansum(columns["reward"][part])),
                ended_by=ended_by or "end of the recording",
            )
        )
    return stretches


def write_csv(inspection: Inspection, path: Path) -> None:
    """Write the table, one row for each decision, unknown values empty; raises BagError."""
    names = list(inspection.columns)
    with writing(path) as new, new.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in zip(*inspection.columns.values(), strict=True):
            writer.writerow("" if np.isnan(value) else f"{value:.7g}" for value in row)


def observations_of(
    inspector: Inspector, wanted: Sequence[int]
) -> Iterator[tuple[int, np.ndarray, Observation]]:
    """Read the bag again; yield the index, image and observation of the wanted decisions."""
    chosen = set(wanted)
    last = max(chosen, default=-1)
    progress = tqdm(desc="picture", total=len(chosen), unit="frame")
    for index, decision in enumerate(inspector.decisions()):
        if index in chosen:
            progress.update()
            yield index, decision.source.frame.image, decision.observation
        if index >= last:
            break
    progress.close()
