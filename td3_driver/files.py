# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Files and links that are complete or absent, even if a process is killed."""

from __future__ import annotations

import errno
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

READABLE = 0o644
"""Mode of files that whoever may read their folder may read."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new, empty file beside `path` to write to; at the end it takes the place of `path`.

    If anything fails, what was at `path` before stays, and the new file is removed. Its name is
    random, so no file or link put there beforehand is written through.
    """
    descriptor, name = tempfile.mkstemp(path.suffix, f".{path.stem}-", path.parent)
    os.close(descriptor)
    new = Path(name)
    try:
        new.chmod(READABLE)
        yield new
        flush(new)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON, whole or not at all; raises ValueError for NaN, or OSError."""
    with replacing(path) as new:
        new.write_text(json.dumps(values, indent=1, allow_nan=False) + "\n")


def create(path: Path, text: str) -> None:
    """Write a new file, whole or not at all; raises FileExistsError if there is one."""
    descriptor, name = tempfile.mkstemp(path.suffix, f".{path.stem}-", path.parent)
    new = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        new.chmod(READABLE)
        flush(new)
        os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
    flush(path.parent)


def point_link(link: Path, target: Path) -> None:
    """Point `link` at `target`, in the same folder, atomically and flushed to disk.

    Raises FileExistsError if something other than a link has its name.
    """
    check_link(link)
    new = link.with_name(f".{link.name}-{secrets.token_hex(8)}")
    new.symlink_to(target.name)  # fails where there is something
    try:
        new.replace(link)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    flush(link.parent)


def is_utf8(path: str | Path) -> bool:
    """Return whether a path is UTF-8, as ROS and others demand; for Linux it need not be."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def check_link(link: Path) -> None:
    """Raise FileExistsError if something other than a link has a link's name."""
    if os.path.lexists(link) and not link.is_symlink():
        raise FileExistsError(errno.EEXIST, "it is not a link", str(link))


def flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
