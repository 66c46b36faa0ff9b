# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Files and links that are complete or absent, even if a process is killed."""

from __future__ import annotations

import os
from pathlib import Path


def point_link(link: Path, target: Path) -> None:
    """Point `link` at `target`, in the same folder, atomically and flushed to disk."""
    new = link.with_name(f".{link.name}-new")
    new.unlink(missing_ok=True)
    new.symlink_to(target.name)
    new.replace(link)
    flush(link.parent)


def flush(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
