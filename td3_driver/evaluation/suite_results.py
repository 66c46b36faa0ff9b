# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What came of a suite: figures by driver and group, as JSON and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from td3_driver.evaluation.contenders import Contender
from td3_driver.evaluation.figures import COMPARED, FIGURES, Quantities, difference
from td3_driver.evaluation.intervals import Estimate
from td3_driver.evaluation.suite import ALL, Suite
from td3_driver.evaluation.suite_drives import Drive

PRINTED = ("success", "route_completion", "driving_score", "collisions_per_km", "speed_mps")
"""Figures in the table that the command prints."""


@dataclass(frozen=True, eq=False)
class SuiteResults:
    """Everything that came of a suite."""

    suite: Suite
    contenders: Sequence[Contender]
    drives: Sequence[Drive]
    """By group, contender and start."""

    @property
    def groups(self) -> list[str]:
        """The names of the groups, and ALL if there are several."""
        names = [group.name for group in self.suite.groups]
        return [*names, ALL] if len(names) > 1 else names

    def drives_of(self, contender: int, group: str) -> list[Drive]:
        """Return the drives of a contender in a group, or in ALL."""
        names = [each.name for each in self.suite.groups]
        return [
            drive
            for drive in self.drives
            if drive.task.contender == contender and group in (names[drive.task.group], ALL)
        ]

    def quantities_of(self, contender: int, group: str) -> list[Quantities]:
        """Return the quantities of a contender's episodes in a group, or in ALL."""
        return [drive.quantities for drive in self.drives_of(contender, group)]

    def figures_of(self, contender: int, group: str) -> dict[str, Estimate]:
        """Return every figure of a contender in a group, or in ALL."""
        episodes = self.quantities_of(contender, group)
        return {name: figure.estimate(episodes) for name, figure in FIGURES.items()}

    def differences_of(self, contender: int, group: str) -> dict[str, Estimate]:
        """Return how much better a contender is than the first one from the same starts."""
        episodes, firsts = self.quantities_of(contender, group), self.quantities_of(0, group)
        return {name: difference(name, episodes, firsts) for name in COMPARED}


def as_dict(results: SuiteResults) -> dict[str, Any]:
    """Return the contents of the JSON; equal drives give equal bytes."""
    return {
        "suite": results.suite.name,
        "suite_sha256": results.suite.sha256,
        "contenders": [
            _contender_as_dict(results, number) for number in range(len(results.contenders))
        ],
    }


def _contender_as_dict(results: SuiteResults, number: int) -> dict[str, Any]:
    contender = results.contenders[number]
    return {
        **about(contender),
        "figures": {
            group: {
                name: asdict(found) for name, found in results.figures_of(number, group).items()
            }
            for group in results.groups
        },
        "better_than_first": {
            group: {
                name: asdict(found)
                for name, found in results.differences_of(number, group).items()
            }
            for group in (results.groups if number else ())
        },
        "episodes": [_episode(results, drive) for drive in results.drives_of(number, ALL)],
    }


def about(contender: Contender) -> dict[str, Any]:
    """Return what a contender is, for people and programs to read."""
    return {
        "name": contender.label,
        "baseline": contender.baseline,
        "policy": "" if contender.policy is None else str(contender.policy),
        "step": contender.step,
        "actor_sha256": contender.actor_sha256,
    }


def _episode(results: SuiteResults, drive: Drive) -> dict[str, Any]:
    return {
        "group": results.suite.groups[drive.task.group].name,
        "map": drive.task.start.map_name,
        "seed": drive.task.start.seed,
        "ended_by": drive.ended_by,
        **asdict(drive.quantities),
    }


def table(results: SuiteResults) -> str:
    """Return the main figures as text: a line for each group and contender."""
    heads = ["group", "driver", *(_head(name) for name in PRINTED)]
    rows = [
        [group, contender.label, *_cells(results.figures_of(number, group))]
        for group in results.groups
        for number, contender in enumerate(results.contenders)
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in (heads, *rows):
        texts = [text.ljust(width) for text, width in zip(row[:2], widths[:2], strict=True)]
        texts += [text.rjust(width) for text, width in zip(row[2:], widths[2:], strict=True)]
        lines.append("  ".join(texts).rstrip())
    return "\n".join(lines)


def _head(name: str) -> str:
    figure = FIGURES[name]
    return f"{figure.title} [{figure.unit}]" if figure.unit else figure.title


def _cells(figures: dict[str, Estimate]) -> list[str]:
    return [in_digits(figures[name], FIGURES[name].digits) for name in PRINTED]


def in_digits(found: Estimate, digits: int) -> str:
    """Return an estimate as people read it: a value and its interval."""
    if found.value is None:
        return "-"
    return f"{found.value:.{digits}f} ({found.low:.{digits}f} to {found.high:.{digits}f})"
