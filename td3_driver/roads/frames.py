"""From CARLA's left-handed world (y right, degrees) to ROS's (y left, radians)."""

from __future__ import annotations

import math
from typing import overload

import carla
import numpy as np

from td3_driver.driving.world import Pose


def ros_pose(transform: carla.Transform) -> Pose:
    """Return a CARLA transform as a pose in the ROS frame."""
    location = transform.location
    yaw = -math.radians(transform.rotation.yaw)
    return Pose(location.x, -location.y, wrapped(yaw), location.z)


@overload
def wrapped(angle: float) -> float: ...


@overload
def wrapped(angle: np.ndarray) -> np.ndarray: ...


def wrapped(angle: float | np.ndarray) -> float | np.ndarray:
    """Return the same angles in [-pi, pi), radians."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
