# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Pages that any browser opens offline: one file with its style, script, data and pictures."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

MARK = "@@"
"""Stands before and after the name of each part in a page's frame."""


def page(frame: str, parts: Mapping[str, str]) -> str:
    """Return `frame` with each `@@NAME@@` replaced by the part of that name."""
    pieces = frame.split(MARK)
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def embedded(data: Any) -> str:
    """Return data as JSON that may stand within a script element.

    There "</" and "<!--" mean something, even inside a string. Raises ValueError for NaN.
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def jpeg(image: np.ndarray, quality: int) -> str:
    """Return an image, uint8 (height, width) or with blue, green, red, as a data URL of JPEG."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def scaled(image: np.ndarray, width_px: int) -> np.ndarray:
    """Return the colours of a `bgra8` image, at most so wide: blue, green, red."""
    bgr = np.ascontiguousarray(image[:, :, :3])
    height, width = bgr.shape[:2]
    if width <= width_px:
        return bgr
    size = (width_px, max(round(height * width_px / width), 1))
    return cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)
