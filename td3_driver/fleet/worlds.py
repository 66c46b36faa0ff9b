# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The worlds that collectors drive in."""

from __future__ import annotations

from td3_driver.driving.environment import DrivingEnv
from td3_driver.fleet.gathering import Brief
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld


def embedded(brief: Brief) -> DrivingEnv:
    """Return the embedded world, stepped in process; raises RoadMapError for an unusable map."""
    config = brief.config
    maps = config.training.maps
    # Each has its maps loaded one after the other; they need not all begin with the same.
    settings = config.simulator.model_copy(update={"map": maps[brief.collector % len(maps)]})
    sampler = StartSampler(maps, config.training.route_length_m)
    return DrivingEnv(SimulatedWorld(settings), sampler, config.driving)
