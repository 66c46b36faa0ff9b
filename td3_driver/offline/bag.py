# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads bags of any kind, without ROS: rosbag2 (MCAP, SQLite), complete or cut off, and ROS 1.

A bag is a stream of serialised messages in the order they were recorded; each is decoded only on
demand. What cannot be read is left out and listed in `Bag.notes`; it never costs the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rosbags.typesys.store import Typestore

from td3_driver.documents import in_short
from td3_driver.offline.bag_file import (
    BagFileError,
    Part,
    RawMessage,
    decompressed,
    in_order,
    is_compressed,
    listed_shortly,
)
from td3_driver.offline.bag_folder import METADATA, BagFiles, shortage
from td3_driver.offline.bag_topics import BagTopic, join
from td3_driver.offline.clock_steps import STAMPED, ClockSteps, find_steps, may_have_steps
from td3_driver.offline.definitions import (
    DefinitionError,
    typestore,
    typestore_from_ros1,
    verified,
)

__all__ = ["METADATA", "Bag", "BagError", "BagTopic", "RawMessage"]


LONGEST_NOTE = 700
MOST_NOTES = 100


class BagError(ValueError):
    """A bag cannot be used; the message says why and what is missing."""


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
            raise BagError(f"{self.path} cannot be read as a bag: {in_short(error)}") from None
        joined = join(self._files.opened)
        self.topics = joined.topics
        """Topics by name."""
        self._channels = joined.channels
        self._notes: list[str] = []
        self._lost: dict[str, int] = {}
        self._damage = ""
        self._decoders: dict[str, Callable[[bytes], Any]] = {}
        self._to_cdr: dict[str, Typestore] = {}
        for note in (*self._files.notes, *joined.notes, self._shortage()):
            self.note(note)
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
        """Add a note of one line, once; a long one is cut, and beyond many none is added."""
        text = " ".join(text.split())[:LONGEST_NOTE]
        if text and text not in self._notes and len(self._notes) < MOST_NOTES:
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
        steps = self._clock_steps
        parts = list(self._parts(wanted, of_all_files=bool(steps.at)))
        for message in steps.straightened(parts) if steps.at else in_order(parts):
            data = message.data
            if self.topics[message.topic].ros_version == 2 and is_compressed(data):
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
        except BagError:
            raise
        except Exception as error:  # whatever the library makes of odd bytes
            raise BagError(
                f"{self.path}: a message on {message.topic} is damaged: {in_short(error)}"
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
                f"{self.path}: {topic.name} cannot be converted: {in_short(error)}"
            ) from None

    def _shortage(self) -> str:
        """Return what the description promises and no file holds; what is left out is there."""
        found: Counter[str] = Counter()
        for file in self._files.opened:
            for number, count in file.counts.items():
                found[file.channels[number].topic] += count
        return shortage(self._files.metadata, found)

    @cached_property
    def _clock_steps(self) -> ClockSteps:
        """Where the recorder's clock was set back; noted once."""
        stamped = [name for name, topic in self.topics.items() if topic.type_name in STAMPED]
        parts = list(self._parts(stamped, of_all_files=True))
        steps = find_steps(parts, stamped) if may_have_steps(parts) else ClockSteps()
        self.note(steps.in_words())
        return steps

    def _parts(self, wanted: Collection[str], of_all_files: bool) -> Iterator[Part]:
        for file, channels in self._channels:
            topics = {number: name for number, name in channels.items() if name in wanted}
            if topics or of_all_files:
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
        why = f": {listed_shortly(reasons)}" if reasons else ""
        lost = sum(self._lost.values())
        return [f"{lost:,} messages cannot be read ({listed_shortly(listed)}){why}"]

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
        try:
            store = self._typestore(topic)
        except BagError as error:
            return _refusing(str(error))  # the definition is not tried again for each message
        decode = store.deserialize_cdr if topic.ros_version == 2 else store.deserialize_ros1
        return lambda data: decode(data, topic.type_name)


def _refusing(text: str) -> Callable[[bytes], Any]:
    """Return a decoder of messages that cannot be decoded."""

    def refuse(data: bytes) -> Any:
        raise BagError(text)

    return refuse
