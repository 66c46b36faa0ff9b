# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads bags of any kind, without ROS: rosbag2 (MCAP, SQLite), complete or cut off, and ROS 1.

A bag is a stream of serialised messages in the order they were recorded; each is decoded only on
demand.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from mcap.exceptions import McapError
from mcap.records import Channel, Chunk, McapRecord, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader, breakup_chunk
from rosbags.interfaces import (
    ConnectionExtRosbag1,
    MessageDefinitionFormat,
    QosDurability,
)
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1 import ReaderError as Ros1ReaderError
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.rosbag2 import ReaderError as Ros2ReaderError
from rosbags.rosbag2.metadata import dump_qos_v8, parse_qos
from rosbags.rosbag2.storage_mcap import zstd
from rosbags.serde import SerdeError
from rosbags.typesys import TypesysError
from rosbags.typesys.store import Typestore
from zstandard import ZstdError

from td3_driver.offline.definitions import DefinitionError, typestore, typestore_from_ros1

METADATA = "metadata.yaml"
MCAP_MAGIC = b"\x89MCAP0\r\n"


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


@dataclass(frozen=True)
class RawMessage:
    """A serialised message and when it was recorded."""

    topic: str
    log_ns: int
    data: bytes


class _Source(Protocol):
    topics: dict[str, BagTopic]
    notes: list[str]

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        """Yield the messages of some topics in the order they were recorded."""

    def close(self) -> None:
        """Close the files."""


