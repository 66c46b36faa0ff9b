# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""From CARLA's left-handed world (y right, degrees) to ROS's (y left, radians)."""

from __future__ import annotations

from collections.abc import Iterable

import carla
import numpy as np

from td3_driver.driving.angles import wrap_angle


def ros_poses(transforms: Iterable[carla.Transform]) -> np.ndarray:
    """Return CARLA transforms in the ROS frame, float64 (n, 4): x, y, z, yaw."""
    rows = []
    for transform in transforms:
        location = transform.location
        rows.append((location.x, -location.y, location.z, -transform.rotation.yaw))
    poses = np.array(rows, float).reshape(-1, 4)
    poses[:, 3] = wrap_angle(np.radians(poses[:, 3]))
    return poses
