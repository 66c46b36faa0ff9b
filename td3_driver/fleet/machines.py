# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the machines of a cluster have, and what must be the same on all of them."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

PACKAGES = ("ray", "td3_driver", "torch", "numpy")
COMPARED = ("python", *PACKAGES, "source")
SHARED_MEMORY = Path("/dev/shm")
SAME_REMEDY = "set all machines up from the same checkout: make setup pins every version"


@dataclass(frozen=True)
class Facts:
    """What a machine of a cluster has."""

    machine: str
    slots: int
    versions: Mapping[str, str]
    """Of Python, with its patch level, and of packages; and a digest of this package's source."""
    shared_memory_bytes: int
    """Size of /dev/shm."""
    object_store_bytes: int
    tokens: bool
    """Whether its Ray asks for a token."""


def facts_here(slots: int, object_store_bytes: int) -> Facts:
    """Return the facts of the machine that this runs on."""
    versions = {"python": platform.python_version(), "source": _source()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "without package metadata"
    try:
        status = os.statvfs(SHARED_MEMORY)
        shared = status.f_frsize * status.f_blocks
    except OSError:
        shared = 0
    tokens = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return Facts(platform.node(), slots, versions, shared, object_store_bytes, tokens)


def _source() -> str:
    """Return a digest of this package's modules."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def differences(facts: Sequence[Facts]) -> list[str]:
    """Return what differs on other machines from the first one, a line each."""
    mine = facts[0]
    return [
        f"{other.machine} has {name} {other.versions.get(name)}, {mine.machine} has "
        f"{mine.versions.get(name)}"
        for other in facts[1:]
        for name in COMPARED
        if other.versions.get(name) != mine.versions.get(name)
    ]
