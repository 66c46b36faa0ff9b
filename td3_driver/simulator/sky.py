# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Everything above the horizon: the sky, and distant hills all around."""

from __future__ import annotations

import math

import numpy as np

from td3_driver.simulator.looks import Looks

_COLUMNS = 2880
"""Columns of the full circle, an eighth of a degree each."""
_STORED = 2 * _COLUMNS
"""The circle is stored twice, side by side and offset by half of it: no look-up wraps around."""
_ROWS = 256
_HIGHEST_RAD = math.radians(60.0)


class Sky:
    """A panorama, looked up by azimuth and elevation."""

    def __init__(self, looks: Looks, azimuth: np.ndarray, elevation: np.ndarray) -> None:
        """Paint the panorama, for pixels at these angles (radians, + = left and up), of any shape.

        Azimuths are relative to the camera's heading.
        """
        panorama = _panorama(looks)
        self.horizon_colour = tuple(panorama[0, 0, :3].tolist())
        """The farthest ground fades into this colour too: the nearer hills are all around."""
        # With one integer per colour, a look-up is a single gather.
        self._colours = panorama.reshape(-1, 4).view(np.uint32).ravel()
        row = np.round(np.clip(elevation / _HIGHEST_RAD, 0.0, 1.0) * (_ROWS - 1)).astype(int)
        column = np.round(azimuth / math.tau * _COLUMNS).astype(int)
        self._base = row * _STORED + column + _COLUMNS // 2

    def look(self, yaw: float) -> np.ndarray:
        """Return the colours seen by a camera with heading `yaw`, in [-pi, pi], uint8 (..., 4)."""
        turned = round(yaw / math.tau * _COLUMNS) % _COLUMNS
        seen = self._colours[self._base + turned]
        return seen[..., None].view(np.uint8)


def _panorama(looks: Looks) -> np.ndarray:
    """Return uint8 (rows, 2 columns, 4), `bgra8`; row 0 is the horizon, column 0 looks back."""
    rng = np.random.default_rng([looks.seed, 1])
    rise = (np.arange(_ROWS) / (_ROWS - 1))[:, None, None] ** 0.6
    horizon, top = np.array(looks.sky_horizon), np.array(looks.sky_top)
    panorama = np.broadcast_to(
        horizon + (top - horizon) * rise, (_ROWS, _COLUMNS, 3)
    ).copy()  # fmt: skip
    hills = np.array(looks.hills)
    # The farther range is paler and stands behind the nearer one.
    for height_deg, waves, haze in ((5.0, 7, 0.55), (2.2, 40, 0.15)):
        crest = _crest(rng, waves) * math.radians(height_deg) / _HIGHEST_RAD * (_ROWS - 1)
        below = np.arange(_ROWS)[:, None] < crest[None, :]
        panorama[below] = hills + (horizon - hills) * haze
    image = np.full((_ROWS, _STORED, 4), 255, np.uint8)
    image[..., :3] = np.tile(np.clip(np.round(panorama), 0, 255), (1, 2, 1))
    return image


def _crest(rng: np.random.Generator, waves: int) -> np.ndarray:
    """Return heights in [0, 1] around the circle, equal at both ends."""
    angle = np.arange(_COLUMNS) / _COLUMNS * math.tau
    height = np.zeros(_COLUMNS)
    for octave in range(4):
        number = waves * 2**octave
        height += np.sin(number * angle + rng.uniform(0.0, math.tau)) / 2**octave
    return 0.55 + 0.45 * height / 1.875
