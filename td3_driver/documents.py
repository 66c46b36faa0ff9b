# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads JSON and YAML of any origin: within bounds, or refused in one line by one error.

The bounds are far above what this package writes and reads. They are checked before a document's
values exist, so that neither depth nor aliases nor long numbers cost time or memory.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.composer import Composer

MOST_BYTES = 1 << 20
MOST_LEVELS = 32
MOST_VALUES = 100_000
"""Names and values in a document, each as often as aliases repeat it."""
MOST_DIGITS = 40
"""Digits of a whole number: random states hold some of 128 bits."""
SHORT = 300
"""Characters of a library's message that an error repeats."""

_TOO_DEEP = f"it is nested more than {MOST_LEVELS} levels deep"
_TOO_MANY = f"it has more than {MOST_VALUES:,} values"
_TOO_LONG = f"it has a whole number of more than {MOST_DIGITS} digits"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)


class DocumentError(ValueError):
    """A document cannot be used; the message says which, and why."""


class DocumentMissingError(DocumentError):
    """There is no such file."""


def load_json(path: Path) -> Any:
    """Return the values in a JSON file; raises DocumentError."""
    return parse_json(read_text(path, "JSON"), str(path))


def load_yaml(path: Path) -> Any:
    """Return the values in a YAML file; raises DocumentError."""
    return parse_yaml(read_text(path, "YAML"), str(path))


def read_text(path: Path, kind: str = "text", most_bytes: int = MOST_BYTES) -> str:
    """Return the text of a file of UTF-8; raises DocumentError."""
    data = read_bytes(path, most_bytes)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise DocumentError(
            f"{path} is not {kind}: {error.reason} at byte {error.start}"
        ) from None


def read_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the bytes of a regular file; raises DocumentError."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > most_bytes:
                raise DocumentError(f"{path} is larger than {most_bytes:,} bytes")
            return file.read(size)
    except OSError as error:
        raise _unreadable(path, error) from None


