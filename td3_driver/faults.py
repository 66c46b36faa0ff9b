# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What stops a car that drives by itself, each fault by the name that settings and reports use."""

from __future__ import annotations

import enum


class Fault(str, enum.Enum):
    """A reason to stop the car."""

    SIMULATOR_GONE = "simulator_gone"
    """Camera, odometry and speedometer fell silent together: gone, paused, or cut off."""
    CAMERA_SILENT = "camera_silent"
    ODOMETRY_SILENT = "odometry_silent"
    SPEEDOMETER_SILENT = "speedometer_silent"
    ROUTE_OLD = "route_old"
    """The route was not renewed in time, where that is asked for."""
    STAMPS_UNMATCHED = "stamps_unmatched"
    """Images and odometry come, but none belong together."""
    IMAGE_MALFORMED = "image_malformed"
    """Encoding, size or length of an image are wrong."""
    SEVERAL_PUBLISHERS = "several_publishers"
    """A sensor has several publishers, whose messages do not belong together."""
    NOT_FINITE = "not_finite"
    """NaN or infinity in what came in, or in what the policy made of it."""
    POLICY_SLOW = "policy_slow"
    CLOCK_JUMP = "clock_jump"
    """Simulation time went back, or ahead by more than its limit."""
    MANUAL_OVERRIDE = "manual_override"
    UNWATCHED = "unwatched"
    """The watchdog itself has not run in time."""
    DRIVER_STALLED = "driver_stalled"
    """The driver's own process or executor stood still, and so heard nothing."""


HARMLESS = (
    Fault.SIMULATOR_GONE,
    Fault.CAMERA_SILENT,
    Fault.ODOMETRY_SILENT,
    Fault.SPEEDOMETER_SILENT,
    Fault.ROUTE_OLD,
    Fault.STAMPS_UNMATCHED,
    Fault.SEVERAL_PUBLISHERS,
    Fault.POLICY_SLOW,
    Fault.UNWATCHED,
    Fault.DRIVER_STALLED,
)
"""After these the car drives on by itself unless configured otherwise: what was missing is
back, or who was in the way has left.
After the others somebody should look first."""
