# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The same recording as bags of every kind: MCAP, SQLite; in chunks or not, split, compressed."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml
import zstandard
from bag_drives import CARLA, Recorded
from mcap.writer import CompressionType, IndexType, Writer

from td3_driver.offline.bag import METADATA
from td3_driver.offline.definitions import embedded_definition

QOS = "- history: 1\n  depth: 10\n  reliability: 1\n  durability: 2\n" + "".join(
    f"  {name}: {{sec: 0, nsec: 0}}\n"
    for name in ("deadline", "lifespan", "liveliness_lease_duration")
)
QOS += "  liveliness: 1\n  avoid_ros_namespace_conventions: false\n"


@dataclass(frozen=True)
class Kept:
    """A topic, as a bag describes it."""

    name: str
    type_name: str
    definition: str
    type_hash: str
    encoding: str = "cdr"
    schema_encoding: str = "ros2msg"
    qos: str = QOS


@dataclass(frozen=True)
class Message:
    """A message of one of the topics, by its place among them."""

    topic: int
    log_ns: int
    data: bytes
    raw: bool = False
    """Whether its data are written as they are, even where messages are compressed."""


@dataclass(frozen=True)
class Recording:
    """What is written into bags."""

    topics: list[Kept]
    messages: list[Message]

    def counts(self) -> dict[str, int]:
        """Return the number of messages of each topic's name."""
        found: dict[str, int] = {}
        for message in self.messages:
            name = self.topics[message.topic].name
            found[name] = found.get(name, 0) + 1
        return found


def recording_of(messages: Sequence[Recorded]) -> Recording:
    """Return a drive's messages as they are written."""
    topics = list(dict.fromkeys(item.topic for item in messages))
    kept = [
        Kept(topic.name(CARLA), topic.type_name, *embedded_definition(topic.type_name))
        for topic in topics
    ]
    return Recording(
        kept, [Message(topics.index(item.topic), item.log_ns, item.data) for item in messages]
    )


@dataclass(frozen=True)
class Kind:
    """A form that a bag can have."""

    name: str
    suffix: str = ".mcap"
    options: dict[str, Any] = field(default_factory=dict)
    files: int = 1
    described: bool = True
    """Whether there is a `metadata.yaml`."""
    compressed: str = ""
    """What of it is compressed: "file", "message", or nothing."""
    checksums: bool = True
    """Whether a changed value shows."""


_NONE = CompressionType.NONE
KINDS = [
    Kind("chunks", options={"compression": CompressionType.ZSTD}),
    Kind("lz4", options={"compression": CompressionType.LZ4}),
    Kind("uncompressed", options={"compression": _NONE}),
    Kind(
        "chunks_no_checksums",
        options={"compression": _NONE, "enable_crcs": False},
        checksums=False,
    ),
    Kind("no_chunks", options={"use_chunking": False, "enable_data_crcs": True}),
    Kind("no_chunks_no_checksums", options={"use_chunking": False}, checksums=False),
    Kind(
        "no_index",
        options={
            "use_chunking": False,
            "index_types": IndexType.NONE,
            "use_statistics": False,
            "use_summary_offsets": False,
            "repeat_channels": False,
            "repeat_schemas": False,
            "enable_data_crcs": True,
        },
        described=False,
    ),
    Kind("split", options={"compression": CompressionType.ZSTD}, files=12),
    Kind("split_undescribed", options={"compression": _NONE}, files=12, described=False),
    Kind("file_zstd", options={"compression": _NONE}, compressed="file"),
    Kind("message_zstd", options={"compression": _NONE}, compressed="message"),
    Kind("sqlite", ".db3", checksums=False),
    Kind("sqlite_split", ".db3", files=3, checksums=False),
    Kind("sqlite_file_zstd", ".db3", compressed="file"),
    Kind("sqlite_message_zstd", ".db3", compressed="message", checksums=False),
]
BY_NAME = {kind.name: kind for kind in KINDS}


