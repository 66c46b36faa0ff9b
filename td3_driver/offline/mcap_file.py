# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads MCAP files: by their index where it is sound, or else from the front, past damage.

Every chunk's checksum is verified. An index is sound if its own checksum is right and its numbers
agree with one another.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mcap import records
from mcap.opcode import Opcode

from td3_driver.documents import in_short
from td3_driver.offline.bag_file import (
    FALL_NS,
    LATEST_NS,
    BagFile,
    BagFileError,
    Channel,
    Part,
    RawMessage,
)
from td3_driver.offline.mcap_records import (
    HEAD,
    MAGIC,
    MESSAGE,
    Summary,
    chunk_data,
    counts_in,
    read_channel,
    read_schema,
    read_summary,
    records_in,
)

_Messages = Iterator[tuple[int, "RawMessage | None"]]
_KNOWN = range(Opcode.HEADER, Opcode.DATA_END + 1)
# A record's head, found where the one before it is damaged: none is as long as 4 GiB.
_HEAD_PATTERN = re.compile(rb"(?=[\x01-\x0f](?s:.{4})\x00{4})")
# Messages outside chunks are read back in runs of about this size.
_RUN_BYTES = 1 << 20
_LEAST_SEARCHED_BYTES = 1 << 12
_SEARCHED_BYTES = 1 << 20


