# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The digests of a checkpoint's files, which reveal damage and changes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from td3_driver.config import in_words
from td3_driver.documents import (
    DocumentError,
    DocumentMissingError,
    in_short,
    load_json,
    open_regular,
)

CHECKPOINTS = "checkpoints"
"""Folder of the checkpoints in a run's."""
MANIFEST = "manifest.json"
_READ_BYTES = 1 << 22
# Names of files beside the manifest, never of others.
_FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_MANIFESTS = TypeAdapter(Annotated[dict[_FileName, _Digest], Field(max_length=100)])


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says which file and why."""


def seal(folder: Path) -> None:
    """Record the SHA-256 of every file in a checkpoint that is being written."""
    files = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST]
    digests = {path.name: _digest(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(digests, indent=1))


def digest_of(folder: Path, name: str) -> str:
    """Return the recorded SHA-256, in hexadecimal, of a file in a verified checkpoint."""
    return _read(folder)[name]


def verify(folder: Path, names: Iterable[str] | None = None) -> None:
    """Raise CheckpointError unless these files (by default all) are unchanged since `seal`."""
    digests = _read(folder)
    for name in digests if names is None else names:
        path = folder / name
        if name not in digests:
            raise CheckpointError(f"{folder / MANIFEST} does not list {name}")
        try:
            same = _digest(path) == digests[name]
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing") from None
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror}") from None
        if not same:
            raise CheckpointError(f"{path} is damaged: its SHA-256 is not the one saved")


def _read(folder: Path) -> dict[str, str]:
    """Return the digests of a checkpoint's files by name; raises CheckpointError."""
    path = folder / MANIFEST
    try:
        return _MANIFESTS.validate_python(load_json(path))
    except DocumentMissingError:
        raise CheckpointError(
            f"{folder} is not a complete checkpoint of this version: it has no {MANIFEST}"
        ) from None
    except DocumentError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    except ValidationError as error:
        raise CheckpointError(f"{path} is damaged: {in_short(in_words(error))}") from None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with os.fdopen(open_regular(path), "rb") as file:
        while block := file.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()
