# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the checks found, and a table of it."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


class Verdict(enum.Enum):
    """How a check went; only FAILED makes the doctor fail."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    group: str
    check: str
    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do about it; every failure has one."""


@dataclass(frozen=True)
class Group:
    """Makes findings that stand together in the table."""

    name: str

    def ok(self, check: str, found: str) -> Finding:
        """Return that the check passed."""
        return Finding(self.name, check, Verdict.OK, found)

    def warning(self, check: str, found: str, remedy: str) -> Finding:
        """Return a problem that can be lived with."""
        return Finding(self.name, check, Verdict.WARNING, found, remedy)

    def failed(self, check: str, found: str, remedy: str) -> Finding:
        """Return a problem that has to be fixed."""
        return Finding(self.name, check, Verdict.FAILED, found, remedy)

    def skipped(self, check: str, found: str, remedy: str = "") -> Finding:
        """Return that there was nothing to check, and why."""
        return Finding(self.name, check, Verdict.SKIPPED, found, remedy)


def healthy(findings: Sequence[Finding]) -> bool:
    """Return whether nothing failed."""
    return not any(finding.verdict is Verdict.FAILED for finding in findings)


def as_dict(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings in a form that JSON can hold."""
    return {
        "ok": healthy(findings),
        "findings": [
            {**asdict(finding), "verdict": finding.verdict.value.lower()} for finding in findings
        ],
    }


def table(findings: Sequence[Finding]) -> str:
    """Return a table: a line for each finding, its remedy below it, and the counts at the end."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines: list[str] = []
    group = None
    for finding in findings:
        if finding.group != group:
            group = finding.group
            lines += ["", group] if lines else [group]
        lines.append(f"  {finding.verdict.value:8} {finding.check:{width}}  {finding.found}")
        if finding.remedy:
            lines.append(f"  {'':8} {'':{width}}  -> {finding.remedy}")
    return "\n".join([*lines, "", _sum(findings)])


def _sum(findings: Sequence[Finding]) -> str:
    counts = {
        verdict: sum(finding.verdict is verdict for finding in findings) for verdict in Verdict
    }
    said = [f"{count} {verdict.value.lower()}" for verdict, count in counts.items() if count]
    return ", ".join(said)
