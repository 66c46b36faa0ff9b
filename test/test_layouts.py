# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The layouts for Foxglove and RViz show topics that there are, with the QoS that they have."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from td3_driver.bridge import topics
from td3_driver.bridge.driver_topics import DRIVER_TOPICS, full_name
from td3_driver.config import CarlaConfig

CONFIG = Path(__file__).resolve().parent.parent / "config"
CONTRACT = {full_name(topic, CarlaConfig()): topic for topic in (*topics.TOPICS, *DRIVER_TOPICS)}


Box = tuple[float, float, float, float]
"""x, y, width and height, y downwards."""


def panels(node: Any, box: Box) -> dict[str, Box]:
    """Return where a layout puts each of its panels."""
    if isinstance(node, str):
        return {node: box}
    x, y, width, height = box
    share = node.get("splitPercentage", 50) / 100
    if node["direction"] == "row":
        first = (x, y, share * width, height)
        second = (x + share * width, y, (1 - share) * width, height)
    else:
        first = (x, y, width, share * height)
        second = (x, y + share * height, width, (1 - share) * height)
    return panels(node["first"], first) | panels(node["second"], second)


def foxglove() -> dict[str, Any]:
    return dict(json.loads((CONFIG / "td3_driver.foxglove.json").read_text()))


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from strings(part)
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)


def test_foxglove_is_shown_topics_and_fields_that_there_are() -> None:
    named = [text for text in strings(foxglove()["configById"]) if text.startswith("/")]
    assert len(named) > 8
    for text in named:
        name, *fields = text.split(".")
        if name == "/diagnostics":
            continue
        value = CONTRACT[name].message_type()
        for field in fields:
            value = getattr(value, field)
        assert not fields or isinstance(value, float)


def test_every_panel_of_the_layout_is_described_and_has_its_place() -> None:
    layout = foxglove()
    places = panels(layout["layout"], (0.0, 0.0, 1.0, 1.0))
    assert set(places) == set(layout["configById"])
    assert sum(width * height for _, _, width, height in places.values()) == pytest.approx(1.0)


def test_rviz_subscribes_as_the_contract_asks() -> None:
    manager = yaml.safe_load((CONFIG / "td3_driver.rviz").read_text())["Visualization Manager"]
    described = [
        item["Topic"] for item in [*manager["Displays"], *manager["Tools"]] if "Topic" in item
    ]
    assert len(described) == 4
    for item in described:
        qos = CONTRACT[item["Value"]].client_qos
        assert (item["Reliability Policy"] == "Reliable") == qos.reliable
        assert (item["Durability Policy"] == "Transient Local") == qos.latched
        assert item["Depth"] == qos.depth
