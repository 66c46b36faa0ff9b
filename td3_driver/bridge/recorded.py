# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The topics in the record of a drive, and those that this package's own nodes publish."""

from __future__ import annotations

from td3_driver.bridge.driver_topics import DRIVER_TOPICS, full_name
from td3_driver.bridge.topics import DIAGNOSTICS, TOPICS
from td3_driver.config import CarlaConfig

STATIC_TRANSFORMS = "/tf_static"
"""Where other nodes publish their fixed frames, if they do; this package does not use it."""


def topics_of_nodes(config: CarlaConfig) -> frozenset[str]:
    """Return the topics on which the driver and the trainer report about themselves."""
    return frozenset(full_name(topic, config) for topic in (*DRIVER_TOPICS, DIAGNOSTICS))


def recorded_pattern(config: CarlaConfig) -> str:
    """Return a regular expression of the topics that make up the record of a drive."""
    contract = [topic.name(config) for topic in TOPICS]  # letters, digits, _ and /
    return f"^({'|'.join([*contract, *sorted(topics_of_nodes(config)), STATIC_TRANSFORMS])})$"
