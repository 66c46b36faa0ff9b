"""Draws what config/td3_driver.foxglove.json shows of a bag, for docs/layout.png.

    python tools/draw_layout.py BAG [--at SECONDS]

It is no picture of Foxglove: the panels lie where the layout file puts them and show the topics
that it names, drawn by matplotlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from td3_driver.bridge.messages import image_from_message, odometry_from_message, route_from_path
from td3_driver.offline.bag import Bag

ROOT = Path(__file__).resolve().parents[1]
LAYOUT = ROOT / "config" / "td3_driver.foxglove.json"
WINDOW_S = 20.0
VIEW_M = 60.0

Box = tuple[float, float, float, float]


def panels(node: Any, box: Box) -> dict[str, Box]:
    """Return where a layout puts each of its panels: x, y, width and height, y downwards."""
    if isinstance(node, str):
        return {node: box}
    x, y, width, height = box
    share = node.get("splitPercentage", 50) / 100
    if node["direction"] == "row":
        first = (x, y, share * width, height)
        second = (x + share * width, y, (1 - share) * width, height)
    else:
        first = (x, y, width, share * height)
        second = (x, y + share * height, width, (1 - share) * height)
    return panels(node["first"], first) | panels(node["second"], second)


class Recording:
    """A stretch of a bag up to one moment."""

    def __init__(self, bag: Bag, at_s: float) -> None:
        self._bag = bag
        begin_ns = next(bag.messages()).log_ns
        self.end_ns = begin_ns + int(at_s * 1e9)
        self._begin_ns = self.end_ns - int(WINDOW_S * 1e9)

    def messages(self, topic: str, whole: bool = False) -> list[tuple[float, Any]]:
        """Return a topic's messages before the moment, each with its time relative to it."""
        return [
            (1e-9 * (item.log_ns - self.end_ns), self._bag.decode(item))
            for item in self._bag.messages([topic])
            if (whole or item.log_ns >= self._begin_ns) and item.log_ns <= self.end_ns
        ]


def draw(recording: Recording, out: Path) -> None:
    """Draw every panel of the layout."""
    layout = json.loads(LAYOUT.read_text())
    figure = Figure(figsize=(14, 9), facecolor="#e4e7eb")
    for name, (x, y, width, height) in panels(layout["layout"], (0.0, 0.0, 1.0, 1.0)).items():
        settings = layout["configById"][name]
        axis = figure.add_axes(
            (x + 0.035, 1.0 - y - height + 0.035, width - 0.05, height - 0.075), facecolor="white"
        )
        axis.set_title(
            settings.get("title") or settings.get("foxglovePanelTitle") or "Diagnostics",
            fontsize=9,
            loc="left",
        )
        axis.tick_params(labelsize=7)
        kind = name.split("!")[0]
        {"Image": image, "3D": scene, "Plot": plot}.get(kind, text)(axis, settings, recording)
    said = (
        "drawn by tools/draw_layout.py from the layout file and a bag; not a picture of Foxglove"
    )
    figure.text(0.995, 0.008, said, fontsize=8, ha="right", color="#616e7c")
    figure.savefig(out, dpi=90)


def image(axis: Axes, settings: dict[str, Any], recording: Recording) -> None:
    """Show the latest camera image."""
    _, message = recording.messages(settings["imageMode"]["imageTopic"])[-1]
    axis.imshow(image_from_message(message)[:, :, 2::-1])
    axis.axis("off")


def scene(axis: Axes, settings: dict[str, Any], recording: Recording) -> None:
    """Show paths as lines and odometry as arrows, around the car."""
    pose = None
    for topic, look in settings["topics"].items():
        if look["type"] == "line":
            _, path = recording.messages(topic, whole=True)[-1]
            axis.plot(*route_from_path(path)[:, :2].T, color=look["gradient"][0], lw=1.5)
            continue
        found = recording.messages(topic)
        poses = [odometry_from_message(message)[0] for _, message in found[::10] + found[-1:]]
        xs, ys, yaws = (
            np.array([getattr(item, key) for item in poses]) for key in ("x", "y", "yaw")
        )
        axis.quiver(xs, ys, np.cos(yaws), np.sin(yaws), color=look["color"], scale=30, width=0.004)
        pose = poses[-1]
    if pose is not None:
        axis.set_xlim(pose.x - VIEW_M, pose.x + VIEW_M)
        axis.set_ylim(pose.y - VIEW_M, pose.y + VIEW_M)
    axis.set_aspect("equal", adjustable="datalim")
    axis.grid(alpha=0.4)


def plot(axis: Axes, settings: dict[str, Any], recording: Recording) -> None:
    """Show fields of messages over time."""
    for path in settings["paths"]:
        topic, *fields = path["value"].split(".")
        times, values = [], []
        for time_s, value in recording.messages(topic):
            for name in fields:
                value = getattr(value, name)
            times.append(time_s)
            values.append(value)
        axis.plot(times, values, color=path["color"], label=path["label"], lw=1.2)
    axis.legend(fontsize=7, loc="upper left")
    axis.grid(alpha=0.3)
    if "minYValue" in settings:
        axis.set_ylim(settings["minYValue"] - 0.05, settings["maxYValue"] + 0.05)


def text(axis: Axes, settings: dict[str, Any], recording: Recording) -> None:
    """Show the topic's latest message, or that there is none."""
    topic = settings.get("topicPath") or settings.get("topicToRender", "")
    found = recording.messages(topic)
    axis.text(
        0.02, 0.85, str(found[-1][1])[:120] if found else f"no message on\n{topic}", fontsize=7
    )
    axis.axis("off")


def main() -> None:
    """Draw the layout for the documentation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag")
    parser.add_argument("--at", type=float, default=40.0, help="seconds from the bag's begin")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "layout.png")
    given = parser.parse_args()
    with Bag(given.bag) as bag:
        draw(Recording(bag, given.at), given.out)


if __name__ == "__main__":
    main()
