# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Evaluates drivers with a suite: drives it, and writes the page and the JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from td3_driver.config import ConfigError
from td3_driver.evaluation.contenders import Contender, find_contenders
from td3_driver.evaluation.side_by_side import usable_cores
from td3_driver.evaluation.suite import Suite
from td3_driver.evaluation.suite_drives import Drive, drive_tasks, plan
from td3_driver.evaluation.suite_page import write_page
from td3_driver.evaluation.suite_results import SuiteResults, as_dict
from td3_driver.files import write_json

PAGE = ".html"


def evaluate_suite(
    suite_name: str,
    runs: Sequence[str],
    baselines: Sequence[str] = (),
    policy_file: Path | None = None,
    jobs: int | None = None,
    out: Path | None = None,
) -> tuple[SuiteResults, Path]:
    """Drive a suite with some drivers; write the page and, beside it, the JSON.

    Return the results and the page's path: `out`, or `suite-NAME.html` in the folder of the first
    run, or in the current folder if only baselines drive. `jobs` is how many processes drive side
    by side; by default as many as there are cores. Raises ConfigError, RoadMapError, WorldError or
    OSError.
    """
    suite = Suite.load(suite_name)
    contenders = find_contenders(runs, baselines, policy_file)
    page = _page_path(out, suite, contenders)
    tasks = plan(suite, contenders)
    found: dict[int, Drive] = {}
    drives = drive_tasks(suite, contenders, tasks, usable_cores() if jobs is None else jobs)
    with closing(drives), tqdm(total=len(tasks), desc="evaluate", unit="episode") as progress:
        for number, drive in drives:
            found[number] = drive
            progress.update()
    results = SuiteResults(suite, contenders, [found[number] for number in range(len(tasks))])
    write_json(page.with_suffix(".json"), as_dict(results))
    write_page(results, page)
    return results, page


def _page_path(out: Path | None, suite: Suite, contenders: Sequence[Contender]) -> Path:
    """Return where the page will be; raises ConfigError before any work if it cannot be there."""
    if out is None:
        out = (contenders[0].run or Path()) / f"suite-{suite.name}{PAGE}"
    if out.suffix != PAGE:
        raise ConfigError(f"--out is the page of a suite and has to end in {PAGE}, unlike {out}")
    for path in (out, out.with_suffix(".json")):
        if path.is_dir():
            raise ConfigError(f"{path} cannot be written: it is a folder")
    if not out.parent.is_dir():
        raise ConfigError(f"{out} cannot be written: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise ConfigError(f"{out} cannot be written: its folder may not be written to")
    return out
