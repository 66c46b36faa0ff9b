# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What `td3-driver evaluate` takes for suites; the slow imports wait until one is to be driven."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from td3_driver.config import ConfigError


def add_options(parser: argparse.ArgumentParser, count: Callable[[str], int]) -> None:
    """Add the options of suites; `count` reads a number above 0."""
    parser.add_argument(
        "--suite",
        metavar="NAME",
        help="Drive a suite's fixed episodes: lane, obstacles, town, traffic, or a file. See "
        "docs/evaluation.md.",
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="NAME",
        help="With --suite, have a driver drive that learns nothing: stand_still, straight_on or "
        "route_follower. May be repeated.",
    )
    parser.add_argument(
        "--jobs",
        type=count,
        help="With --suite, processes that drive side by side; default: all cores.",
    )


def check(given: argparse.Namespace) -> None:
    """Raise ConfigError for options of `evaluate` that do not go together."""
    if given.suite is not None:
        for name in ("map", "episodes", "seed", "look"):
            if getattr(given, name) is not None:
                raise ConfigError(f"--{name} does not go with --suite, which says its own")
        if given.camera_test:
            raise ConfigError("--camera-test does not go with --suite: run one after the other")
        return
    if given.baseline or given.jobs is not None:
        raise ConfigError("--baseline and --jobs go with --suite NAME only")
    if len(given.runs) != 1:
        raise ConfigError(f"evaluate takes one RUN without --suite NAME, not {len(given.runs)}")


def run(given: argparse.Namespace) -> int:
    """Drive a suite, print its table and return the exit code; see `evaluate_suite`."""
    from td3_driver.evaluation import suite_evaluation, suite_results

    results, page = suite_evaluation.evaluate_suite(
        given.suite, given.runs, given.baseline, given.policy, given.jobs, given.out
    )
    print(suite_results.table(results))
    print(f"wrote {page} and {page.with_suffix('.json').name}")
    return 0
