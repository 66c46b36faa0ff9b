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


def illustrate(folder: RunFolder, drives: Sequence[EvaluatedDrive]) -> list[Path]:
    """Draw all pictures of a run and its drives; return the files and folders written."""
    curve = folder.path / "learning_curve.png"
    learning_curve(folder.path / "metrics.csv", curve)
    written = [folder.path / "evaluation.json", curve]
    drawn = folder.path / "drives"
    drawn.mkdir(exist_ok=True)
    config = folder.config
    frames_per_s = 1.0 / config.simulator.fixed_delta_s / config.driving.action_repeat
    for drive in drives:
        start = drive.episode.start
        name = f"{plain_name(start.map_name)}-{start.seed}"
        drive_picture(drive, drawn / f"{name}.png")
        if drive.images:
            film(drive.images, drawn / f"{name}.mp4", frames_per_s)
            written.append(drawn / f"{name}.mp4")
    return [*written, drawn]


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


def drive_picture(drive: EvaluatedDrive, picture: Path) -> None:
    """Draw a drive on its map: the route dashed, the driven path coloured by speed."""
    start, summary = drive.episode.start, drive.episode.summary
    figure = Figure(figsize=(8, 7), layout="constrained")
    axis = figure.subplots()
    draw_map(axis, RoadMap.load(start.map_name))
    axis.plot(drive.route[:, 0], drive.route[:, 1], "--", color="0.25", lw=0.8, label="route")
    points = np.array(drive.positions)
    pieces = list(np.stack([points[:-1], points[1:]], axis=1))
    path = LineCollection(pieces, array=np.array(drive.speeds[1:]), lw=2.5)
    axis.add_collection(path)
    figure.colorbar(path, ax=axis, label="speed [m/s]", shrink=0.7)
    axis.plot(*points[0], "o", color="tab:green", label="start")
    axis.plot(*points[-1], "s", color="tab:red", label=f"end: {summary.ended_by}")
    axis.set_title(
        f"{plain_name(start.map_name)}, seed {start.seed}: "
        f"{summary.route_completion:.0%} of {summary.route_length_m:.0f} m",
        parse_math=False,
    )
    axis.legend(loc="best", fontsize=8)
    with replacing(picture) as new:
        figure.savefig(new, dpi=100)


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
    figure.suptitle(result.verdict(), fontsize=10, parse_math=False)
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
