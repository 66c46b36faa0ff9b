# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What an ONNX file says of itself, read before any library builds anything from it.

Only the outline is read, from the fields of its protocol buffer that are named here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

MOST_NODES = 10_000
EXTERNAL = 1
"""The `data_location` of a tensor whose values are in another file."""

# Numbers of fields in onnx.proto.
_IR_VERSION, _GRAPH, _OPSETS, _METADATA, _FUNCTIONS = 1, 7, 8, 14, 25
_NODES_OF_GRAPH, _TENSORS_OF_GRAPH, _NODES_OF_FUNCTION = 1, 5, 7
_ATTRIBUTES, _OPERATOR = 5, 4
_TENSOR_OF_ATTRIBUTE, _GRAPH_OF_ATTRIBUTE, _GRAPHS_OF_ATTRIBUTE = 5, 6, 11
_DATA_LOCATION = 14
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5

Fields = Iterator[tuple[int, "int | memoryview"]]


@dataclass
class Outline:
    """What a file says of itself."""

    ir_version: int = 0
    opset: int = 0
    """Version of the standard operators."""
    metadata: dict[str, str] = field(default_factory=dict)
    nodes: int = 0


def outline(data: bytes) -> Outline:
    """Return the outline of a file; raises ValueError for what no exported policy has.

    That is a graph within a graph (a loop or a branch: it may never end), another file with its
    values, nodes in excess, and bytes that are no protocol buffer.
    """
    found = Outline()
    for number, value in _fields(memoryview(data)):
        if number == _IR_VERSION and isinstance(value, int):
            found.ir_version = value
        elif isinstance(value, int):
            continue
        elif number == _OPSETS:
            _read_opset(value, found)
        elif number == _METADATA:
            entry = dict(_fields(value))
            found.metadata[_text(entry.get(1))] = _text(entry.get(2))
        elif number == _GRAPH:
            _check_nodes(value, _NODES_OF_GRAPH, found)
            for tensor in _messages(value, _TENSORS_OF_GRAPH):
                _check_tensor(tensor)
        elif number == _FUNCTIONS:
            _check_nodes(value, _NODES_OF_FUNCTION, found)
    if not found.nodes:
        raise ValueError("it has no network")
    return found


def _read_opset(message: memoryview, found: Outline) -> None:
    entry = dict(_fields(message))
    domain, version = _text(entry.get(1)), entry.get(2, 0)
    if domain in ("", "ai.onnx") and isinstance(version, int):
        found.opset = version


def _check_nodes(graph: memoryview, number: int, found: Outline) -> None:
    for node in _messages(graph, number):
        found.nodes += 1
        if found.nodes > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES:,} nodes")
        for attribute in _messages(node, _ATTRIBUTES):
            for part, value in _fields(attribute):
                if part in (_GRAPH_OF_ATTRIBUTE, _GRAPHS_OF_ATTRIBUTE):
                    operator = _text(dict(_fields(node)).get(_OPERATOR))[:40]
                    raise ValueError(f"it has a graph within {operator!r}, which may never end")
                if part == _TENSOR_OF_ATTRIBUTE and not isinstance(value, int):
                    _check_tensor(value)


def _check_tensor(tensor: memoryview) -> None:
    if any(part == _DATA_LOCATION and value == EXTERNAL for part, value in _fields(tensor)):
        raise ValueError("its values are in another file")


def _messages(message: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(message):
        if number == wanted and not isinstance(value, int):
            yield value


def _text(value: int | memoryview | None) -> str:
    return "" if value is None or isinstance(value, int) else bytes(value).decode()


def _fields(message: memoryview) -> Fields:
    """Yield a message's fields: numbers, and the bytes of everything else."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        kind = key & 7
        if kind == _VARINT:
            value, place = _varint(message, place)
            yield key >> 3, value
            continue
        size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind, 0)
        if kind == _BYTES:
            size, place = _varint(message, place)
        elif not size:
            raise ValueError("it is not a protocol buffer")
        if place + size > len(message):
            raise ValueError("it is cut off")
        yield key >> 3, message[place : place + size]
        place += size


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place after it."""
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(message):
            raise ValueError("it is cut off")
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            return value, place
    raise ValueError("it is not a protocol buffer")
