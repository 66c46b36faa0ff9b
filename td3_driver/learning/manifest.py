# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The digests of a checkpoint's files, which reveal damage and changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run's."""
MANIFEST = "manifest.json"
_READ_BYTES = 1 << 22


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which file and why."""


def seal(folder: Path) -> None:
    """Record the SHA-256 of every file in a checkpoint that is being written."""
    files = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST]
    digests = {path.name: _digest(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=1))


def digest_of(folder: Path, name: str) -> str:
    """Return the recorded SHA-256, in hexadecimal, of a file in a verified checkpoint."""
    return str(json.loads((folder / MANIFEST).read_text())[name])


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Raise CheckpointError unless these files (by default all) are unchanged since `seal`."""
    try:
        digests = dict(json.loads((folder / MANIFEST).read_text()))
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint of this version: it has no {MANIFEST}"
        ) from None
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder / MANIFEST} is damaged: {error}") from None
    for name in digests if names is None else names:
        path = folder / name
        if name not in digests:
            raise CheckpointError(f"{folder / MANIFEST} does not list {name}")
        try:
            same = _digest(path) == digests[name]
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing") from None
        if not same:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one saved")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
