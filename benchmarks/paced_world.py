# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The embedded world at CARLA's pace: a tick takes its simulated time on the wall clock."""

from __future__ import annotations

import time
from typing import Any

from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import Frame, VehicleControl
from td3_driver.fleet.gathering import Brief
from td3_driver.fleet.worlds import embedded
from td3_driver.simulator.world import SimulatedWorld


class PacedWorld(SimulatedWorld):
    """Waits for every tick until its time has come; what is late is not made up for."""

    _next_s = 0.0

    def step(self, control: VehicleControl) -> Frame:
        """Apply `control` for one tick and return the state after it, when it is due."""
        frame = super().step(control)
        now_s = time.monotonic()
        time.sleep(max(self._next_s - now_s, 0.0))
        period_s = self.config.fixed_delta_s / self.config.realtime_factor
        self._next_s = max(self._next_s, now_s) + period_s
        return frame


def paced(brief: Brief) -> DrivingEnv:
    """Return the collector's embedded world, paced by `simulator.realtime_factor`."""
    env = embedded(brief)
    world: Any = env.world
    world.__class__ = PacedWorld
    return env
