# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Good maps with one thing wrong at a time, and what reads many of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np

VALUES = (
    *("", "word", "3,5", "nan", "inf", "-inf", "1e400", "1e300", "-1e300", "0", "-0", "1", "-1"),
    *("0.5", "-3.5", "1000", "-1000", "1e-300", "0x10", "1_0", "٣", "4294967296", "2147483647"),
    *("-2147483648", "99", "-9", "3.0", " 2 ", "1e6", "9" * 5000, "é\U0001f697", "&#10;".strip()),
    *("LHT", "driving", "none", "start", "end", "road", "junction"),
)

# Reads documents one a line, JSON, and answers what `trial` would hear from its process, or what
# is wrong with a map that was read without a remark.
READER = """
import json, math, sys
import numpy as np
from td3_driver.roads.trial_reader import refusal_of
from td3_driver.roads.road_map import RoadMap

def wrong(road_map):
    graph = road_map.graph
    for key, lane in graph.lanes.items():
        if not np.isfinite(lane.points).all() or lane.length <= 0.0:
            return f"{key} has no numbers or no length"
        steps = np.diff(lane.points[:, :2], axis=0)
        long = np.hypot(*steps.T) > 0.1
        ahead = np.arctan2(steps[:, 1], steps[:, 0])
        off = np.angle(np.exp(1j * (ahead - lane.points[:-1, 2])))[long]
        if len(off) and np.abs(off).max() > 0.7:
            return f"{key} runs off its heading"
        if np.abs(lane.points[:, :2]).max() > 100_000.0:
            return f"{key} is too far out"
        for other in graph.successors(key):
            begin = graph.lanes[other].points[0]
            if math.dist(lane.points[-1, :2], begin[:2]) > 1.0:
                return f"{key} does not meet {other}"
    for surface in road_map.surfaces:
        width = np.hypot(*(surface.left - surface.right).T)
        if surface.type == "Driving" and not road_map.remarks and width.max() < 1.0:
            return "a driving lane is narrow"
    return ""

for line in sys.stdin:
    text = json.loads(line)
    refusal = refusal_of(text)
    answer = {"refusal": refusal}
    if not refusal:
        road_map = RoadMap("spoilt", text, tried=True)
        answer |= {"remarks": road_map.remarks, "wrong": wrong(road_map)}
    print("\\n=" + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Spoilt:
    """A document, and what was done to it."""

    what: str
    text: str


def spoil(text: str, count: int, seed: int) -> Iterator[Spoilt]:
    """Yield `count` documents that each differ from `text` in one attribute or element."""
    rng = np.random.default_rng(seed)
    good = ElementTree.fromstring(text)
    size = sum(1 for _ in good.iter())
    ways: list[Callable[[ElementTree.Element, int, np.random.Generator], str]] = [
        *[_another_value] * 6,
        _no_attribute,
        _remove,
        _repeat,
        _move,
        _rename,
        _nest,
    ]
    for _ in range(count):
        root = copy.deepcopy(good)
        way = ways[int(rng.integers(len(ways)))]
        what = way(root, int(rng.integers(size)), rng)
        yield Spoilt(what, ElementTree.tostring(root, encoding="unicode"))


def _element(root: ElementTree.Element, index: int) -> ElementTree.Element:
    """Return an element; kinds that are rare come up as often as others."""
    kinds = sorted({element.tag for element in root.iter()})
    of_kind = list(root.iter(kinds[index % len(kinds)]))
    return of_kind[index % len(of_kind)]


def _another_value(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    if not element.attrib:
        return _repeat(root, index, rng)
    attribute = sorted(element.attrib)[int(rng.integers(len(element.attrib)))]
    value = VALUES[int(rng.integers(len(VALUES)))]
    element.set(attribute, value)
    return f"<{element.tag} {attribute}={value[:20]!r}>"


def _no_attribute(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    if not element.attrib:
        return _remove(root, index, rng)
    attribute = sorted(element.attrib)[int(rng.integers(len(element.attrib)))]
    del element.attrib[attribute]
    return f"<{element.tag}> without {attribute}"


def _parent(root: ElementTree.Element, child: ElementTree.Element) -> ElementTree.Element | None:
    return next((element for element in root.iter() if child in list(element)), None)


def _remove(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    parent = _parent(root, element)
    if parent is not None:
        parent.remove(element)
    return f"<{element.tag}> removed"


def _repeat(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    parent = _parent(root, element)
    if parent is not None:
        parent.insert(int(rng.integers(len(parent) + 1)), copy.deepcopy(element))
    return f"<{element.tag}> twice"


def _move(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    parent = _parent(root, element)
    if parent is not None:
        parent.remove(element)
        parent.insert(int(rng.integers(len(parent) + 1)), element)
    return f"<{element.tag}> moved"


def _rename(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    old, element.tag = element.tag, _element(root, int(rng.integers(10_000))).tag
    return f"<{old}> renamed to <{element.tag}>"


def _nest(root: ElementTree.Element, index: int, rng: np.random.Generator) -> str:
    element = _element(root, index)
    other = _element(root, int(rng.integers(10_000)))
    if other is not element and element not in list(other.iter()):
        element.append(copy.deepcopy(other))
    return f"<{other.tag}> within <{element.tag}>"
