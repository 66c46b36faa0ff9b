# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Writes a page about a bag that any browser can open offline: `inspect --out FILE.html`.

The page's script and style are in `page/`, together with uPlot (MIT), which draws the plots.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from td3_driver.driving.observation import Observation
from td3_driver.driving.reward import RewardTerms
from td3_driver.offline.inspection import Inspection, Inspector, observations_of
from td3_driver.offline.output import writing
from td3_driver.offline.saliency import saliencies
from td3_driver.pages import jpeg, page_of, scaled
from td3_driver.roads.outlines import lane_outlines, spaced

PICTURES = 480
"""Camera frames in a page, spread over the bag, in addition to those of the moments."""
MOMENTS = 5
"""Number of moments of each kind."""
MOMENT_SPACING_S = 3.0
PICTURE_WIDTH_PX = 320
SALIENCY_BATCH = 16

# Signals that the driven path can be coloured by, and their labels; then the plots.
SIGNALS = {
    "speed_mps": "speed [m/s]",
    "disagreement": "disagreement",
    "reward": "reward",
    "q1": "Q1 of the recorded action",
    "q2": "Q2 of the recorded action",
    "q_gap": "Q1 - Q2",
    "policy_q": "lower Q of the policy's action",
    "advantage": "policy's advantage",
    "td_error_1": "TD error of Q1",
    "td_error_2": "TD error of Q2",
    "steering": "recorded steering",
    "policy_steering": "policy's steering",
    "speed": "recorded speed action",
    "policy_speed": "policy's speed action",
    "lateral_m": "lateral error [m]",
    "heading_error_rad": "heading error [rad]",
    "data_age_ms": "image to command [ms]",
    "inference_ms": "inference [ms]",
}
PLOTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Steering action (+ = left)", ("steering", "policy_steering")),
    ("Speed action", ("speed", "policy_speed")),
    ("Value", ("q1", "q2", "policy_q")),
    ("Q1 - Q2", ("q_gap",)),
    ("TD error", ("td_error_1", "td_error_2")),
    ("Reward", ("reward", *(f"reward_{name}" for name in RewardTerms.__dataclass_fields__))),
    ("Lateral error [m] and heading error [rad]", ("lateral_m", "heading_error_rad")),
    ("Speed [m/s]", ("speed_mps",)),
    ("Image to command and inference [ms]", ("data_age_ms", "inference_ms")),
)
KINDS = {
    "disagreement": "largest disagreement",
    "td_error_1": "largest TD error",
    "q_gap": "largest critic gap",
}


def write_report(inspector: Inspector, inspection: Inspection, path: Path) -> None:
    """Write the page; this reads the bag once more for the pictures.

    Raises BagError if it cannot be written.
    """
    moments = find_moments(inspection)
    wanted = spread(inspection.decisions, PICTURES, [moment["index"] for moment in moments])
    pictures = list(_pictures(inspector, wanted))
    with writing(path) as new:
        new.write_text(_page(_data(inspection, moments, pictures)), encoding="utf-8")


def spread(count: int, most: int, also: Sequence[int]) -> list[int]:
    """Return at most `most` numbers below `count`, evenly spread, and those in `also`."""
    even = np.linspace(0, count - 1, min(most, count)).round().astype(int)
    return sorted({*even.tolist(), *also})


def find_moments(inspection: Inspection) -> list[dict[str, Any]]:
    """Return the decisions that stand out most for each kind, spaced apart within a kind."""
    moments = []
    time_s = inspection.columns["time_s"]
    for name, title in KINDS.items():
        size = np.abs(np.nan_to_num(inspection.columns[name]))
        for rank in range(MOMENTS):
            index = int(np.argmax(size))
            if not size[index] > 0.0:
                break
            moments.append({"kind": name, "title": title, "rank": rank + 1, "index": index})
            size[np.abs(time_s - time_s[index]) < MOMENT_SPACING_S] = 0.0
    return moments


def _pictures(inspector: Inspector, wanted: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Yield the camera frame and the networks' saliency for some decisions."""
    batch: list[tuple[int, str, Observation]] = []
    for index, image, observation in observations_of(inspector, wanted):
        batch.append((index, _camera_picture(image), observation))
        if len(batch) == SALIENCY_BATCH:
            yield from _with_saliency(inspector, batch)
            batch = []
    if batch:
        yield from _with_saliency(inspector, batch)


def _with_saliency(
    inspector: Inspector, batch: Sequence[tuple[int, str, Observation]]
) -> Iterator[dict[str, Any]]:
    maps = saliencies(inspector.networks[0], [observation for _, _, observation in batch])
    for place, (index, picture, _) in enumerate(batch):
        side_by_side = [parts[place] for parts in maps.values()]
        looks = jpeg((255.0 * np.hstack(side_by_side)).astype(np.uint8), 70) if maps else ""
        yield {"index": index, "image": picture, "looks": looks, "outputs": list(maps)}


def _camera_picture(image: np.ndarray) -> str:
    return jpeg(scaled(image, PICTURE_WIDTH_PX), 80)


def _data(
    inspection: Inspection,
    moments: list[dict[str, Any]],
    pictures: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the data for the page's script."""
    outputs = pictures[0].pop("outputs") if pictures else []
    for picture in pictures[1:]:
        picture.pop("outputs")
    columns = inspection.columns
    shown = {name for name in columns if _is_known(columns[name])}
    return {
        "bag": inspection.bag.name,
        "names": inspection.names,
        "facts": inspection.facts,
        "notes": inspection.notes,
        "columns": {name: _numbers(values) for name, values in columns.items() if name in shown},
        "signals": {name: label for name, label in SIGNALS.items() if name in shown},
        "plots": [plot for plot in (_plot(plot, shown) for plot in PLOTS) if plot["series"]],
        "events": [
            {**asdict(event), "time_s": round(event.time_s, 3)} for event in inspection.events
        ],
        "stretches": [
            {key: _rounded(value) for key, value in asdict(stretch).items()}
            for stretch in inspection.stretches
        ],
        "topics": [
            [name, kind, count, _rounded(rate)] for name, kind, count, rate in inspection.topics
        ],
        "lanes": _lanes(inspection),
        "routes": [spaced(route[:, :2], 0.0) for route in inspection.routes],
        "path": spaced(inspection.path, 0.5),
        "pictures": pictures,
        "outputs": outputs,
        "moments": moments,
    }


def _is_known(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any())


def _plot(plot: tuple[str, tuple[str, ...]], shown: set[str]) -> dict[str, Any]:
    title, names = plot
    both = [name + suffix for suffix in ("", "_other") for name in names]
    return {"title": title, "series": [name for name in both if name in shown]}


def _numbers(values: np.ndarray) -> list[float | None]:
    return [_rounded(value) for value in values.tolist()]


def _rounded(value: Any) -> Any:
    """Round a number to six digits, which also hides differences between computers."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _lanes(inspection: Inspection) -> list[list[list[float]]]:
    """Return the outlines of the driving lanes near the path and the routes."""
    if inspection.road_map is None:
        return []
    places = np.concatenate([inspection.path, *(route[:, :2] for route in inspection.routes)])
    return lane_outlines(inspection.road_map, places)


def _page(data: dict[str, Any]) -> str:
    title, plots = (
        f"{data['bag']} - td3_driver",
        ("uPlot.min.css", "uPlot.iife.min.js", "uPlot.LICENSE"),
    )
    return page_of("td3_driver.offline", "report", title, data, plots)
