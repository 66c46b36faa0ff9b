# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Joins the channels of a bag's files to topics, each of one type; what does not fit is noted."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from td3_driver.offline.bag_file import BagFile, Channel
from td3_driver.offline.definitions import is_known

_COMMENT = re.compile(r"#[^\n]*")


@dataclass(frozen=True)
class BagTopic:
    """A topic of a bag."""

    name: str
    type_name: str
    count: int
    definition: str = ""
    """Definition of the message type, if the bag contains it."""
    qos: str = ""
    """The QoS that its publishers offered, in rosbag2's format."""
    latched: bool = False
    """Whether late subscribers received its last message."""
    ros_version: int = 2
    type_hash: str = ""
    """RIHS01 hash of the message type, if the bag contains it."""


@dataclass(frozen=True)
class _Source:
    """A channel of a file."""

    file: BagFile
    number: int

    @property
    def channel(self) -> Channel:
        return self.file.channels[self.number]

    @property
    def count(self) -> int:
        return self.file.counts[self.number]


# A type's name, and its definition without what does not matter.
_Kind = tuple[str, str]


@dataclass
class Joined:
    """Topics, and where their messages are."""

    topics: dict[str, BagTopic] = field(default_factory=dict)
    channels: list[tuple[BagFile, dict[int, str]]] = field(default_factory=list)
    """For each file the channels to read, by number, and their topics."""
    notes: list[str] = field(default_factory=list)
    """What is left out, in words."""


def join(files: Sequence[BagFile]) -> Joined:
    """Join the channels of files."""
    joined = Joined(channels=[(file, {}) for file in files])
    kinds: dict[str, dict[_Kind, list[_Source]]] = defaultdict(lambda: defaultdict(list))
    refused: Counter[str] = Counter()
    for file in files:
        for number, channel in file.channels.items():
            source = _Source(file, number)
            if channel.refusal:
                refused[f"{channel.topic or 'no topic'}: {channel.refusal}"] += source.count
            else:
                kind = channel.type_name, _essence(channel.definition)
                kinds[channel.topic][kind].append(source)
    joined.notes += [
        f"{count:,} messages are left out, those of {reason}"
        for reason, count in refused.items()
        if count
    ]
    read = {id(file): channels for file, channels in joined.channels}
    for name, of_topic in kinds.items():
        sources, notes = _choose(name, of_topic)
        joined.topics[name] = _topic(name, sources)
        joined.notes += notes
        for source in sources:
            read[id(source.file)][source.number] = name
    joined.notes += [
        f"{topic.name} cannot be decoded: its type {topic.type_name} is defined neither in the "
        "bag nor here"
        for topic in joined.topics.values()
        if topic.count and not topic.definition and not is_known(topic.type_name)
    ]
    return joined


def _choose(name: str, kinds: dict[_Kind, list[_Source]]) -> tuple[list[_Source], list[str]]:
    """Return the channels of the type and definition that most messages have, and what is lost."""
    counts = {kind: sum(source.count for source in found) for kind, found in kinds.items()}
    of_type: Counter[str] = Counter()
    for (type_name, _), count in counts.items():
        of_type[type_name] += count
    type_name = max(of_type, key=lambda name: of_type[name])
    defined = [kind for kind in kinds if kind[0] == type_name and kind[1]]
    # A file without the definition does not contradict another's.
    taken = {(type_name, ""), *sorted(defined, key=lambda kind: counts[kind])[-1:]}
    sources = [source for kind in kinds if kind in taken for source in kinds[kind]]
    notes = [
        f"{count:,} messages on {name} are left out: they are {kind[0]}, defined otherwise than "
        f"the others ({type_name})"
        for kind, count in counts.items()
        if count and kind not in taken
    ]
    return sources, notes


def _topic(name: str, sources: Collection[_Source]) -> BagTopic:
    """Return the topic of channels of one type: what any of them says holds for all."""
    channels = [source.channel for source in sources]
    described = next((channel for channel in channels if channel.definition), channels[0])
    return BagTopic(
        name,
        described.type_name,
        sum(source.count for source in sources),
        described.definition,
        next((channel.qos for channel in channels if channel.qos), ""),
        any(channel.latched for channel in channels),
        described.ros_version,
        described.type_hash,
    )


def _essence(definition: str) -> str:
    """Return a definition without what does not matter: comments and blanks."""
    return " ".join(_COMMENT.sub("", definition).split())
