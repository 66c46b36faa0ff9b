# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The topics in the record of a drive, and those that this package's own nodes publish."""

from __future__ import annotations

from collections.abc import Iterable

from td3_driver.bridge.driver_topics import DEFAULT_DRIVER, DRIVER_TOPICS, full_name
from td3_driver.bridge.topics import DIAGNOSTICS, TOPICS
from td3_driver.config import CarlaConfig

STATIC_TRANSFORMS = "/tf_static"
"""Where other nodes publish their fixed frames, if they do; this package does not use it."""


def topics_of_nodes(
    config: CarlaConfig, drivers: Iterable[str] = (DEFAULT_DRIVER,)
) -> frozenset[str]:
    """Return the topics on which drivers, by their full names, and the trainer report."""
    own = (full_name(topic, config, driver) for topic in DRIVER_TOPICS for driver in drivers)
    return frozenset({*own, DIAGNOSTICS.template})


def recorded_pattern(config: CarlaConfig, driver: str = DEFAULT_DRIVER) -> str:
    """Return a regular expression of the topics that make up the record of a driver's drive."""
    contract = [topic.name(config) for topic in TOPICS]  # letters, digits, _ and /
    nodes = sorted(topics_of_nodes(config, [driver]))
    return f"^({'|'.join([*contract, *nodes, STATIC_TRANSFORMS])})$"
