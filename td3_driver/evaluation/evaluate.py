# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Evaluates a run's policy in the embedded simulator, in process and without noise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from td3_driver.config import LookChoice
from td3_driver.deployment.loading import finite, load_policy
from td3_driver.driving.world import Frame
from td3_driver.evaluation.fixed_drives import FixedDrives
from td3_driver.evaluation.rollout import Act, DrivenEpisode, drive_episode, report
from td3_driver.files import write_json
from td3_driver.runs import RunFolder


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


@dataclass(frozen=True)
class Choice:
    """What an evaluation drives; None as the run's configuration says."""

    maps: Sequence[str] | None = None
    episodes: int | None = None
    seed: int | None = None
    """Of the first episode."""
    look: LookChoice | None = None
    """`simulator.look`."""
    policy_file: Path | None = None
    """An exported policy, or a checkpoint's folder; None = the run's best checkpoint."""


AS_THE_RUN = Choice()


def evaluate_run(
    run: str | Path, choice: Choice = AS_THE_RUN, out: Path | None = None
) -> dict[str, Any]:
    """Evaluate a run's policy; write the report and return it.

    `out` defaults to `evaluation.json` in its folder, or to `<policy>.evaluation.json` beside a
    policy given by its file. Raises ConfigError or RoadMapError with a readable message.
    """
    folder = RunFolder(run)
    if out is None:
        file = choice.policy_file
        out = file.with_suffix(".evaluation.json") if file else folder.path / "evaluation.json"
    return write_report(drive_run(folder, choice), out)


def write_report(drives: Sequence[EvaluatedDrive], path: Path) -> dict[str, Any]:
    """Write the report on some drives as JSON and return it."""
    result = report([drive.episode for drive in drives])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, result)
    return result


def drive_run(
    folder: RunFolder, choice: Choice = AS_THE_RUN, filmed: int = 0
) -> list[EvaluatedDrive]:
    """Drive the episodes of an evaluation; the first `filmed` ones keep their camera frames."""
    fixed, act = prepare(folder, choice)
    drives: list[EvaluatedDrive] = []
    progress = tqdm(fixed.starts, "evaluate", unit="episode")
    for start in progress:
        drive = _Recorder(keep_images=len(drives) < filmed)
        episode = drive_episode(fixed.env, act, start, drive.watch)
        drives.append(drive.finished(episode))
        completions = [done.episode.summary.route_completion for done in drives]
        progress.set_postfix_str(f"completion {np.mean(completions):.2f}")
    fixed.env.close()
    return drives


def prepare(folder: RunFolder, choice: Choice) -> tuple[FixedDrives, Act]:
    """Return the drives of an evaluation, and what drives them."""
    config = folder.config
    torch.set_num_threads(1)  # one observation at a time gains nothing from more
    policy = load_policy(
        folder, choice.policy_file or "", config.driving, config.simulator.fixed_delta_s
    )
    given = {"maps": choice.maps, "episodes": choice.episodes, "seed": choice.seed}
    settings = config.evaluation.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )
    look = choice.look or config.simulator.look
    simulator = config.simulator.model_copy(update={"look": look})
    return FixedDrives.of(simulator, config.driving, settings), finite(policy)


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
