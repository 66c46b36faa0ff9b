# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads the files of ROS 1 with the rosbags library."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rosbags.interfaces import ConnectionExtRosbag1
from rosbags.rosbag1 import Reader

from td3_driver.documents import in_short
from td3_driver.offline.bag_file import (
    BagFile,
    BagFileError,
    Channel,
    Part,
    RawMessage,
)

MAGIC = b"#ROSBAG V"


class Ros1File(BagFile):
    """A file that the library reads."""

    def __init__(self, path: Path) -> None:
        """Find its channels and messages; raises BagFileError if there are none to be found."""
        super().__init__(path)
        self._reader = Reader(path)
        try:
            self._reader.open()
        except Exception as error:  # whatever the library makes of odd bytes
            raise BagFileError(in_short(error)) from None
        for connection in self._reader.connections:
            extension = connection.ext
            self.channels[connection.id] = Channel(
                connection.topic,
                connection.msgtype,
                connection.msgdef.data,
                latched=isinstance(extension, ConnectionExtRosbag1) and bool(extension.latching),
                ros_version=1,
            )
            self.counts[connection.id] = connection.msgcount

    def parts(self, topics: Mapping[int, str]) -> Iterator[Part]:
        """Yield the messages of some channels, given with their topics."""
        if any(self.counts[number] for number in topics):
            reader = self._reader
            yield Part(
                reader.start_time,
                reader.end_time,
                lambda: self._messages(topics),
                # The library reads by time alone.
                lambda: ((message.log_ns, message) for message in self._messages(topics)),
            )

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _messages(self, topics: Mapping[int, str]) -> Iterator[RawMessage]:
        connections = [item for item in self._reader.connections if item.id in topics]
        messages = self._reader.messages(connections)
        while True:
            try:
                connection, log_ns, data = next(messages)
            except StopIteration:
                return
            except Exception as error:  # whatever the library makes of odd bytes
                self.note_damage(f"the rest is skipped ({in_short(error)})")
                return
            yield RawMessage(topics[connection.id], log_ns, bytes(data))