def open_regular(path: Path) -> int:
    """Return a descriptor of a file; raises OSError where it is no regular one.

    A pipe is refused, and not waited for.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is not a regular file", str(path))


def _unreadable(path: Path, error: OSError) -> DocumentError:
    if isinstance(error, FileNotFoundError):
        return DocumentMissingError(f"{path} is missing")
    return DocumentError(f"{path} cannot be read: {error.strerror}")


def parse_json(text: str, source: str) -> Any:
    """Return the values in a JSON text; `source` is its name. Raises DocumentError."""
    try:
        _check_size(text)
        _check_extent(text)
        values = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_whole_number,
            parse_float=_number,
            parse_constant=_refuse_constant,
        )
        _check_values(values)
    except ValueError as error:
        raise DocumentError(f"{source} is not JSON: {in_short(error)}") from None
    return values


def parse_yaml(text: str, source: str) -> Any:
    """Return the values in a YAML text; `source` is its name. Raises DocumentError.

    Numbers may be infinite or NaN, which YAML can say: what is done with them decides.
    """
    try:
        _check_size(text)
        loader = _BoundedLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _Extents().of(node)
        values = loader.construct_document(node)
        _check_values(values)
    except yaml.MarkedYAMLError as error:
        raise DocumentError(f"{source} is not YAML: {_marked(error)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"{source} is not YAML: {in_short(error)}") from None
    except Exception:  # constructors of odd scalars fail in any way
        raise DocumentError(f"{source} is not YAML: a value is not what its tag says") from None
    return values


def in_short(error: object) -> str:
    """Return a message, or anything else as text, as one line of at most `SHORT` characters."""
    text = " ".join(str(error)[: 4 * SHORT].split()) or type(error).__name__
    printable = text.encode("utf-8", "backslashreplace").decode()
    return printable if len(printable) <= SHORT else f"{printable[: SHORT - 3]}..."


def _marked(error: yaml.MarkedYAMLError) -> str:
    said = in_short(error.problem or error.context or error)
    mark = error.problem_mark or error.context_mark
    return said if mark is None else f"{said} (line {mark.line + 1}, column {mark.column + 1})"


def _check_size(text: str) -> None:
    if len(text) > MOST_BYTES:
        raise ValueError(f"it is longer than {MOST_BYTES:,} characters")


def _check_extent(text: str) -> None:
    """Check levels and values of a JSON text by its brackets and commas."""
    level = 0
    marks = re.findall(r"[\[{}\],]", _STRING.sub("", text))
    if len(marks) > MOST_VALUES:
        raise ValueError(_TOO_MANY)
    for mark in marks:
        level += {"[": 1, "{": 1, ",": 0}.get(mark, -1)
        if level > MOST_LEVELS:
            raise ValueError(_TOO_DEEP)


def _check_values(values: Any) -> None:
    """Refuse text that no file name, message or terminal can hold, and numbers in excess."""
    left = [values]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value)
            left.extend(value.values())
        elif isinstance(value, list | tuple | set):
            left.extend(value)
        elif isinstance(value, str):
            _check_text(value)
        elif isinstance(value, int):
            _check_whole(value)


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("it has half a surrogate pair in a text")


def _check_whole(number: int) -> None:
    if abs(number) >= 10**MOST_DIGITS:
        raise ValueError(_TOO_LONG)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"{in_short(repr(name))} is given twice")
        values[name] = value
    return values


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS + 1:
        raise ValueError(_TOO_LONG)
    return int(digits)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{in_short(text)} is not a finite number")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


if yaml.__with_libyaml__:

    class _Loader(Composer, yaml.CSafeLoader):
        """Parses with libyaml, ten times as fast as PyYAML, and composes nodes in Python."""

        def __init__(self, text: str) -> None:
            Composer.__init__(self)
            yaml.CSafeLoader.__init__(self, text)

else:
    _Loader = yaml.SafeLoader  # type: ignore[misc, assignment]


class _BoundedLoader(_Loader):
    """Composes no more levels and values than are allowed, whatever the text holds after them."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._levels = 0
        self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and what is in it."""
        self._levels += 1
        self._values += 1
        if self._levels > MOST_LEVELS:
            raise ValueError(_TOO_DEEP)
        if self._values > MOST_VALUES:
            raise ValueError(_TOO_MANY)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._levels -= 1
        return node


class _Extents:
    """Counts what a YAML document's values will be, before they are made."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def of(self, node: yaml.Node) -> tuple[int, int]:
        """Return how many values a node is, with what aliases repeat, and how many levels.

        Raises MarkedYAMLError if they are too many, or for a name given twice.
        """
        if isinstance(node, yaml.ScalarNode):
            _check_digits(node)
            return 1, 1
        if id(node) in self._known:
            return self._known[id(node)]
        if id(node) in self._open:
            raise _at(node, "an alias stands within what it repeats")
        self._open.add(id(node))
        inner = node.value
        if isinstance(node, yaml.MappingNode):
            _refuse_names_given_twice(node)
            inner = [part for pair in node.value for part in pair]
        parts = [self.of(part) for part in inner]
        values = 1 + sum(count for count, _ in parts)
        levels = 1 + max((depth for _, depth in parts), default=0)
        if values > MOST_VALUES:
            raise _at(node, f"{_TOO_MANY}, with what aliases repeat")
        if levels > MOST_LEVELS:
            raise _at(node, f"{_TOO_DEEP}, with what aliases repeat")
        self._open.remove(id(node))
        self._known[id(node)] = values, levels
        return values, levels


def _check_digits(scalar: yaml.ScalarNode) -> None:
    # Binary digits, a sign, a prefix and marks between digits.
    if scalar.tag == "tag:yaml.org,2002:int" and len(scalar.value) > 5 * MOST_DIGITS:
        raise _at(scalar, _TOO_LONG)


def _refuse_names_given_twice(mapping: yaml.MappingNode) -> None:
    seen: set[Hashable] = set()
    for name, _ in mapping.value:
        if not isinstance(name, yaml.ScalarNode):
            continue
        # A name as YAML understands it: 1 and "1" are two.
        known = (name.tag, name.value)
        if known in seen:
            raise _at(name, f"{in_short(repr(name.value))} is given twice")
        seen.add(known)


def _at(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
