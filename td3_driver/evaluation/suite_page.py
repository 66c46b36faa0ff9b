# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Writes a suite's results as a page that any browser opens offline: see `page/`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from td3_driver.evaluation.figures import COMPARED, FIGURES
from td3_driver.evaluation.intervals import Estimate
from td3_driver.evaluation.suite import Group
from td3_driver.evaluation.suite_drives import Drive
from td3_driver.evaluation.suite_results import SuiteResults, about
from td3_driver.files import replacing
from td3_driver.pages import page_of
from td3_driver.roads.map_files import plain_name
from td3_driver.roads.outlines import lane_outlines
from td3_driver.roads.road_map import RoadMap

MOST_CLIPS = 4
"""Clips of each driver in each group: its first failures there."""


def write_page(results: SuiteResults, path: Path) -> None:
    """Write the page; raises OSError if it cannot be written."""
    title = f"suite {results.suite.name} - td3_driver"
    text = page_of("td3_driver.evaluation", "suite", title, page_data(results))
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def page_data(results: SuiteResults) -> dict[str, Any]:
    """Return the data for the page's script."""
    contenders = range(len(results.contenders))
    return {
        "suite": {
            "name": results.suite.name,
            "description": results.suite.contents.description,
            "sha256": results.suite.sha256,
        },
        "contenders": [about(contender) for contender in results.contenders],
        "columns": {
            name: {"title": of.title, "unit": of.unit, "better": of.better, "digits": of.digits}
            for name, of in FIGURES.items()
        },
        "compared": COMPARED,
        "groups": [
            {
                "name": name,
                "conditions": _conditions(results, name),
                "figures": [_ends_of(results.figures_of(number, name)) for number in contenders],
                "differences": [
                    _ends_of(results.differences_of(number, name)) for number in contenders
                ],
            }
            for name in results.groups
        ],
        "maps": _maps(results),
        "episodes": _episodes(results),
    }


def _conditions(results: SuiteResults, name: str) -> str:
    found = [_described(group) for group in results.suite.groups if group.name == name]
    episodes = sum(group.episodes for group in results.suite.groups)
    return found[0] if found else f"{episodes} episodes"


def _described(group: Group) -> str:
    maps = ", ".join(map(plain_name, group.maps))
    given = group.simulator.model_dump(include=group.simulator.model_fields_set)
    others = "".join(f", simulator.{name} {value}" for name, value in given.items())
    return f"{group.episodes} episodes of {group.route_length_m:.0f} m on {maps}{others}"


def _ends_of(figures: dict[str, Estimate]) -> dict[str, list[float | None]]:
    return {name: list(asdict(found).values()) for name, found in figures.items()}


def _maps(results: SuiteResults) -> dict[str, list[list[list[float]]]]:
    """Return the outlines of each map's lanes near what was driven there."""
    places: dict[str, list[list[float]]] = {}
    for drive in results.drives:
        places.setdefault(drive.task.start.map_name, []).extend([*drive.path, *drive.route])
    return {
        name: lane_outlines(RoadMap.load(name), np.array(near)) for name, near in places.items()
    }


def _episodes(results: SuiteResults) -> list[dict[str, Any]]:
    shown: Counter[tuple[int, int]] = Counter()
    rows = []
    for drive in results.drives:
        row = _episode(drive)
        whose = drive.task.contender, drive.task.group
        if drive.clip is not None and shown[whose] < MOST_CLIPS:
            shown[whose] += 1
            row["clip"] = asdict(drive.clip)
        rows.append(row)
    return rows


def _episode(drive: Drive) -> dict[str, Any]:
    start, figures = drive.task.start, drive.quantities
    return {
        "contender": drive.task.contender,
        "group": drive.task.group,
        "map": start.map_name,
        "map_title": plain_name(start.map_name),
        "seed": start.seed,
        "ended_by": drive.ended_by,
        "success": figures.success,
        "completion": round(figures.route_completion, 4),
        "score": round(figures.driving_score, 2),
        "duration_s": round(figures.duration_s, 3),
        "path": drive.path,
        "route": drive.route,
    }
