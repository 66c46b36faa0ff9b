# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Pages that any browser opens offline: one file with its style, script, data and pictures."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import cv2
import numpy as np

MARK = "@@"
"""Stands before and after the name of each part in a page's frame."""
KINDS = ("html", "css", "js")
HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>@@TITLE@@</title>
<style>@@STYLE@@</style>
</head>"""


def page_of(package: str, name: str, title: str, data: Any, also: Sequence[str] = ()) -> str:
    """Return the page whose frame, style and script are `page/name.*` in a package.

    `also` are files there that the frame names as parts; the style sheets among them come first.
    Raises ValueError for NaN in the data.
    """
    files = resources.files(package) / "page"
    texts = {file: (files / file).read_text(encoding="utf-8") for file in also}
    sheets = [text for file, text in texts.items() if file.endswith(".css")]
    own = {kind: (files / f"{name}.{kind}").read_text(encoding="utf-8") for kind in KINDS}
    parts = {
        **{file: text.strip() for file, text in texts.items()},
        "DATA": embedded(data),
        "SCRIPT": own["js"],
    }
    style = "".join([*sheets, own["css"]])
    parts["HEAD"] = page(HEAD, {"TITLE": html.escape(title), "STYLE": style})
    return page(own["html"], parts)


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
