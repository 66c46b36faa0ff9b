# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads a map in a process of its own first, so that `carla.Map` cannot end this one.

The verdict is kept in the user's cache folder by a digest of the document and of this package's
code, so each map is tried once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from functools import cache
from pathlib import Path

from td3_driver.files import replacing
from td3_driver.roads.errors import RoadMapError
from td3_driver.trial_process import TrialError, TrialKilledError, TrialTimeoutError, ask

_PACKAGE = Path(__file__).resolve().parent
_READER = "td3_driver.roads.trial_reader"
_LONGEST_S = 120.0
# The largest map that is allowed takes some minutes.
_LONGEST_PER_BYTE_S = 1e-5
_LARGEST_VERDICT_BYTES = 4096
_MOST_KEPT = 500


def check(name: str, text: str) -> None:
    """Raise RoadMapError if a map cannot be read, whatever its reading does to the process."""
    document = text.encode()
    kept = _kept_file(document)
    refusal = _read_verdict(kept)
    if refusal is None:
        refusal, lasting = _try(document)
        if lasting:
            _keep_verdict(kept, refusal)
    if refusal:
        raise RoadMapError(refusal.replace("{map}", f"map {name!r}", 1))


def _try(document: bytes) -> tuple[str, bool]:
    """Return a refusal, or "" where there is none, and whether it would be the same again."""
    limit_s = _LONGEST_S + len(document) * _LONGEST_PER_BYTE_S
    try:
        refusal = _parsed(ask(_READER, document, limit_s))
    except TrialTimeoutError:
        return (
            f"{{map}}: carla.Map has not read it within {limit_s:.0f} s; check the lengths of its "
            "roads and the curvature of its arcs",
            False,
        )
    except TrialKilledError as error:
        return (
            f"{{map}}: carla.Map ends its process with {error}; check the links of its roads, "
            "lanes and junctions, and its numbers",
            not error.by_others,
        )
    except TrialError as error:
        return f"{{map}} cannot be tried in a process of its own: {error}", False
    if refusal is None:
        return "{map} cannot be tried in a process of its own: td3_driver does not start", False
    return refusal, True


def _parsed(data: bytes) -> str | None:
    """Return the refusal in a verdict; None if it is no verdict."""
    try:
        verdict = json.loads(data)
    except (ValueError, RecursionError):
        return None
    refusal = verdict.get("refusal") if isinstance(verdict, dict) else None
    return refusal if isinstance(refusal, str) else None


@cache
def _code_digest() -> bytes:
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.digest()


def _kept_file(document: bytes) -> Path | None:
    """Return where a document's verdict is kept; None where there is no such folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(base) / "td3_driver" / "maps"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        digest = hashlib.sha256(_code_digest() + document).hexdigest()
        return folder / f"{digest}.json" if folder.stat().st_uid == os.getuid() else None
    except OSError:
        return None


def _read_verdict(path: Path | None) -> str | None:
    """Return what is kept of this user's own earlier trial."""
    if path is None:
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_uid != os.getuid():
                return None
            return _parsed(file.read(_LARGEST_VERDICT_BYTES))
    except OSError:
        return None


def _keep_verdict(path: Path | None, refusal: str) -> None:
    """Keep a verdict for the next time; a full or read-only disk only costs that time."""
    data = json.dumps({"refusal": refusal}).encode()
    if path is None or len(data) > _LARGEST_VERDICT_BYTES:
        return
    with contextlib.suppress(OSError):
        with replacing(path) as new:
            new.write_bytes(data)
        _forget_oldest(path.parent)


def _forget_oldest(folder: Path) -> None:
    kept = list(folder.glob("*.json"))
    if len(kept) > _MOST_KEPT:
        kept.sort(key=lambda path: path.stat().st_mtime)
        for path in kept[: len(kept) - _MOST_KEPT]:
            path.unlink(missing_ok=True)
