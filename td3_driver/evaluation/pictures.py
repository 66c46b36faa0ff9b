# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures of a run: its learning curve, its drives on their maps, and films of them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from td3_driver.driving.reward import End
from td3_driver.files import replacing
from td3_driver.roads.map_files import plain_name
from td3_driver.roads.road_map import RoadMap

if TYPE_CHECKING:
    from td3_driver.evaluation.camera_test import CameraTest
    from td3_driver.evaluation.evaluate import EvaluatedDrive
    from td3_driver.runs import RunFolder

mpl.use("Agg")

_CURVES = (
    ("route_completion_mean", "route completion, latest episodes"),
    ("return_mean", "return, latest episodes"),
    ("q1_mean", "Q1, mean of a batch"),
    ("critic_loss", "critic loss"),
    ("actor_loss", "actor loss"),
    ("saturated_share", "share of saturated actions"),
)


FILM_S = 10.0
"""Longest film of a drive."""


def illustrate(folder: RunFolder, drives: Sequence[EvaluatedDrive]) -> list[Path]:
    """Draw all pictures of a run and its drives; return the files written."""
    curve, sheet = folder.path / "learning_curve.png", folder.path / "drives.png"
    learning_curve(folder.path / "metrics.csv", curve)
    drives_sheet(drives, sheet)
    written = [folder.path / "evaluation.json", curve, sheet]
    config = folder.config
    frames_per_s = 1.0 / config.simulator.fixed_delta_s / config.driving.action_repeat
    filmed = next((drive.images for drive in drives if drive.images), None)
    if filmed is not None:
        written.append(folder.path / "drive.mp4")
        film(filmed[: round(FILM_S * frames_per_s)], written[-1], frames_per_s)
    return written


def learning_curve(metrics: Path, picture: Path) -> None:
    """Draw the main columns of a `metrics.csv` over the steps."""
    with metrics.open(newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(11, 6), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True)
    for axis, (column, title) in zip(axes.ravel(), _CURVES, strict=True):
        known = [row for row in rows if row[column]]
        axis.plot([int(row["step"]) for row in known], [float(row[column]) for row in known])
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    examined = [row for row in rows if row.get("validation_completion")]
    if examined:
        axes[0, 0].plot(
            [int(row["step"]) for row in examined],
            [float(row["validation_completion"]) for row in examined],
            drawstyle="steps-post",
            label="examinations without noise",
        )
        axes[0, 0].legend(fontsize=8, loc="lower right")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    axes[0, 0].set_ylim(-0.02, 1.02)
    with replacing(picture) as new:
        figure.savefig(new, dpi=110)


def drives_sheet(drives: Sequence[EvaluatedDrive], picture: Path) -> None:
    """Draw all drives over their maps, a panel for each map, coloured by speed."""
    by_map: dict[str, list[EvaluatedDrive]] = {}
    for drive in drives:
        by_map.setdefault(drive.episode.start.map_name, []).append(drive)
    figure = Figure(figsize=(5.0 * len(by_map), 5.4), layout="constrained")
    axes = figure.subplots(1, len(by_map), squeeze=False)[0]
    fastest = max(max(drive.speeds) for drive in drives)
    for axis, (name, group) in zip(axes, by_map.items(), strict=True):
        draw_map(axis, RoadMap.load(name))
        completions = [drive.episode.summary.route_completion for drive in group]
        for drive in group:
            path = _draw_drive(axis, drive)
            path.set_clim(0.0, fastest)
        axis.set_title(
            f"{plain_name(name)}: {len(group)} drives, completion {np.mean(completions):.2f}",
            fontsize=10,
            parse_math=False,
        )
    figure.colorbar(path, ax=axes, label="speed [m/s]", shrink=0.7)
    with replacing(picture) as new:
        figure.savefig(new, dpi=100)


def _draw_drive(axis: Axes, drive: EvaluatedDrive) -> LineCollection:
    """Draw a drive from its start (dot) to its end (square, or a cross where it failed)."""
    points = np.array(drive.positions)
    pieces = list(np.stack([points[:-1], points[1:]], axis=1))
    path = LineCollection(pieces, array=np.array(drive.speeds[1:]), lw=2.0)
    axis.add_collection(path)
    axis.plot(*points[0], "o", color="tab:green", ms=5)
    reached = drive.episode.summary.ended_by == End.ROUTE_END.value
    axis.plot(*points[-1], "s" if reached else "X", color="tab:blue" if reached else "tab:red")
    return path


def draw_camera_test(result: CameraTest, picture: Path) -> None:
    """Draw what a policy saw under each condition of a camera test, and how far it came."""
    count = len(result.conditions)
    figure = Figure(figsize=(1.6 * count, 2.6), layout="constrained")
    for axis, condition in zip(figure.subplots(1, count), result.conditions, strict=True):
        image = result.examples[condition.name]
        grey = image.ndim == 2
        axis.imshow(image if grey else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255)
        axis.set_title(condition.name, fontsize=9)
        axis.set_xlabel(f"{condition.completion:.0%} of the routes", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle("\n".join(result.says()), fontsize=10, parse_math=False)
    with replacing(picture) as new:
        figure.savefig(new, dpi=110)


def draw_map(axis: Axes, road_map: RoadMap) -> None:
    """Draw the driving lanes of a map, in metres, with x to the right."""
    for surface in road_map.surfaces:
        if surface.type == "Driving":
            outline = np.concatenate([surface.left, surface.right[::-1]])
            axis.fill(outline[:, 0], outline[:, 1], color="0.85", lw=0)
    axis.set_aspect("equal")
    axis.set_xlabel("x [m]")
    axis.set_ylabel("y [m]")


def film(images: list[np.ndarray], path: Path, frames_per_s: float, scale: int = 3) -> None:
    """Write camera frames (`bgra8`) as a film; raise OSError if OpenCV cannot."""
    height, width = images[0].shape[:2]
    size = (width * scale, height * scale)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"vp09"), frames_per_s, size)
    if not writer.isOpened():
        raise OSError(f"OpenCV cannot write the film {path}")
    for image in images:
        bgr = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
        writer.write(cv2.resize(bgr, size, interpolation=cv2.INTER_NEAREST))
    writer.release()
