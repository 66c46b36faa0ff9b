# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Which engine carries a run's collectors."""

from __future__ import annotations

from collections.abc import Callable

from td3_driver.config import Config, ConfigError
from td3_driver.fleet.collector import Engine, counted
from td3_driver.fleet.processes import ProcessEngine

NO_CLUSTER = "none"


def make_engine(config: Config, say: Callable[[str], object]) -> Engine:
    """Return the engine that `fleet.cluster` asks for; raises ConfigError."""
    fleet = config.fleet
    if fleet.cluster == NO_CLUSTER:
        say(f"{counted(fleet.collectors)} on this machine, in a process each")
        return ProcessEngine()
    try:
        from td3_driver.fleet.ray_engine import RayEngine  # brings Ray, which is optional
    except ImportError as error:
        raise ConfigError(
            f"fleet.cluster needs Ray ({error}): pip install -c constraints.txt .[fleet]"
        ) from None
    engine = RayEngine(fleet.cluster, fleet.collectors)
    say(engine.describe())
    return engine
