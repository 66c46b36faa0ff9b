# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""From CARLA's left-handed world (y right, degrees) to ROS's (y left, radians)."""

from __future__ import annotations

import math

import carla

from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.world import Pose


def ros_pose(transform: carla.Transform) -> Pose:
    """Return a CARLA transform as a pose in the ROS frame."""
    location = transform.location
    yaw = -math.radians(transform.rotation.yaw)
    return Pose(location.x, -location.y, wrap_angle(yaw), location.z)