class McapFile(BagFile):
    """A file that is read in parts; it is not kept open between them."""

    def __init__(self, path: Path) -> None:
        """Find its channels and messages; raises BagFileError if there are none to be found."""
        super().__init__(path)
        self._schemas: dict[int, records.Schema] = {}
        self._described: dict[int, records.Channel] = {}
        self._parts: list[_Stretch] = []
        self._size = path.stat().st_size
        self._cut_off = False
        with path.open("rb") as stream:
            begins = stream.read(len(MAGIC)) == MAGIC
            stream.seek(max(self._size - len(MAGIC), 0))
            ends = self._size > len(MAGIC) and stream.read() == MAGIC
            if not begins and not ends:
                raise BagFileError("it is no MCAP file")
            if not begins:
                self.notes.append(f"{path.name} is damaged: it does not begin as an MCAP file")
            self._cut_off = not ends
            summary = read_summary(stream, self._size) if ends else None
            if summary is None or not self._takes_index(summary):
                self._scan(stream, summary)
        self._describe()

    def parts(self, topics: Mapping[int, str]) -> Iterator[Part]:
        """Yield the messages of some channels, given with their topics."""
        for part in self._parts:
            recorded = partial(part.read, topics)
            in_time = partial(_by_time, recorded)
            yield Part(part.begin_ns, part.end_ns, in_time, recorded, part.falls)

    def close(self) -> None:
        """Do nothing: no file stays open between two parts."""

    # --- the index ---------------------------------------------------------------------------

    def _takes_index(self, summary: Summary) -> bool:
        """Take channels, counts and chunks from the summary; return whether it is sound."""
        statistics = summary.statistics
        # Without a checksum, a wrong time of a chunk would put its messages in a wrong place.
        if statistics is None or not summary.chunks or not summary.verified:
            return False
        counted = sum(sum(counts_in(chunk).values()) for chunk in summary.chunks)
        of_channels = sum(statistics.channel_message_counts.values())
        sound = (
            statistics.chunk_count == len(summary.chunks)
            and statistics.channel_count == len(summary.channels)
            and statistics.message_count == of_channels
            and counted in (0, of_channels)  # 0 where chunks have no index of their messages
            and all(chunk.chunk_start_offset < self._size for chunk in summary.chunks)
        )
        if not sound:
            return False
        self._schemas, self._described = summary.schemas, summary.channels
        self.counts = Counter(statistics.channel_message_counts)
        for chunk in summary.chunks:
            read = partial(self._read_chunk, chunk.chunk_start_offset, chunk.chunk_length)
            times = chunk.message_start_time, chunk.message_end_time
            self._parts.append(_Stretch(*times, falls=None, read=read))
        return True

    # --- from the front ----------------------------------------------------------------------

    def _scan(self, stream: BinaryIO, summary: Summary | None) -> None:
        """Find messages, channels and schemas from the front, past what is damaged."""
        run = _Run()
        checksum: tuple[int, int] | None = None
        damaged = _Damage()
        for position, opcode, length in self._heads(stream, damaged):
            if opcode == Opcode.MESSAGE:
                head = stream.read(MESSAGE.size)
                if length < MESSAGE.size or len(head) < MESSAGE.size:
                    damaged.add(f"the message at byte {position:,} is damaged")
                    continue
                channel, _, log_ns, _ = MESSAGE.unpack(head)
                if run.add(position, HEAD.size + length, log_ns):
                    self._end_run(run)
                    run = _Run()
                    run.add(position, HEAD.size + length, log_ns)
                self.counts[channel] += 1
                continue
            self._end_run(run)
            run = _Run()
            if opcode == Opcode.CHUNK:
                self._scan_chunk(stream, position, length, damaged)
            elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                self._learn(opcode, stream.read(length), damaged)
            elif opcode == Opcode.DATA_END:
                content = stream.read(length)
                checksum = (position, int.from_bytes(content[:4], "little"))
                break
            elif opcode == Opcode.FOOTER:
                break
        self._end_run(run)
        if summary is not None and summary.verified:
            self._schemas |= summary.schemas
            self._described |= summary.channels
        self._tell(summary, damaged)
        if checksum is not None and checksum[1] and not damaged.places:
            self._verify(stream, *checksum)

    def _heads(self, stream: BinaryIO, damaged: _Damage) -> Iterator[tuple[int, int, int]]:
        """Yield where each record begins, its kind and its length; the stream stands behind."""
        position = len(MAGIC)
        while position + HEAD.size <= self._size:
            stream.seek(position)
            head = stream.read(HEAD.size)
            if len(head) < HEAD.size:  # somebody has just cut it off
                return
            opcode, length = HEAD.unpack(head)
            if self._fits(position, opcode, length):
                yield position, opcode, length
                position += HEAD.size + length
                continue
            found = self._next_head(stream, position + 1)
            if found is None:
                if not self._cut_off:
                    damaged.add(f"what follows byte {position:,} is damaged")
                return
            damaged.add(f"bytes {position:,} to {found:,} are damaged")
            position = found

    def _fits(self, position: int, opcode: int, length: int) -> bool:
        return opcode in _KNOWN and position + HEAD.size + length <= self._size

    def _next_head(self, stream: BinaryIO, position: int) -> int | None:
        """Return where the next two records begin that follow each other; None if none do."""
        size = _LEAST_SEARCHED_BYTES
        while position + HEAD.size <= self._size:
            stream.seek(position)
            window = stream.read(size)
            size = min(2 * size, _SEARCHED_BYTES)
            for match in _HEAD_PATTERN.finditer(window):
                if self._is_record(stream, position + match.start()):
                    return position + match.start()
            position += max(len(window) - HEAD.size + 1, 1)
        return None

    def _is_record(self, stream: BinaryIO, position: int) -> bool:
        """Return whether a record begins here, and another one right behind it."""
        for _ in range(2):
            stream.seek(position)
            head = stream.read(HEAD.size)
            if head[: len(MAGIC)] == MAGIC:
                return True
            if len(head) < HEAD.size:
                return False
            opcode, length = HEAD.unpack(head)
            if not self._fits(position, opcode, length):
                return False
            position += HEAD.size + length
        return True

    def _scan_chunk(self, stream: BinaryIO, position: int, length: int, damaged: _Damage) -> None:
        times = []
        counts: Counter[int] = Counter()
        try:
            for opcode, content in records_in(chunk_data(stream.read(length))):
                if opcode == Opcode.MESSAGE:
                    channel, _, log_ns, _ = MESSAGE.unpack_from(content)
                    counts[channel] += 1
                    times.append(log_ns)
                elif opcode in (Opcode.SCHEMA, Opcode.CHANNEL):
                    self._learn(opcode, content, damaged)
        except (BagFileError, struct.error) as error:
            damaged.add(f"the chunk at byte {position:,} is damaged ({error})")
        if times:
            self.counts += counts
            read = partial(self._read_chunk, position, HEAD.size + length)
            self._parts.append(_Stretch(min(times), max(times), _fall(times), read))

    def _learn(self, opcode: int, content: bytes, damaged: _Damage) -> None:
        """Take a schema or a channel."""
        try:
            if opcode == Opcode.SCHEMA:
                schema = read_schema(content)
                self._schemas[schema.id] = schema
            else:
                channel = read_channel(content)
                self._described[channel.id] = channel
        except Exception as error:  # whatever the library makes of odd bytes
            what = "schema" if opcode == Opcode.SCHEMA else "channel"
            damaged.add(f"a {what} is damaged ({in_short(error)})")

    def _end_run(self, run: _Run) -> None:
        if run.begin_ns is not None:
            read = partial(self._read_run, run.position, run.length)
            self._parts.append(_Stretch(run.begin_ns, run.end_ns, run.falls, read))

    def _tell(self, summary: Summary | None, damaged: _Damage) -> None:
        """Note what scanning found wrong, and what the summary promised besides."""
        name = self.path.name
        found, promised = sum(self.counts.values()), self._promised(summary)
        more = f" of the {promised:,} that its summary counts" if promised else ""
        others = f", and {damaged.places - 1} more places" if damaged.places > 1 else ""
        if self._cut_off:
            self.notes.append(
                f"the recording was cut off: {name} is read up to its last intact part "
                "(`td3-driver repair` makes it readable for other tools)"
                + (f"; {damaged.first}{others}" if damaged.places else "")
            )
        elif damaged.places:
            self.notes.append(
                f"{name} is damaged: {damaged.first}{others}; {found:,} messages{more} are read"
            )
        elif more:
            self.notes.append(f"{name} is damaged: it has {found:,} messages{more}")

    def _promised(self, summary: Summary | None) -> int:
        """Return how many messages the summary counts, if any channel has fewer; else 0."""
        if summary is None or summary.statistics is None:
            return 0
        counts = summary.statistics.channel_message_counts
        short = any(self.counts[channel] < count for channel, count in counts.items())
        return sum(counts.values()) if short else 0

    def _verify(self, stream: BinaryIO, end: int, checksum: int) -> None:
        """Note if the checksum of everything before the summary is wrong."""
        stream.seek(0)
        found, left = 0, end
        while left > 0 and (data := stream.read(min(left, _SEARCHED_BYTES))):
            found = zlib.crc32(data, found)
            left -= len(data)
        if found != checksum:
            self.notes.append(
                f"{self.path.name} is damaged: its checksum is wrong, so any of its values may be"
            )

    # --- reading back ------------------------------------------------------------------------

    def _read_chunk(self, position: int, length: int, topics: Mapping[int, str]) -> _Messages:
        try:
            data = self._bytes(position, length)
            content = chunk_data(data[HEAD.size :])
        except (OSError, BagFileError) as error:
            self.note_damage(f"the chunk at byte {position:,} is damaged ({error})")
            return
        yield from self._messages(content, topics)

    def _read_run(self, position: int, length: int, topics: Mapping[int, str]) -> _Messages:
        try:
            data = self._bytes(position, length)
        except OSError as error:
            self.note_damage(f"it cannot be read ({error.strerror})")
            return
        yield from self._messages(data, topics)

    def _bytes(self, position: int, length: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(position)
            return stream.read(min(length, self._size - position))

    def _messages(self, data: bytes, topics: Mapping[int, str]) -> _Messages:
        """Yield the times of the messages among records, and those of some channels."""
        try:
            for opcode, content in records_in(data):
                if opcode != Opcode.MESSAGE:
                    continue
                channel, _, log_ns, _ = MESSAGE.unpack_from(content)
                topic = topics.get(channel)
                if log_ns < LATEST_NS:
                    data = content[MESSAGE.size :]
                    yield log_ns, None if topic is None else RawMessage(topic, log_ns, data)
                elif topic is not None:
                    self.note_damage(f"a message of {topic} has an impossible time")
        except (BagFileError, struct.error) as error:
            self.note_damage(f"a record is damaged ({error})")

    # --- channels ----------------------------------------------------------------------------

    def _describe(self) -> None:
        """Make channels of what was found about them."""
        for number, found in self._described.items():
            self.channels[number] = self._channel(found)
        self.describe_the_rest()

    def _channel(self, found: records.Channel) -> Channel:
        schema = self._schemas.get(found.schema_id)
        name = definition = ""
        if schema is not None:
            name = schema.name
            if schema.encoding == "ros2msg":
                definition = schema.data.decode(errors="replace")
        digest = found.metadata.get("topic_type_hash", "")
        channel = Channel(found.topic, name, definition, digest)
        qos = found.metadata.get("offered_qos_profiles", "")
        return self.describe_channel(channel, found.message_encoding, qos)


@dataclass
class _Damage:
    """What is damaged in a file: the first place, and how many there are."""

    first: str = ""
    places: int = 0

    def add(self, text: str) -> None:
        """Note a place."""
        self.first = self.first or text
        self.places += 1


@dataclass
class _Run:
    """Messages that follow each other outside chunks."""

    position: int = 0
    length: int = 0
    begin_ns: int | None = None
    end_ns: int = 0
    falls: bool = False

    def add(self, position: int, length: int, log_ns: int) -> bool:
        """Add a message; return True, and do not, where it belongs to the next run."""
        if self.begin_ns is None:
            self.position, self.begin_ns = position, log_ns
        elif self.length + length > _RUN_BYTES or position != self.position + self.length:
            return True
        self.length += length
        self.falls |= self.end_ns - log_ns > FALL_NS
        self.begin_ns, self.end_ns = min(self.begin_ns, log_ns), max(self.end_ns, log_ns)
        return False


@dataclass(frozen=True)
class _Stretch:
    """A chunk, or a run of messages."""

    begin_ns: int
    end_ns: int
    falls: bool | None
    read: Callable[[Mapping[int, str]], _Messages]


def _fall(times: Sequence[int]) -> bool:
    return any(before - after > FALL_NS for before, after in itertools.pairwise(times))


def _by_time(recorded: Callable[[], _Messages]) -> list[RawMessage]:
    found = [message for _, message in recorded() if message is not None]
    return sorted(found, key=lambda message: message.log_ns)
