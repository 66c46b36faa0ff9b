# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What `td3-driver doctor` takes; slow imports, and those of ROS, wait until they are needed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from td3_driver import startup
from td3_driver.config import ConfigError
from td3_driver.doctor import findings
from td3_driver.doctor.findings import Finding
from td3_driver.launching import arguments
from td3_driver.launching.settings import CONFIG, ROLE_NAME, SET, effective_settings

EXIT_UNHEALTHY = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `td3-driver doctor`."""
    parser.add_argument(
        "--world",
        choices=("auto", "embedded", "carla"),
        default="auto",
        help="What must be running: the embedded simulator, or carla-ros-bridge; auto checks "
        "whatever is running, if anything. Default: auto.",
    )
    for option in (CONFIG, ROLE_NAME, SET):
        arguments.add_option(parser, option)
    parser.add_argument(
        "--watch",
        type=arguments.seconds,
        default=3.0,
        metavar="SECONDS",
        help="How long to watch the topics. Default: 3.",
    )
    parser.add_argument(
        "--move",
        action="store_true",
        help="Drive the car a few metres; a paused simulator runs while this lasts.",
    )
    parser.add_argument(
        "--map",
        metavar="MAP",
        help="Check this map alone, a shipped name or a path, and draw it.",
    )
    parser.add_argument(
        "--picture",
        type=Path,
        metavar="FILE",
        help="The picture of --map; default: MAP.png in this folder.",
    )
    parser.add_argument(
        "--learner",
        action="store_true",
        help="Check only how this machine learns: its device, captured updates against eager "
        "ones, updates a second.",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="Check this Ray cluster alone: whether its machines are alike, and have what "
        "collectors need; auto = the one that this machine belongs to.",
    )
    parser.add_argument("--json", action="store_true", help="Print JSON instead of a table.")


def run(given: argparse.Namespace) -> int:
    """Check what was asked for, print what was found and return the exit code."""
    from td3_driver.doctor import environment

    if given.map is not None:
        from td3_driver.doctor import map_file  # brings CARLA's library

        picture = given.picture or Path(f"{Path(given.map).stem}.png")
        return _reported(map_file.examine(given.map, picture), given.json)
    if given.learner:
        return _examine_learner(given)
    if given.cluster is not None:
        from td3_driver.doctor import cluster

        return _reported(cluster.examine(given.cluster), given.json)
    if reason := startup.no_shared_memory():
        raise ConfigError(reason)
    configuration = given.config or ("carla" if given.world == "carla" else "")
    settings = effective_settings({**vars(given), "map": ""}, configuration)
    found = environment.examine(given.world)
    try:
        from td3_driver.doctor import graph  # needs ROS; if it is missing, that is a finding
    except ImportError:
        pass
    else:
        found += graph.examine(
            settings,
            watch_s=given.watch,
            move=given.move,
            required=given.move or given.world != "auto",
            say=lambda message: print(message, file=sys.stderr, flush=True),
        )
    return _reported(found, given.json)


def _examine_learner(given: argparse.Namespace) -> int:
    from td3_driver.doctor import learner  # brings PyTorch

    found = learner.examine(
        effective_settings({**vars(given), "map": ""}, given.config or ""),
        say=lambda message: print(message, file=sys.stderr, flush=True),
    )
    return _reported(found, given.json)


def _reported(found: Sequence[Finding], as_json: bool) -> int:
    print(json.dumps(findings.as_dict(found), indent=2) if as_json else findings.table(found))
    return 0 if findings.healthy(found) else EXIT_UNHEALTHY
