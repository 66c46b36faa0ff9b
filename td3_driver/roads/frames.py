"""Between CARLA's left-handed world (y right, degrees) and ROS's (y left, radians)."""

from __future__ import annotations

import math

import carla

from td3_driver.driving.world import Pose


def ros_pose(transform: carla.Transform) -> Pose:
    """Return a CARLA transform as a pose in the ROS frame."""
    location = transform.location
    yaw = -math.radians(transform.rotation.yaw)
    return Pose(location.x, -location.y, wrapped(yaw), location.z)


def carla_location(x: float, y: float, z: float = 0.0) -> carla.Location:
    """Return a point of the ROS map frame (metres) as a CARLA location."""
    return carla.Location(float(x), -float(y), float(z))


def wrapped(angle: float) -> float:
    """Return the same angle in [-pi, pi), radians."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
