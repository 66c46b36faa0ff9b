# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the readers of a bag's files have in common, whatever their format.

A file lists its channels and how many messages each has when it is opened. Its messages come in
parts, each read only when its time has come, so that the parts of all files can be merged by time.
"""

from __future__ import annotations

import heapq
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import yaml
import zstandard
from rosbags.interfaces import QosDurability
from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos

from td3_driver.documents import in_short

CDR = "cdr"
LATEST_NS = 2**63
"""Times from here on are damaged."""
FALL_NS = 1_000_000_000
"""Recorded times that fall by less than this are disorder."""
LARGEST_MESSAGE_BYTES = 1 << 30
"""No message or chunk of messages is decompressed to more than this."""

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_LONGEST_QOS = 20_000
_DEEPEST_QOS = 3
_MOST_LISTED = 3


class BagFileError(ValueError):
    """A file of a bag cannot be read; the message says why."""


@dataclass(frozen=True)
class RawMessage:
    """A serialised message and when it was recorded."""

    topic: str
    log_ns: int
    data: bytes


@dataclass(frozen=True)
class Channel:
    """What a file says about messages of one kind."""

    topic: str
    type_name: str
    definition: str = ""
    """Definition of the message type, if the file contains it."""
    type_hash: str = ""
    """RIHS01 hash of the message type, if the file contains it."""
    qos: str = ""
    """The QoS that the publishers offered, in rosbag2's format."""
    latched: bool = False
    ros_version: int = 2
    refusal: str = ""
    """Why its messages cannot be read; empty if they can."""


@dataclass(frozen=True)
class Part:
    """Messages of a file that are read together."""

    begin_ns: int
    """Not after its first message."""
    end_ns: int
    """Not before its last message."""
    messages: Callable[[], Iterable[RawMessage]]
    """Reads them by time; those that cannot be read are left out."""
    recorded: Callable[[], Iterable[tuple[int, RawMessage | None]]]
    """Reads them as they stand in the file; of other channels' messages only their times."""
    falls: bool | None = False
    """Whether times fall as the messages stand in the file; None if that is not known yet."""


class BagFile(ABC):
    """A file that is open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: dict[int, Channel] = {}
        """By their numbers in this file."""
        self.counts: Counter[int] = Counter()
        """Number of messages of each channel."""
        self.notes: list[str] = []
        """What was found wrong when it was opened, in words."""
        self.damage = ""
        """What was found wrong first while messages were read; empty if nothing was."""

    @abstractmethod
    def parts(self, topics: Mapping[int, str]) -> Iterable[Part]:
        """Return the messages of some channels, given with their topics, in the file's order."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def note_damage(self, text: str) -> None:
        """Note what was found wrong while messages were read, if it is the first."""
        self.damage = self.damage or f"{self.path.name}: {text}"

    def describe_channel(self, channel: Channel, encoding: object, qos: object) -> Channel:
        """Return a channel as it can be read: with its QoS, or with why it cannot."""
        if not channel.type_name:
            return Channel(channel.topic, "", refusal="nothing says what type they are")
        if encoding != CDR:
            refusal = f"they are encoded as {str(encoding)[:40]!r}, and not as {CDR!r}"
            return Channel(channel.topic, channel.type_name, refusal=refusal)
        channel, wrong = with_qos(channel, qos)
        if wrong:
            self.notes.append(wrong)
        return channel

    def describe_the_rest(self) -> None:
        """Give channels that have messages, but no description, their refusal."""
        for number in self.counts.keys() - self.channels.keys():
            self.channels[number] = Channel("", "", refusal="nothing says what they are")


def in_order(parts: Iterable[Part]) -> Iterator[RawMessage]:
    """Merge the messages of parts by the time they were recorded."""
    queues = [_timed(part) for part in sorted(parts, key=lambda part: part.begin_ns)]
    for _, message in heapq.merge(*queues, key=itemgetter(0)):
        if message is not None:
            yield message


def _timed(part: Part) -> Iterator[tuple[int, RawMessage | None]]:
    """Yield a part's beginning, which does not read it yet, and then its messages."""
    yield part.begin_ns, None
    for message in part.messages():
        yield message.log_ns, message


def with_qos(channel: Channel, qos: object) -> tuple[Channel, str]:
    """Return a channel with the QoS that a file gives, and what is wrong with that, if anything.

    Bags of newer distributions name the values that older ones number: they become numbers.
    """
    try:
        if not isinstance(qos, str) or not _is_flat(qos):
            raise ValueError("it is no list of profiles")
        text, latched = _normalised(qos)
    except Exception as error:  # whatever the libraries make of odd text
        return channel, f"the QoS of {channel.topic} cannot be read ({in_short(error)})"
    return replace(channel, qos=text, latched=latched), ""


def _is_flat(qos: str) -> bool:
    """Return whether a text is short, and not nested deeply, which would take long to parse."""
    depth = deepest = 0
    for bracket in re.findall(r"[\[\]{}]", qos[:_LONGEST_QOS]):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    plain = re.fullmatch(r"[\w\s:,{}\[\]-]*", qos) and not re.search(r"-\s+-\s", qos)
    return len(qos) <= _LONGEST_QOS and deepest <= _DEEPEST_QOS and bool(plain)


@lru_cache
def _normalised(qos: str) -> tuple[str, bool]:
    """Return QoS with its values as numbers, and whether it is that of a latched topic."""
    profiles = parse_qos(yaml.safe_load(qos) or [])
    latched = any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in profiles)
    return dump_qos_v8(profiles), latched


def decompressed(data: bytes, most_bytes: int = LARGEST_MESSAGE_BYTES) -> bytes:
    """Return what a zstd frame contains; raises BagFileError if it is damaged or too large."""
    try:
        declared = zstandard.frame_content_size(data)
        if declared > most_bytes:
            raise BagFileError(f"it claims to contain {declared:,} bytes")
        if declared >= 0:
            return zstandard.ZstdDecompressor().decompress(data)
        with zstandard.ZstdDecompressor().stream_reader(data) as stream:
            content = stream.read(most_bytes + 1)
    except zstandard.ZstdError as error:
        raise BagFileError(f"its compression is damaged ({error})") from None
    if len(content) > most_bytes:
        raise BagFileError(f"it contains more than {most_bytes:,} bytes")
    return content


def is_compressed(data: bytes) -> bool:
    """Return whether bytes begin like those of zstd, as no message does."""
    return data[:4] == _ZSTD_MAGIC


def listed_shortly(names: Sequence[str], separator: str = ", ") -> str:
    """Return the first of some names, and how many more there are."""
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return separator.join(name[:200] for name in names[:_MOST_LISTED]) + more
