# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Wrapping of angles."""

from __future__ import annotations

import math
from typing import overload

import numpy as np


@overload
def wrap_angle(angle: float) -> float: ...


@overload
def wrap_angle(angle: np.ndarray) -> np.ndarray: ...


def wrap_angle(angle: float | np.ndarray) -> float | np.ndarray:
    """Return the same angles in [-pi, pi), radians."""
    return (angle + math.pi) % (2.0 * math.pi) - math.pi
