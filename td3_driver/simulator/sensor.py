# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a camera's lens and sensor add to an image: blur and noise."""

from __future__ import annotations

import cv2
import numpy as np

from td3_driver.looks import Optics

# Every image has its noise from another place of one larger picture of noise.
_MARGIN_PX = 64
# Smoothing by 1, 2, 1 has a quick path in cv2; this often, it stands for any blur.
_MOST_PASSES = 4


class Sensor:
    """The blur and noise of images of one size; equal numbers have equal noise."""

    def __init__(self, height_px: int, width_px: int) -> None:
        rng = np.random.default_rng(0)
        self._shape = height_px, width_px
        self._unit = rng.standard_normal(
            (height_px + _MARGIN_PX, width_px + _MARGIN_PX, 3), np.float32
        )
        self._brighter: np.ndarray = np.empty((0, 0, 4), np.uint8)
        self._darker = self._brighter
        self._blur_px = 0.0
        self._seed = 0

    def use(self, optics: Optics, seed: int) -> None:
        """Take the blur and noise of a look."""
        self._seed = seed
        self._blur_px = optics.blur * self._shape[1] / 160.0
        noise = np.round(self._unit * optics.noise) if optics.noise else np.empty((0, 0, 3))
        opaque = ((0, 0), (0, 0), (0, 1))
        self._brighter, self._darker = (
            np.pad(np.clip(part, 0.0, 255.0).astype(np.uint8), opaque) for part in (noise, -noise)
        )

    def apply(self, image: np.ndarray, number: int) -> None:
        """Blur the image (height, width, 4) and add its noise, in place."""
        # Each pass has a variance of half a pixel.
        passes = round(2.0 * self._blur_px**2)
        if passes > _MOST_PASSES:
            cv2.GaussianBlur(image, (0, 0), self._blur_px, dst=image)
        else:
            for _ in range(passes):
                cv2.GaussianBlur(image, (3, 3), 0.0, dst=image)
        if self._brighter.size:
            height, width = self._shape
            # Weyl steps: neighbouring images are far apart in the picture.
            place = (number * 2654435761 + self._seed * 2246822519) % 2**32
            top, left = place >> 26, (place >> 20) % _MARGIN_PX
            cut = np.s_[top : top + height, left : left + width]
            cv2.add(image, self._brighter[cut], dst=image)
            cv2.subtract(image, self._darker[cut], dst=image)
