# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The records of MCAP files, with every length and checksum verified."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

import lz4.frame
from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode

from td3_driver.documents import in_short
from td3_driver.offline.bag_file import (
    LARGEST_MESSAGE_BYTES,
    BagFileError,
    decompressed,
)

MAGIC = b"\x89MCAP0\r\n"
HEAD = struct.Struct("<BQ")
"""A record's kind and the length of its content."""
MESSAGE = struct.Struct("<HIQQ")
"""A message's channel, number and times; its data follows."""

_CHUNK = struct.Struct("<QQQII")
_FOOTER = struct.Struct("<QQI")
_FOOTER_BYTES = HEAD.size + _FOOTER.size + len(MAGIC)


@dataclass
class Summary:
    """What the end of a file says about it."""

    schemas: dict[int, records.Schema] = field(default_factory=dict)
    channels: dict[int, records.Channel] = field(default_factory=dict)
    chunks: list[records.ChunkIndex] = field(default_factory=list)
    statistics: records.Statistics | None = None
    verified: bool = False
    """Whether its checksum was there, and right."""


def read_summary(stream: BinaryIO, size: int) -> Summary | None:
    """Return what the end of a file says about it; None if that is nothing, or damaged."""
    if size < _FOOTER_BYTES + len(MAGIC):
        return None
    footer_at = size - _FOOTER_BYTES
    stream.seek(footer_at)
    footer = stream.read(_FOOTER_BYTES)
    if HEAD.unpack_from(footer) != (Opcode.FOOTER, _FOOTER.size):
        return None
    begin, _, checksum = _FOOTER.unpack_from(footer, HEAD.size)
    if not len(MAGIC) <= begin <= footer_at:  # 0 where there is no summary
        return None
    stream.seek(begin)
    data = stream.read(footer_at - begin)
    checked = footer[: HEAD.size + _FOOTER.size - 4]
    if checksum and zlib.crc32(checked, zlib.crc32(data)) != checksum:
        return None
    summary = Summary(verified=bool(checksum))
    try:
        for opcode, content in records_in(data):
            if opcode == Opcode.SCHEMA:
                schema = read_schema(content)
                summary.schemas[schema.id] = schema
            elif opcode == Opcode.CHANNEL:
                channel = read_channel(content)
                summary.channels[channel.id] = channel
            elif opcode == Opcode.CHUNK_INDEX:
                summary.chunks.append(records.ChunkIndex.read(_reading(content)))
            elif opcode == Opcode.STATISTICS:
                summary.statistics = records.Statistics.read(_reading(content))
    except Exception:  # whatever the library makes of odd bytes
        return None
    return summary


def read_schema(content: bytes) -> records.Schema:
    """Read a schema; raises whatever the library makes of odd bytes."""
    return records.Schema.read(_reading(content))


def read_channel(content: bytes) -> records.Channel:
    """Read a channel; raises whatever the library makes of odd bytes."""
    return records.Channel.read(_reading(content))


def records_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the content of each record; raises BagFileError where one is cut."""
    position = 0
    while position < len(data):
        if position + HEAD.size > len(data):
            raise BagFileError("a record is cut off")
        opcode, length = HEAD.unpack_from(data, position)
        position += HEAD.size
        if position + length > len(data):
            raise BagFileError("a record is longer than what contains it")
        yield opcode, data[position : position + length]
        position += length


def chunk_data(content: bytes) -> bytes:
    """Return the records in a chunk; raises BagFileError if it is damaged."""
    if len(content) < _CHUNK.size:
        raise BagFileError("it is cut off")
    _, _, size, checksum, name_length = _CHUNK.unpack_from(content)
    begin = _CHUNK.size + name_length + 8
    compression = content[_CHUNK.size : _CHUNK.size + name_length]
    data = content[begin:]
    if begin > len(content) or int.from_bytes(content[begin - 8 : begin], "little") > len(data):
        raise BagFileError("it is longer than its record")
    data = data[: int.from_bytes(content[begin - 8 : begin], "little")]
    if size > LARGEST_MESSAGE_BYTES:
        raise BagFileError(f"it claims to contain {size:,} bytes")
    if compression == b"zstd":
        data = decompressed(data, size)
    elif compression == b"lz4":
        data = _decompressed_lz4(data, size)
    elif compression:
        raise BagFileError(f"its compression {compression[:20]!r} is unknown")
    if len(data) != size:
        raise BagFileError("it has another size than it says")
    if checksum and zlib.crc32(data) != checksum:
        raise BagFileError("its checksum is wrong")
    return data


def _decompressed_lz4(data: bytes, size: int) -> bytes:
    try:
        content: bytes = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)
    except (RuntimeError, MemoryError, ValueError) as error:
        raise BagFileError(f"its compression is damaged ({in_short(error)})") from None
    return content


def counts_in(chunk: records.ChunkIndex) -> dict[int, int]:
    """Return how many messages of each channel a chunk has, by the length of their indexes."""
    end = chunk.chunk_start_offset + chunk.chunk_length + chunk.message_index_length
    placed = sorted((offset, channel) for channel, offset in chunk.message_index_offsets.items())
    ends = [*(offset for offset, _ in placed[1:]), end]
    return {
        channel: (end - offset - HEAD.size - 6) // 16
        for (offset, channel), end in zip(placed, ends, strict=True)
    }


def _reading(content: bytes) -> ReadDataStream:
    return ReadDataStream(BytesIO(content))
