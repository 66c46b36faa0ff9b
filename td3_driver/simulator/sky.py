# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Everything above the horizon: the sky, and distant hills all around."""

from __future__ import annotations

import math

import numpy as np

from td3_driver.looks import Colour
from td3_driver.simulator.colours import Colours
from td3_driver.simulator.light import Air

_COLUMNS = 2880
"""Columns of the full circle, an eighth of a degree each."""
_STORED = 2 * _COLUMNS
"""The circle is stored twice, side by side and offset by half of it: no look-up wraps around."""
_ROWS = 256
_HIGHEST_RAD = math.radians(60.0)
# Kinds of pixels: each row of the sky, then the hills.
_FAR_HILLS, _NEAR_HILLS, _KINDS = _ROWS, _ROWS + 1, _ROWS + 2
# Haze on the hills; the farther range is paler and stands behind the nearer one.
_FAR_HAZE, _NEAR_HAZE = 0.55, 0.15
_GLOW_LEVELS = 16


class Skyline:
    """Where around the circle there is sky and where hills, for a seed: costly, so made once."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 1])
        kinds = np.repeat(np.arange(_ROWS, dtype=np.uint16)[:, None], _COLUMNS, axis=1)
        for kind, height_deg, waves in ((_FAR_HILLS, 5.0, 7), (_NEAR_HILLS, 2.2, 40)):
            crest = _crest(rng, waves) * math.radians(height_deg) / _HIGHEST_RAD * (_ROWS - 1)
            kinds[np.arange(_ROWS)[:, None] < crest[None, :]] = kind
        self.kinds = np.tile(kinds, (1, 2))
        """uint16 (rows, 2 columns); row 0 is the horizon, column 0 looks back."""


class Sky:
    """A panorama, looked up by azimuth and elevation."""

    def __init__(
        self,
        skyline: Skyline,
        colours: Colours,
        air: Air,
        azimuth: np.ndarray,
        elevation: np.ndarray,
        sun_azimuth: float = 0.0,
        glow: float = 0.0,
    ) -> None:
        """Paint the panorama, for pixels at these angles (radians, + = left and up), of any shape.

        Azimuths are relative to the camera's heading, except for the sun's, which is the map's.
        """
        kinds = skyline.kinds
        if glow:
            level = np.round(_around(sun_azimuth) * (_GLOW_LEVELS - 1)).astype(np.uint16)
            kinds = kinds + _KINDS * np.tile(level, 2)
        palette = _palette(colours, air, glow)
        blue, green, red = palette[_NEAR_HILLS, :3].tolist()
        self.horizon_colour: Colour = (blue, green, red)
        """The farthest ground fades into this colour too: the nearer hills are all around."""
        # With one integer per colour, a look-up is a single gather.
        self._colours = palette.view(np.uint32).ravel()[kinds].ravel()
        row = np.round(np.clip(elevation / _HIGHEST_RAD, 0.0, 1.0) * (_ROWS - 1)).astype(int)
        column = np.round(azimuth / math.tau * _COLUMNS).astype(int)
        self._base = row * _STORED + column + _COLUMNS // 2

    def look(self, yaw: float) -> np.ndarray:
        """Return the colours seen by a camera with heading `yaw`, in [-pi, pi], uint8 (..., 4)."""
        turned = round(yaw / math.tau * _COLUMNS) % _COLUMNS
        seen = self._colours[self._base + turned]
        return seen[..., None].view(np.uint8)


def _palette(colours: Colours, air: Air, glow: float) -> np.ndarray:
    """Return the colour of each kind of pixel, at each level of glow: uint8 (n, 4), `bgra8`."""
    share = np.arange(_ROWS)[:, None] / (_ROWS - 1)
    horizon, top = np.array(colours.sky_horizon), np.array(colours.sky_top)
    sky = horizon + (top - horizon) * share**0.6
    hills = np.array(colours.hills)
    far, near = (hills + (horizon - hills) * haze for haze in (_FAR_HAZE, _NEAR_HAZE))
    if air.fog > 0.0:
        fog = np.array(air.fog_colour)
        # Fog lies low: the denser, the higher it reaches.
        reach = 0.07 + 1.05 * air.fog**2
        sky += (fog - sky) * min(1.0, 2.2 * air.fog) * np.exp(-share * _HIGHEST_RAD / reach)
        far += (fog - far) * min(1.0, 2.8 * air.fog)
        near += (fog - near) * min(1.0, 2.2 * air.fog)
    levels = []
    for level in range(_GLOW_LEVELS if glow else 1):
        bright = glow * level / (_GLOW_LEVELS - 1) * np.exp(-3.0 * share)
        levels += [sky + (255.0 - sky) * bright, far[None], near[None]]
    image = np.full((_KINDS * len(levels) // 3, 4), 255, np.uint8)
    image[:, :3] = np.clip(np.round(np.concatenate(levels)), 0, 255)
    return image


def _around(azimuth: float) -> np.ndarray:
    """Return how near each column of the circle is to an azimuth (radians): 1 at it, 0 far off."""
    away = np.arange(_COLUMNS) / _COLUMNS * math.tau - math.pi - azimuth
    return np.clip(np.cos(away), 0.0, 1.0) ** 4


def _crest(rng: np.random.Generator, waves: int) -> np.ndarray:
    """Return heights in [0, 1] around the circle, equal at both ends."""
    angle = np.arange(_COLUMNS) / _COLUMNS * math.tau
    height = np.zeros(_COLUMNS)
    for octave in range(4):
        number = waves * 2**octave
        height += np.sin(number * angle + rng.uniform(0.0, math.tau)) / 2**octave
    return 0.55 + 0.45 * height / 1.875
