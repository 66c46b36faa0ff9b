# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The message packages that ship with this one, and what to do where a message is missing."""

from __future__ import annotations

from collections.abc import Iterable

from td3_driver.bridge.topics import Topic
from td3_driver.config import ConfigError

SHIPPED = ("ackermann_msgs", "carla_msgs", "td3_driver_msgs", "tf2_msgs")
"""Packages under `interfaces/`."""


def build_remedy(package: str) -> str:
    """Return how to come by a shipped message package."""
    return f"build interfaces/{package} (`make setup` or colcon does), and source its workspace"


def require_messages(topics: Iterable[Topic]) -> None:
    """Raise ConfigError, saying what to build, where a topic's message type is not installed."""
    for topic in topics:
        package = topic.type_name.split("/")[0]
        try:
            _ = topic.message_type
        except (ImportError, AttributeError) as error:
            raise ConfigError(
                f"{topic.type_name} is not installed ({error}): {build_remedy(package)}"
            ) from None
