# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Attributes of elements as numbers, read no more generously than `carla.Map` reads them."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

# C's strtod stops at the first odd character and takes what came before: 3 of "3,5".
_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*", re.ASCII)
_WHOLE = re.compile(r"\s*[+-]?[0-9]{1,10}\s*", re.ASCII)
_LARGEST_WHOLE = 2**31 - 1


class ElementError(ValueError):
    """What is wrong with a road or junction, in words that follow `road 7 has `."""


def cut(text: str | None) -> str:
    """Return a value for a message: on one line, and no longer than a line takes."""
    words = " ".join((text or "").split())
    return words if len(words) <= 40 else f"{words[:40]}..."


def whole(element: ElementTree.Element, attribute: str, least: int = -_LARGEST_WHOLE) -> int:
    """Return an attribute that is a whole number from `least` to 2^31 - 1."""
    text = element.get(attribute, "")
    if not _WHOLE.fullmatch(text):
        raise ElementError(
            f"{_shown(element, attribute)}, no whole number of at most ten digits; write one"
        )
    if not least <= int(text) <= _LARGEST_WHOLE:
        raise ElementError(
            f"{_shown(element, attribute)}; number it between {least} and {_LARGEST_WHOLE}"
        )
    return int(text)


def finite(element: ElementTree.Element, attribute: str) -> float:
    """Return an attribute that is a finite number."""
    text = element.get(attribute, "")
    if _NUMBER.fullmatch(text):
        if math.isfinite(float(text)):
            return float(text)
    elif not re.fullmatch(r"\s*[+-]?(nan|inf|infinity)\s*", text, re.IGNORECASE):
        remedy = "write one with a point" if "," in text else "write one"
        raise ElementError(f"{_shown(element, attribute)}, no number; {remedy}")
    word = "NaN" if "n" in text.lower()[:3] and "i" not in text.lower() else "infinity"
    raise ElementError(f"{_shown(element, attribute)}; write a number, as this would be {word}")


def optional_finite(element: ElementTree.Element, attribute: str) -> float:
    """Return an attribute that is a finite number, or 0 where it is missing."""
    return finite(element, attribute) if attribute in element.attrib else 0.0


def _shown(element: ElementTree.Element, attribute: str) -> str:
    text = element.get(attribute)
    if text is None:
        return f"no {attribute} in <{element.tag}>"
    return f"{attribute}={cut(text)!r} in <{element.tag}>"
