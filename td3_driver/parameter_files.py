# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""ROS 2 parameter files: which of a file's parameters belong to a node.

A file has a block `ros__parameters` for each head: a node's name, fully qualified or not, nested
by namespace or not, with the wildcards `*` (one token) and `**` (any number of tokens).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from td3_driver.documents import MOST_LEVELS, DocumentError, in_short, load_yaml

NODES = (
    "trainer",
    "driver",
    "simulator",
    "recorder",
    "recording_tool",
    "player",
    "ackermann_controller",
)
"""This package's nodes."""

_BLOCK = "ros__parameters"


class ParameterFileError(ValueError):
    """A parameter file has the wrong form, or nothing for a node; the message names the file."""


def read(path: Path, node: str = "") -> dict[str, Any]:
    """Return the parameters in the file at `path` that belong to a node, nested by their dots.

    `node` is its fully qualified name; empty stands for all of this package's nodes together. What
    is headed by another of these nodes leaves `node` with its defaults. Raises ParameterFileError,
    also where no head can mean a node of this package.
    """
    try:
        document = load_yaml(path)
    except DocumentError as error:
        raise ParameterFileError(str(error)) from None
    blocks = list(_blocks(document, ""))
    if not blocks:
        raise ParameterFileError(f"{path} does not start with '/**: ros__parameters:'")
    parameters: dict[str, Any] = {}
    for head, block in blocks:
        if _matches(head, node) if node else _may_be_ours(head):
            _merge(parameters, _nested(path, head, block))
    own_name = node.rpartition("/")[2]
    others = {head for head, _ in blocks if _last(head) in NODES and _last(head) != own_name}
    if not parameters and not any(_matches(head, node) for head, _ in blocks) and not others:
        heads = in_short(", ".join(head for head, _ in blocks))
        raise ParameterFileError(
            f"{path} has parameters for {heads}, and none for {node or 'a node of td3_driver'}: "
            f"head them /**{', or ' + node if node else ''}"
        )
    return parameters


def _blocks(document: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yield each head, with a leading slash, and its block."""
    if not isinstance(document, Mapping):
        return
    for name, content in document.items():
        if name == _BLOCK and prefix:
            yield prefix, content
        elif name != _BLOCK:
            yield from _blocks(content, f"{prefix}/{str(name).strip('/')}")


def _matches(head: str, node: str) -> bool:
    pattern = re.escape(head).replace(r"/\*\*", r"(/\w+)*").replace(r"\*", r"\w+")
    return re.fullmatch(pattern, node) is not None


def _may_be_ours(head: str) -> bool:
    return "*" in _last(head) or _last(head) in NODES


def _last(head: str) -> str:
    return head.rpartition("/")[2]


def _nested(path: Path, head: str, block: Any) -> dict[str, Any]:
    """Return a block with `section.setting` names nested, as they mean the same."""
    if block is not None and not isinstance(block, Mapping):
        raise ParameterFileError(
            f"{path}: {_BLOCK} of {in_short(head)} is not a mapping of names to values"
        )
    nested: dict[str, Any] = {}
    for name, value in (block or {}).items():
        *sections, last = str(name).split(".")
        if len(sections) > MOST_LEVELS:
            raise ParameterFileError(f"{path}: there is no such parameter: {in_short(name)}")
        inner = {last: value}
        for section in reversed(sections):
            inner = {section: inner}
        if twice := _both(nested, inner):
            raise ParameterFileError(
                f"{path}: {in_short(twice)} of {in_short(head)} is given twice"
            )
        _merge(nested, inner)
    return nested


def _both(base: Any, over: Any, name: str = "") -> str:
    """Return the dotted name of a value that both have; "" if there is none."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return name
    shared = (part for part in over if part in base)
    found = (_both(base[part], over[part], f"{name}.{part}".lstrip(".")) for part in shared)
    return next(filter(None, found), "")


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Put the values of `over` into `base`, mapping by mapping."""
    for name, value in over.items():
        inner = base.get(name)
        if isinstance(value, Mapping) and isinstance(inner, dict):
            _merge(inner, value)
        else:
            base[name] = dict(value) if isinstance(value, Mapping) else value
