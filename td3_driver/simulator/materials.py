# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Ground textures of materials instead of colours, mixed into colours pixel by pixel.

A new look then needs no new texture. A texel has four channels: how much asphalt and grass there
is (where neither is, there is verge), how light it is, and how much yellow paint. White paint is
asphalt that is as light as can be. The colour is linear in the channels, so mixing the colours
after the texture has been scaled and warped is exact.
"""

from __future__ import annotations

import cv2
import numpy as np

from td3_driver.looks import USUAL, Colour
from td3_driver.simulator.colours import mixed
from td3_driver.simulator.ground import MID_GREY, PAVEMENT_BRIGHTNESS, Line, Surface
from td3_driver.simulator.light import Scene

_FULL = 255.0
# Lightness of a spot that is as light as its material, and of white paint.
_LIGHT_ZERO, _LIGHT_WHITE = 40.0, 240.0
# Grey levels from the usual asphalt to the usual white paint.
_WHITE_ABOVE_ASPHALT = float(np.mean(USUAL["white"][0]) - np.mean(USUAL["asphalt"][0]))


def _lightness(grey_levels: np.ndarray | float) -> np.ndarray:
    """Return the lightness channel for a difference in grey levels."""
    steps = (_LIGHT_WHITE - _LIGHT_ZERO) / _WHITE_ABOVE_ASPHALT
    return np.asarray(_LIGHT_ZERO + np.asarray(grey_levels) * steps)


class MaterialPaints:
    """Paints with materials: asphalt, grass, lightness and yellow paint."""

    outside = (0.0, _FULL, _LIGHT_ZERO, 0.0)

    def shades(self, surface: Surface) -> np.ndarray:
        """Return a surface at every brightness; see `ground.Paints`."""
        steps = np.arange(256.0) - MID_GREY
        if surface == "pavement":
            steps += (PAVEMENT_BRIGHTNESS - 1.0) * float(np.mean(USUAL["asphalt"][0]))
        shades = np.zeros((256, 4))
        shades[:, 0] = _FULL * (surface in ("asphalt", "pavement"))
        shades[:, 1] = _FULL * (surface == "grass")
        shades[:, 2] = _lightness(steps)
        return np.clip(np.round(shades), 0.0, 255.0).astype(np.uint8)

    def line(self, line: Line) -> tuple[float, ...]:
        """Return a marking: white or yellow paint on asphalt."""
        if line == "yellow":
            return _FULL, 0.0, _LIGHT_ZERO, _FULL
        return _FULL, 0.0, _LIGHT_WHITE, 0.0


class Mixer:
    """Turns a ground of materials, as the camera sees it, into colours under one look."""

    def __init__(
        self,
        scene: Scene,
        horizon_colour: Colour,
        forward_m: np.ndarray,
        height_m: float,
        width_px: int,
    ) -> None:
        """Prepare for rows that see the ground at `forward_m` from a camera at `height_m`."""
        colours, wet = scene.colours, scene.wetness
        # Water darkens what it soaks, and at a flat angle it mirrors the sky.
        flat = (1.0 - height_m / np.hypot(forward_m, height_m)) ** 5
        mirrored = (wet * (0.04 + 0.60 * flat))[:, None]
        sky = np.array(mixed(colours.sky_horizon, colours.sky_top, 0.3))

        def wetted(colour: Colour, darker: float, mirror: float) -> np.ndarray:
            dark = np.array(colour) * (1.0 - darker * wet)
            return np.asarray(dark + (sky - dark) * mirror * mirrored)

        clear = 1.0 - np.clip(scene.air.hidden(forward_m), 0.0, 1.0)[:, None]
        asphalt = wetted(colours.asphalt, 0.45, 1.0)
        grass = wetted(colours.grass, 0.15, 0.0)
        verge = wetted(colours.verge, 0.30, 0.3)
        white = wetted(colours.white, 0.15, 0.6)
        yellow = wetted(colours.yellow, 0.15, 0.6)
        lighter = (white - asphalt) / (_LIGHT_WHITE - _LIGHT_ZERO)
        rows = len(forward_m)
        self._matrix = np.zeros((rows, 4, 4), np.float32)
        """For each row, from channels to blue, green, red, alpha."""
        self._matrix[:, 0, :3] = clear * (asphalt - verge) / _FULL
        self._matrix[:, 1, :3] = clear * (grass - verge) / _FULL
        self._matrix[:, 2, :3] = clear * lighter
        self._matrix[:, 3, :3] = clear * (yellow - asphalt) / _FULL
        constant = np.full((rows, 1, 4), 255.0, np.float32)
        constant[:, 0, :3] = clear * (verge - _LIGHT_ZERO * lighter) + (1.0 - clear) * np.array(
            horizon_colour
        )
        # One row for each of the image's, and not one number: cv2 adds what is equally large.
        self._constant = np.repeat(constant, width_px, axis=1)

    def __call__(self, materials: np.ndarray, image: np.ndarray) -> None:
        """Write the colours of `materials`, uint8 (rows, columns, 4), into `image` (`bgra8`)."""
        mixture = np.matmul(materials.astype(np.float32), self._matrix)
        cv2.add(mixture, self._constant, dst=image, dtype=cv2.CV_8U)
