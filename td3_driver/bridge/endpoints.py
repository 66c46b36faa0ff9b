# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The ends of topics, as ROS's graph lists them, and the names of the nodes they belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

UNKNOWN_NAME = "_NODE_NAME_UNKNOWN_"
"""What ROS calls a node while one of its ends is known, but not yet its name."""


def full_node_name(endpoint: Any) -> str:
    """Return the name of the node whose end this is, after its namespace where it has one."""
    if endpoint.node_name == UNKNOWN_NAME:
        return UNKNOWN_NAME
    return f"{endpoint.node_namespace.rstrip('/')}/{endpoint.node_name}".removeprefix("/")


def all_but_one(endpoints: Sequence[Any], node: str) -> list[Any]:
    """Return the ends without one that belongs to a node, by its fully qualified name.

    There may be another node of the same name.
    """
    own = node.removeprefix("/")
    named = [end for end in endpoints if full_node_name(end) == own]
    return [end for end in endpoints if full_node_name(end) != own] + named[1:]


def node_names(endpoints: Iterable[Any]) -> str:
    """Return the full names of the nodes that these ends belong to, as a list in words."""
    return ", ".join(sorted({full_node_name(endpoint) for endpoint in endpoints}))


def who_publishes(topic: str, endpoints: Sequence[Any]) -> str:
    """Say which nodes publish a topic, and how many there are of one name."""
    counts = Counter(map(full_node_name, endpoints))
    names = ", ".join(
        name if count == 1 else f"{name} ({count} of this name)"
        for name, count in sorted(counts.items())
    )
    return f"{names} {'publishes' if len(endpoints) == 1 else 'publish'} {topic}"
