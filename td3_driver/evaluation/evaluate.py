# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Evaluates a run's policy in the embedded simulator, in process and without noise."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from td3_driver.config import LookChoice
from td3_driver.deployment.loading import finite, load_policy
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import Frame, Start
from td3_driver.evaluation.rollout import Act, DrivenEpisode, drive_episode, report, seeded_starts
from td3_driver.files import replacing
from td3_driver.roads.starts import StartSampler
from td3_driver.runs import RunFolder
from td3_driver.simulator.world import SimulatedWorld


@dataclass
class EvaluatedDrive:
    """The recording of one episode."""

    episode: DrivenEpisode
    route: np.ndarray
    """float64 (n, 3): x, y, yaw."""
    positions: list[tuple[float, float]] = field(default_factory=list)
    speeds: list[float] = field(default_factory=list)
    images: list[np.ndarray] = field(default_factory=list)
    """Camera frames, `bgra8`; empty unless asked for."""


def evaluate_run(
    run: str | Path,
    maps: Sequence[str] | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    out: Path | None = None,
    policy_file: Path | None = None,
    look: LookChoice | None = None,
) -> dict[str, Any]:
    """Evaluate the run's latest policy, or an exported one; write the report and return it.

    `maps`, `episodes`, `seed` and `look` (`simulator.look`) default to the run's configuration,
    `out` to `evaluation.json` in its folder, or to `<policy>.evaluation.json` beside an exported
    policy.
    Raises ConfigError or RoadMapError with a readable message.
    """
    folder = RunFolder(run)
    if out is None:
        beside = policy_file.with_suffix(".evaluation.json") if policy_file else None
        out = beside or folder.path / "evaluation.json"
    drives = drive_run(folder, maps, episodes, seed, policy_file=policy_file, look=look)
    return write_report(drives, out)


def write_report(drives: Sequence[EvaluatedDrive], path: Path) -> dict[str, Any]:
    """Write the report on some drives as JSON and return it."""
    result = report([drive.episode for drive in drives])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as new:
        new.write_text(json.dumps(result, indent=1) + "\n")
    return result


def drive_run(
    folder: RunFolder,
    maps: Sequence[str] | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    filmed: int = 0,
    policy_file: Path | None = None,
    look: LookChoice | None = None,
) -> list[EvaluatedDrive]:
    """Drive the episodes of an evaluation; the first `filmed` ones keep their camera frames."""
    prepared = prepare(folder, maps, episodes, seed, policy_file, look)
    env, act = prepared.env, prepared.act
    drives: list[EvaluatedDrive] = []
    progress = tqdm(prepared.starts, "evaluate", unit="episode")
    for start in progress:
        drive = _Recorder(keep_images=len(drives) < filmed)
        episode = drive_episode(env, act, start, drive.watch)
        drives.append(drive.finished(episode))
        completions = [done.episode.summary.route_completion for done in drives]
        progress.set_postfix_str(f"completion {np.mean(completions):.2f}")
    env.close()
    return drives


@dataclass(frozen=True)
class Prepared:
    """What an evaluation drives with."""

    env: DrivingEnv
    act: Act
    starts: Sequence[Start]


def prepare(
    folder: RunFolder,
    maps: Sequence[str] | None,
    episodes: int | None,
    seed: int | None,
    policy_file: Path | None,
    look: LookChoice | None = None,
) -> Prepared:
    """Return what drives an evaluation's episodes; see `evaluate_run` for the arguments."""
    config = folder.config
    settings = config.evaluation
    names = tuple(maps or settings.maps)
    count = settings.episodes if episodes is None else episodes
    torch.set_num_threads(1)  # one observation at a time gains nothing from more
    policy = load_policy(folder, policy_file or "", config.driving, config.simulator.fixed_delta_s)
    sampler = StartSampler(names, settings.route_length_m)
    changes = {"map": names[0], "look": look or config.simulator.look}
    world = SimulatedWorld(config.simulator.model_copy(update=changes))
    first = settings.seed if seed is None else seed
    starts = tuple(seeded_starts(names, count, first, sampler.on_map))
    return Prepared(DrivingEnv(world, sampler, config.driving), finite(policy), starts)


class _Recorder:
    """Keeps the frames of an episode, and makes a drive of them."""

    def __init__(self, keep_images: bool) -> None:
        self._keep_images = keep_images
        self._frames: list[Frame] = []

    def watch(self, frame: Frame) -> None:
        self._frames.append(frame)

    def finished(self, episode: DrivenEpisode) -> EvaluatedDrive:
        frames = self._frames
        return EvaluatedDrive(
            episode,
            frames[0].route,
            [(frame.pose.x, frame.pose.y) for frame in frames],
            [frame.speed for frame in frames],
            [frame.image for frame in frames] if self._keep_images else [],
        )


def table(episodes: Iterable[dict[str, Any]]) -> str:
    """Return the episodes of a report as a table, with a line for each map and a total."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for episode in episodes:
        rows.setdefault(str(episode["map"]), []).append(episode)
    everything = [episode for group in rows.values() for episode in group]
    lines = [
        f"{'map':<22}{'episodes':>9}{'completion':>12}{'failed':>8}{'distance':>11}{'speed':>10}"
    ]
    for name, group in [*sorted(rows.items()), ("all", everything)]:
        completion = float(np.mean([episode["route_completion"] for episode in group]))
        failed = sum(episode["ended_by"] != "route_end" for episode in group)
        distance = sum(episode["distance_m"] for episode in group)
        duration = sum(episode["duration_s"] for episode in group)
        lines.append(
            f"{name:<22}{len(group):>9}{completion:>12.3f}{failed:>8}{distance:>9.0f} m"
            f"{distance / max(duration, 1e-9):>6.1f} m/s"
        )
    return "\n".join(lines)