class Bag:
    """A bag that is open for reading; a context manager."""

    def __init__(self, path: str | Path) -> None:
        """Open a bag's folder or file; raises BagError if it is not a bag, or is empty."""
        self.path = Path(path)
        self._source = _open(self.path)
        self.topics = self._source.topics
        """Topics by name."""
        self.notes = self._source.notes
        """Problems with the bag that do not prevent reading it, in words."""
        self._decoders: dict[str, Callable[[bytes], Any]] = {}
        self._to_cdr: dict[str, Typestore] = {}
        if not any(topic.count for topic in self.topics.values()):
            self.close()
            raise BagError(f"the bag {self.path} is empty: it contains no messages")

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        self._source.close()

    def messages(self, topics: Collection[str] | None = None) -> Iterator[RawMessage]:
        """Yield the messages of some or all topics, in the order they were recorded.

        Every call starts from the beginning. Raises BagError if the bag cannot be read further.
        """
        asked = self.topics if topics is None else topics
        wanted = [name for name in asked if name in self.topics and self.topics[name].count]
        if wanted:
            yield from self._source.messages(wanted)

    def decode(self, message: RawMessage) -> Any:
        """Return a message's fields; raises BagError if it cannot be decoded."""
        decoder = self._decoders.get(message.topic)
        if decoder is None:
            decoder = self._decoders[message.topic] = self._decoder(self.topics[message.topic])
        try:
            return decoder(message.data)
        except (SerdeError, TypesysError, *_DAMAGE) as error:
            raise BagError(
                f"{self.path}: a message on {message.topic} is damaged: {error}"
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
        except (SerdeError, TypesysError, *_DAMAGE) as error:
            raise BagError(f"{self.path}: {topic.name} cannot be converted: {error}") from None

    def _typestore(self, topic: BagTopic) -> Typestore:
        try:
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


def _open(path: Path) -> _Source:
    if not path.exists():
        raise BagError(f"there is no bag {path}")
    if path.is_dir() and not (path / METADATA).is_file():
        return _open_unfinished(path)
    try:
        if path.suffix == ".bag":
            return _RosbagsSource(Ros1Reader(path), 1)
        files = [path] if path.is_file() else sorted(path.glob("*.mcap"))
        if any(_is_cut_off(file) for file in files if file.suffix == ".mcap"):
            return _CutOffMcap(files)
        return _RosbagsSource(Ros2Reader(path), 2)
    except (Ros1ReaderError, Ros2ReaderError, OSError, AssertionError, KeyError) as error:
        raise BagError(f"{path} cannot be read as a bag: {error}") from None


def _open_unfinished(folder: Path) -> _Source:
    """Open a folder whose recording was cut off before its description was written."""
    mcap, sqlite = sorted(folder.glob("*.mcap")), sorted(folder.glob("*.db3"))
    if mcap:
        return _CutOffMcap(mcap)
    if len(sqlite) == 1:
        source = _open(sqlite[0])
        source.notes.append(f"the recording was cut off: there is no {METADATA}")
        return source
    raise BagError(
        f"{folder} is not a bag: it has neither {METADATA} nor a .mcap, .db3 or .bag file"
    )


def _is_cut_off(file: Path) -> bool:
    """Return whether an MCAP file lacks its end."""
    with file.open("rb") as stream:
        begins = stream.read(len(MCAP_MAGIC)) == MCAP_MAGIC
        size = stream.seek(0, 2)
        stream.seek(max(size - len(MCAP_MAGIC), 0))
        return begins and stream.read() != MCAP_MAGIC


class _RosbagsSource:
    """A bag read by the rosbags library."""

    def __init__(self, reader: Ros1Reader | Ros2Reader, ros_version: int) -> None:
        self.notes: list[str] = []
        self._reader = reader
        reader.open()
        self._connections = list(reader.connections)
        self.topics = {}
        counts: Counter[str] = Counter()
        for connection in self._connections:
            counts[connection.topic] += connection.msgcount
            text = connection.msgdef
            known = text.format == MessageDefinitionFormat.MSG
            self.topics[connection.topic] = BagTopic(
                connection.topic,
                connection.msgtype,
                counts[connection.topic],
                text.data if known else "",
                *_offered(connection.ext),
                ros_version,
            )

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        connections = [item for item in self._connections if item.topic in topics]
        try:
            for connection, log_ns, data in self._reader.messages(connections):
                yield RawMessage(connection.topic, log_ns, bytes(data))
        except (Ros1ReaderError, Ros2ReaderError, *_DAMAGE) as error:
            note = f"the bag is damaged; the rest of it is skipped: {error}"
            if note not in self.notes:  # every pass through the bag comes here
                self.notes.append(note)

    def close(self) -> None:
        self._reader.close()


def _offered(extension: Any) -> tuple[str, bool]:
    """Return the QoS that a topic's publishers offered, as text, and whether it is latched."""
    if isinstance(extension, ConnectionExtRosbag1):
        return "", bool(extension.latching)
    qos = dump_qos_v8(extension.offered_qos_profiles)
    return qos, _latches(qos)


# Errors that reading a damaged file can raise.
_DAMAGE = (
    McapError,
    ZstdError,
    zstd.ZstdError,
    struct.error,
    RuntimeError,
    OSError,
    ValueError,
    LookupError,
)


class _CutOffMcap:
    """MCAP files read from the front, as far as they are intact."""

    def __init__(self, files: list[Path]) -> None:
        self.notes = []
        self._files = files
        self._described: dict[str, BagTopic] = {}
        counts: Counter[str] = Counter()
        for topic, _ in self._read(lambda topic: True):
            counts[topic] += 1
        self.topics = {
            name: replace(topic, count=counts[name]) for name, topic in self._described.items()
        }
        names = ", ".join(file.name for file in files)
        self.notes.append(
            f"the recording was cut off: {names} is read up to its last intact part "
            "(`td3-driver repair` makes it readable for other tools)"
        )

    def messages(self, topics: Collection[str]) -> Iterator[RawMessage]:
        wanted = frozenset(topics)
        for topic, message in self._read(wanted.__contains__):
            yield RawMessage(topic, message.log_time, message.data)

    def close(self) -> None:
        """Do nothing: no file stays open between two passes."""

    def _read(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, McapMessage]]:
        for file in self._files:
            with file.open("rb") as stream:
                yield from self._read_records(stream, wanted)

    def _read_records(
        self, stream: Any, wanted: Callable[[str], bool]
    ) -> Iterator[tuple[str, McapMessage]]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, str] = {}
        for parts in _whole_parts(stream):
            messages = []
            for part in parts:
                if isinstance(part, Schema):
                    schemas[part.id] = part
                elif isinstance(part, Channel):
                    schema = schemas[part.schema_id]
                    channels[part.id] = part.topic
                    text = schema.data.decode() if schema.encoding == "ros2msg" else ""
                    qos = part.metadata.get("offered_qos_profiles", "")
                    self._described[part.topic] = BagTopic(
                        part.topic, schema.name, 0, text, qos, _latches(qos)
                    )
                elif isinstance(part, McapMessage) and wanted(channels[part.channel_id]):
                    messages.append(part)
            messages.sort(key=lambda message: message.log_time)
            for message in messages:
                yield channels[message.channel_id], message


def _latches(qos: str) -> bool:
    return any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in parse_qos(qos))


def _whole_parts(stream: Any) -> Iterator[list[McapRecord]]:
    """Yield the intact parts of an MCAP file: a chunk's records, or a single record."""
    try:
        for record in StreamReader(stream, emit_chunks=True).records:
            if not isinstance(record, Chunk):
                yield [record]
                continue
            try:
                parts = breakup_chunk(record, validate_crc=True)
            except _DAMAGE:  # the next chunks may be intact
                continue
            yield parts
    except _DAMAGE:
        return
