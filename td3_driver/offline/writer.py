# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Writes rosbag2 bags (MCAP) of serialised messages, which are intact up to the last `flush`."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml
from mcap.writer import CompressionType, Writer

from td3_driver.files import replacing
from td3_driver.offline.bag import METADATA, Bag, BagError, BagTopic
from td3_driver.offline.definitions import (
    DefinitionError,
    embedded_definition,
    is_known,
    typestore,
)

# The latest version that Humble can read; later distributions can read it as well.
METADATA_VERSION = 5


@dataclass
class _Topic:
    type_name: str
    channel: int
    qos: str
    count: int = 0


class BagWriter:
    """A new bag: a folder with one MCAP file, and its description once it is closed."""

    def __init__(self, path: str | Path) -> None:
        """Create the folder; raises BagError if it exists or cannot be created."""
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True)
        except FileExistsError:
            raise BagError(f"{self.path} exists, and no bag is overwritten") from None
        except OSError as error:
            raise BagError(f"{self.path} cannot be created: {error.strerror}") from None
        self.file = self.path / f"{self.path.name}_0.mcap"
        self.stream = self.file.open("wb")
        self._writer = Writer(self.stream, compression=CompressionType.ZSTD)
        self._writer.start(profile="ros2", library="td3_driver")
        self._schemas: dict[str, int] = {}
        self.topics: dict[str, _Topic] = {}
        self._begin_ns: int | None = None
        self._end_ns = 0

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def messages(self) -> int:
        """Number of messages written."""
        return sum(topic.count for topic in self.topics.values())

    def add_topic(
        self,
        name: str,
        type_name: str,
        qos: str = "",
        definition: str = "",
        type_hash: str = "",
    ) -> None:
        """Add a topic; raises DefinitionError if its type is unknown.

        `qos` describes what its publishers offer, in rosbag2's format. `definition` and
        `type_hash` are the text of its type and its RIHS01 hash; by default they are looked up.
        """
        if not definition:
            definition, type_hash = embedded_definition(type_name)
        if type_name not in self._schemas:
            self._schemas[type_name] = self._writer.register_schema(
                type_name, "ros2msg", definition.encode()
            )
        channel = self._writer.register_channel(
            name,
            "cdr",
            self._schemas[type_name],
            {"offered_qos_profiles": qos, "topic_type_hash": type_hash},
        )
        self.topics[name] = _Topic(type_name, channel, qos)

    def write(self, name: str, log_ns: int, data: bytes, publish_ns: int | None = None) -> None:
        """Write a message of an added topic; raises OSError if the disk is full."""
        topic = self.topics[name]
        published_ns = log_ns if publish_ns is None else publish_ns
        self._writer.add_message(topic.channel, log_ns, data, published_ns, topic.count)
        topic.count += 1
        self._begin_ns = log_ns if self._begin_ns is None else min(self._begin_ns, log_ns)
        self._end_ns = max(self._end_ns, log_ns)

    def flush(self) -> None:
        """Pass everything so far to the system, so that it survives the end of this process."""
        self._writer.flush()

    def close(self) -> None:
        """Complete the file with its index and the bag with its description."""
        if self.stream.closed:
            return
        try:
            self._writer.finish()
        finally:
            self.stream.close()
        text = yaml.safe_dump({"rosbag2_bagfile_information": self._description()})
        with replacing(self.path / METADATA) as new:
            new.write_text(text)

    def abandon(self) -> None:
        """Close the file as it is, after a failure to write."""
        # Closing the buffer would try to write the rest, which cannot be written.
        self.stream.raw.close()

    def _description(self) -> dict[str, Any]:
        begin_ns = self._begin_ns or 0

        def span() -> dict[str, Any]:  # a new object each time, or YAML would write an alias
            return {
                "duration": {"nanoseconds": max(self._end_ns - begin_ns, 0)},
                "starting_time": {"nanoseconds_since_epoch": begin_ns},
                "message_count": self.messages,
            }

        topics = [
            {
                "topic_metadata": {
                    "name": name,
                    "type": topic.type_name,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": topic.qos,
                },
                "message_count": topic.count,
            }
            for name, topic in self.topics.items()
        ]
        return {
            "version": METADATA_VERSION,
            "storage_identifier": "mcap",
            **span(),
            "topics_with_message_count": topics,
            "compression_format": "",
            "compression_mode": "",
            "relative_file_paths": [self.file.name],
            "files": [{"path": self.file.name, **span()}],
        }


@dataclass(frozen=True)
class Repaired:
    """A new bag, and what of the old one it has."""

    path: Path
    messages: int
    notes: list[str]
    """What was left out, or found wrong, in words."""


def repair(path: str | Path) -> Repaired:
    """Copy the intact part of a bag of any kind to a new bag beside it.

    Raises BagError if there is nothing to copy, or if the new bag exists or cannot be written; in
    that case nothing is left of it.
    """
    with Bag(path) as bag:
        old = Path(os.path.abspath(bag.path))
        name = old.name if old.is_dir() else old.stem
        writer = BagWriter(old.with_name(f"{name}-repaired"))
        try:
            left_out = _copy(bag, writer)
            if not writer.messages:
                reasons = "; ".join([*bag.notes, *left_out][:3])
                raise BagError(f"{bag.path}: none of its messages can be copied ({reasons})")
            writer.close()
        except BaseException as error:
            writer.abandon()
            shutil.rmtree(writer.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise BagError(
                    f"{writer.path} cannot be written ({error.strerror}), and is removed again; "
                    f"{bag.path} is as it was"
                ) from None
            raise
        return Repaired(writer.path, writer.messages, [*bag.notes, *left_out])


def _copy(bag: Bag, writer: BagWriter) -> list[str]:
    """Copy what can be copied; return what cannot, in words."""
    left_out = []
    for topic in bag.topics.values():
        try:
            _add_topic(writer, topic)
        except DefinitionError as error:
            left_out.append(f"{topic.count:,} messages on {topic.name} are left out: {error}")
    failures: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for message in bag.messages(list(writer.topics)):
        try:
            data = bag.serialised(message)
        except BagError as error:
            failures[message.topic] += 1
            reasons.setdefault(message.topic, str(error))
            continue
        writer.write(message.topic, message.log_ns, data)
    for name, count in failures.items():
        left_out.append(f"{count:,} messages on {name} are left out: {reasons[name]}")
    return left_out


def _add_topic(writer: BagWriter, topic: BagTopic) -> None:
    """Add a topic as the bag describes it, or else as it is known here; raises DefinitionError."""
    definition = topic.definition if topic.ros_version == 2 else ""
    if definition and is_known(topic.type_name):
        try:
            typestore(topic.type_name, definition)
        except DefinitionError:
            definition = ""
    writer.add_topic(topic.name, topic.type_name, topic.qos, definition, topic.type_hash)
