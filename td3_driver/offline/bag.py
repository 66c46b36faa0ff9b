# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads bags of any kind, without ROS: rosbag2 (MCAP, SQLite), complete or cut off, and ROS 1.

A bag is a stream of serialised messages in the order they were recorded; each is decoded only on
demand. What cannot be read is left out and told in `Bag.notes`; it never costs the rest.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rosbags.typesys.store import Typestore

from td3_driver.offline.bag_file import (
    BagFile,
    BagFileError,
    Channel,
    Part,
    RawMessage,
    decompressed,
    first_line,
    in_order,
    is_compressed,
)
from td3_driver.offline.bag_folder import METADATA, BagFiles, shortage
from td3_driver.offline.definitions import (
    DefinitionError,
    is_known,
    typestore,
    typestore_from_ros1,
    verified,
)

__all__ = ["METADATA", "Bag", "BagError", "BagTopic", "RawMessage"]


class BagError(ValueError):
    """A bag cannot be used; the message says why and what is missing."""


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


class Bag:
    """A bag that is open for reading; a context manager."""

    def __init__(self, path: str | Path) -> None:
        """Open a bag's folder or file; raises BagError if it is not a bag, or is empty."""
        self.path = Path(path)
        try:
            if not self.path.exists():
                raise BagError(f"there is no bag {self.path}")
            self._files = BagFiles(self.path)
        except (BagFileError, OSError) as error:  # BagError is neither
            raise BagError(f"{self.path} cannot be read as a bag: {first_line(error)}") from None
        self._notes = list(self._files.notes)
        self._lost: dict[str, int] = {}
        self._damage = ""
        self._decoders: dict[str, Callable[[bytes], Any]] = {}
        self._to_cdr: dict[str, Typestore] = {}
        self.topics: dict[str, BagTopic] = {}
        """Topics by name."""
        self._channels: list[tuple[BagFile, dict[int, str]]] = [
            (file, {}) for file in self._files.opened
        ]
        self._find_topics()
        if not any(topic.count for topic in self.topics.values()):
            self.close()
            why = "".join(f"; {note}" for note in self._notes[:3])
            raise BagError(f"the bag {self.path} is empty: it contains no messages{why}")

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    @property
    def notes(self) -> list[str]:
        """Problems with the bag that do not prevent reading it, in words.

        Complete once all messages have been read.
        """
        return [*self._notes, *self._losses()]

    def note(self, text: str) -> None:
        """Add a note, once."""
        if text not in self._notes:
            self._notes.append(text)

    @property
    def paths(self) -> list[Path]:
        """The bag's files."""
        return self._files.paths

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Yield the messages of some or all topics, in the order they were recorded.

        Every call starts from the beginning. Those that cannot be read are left out, and counted
        in `notes` at the end.
        """
        asked = self.topics if topics is None else topics
        wanted = {name for name in asked if name in self.topics and self.topics[name].count}
        found: Counter[str] = Counter()
        for message in in_order(self._parts(wanted)):
            data = message.data
            if is_compressed(data):
                try:
                    data = decompressed(data)
                except BagFileError as error:
                    self._damage = f"a message on {message.topic} is damaged: {error}"
                    continue
                message = replace(message, data=data)
            found[message.topic] += 1
            yield message
        for name in wanted:
            lost = self.topics[name].count - found[name]
            if lost > 0:
                self._lost[name] = lost

    def decode(self, message: RawMessage) -> Any:
        """Return a message's fields; raises BagError if it cannot be decoded."""
        decoder = self._decoders.get(message.topic)
        if decoder is None:
            decoder = self._decoders[message.topic] = self._decoder(self.topics[message.topic])
        try:
            return decoder(message.data)
        except Exception as error:  # whatever the library makes of odd bytes
            raise BagError(
                f"{self.path}: a message on {message.topic} is damaged: {first_line(error)}"
            ) from None

    def serialised(self, message: RawMessage) -> bytes:
        """Return a message as ROS 2 serialises it (CDR); raises BagError."""
        topic = self.topics[message.topic]
        if topic.ros_version == 2:
            return message.data
        store = self._to_cdr.get(topic.name)
        if store is None:
            store = self._to_cdr[topic.name] = self._typestore_from_ros1(topic)
        try:
            return bytes(store.ros1_to_cdr(message.data, topic.type_name))
        except Exception as error:  # whatever the library makes of odd bytes
            raise BagError(
                f"{self.path}: {topic.name} cannot be converted: {first_line(error)}"
            ) from None

    # --- topics --------------------------------------------------------------------------------

    def _find_topics(self) -> None:
        """Take each topic's channels, of all files, that can be read as one type."""
        unreadable: Counter[str] = Counter()
        variants: dict[str, dict[tuple[str, str], list[tuple[int, int]]]] = defaultdict(dict)
        for place, file in enumerate(self._files.opened):
            for number, channel in file.channels.items():
                if channel.refusal:
                    unreadable[f"{channel.topic or 'no topic'}: {channel.refusal}"] += file.counts[
                        number
                    ]
                    continue
                key = (channel.type_name, _essence(channel.definition))
                variants[channel.topic].setdefault(key, []).append((place, number))
        for reason, count in unreadable.items():
            if count:
                self.note(f"{count:,} messages are left out, those of {reason}")
        for name, kinds in variants.items():
            self._take(name, kinds)
        self._compare_with_promises()

    def _take(self, name: str, kinds: dict[tuple[str, str], list[tuple[int, int]]]) -> None:
        """Take the kind of messages that a topic has most of; note the others."""
        by_count = {
            key: sum(self._files.opened[place].counts[number] for place, number in found)
            for key, found in kinds.items()
        }
        chosen = max(by_count, key=lambda key: by_count[key])
        # A file without the definition does not contradict another's.
        bare = (chosen[0], "")
        if not chosen[1]:
            chosen = max(
                (key for key in kinds if key[0] == chosen[0]), key=lambda key: by_count[key]
            )
        taken = dict.fromkeys([chosen, bare])
        places = [place for key in taken for place in kinds.get(key, [])]
        count = sum(by_count.get(key, 0) for key in taken)
        for key, of_kind in by_count.items():
            if key not in taken and of_kind:
                self.note(
                    f"{of_kind:,} messages on {name} are left out: they are {key[0]}, defined "
                    f"otherwise than the other {count:,} ({chosen[0]})"
                )
        channels = [self._files.opened[place].channels[number] for place, number in places]
        for place, number in places:
            self._channels[place][1][number] = name
        self.topics[name] = _topic(name, channels, count)
        if count and not self.topics[name].definition and not is_known(chosen[0]):
            self.note(
                f"{name} cannot be decoded: its type {chosen[0]} is defined neither in the bag "
                "nor here"
            )

    def _compare_with_promises(self) -> None:
        """Note what the description promises and no file holds; what was left out is there."""
        found: Counter[str] = Counter()
        for file in self._files.opened:
            for number, count in file.counts.items():
                found[file.channels[number].topic] += count
        if text := shortage(self._files.metadata, found):
            self.note(text)

    def _parts(self, wanted: Collection[str]) -> Iterator[Part]:
        for file, channels in self._channels:
            topics = {number: name for number, name in channels.items() if name in wanted}
            if topics:
                yield from file.parts(topics)

    # --- losses --------------------------------------------------------------------------------

    def _losses(self) -> list[str]:
        """Return how many messages could not be read, and why the first of them."""
        if not self._lost:
            return []
        reasons = [file.damage for file in self._files.opened if file.damage]
        reasons += [self._damage] if self._damage else []
        listed = [
            f"{lost:,} of {self.topics[name].count:,} on {name}"
            for name, lost in sorted(self._lost.items())
        ]
        return [
            f"{sum(self._lost.values()):,} messages cannot be read ({', '.join(listed)})"
            + (f": {'; '.join(reasons[:3])}" if reasons else "")
        ]

    # --- definitions ---------------------------------------------------------------------------

    def _typestore(self, topic: BagTopic) -> Typestore:
        try:
            if topic.definition and topic.ros_version == 2:
                store, note = verified(topic.type_name, topic.definition, topic.type_hash)
                if note:
                    self.note(f"{topic.name}: {note}")
                return store
            return typestore(topic.type_name, topic.definition, topic.ros_version)
        except DefinitionError as error:
            raise BagError(f"{self.path}: {topic.name}: {error}") from None

    def _typestore_from_ros1(self, topic: BagTopic) -> Typestore:
        try:
            return typestore_from_ros1(topic.type_name, topic.definition)
        except DefinitionError as error:
            raise BagError(f"{self.path}: {topic.name}: {error}") from None

    def _decoder(self, topic: BagTopic) -> Callable[[bytes], Any]:
        store = self._typestore(topic)
        decode = store.deserialize_cdr if topic.ros_version == 2 else store.deserialize_ros1
        return lambda data: decode(data, topic.type_name)


def _topic(name: str, channels: Collection[Channel], count: int) -> BagTopic:
    """Return the topic of channels of one type: what any of them says holds for all."""
    first = next(iter(channels))
    told = next((channel for channel in channels if channel.definition), first)
    return BagTopic(
        name,
        first.type_name,
        count,
        told.definition,
        next((channel.qos for channel in channels if channel.qos), ""),
        any(channel.latched for channel in channels),
        first.ros_version,
        told.type_hash,
    )


_COMMENT = re.compile(r"#[^\n]*")


def _essence(definition: str) -> str:
    """Return a definition without what does not matter: comments and blanks."""
    return " ".join(_COMMENT.sub("", definition).split())