def write_kind(path: Path, recording: Recording, kind: Kind) -> Path:
    """Write a bag of a kind, in a new folder."""
    path.mkdir(parents=True)
    size = -(-len(recording.messages) // kind.files)
    names = []
    for place in range(kind.files):
        part = recording.messages[place * size : (place + 1) * size]
        file = path / f"{path.name}_{place}{kind.suffix}"
        if kind.compressed == "message":
            compress = zstandard.ZstdCompressor().compress
            part = [
                message if message.raw else replace(message, data=compress(message.data))
                for message in part
            ]
        if kind.suffix == ".mcap":
            write_mcap(file, recording.topics, part, **kind.options)
        else:
            write_sqlite(file, recording.topics, part)
        if kind.compressed == "file":
            whole = file.read_bytes()
            file.unlink()
            file = file.with_name(file.name + ".zstd")
            compressor = zstandard.ZstdCompressor(write_checksum=True)
            file.write_bytes(compressor.compress(whole))
        names.append(file.name)
    if kind.described:
        describe(path, recording, names, kind)
    return path


def write_mcap(
    file: Path, topics: Sequence[Kept], messages: Iterable[Message], **options: Any
) -> None:
    """Write an MCAP file, of small chunks."""
    with file.open("wb") as stream:
        writer = Writer(stream, chunk_size=8192, **options)
        writer.start(profile="ros2", library="test")
        channels = []
        for topic in topics:
            schema = writer.register_schema(
                topic.type_name, topic.schema_encoding, topic.definition.encode()
            )
            metadata = {"offered_qos_profiles": topic.qos, "topic_type_hash": topic.type_hash}
            channels.append(writer.register_channel(topic.name, topic.encoding, schema, metadata))
        for number, message in enumerate(messages):
            writer.add_message(
                channels[message.topic], message.log_ns, message.data, message.log_ns, number
            )
        writer.finish()


def write_sqlite(file: Path, topics: Sequence[Kept], messages: Iterable[Message]) -> None:
    """Write an SQLite file as rosbag2 of Iron and later does."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            """
            CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);
            CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,
              serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL,
              type_description_hash TEXT NOT NULL);
            CREATE TABLE message_definitions(id INTEGER PRIMARY KEY, topic_type TEXT NOT NULL,
              encoding TEXT NOT NULL, encoded_message_definition TEXT NOT NULL,
              type_description_hash TEXT NOT NULL);
            CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,
              timestamp INTEGER NOT NULL, data BLOB NOT NULL);
            CREATE INDEX timestamp_idx ON messages (timestamp ASC);
            INSERT INTO schema VALUES (4, 'jazzy');
            """
        )
        connection.executemany(
            "INSERT INTO topics VALUES (?, ?, ?, ?, ?, ?)",
            [
                (place + 1, item.name, item.type_name, item.encoding, item.qos, item.type_hash)
                for place, item in enumerate(topics)
            ],
        )
        connection.executemany(
            "INSERT INTO message_definitions (topic_type, encoding, encoded_message_definition, "
            "type_description_hash) VALUES (?, ?, ?, ?)",
            [
                (item.type_name, item.schema_encoding, item.definition, item.type_hash)
                for item in topics
            ],
        )
        connection.executemany(
            "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
            [(message.topic + 1, message.log_ns, message.data) for message in messages],
        )
        connection.commit()


def describe(path: Path, recording: Recording, names: Sequence[str], kind: Kind) -> None:
    """Write a bag's `metadata.yaml`."""
    counts = recording.counts()
    times = [message.log_ns for message in recording.messages]
    information = {
        "version": 5,
        "storage_identifier": "mcap" if kind.suffix == ".mcap" else "sqlite3",
        "duration": {"nanoseconds": max(times) - min(times)},
        "starting_time": {"nanoseconds_since_epoch": min(times)},
        "message_count": len(recording.messages),
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type_name,
                    "serialization_format": topic.encoding,
                    "offered_qos_profiles": topic.qos,
                },
                "message_count": counts.get(topic.name, 0),
            }
            for topic in recording.topics
        ],
        "compression_format": "zstd" if kind.compressed else "",
        "compression_mode": kind.compressed.upper(),
        "relative_file_paths": list(names),
    }
    text = yaml.safe_dump({"rosbag2_bagfile_information": information})
    (path / METADATA).write_text(text)


def edit_description(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a bag's `metadata.yaml` says."""
    file = path / METADATA
    values = yaml.safe_load(file.read_text())
    change(values["rosbag2_bagfile_information"])
    file.write_text(yaml.safe_dump(values))
