# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Definitions of message types, from the installation, this package or a library."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

# The definitions of the messages read here are the same in all distributions.
_COMMON = {1: Stores.ROS1_NOETIC, 2: Stores.ROS2_JAZZY}
_TYPE_NAME = re.compile(r"\w+/msg/\w+")
_HASH = re.compile(r"RIHS01_[0-9a-f]{64}")
# What takes the library long: it writes code for each element of an array that is not of numbers.
_LONGEST_DEFINITION = 100_000
_MOST_ELEMENTS = 2000
_ARRAY = re.compile(r"^\s*([\w/]+)(?:<=\d+)?\[(\d+)\]", re.MULTILINE)
_NUMBER = re.compile(r"bool|byte|char|u?int(8|16|32|64)|float(32|64)")


class DefinitionError(ValueError):
    """A message type is unknown; the message names it."""


def installed_definition(type_name: str) -> str | None:
    """Return the text of the installed `.msg` file of `package/msg/Type`, if there is one."""
    if not _TYPE_NAME.fullmatch(type_name):
        return None
    package, _, name = type_name.split("/")
    for folder in _shares():
        file = folder / package / "msg" / f"{name}.msg"
        if file.is_file():
            return file.read_text(encoding="utf-8")
    return None


def _shares() -> Iterator[Path]:
    """Yield the folders with definitions: ROS's installed ones first, then this package's."""
    for prefix in filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)):
        yield Path(prefix) / "share"
    yield Path(sys.prefix) / "share"
    root = Path(__file__).resolve().parents[2]
    yield root / "interfaces"
    yield Path(sys.prefix) / "share" / "td3_driver" / "interfaces"


def typestore(type_name: str, definition: str = "", ros_version: int = 2) -> Typestore:
    """Return a store that can decode messages of a type.

    `definition` is the text in a bag, including the types within it; without it, the installed
    definition is used, or else the library's. Raises DefinitionError if there is none.
    """
    try:
        if definition.strip():
            return _defined_store(type_name, definition)
        store = _common_store(ros_version)
        if type_name not in store.fielddefs:
            _register_installed(store, type_name)
        store.get_msgdef(type_name)  # raises if a type within it is unknown
        return store
    except DefinitionError:
        raise
    except Exception as error:  # whatever the library makes of odd text
        raise _unreadable(type_name, error) from None


def verified(type_name: str, definition: str, type_hash: str) -> tuple[Typestore, str]:
    """Return a store for a type as a bag defines it, and what is wrong with the definition.

    One that cannot be read, or contradicts the bag's own hash, gives way to the one known here.
    Raises DefinitionError if there is none.
    """
    try:
        store = typestore(type_name, definition)
    except DefinitionError as error:
        if not is_known(type_name):
            raise
        return typestore(type_name), f"{error}; the one known here is used"
    if not _HASH.fullmatch(type_hash) or _hash(store, type_name) == type_hash:
        return store, ""
    wrong = f"the definition of {type_name} is not the one that was recorded"
    if is_known(type_name) and _hash(typestore(type_name), type_name) == type_hash:
        return typestore(type_name), f"{wrong}; the one known here is, and is used"
    return store, f"{wrong}: its values may be wrong"


def is_known(type_name: str) -> bool:
    """Return whether messages of a type can be decoded without a definition in the bag."""
    try:
        typestore(type_name)
    except DefinitionError:
        return False
    return True


def _hash(store: Typestore, type_name: str) -> str:
    try:
        return store.hash_rihs01(type_name)
    except Exception as error:  # whatever the library makes of odd text
        raise _unreadable(type_name, error) from None


def _unreadable(type_name: str, error: Exception) -> DefinitionError:
    first = (str(error).splitlines() or [""])[0][:200]
    return DefinitionError(f"the definition of {type_name} cannot be read: {first}")


def typestore_from_ros1(type_name: str, definition: str) -> Typestore:
    """Return a store that can convert ROS 1 messages of a type to ROS 2.

    Types that ROS 2 has are defined as there (its headers have no `seq`), others as in the bag.
    """
    store = get_typestore(_COMMON[2])
    try:
        found = get_types_from_msg(definition, type_name)
        store.register({key: value for key, value in found.items() if key not in store.fielddefs})
    except Exception as error:  # whatever the library makes of odd text
        raise _unreadable(type_name, error) from None
    return store


@functools.lru_cache(maxsize=64)
def _defined_store(type_name: str, definition: str) -> Typestore:
    _check_length(type_name, definition)
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(definition, type_name))
    store.get_msgdef(type_name)
    return store


def _check_length(type_name: str, definition: str) -> None:
    elements = sum(
        int(count) for kind, count in _ARRAY.findall(definition) if not _NUMBER.fullmatch(kind)
    )
    if len(definition) > _LONGEST_DEFINITION or elements > _MOST_ELEMENTS:
        raise DefinitionError(f"the definition of {type_name} is too long to be read")


@functools.cache
def _common_store(ros_version: int) -> Typestore:
    return get_typestore(_COMMON[ros_version])


def _register_installed(store: Typestore, type_name: str) -> None:
    text = installed_definition(type_name)
    if text is None:
        raise DefinitionError(
            f"the message type {type_name} is unknown: install or source its package"
        )
    types = get_types_from_msg(text, type_name)
    for needed in _named_types(str(types)):
        if needed not in store.fielddefs and needed != type_name:
            _register_installed(store, needed)
    store.register(types)


def _named_types(text: str) -> list[str]:
    """Return the names `package/msg/Type` in a text, in order."""
    return list(dict.fromkeys(re.findall(r"\w+/msg/\w+", text)))


def embedded_definition(type_name: str) -> tuple[str, str]:
    """Return a type's definition as in a bag, with the types within it, and its RIHS01 hash.

    Raises DefinitionError if the type is unknown.
    """
    store = typestore(type_name)
    return store.generate_msgdef(type_name, ros_version=2)[0], store.hash_rihs01(type_name)
