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

from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

# The definitions of the messages read here are the same in all distributions.
_COMMON = {1: Stores.ROS1_NOETIC, 2: Stores.ROS2_JAZZY}


class DefinitionError(ValueError):
    """A message type is unknown; the message names it."""


def installed_definition(type_name: str) -> str | None:
    """Return the text of the installed `.msg` file of `package/msg/Type`, if there is one."""
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
            store = get_typestore(Stores.EMPTY)
            store.register(get_types_from_msg(definition, type_name))
            return store
        store = _common_store(ros_version)
        if type_name not in store.fielddefs:
            _register_installed(store, type_name)
        return store
    except DefinitionError:
        raise
    except (TypesysError, KeyError, ValueError) as error:
        raise DefinitionError(f"the definition of {type_name} cannot be read: {error}") from None


def typestore_from_ros1(type_name: str, definition: str) -> Typestore:
    """Return a store that can convert ROS 1 messages of a type to ROS 2.

    Types that ROS 2 has are defined as there (its headers have no `seq`), others as in the bag.
    """
    store = get_typestore(_COMMON[2])
    try:
        found = get_types_from_msg(definition, type_name)
        store.register({key: value for key, value in found.items() if key not in store.fielddefs})
    except (TypesysError, KeyError, ValueError) as error:
        raise DefinitionError(f"the definition of {type_name} cannot be read: {error}") from None
    return store


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
