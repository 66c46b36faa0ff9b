# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Finds and opens the files of a bag, by what they contain rather than by what describes them.

`metadata.yaml` says which files belong to a bag and how many messages they should have. What it
says wrong, or not at all, costs nothing but that.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import zstandard

from td3_driver.documents import DocumentError, in_short, load_yaml
from td3_driver.offline import mcap_records, ros1_file, sqlite_file
from td3_driver.offline.bag_file import (
    BagFile,
    BagFileError,
    is_compressed,
    listed_shortly,
)
from td3_driver.offline.mcap_file import McapFile
from td3_driver.offline.ros1_file import Ros1File
from td3_driver.offline.sqlite_file import SqliteFile

METADATA = "metadata.yaml"
COMPRESSED = ".zstd"
SUFFIXES = (".mcap", ".db3")
"""In this order one kind is read, where a folder has several and nothing says which."""

# No more than this is lost before a damaged place.
_DECOMPRESSED_BYTES = 1 << 16
_READERS: dict[bytes, Callable[[Path], BagFile]] = {
    mcap_records.MAGIC: McapFile,
    sqlite_file.MAGIC: SqliteFile,
    ros1_file.MAGIC: Ros1File,
}
# For a file whose beginning is damaged.
_READERS_BY_SUFFIX: dict[str, Callable[[Path], BagFile]] = {
    ".mcap": McapFile,
    ".db3": SqliteFile,
    ".bag": Ros1File,
}


@dataclass
class Metadata:
    """What `metadata.yaml` says, as far as it can be read."""

    files: list[str] = field(default_factory=list)
    """Names of the files, without folders."""
    counts: dict[str, int] = field(default_factory=dict)
    """Messages by topic."""
    total: int = 0
    wrong: str = ""
    """What is wrong with it; empty if nothing is."""


class BagFiles:
    """The files of a bag, open for reading."""

    def __init__(self, path: Path) -> None:
        """Open them; raises BagFileError if there are none that can be read."""
        self.path = path
        self.opened: list[BagFile] = []
        self.notes: list[str] = []
        """What was found wrong, in words."""
        self.metadata = Metadata()
        self._closing = ExitStack()
        try:
            failures = {file: why for file in self._find() if (why := self._open(file))}
            if not self.opened:
                reasons = [f"{file.name}: {why}" for file, why in failures.items()] or self.notes
                alone = failures.get(path)  # the bag is that file
                raise BagFileError(alone or listed_shortly(reasons, "; ") or "it has no files")
        except BaseException:
            self.close()
            raise
        self.notes += [f"{file.name} cannot be read: {why}" for file, why in failures.items()]
        if path.is_dir() and not (path / METADATA).is_file():
            self.notes.append(f"there is no {METADATA}: nothing says whether the bag is complete")

    def close(self) -> None:
        """Close them."""
        self._closing.close()

    @property
    def paths(self) -> list[Path]:
        """All the files of the bag, with its description."""
        if not self.path.is_dir():
            return [self.path]
        named = [self.path / name for name in (METADATA, *self.metadata.files)]
        return [*named, *_bag_files(self.path)]

    def _find(self) -> list[Path]:
        """Return the files to read; notes what the description says of others."""
        if not self.path.is_dir():
            if not self.path.is_file():
                raise BagFileError("it is neither a file nor a folder")
            return [self.path]
        there = _bag_files(self.path)
        described = self.path / METADATA
        if not described.is_file():
            if not there:
                raise BagFileError(f"it has neither {METADATA} nor a .mcap or .db3 file")
            if holes := _holes(there):
                self.notes.append(
                    f"files are missing, by the others' numbers: {listed_shortly(holes)}"
                )
            return there
        self.metadata = read_metadata(described)
        if self.metadata.wrong:
            self.notes.append(f"{METADATA} is damaged ({self.metadata.wrong})")
        named = [self.path / name for name in dict.fromkeys(self.metadata.files)]
        missing = [file.name for file in named if not file.is_file()]
        if not missing and named:
            return named
        found = [file for file in named if file.is_file()]
        if missing:
            self.notes.append(
                f"missing of the files that {METADATA} names: {listed_shortly(missing)}"
            )
        unnamed = [file for file in there if file not in found]
        if unnamed:
            self.notes.append(
                f"read although {METADATA} does not name them: "
                f"{listed_shortly([file.name for file in unnamed])}"
            )
        return [*found, *unnamed]

    def _open(self, file: Path) -> str:
        """Open a file; return why it cannot be read, if it cannot."""
        try:
            begin = _begin(file)
            whole = self._decompressed(file) if is_compressed(begin) else file
            self.opened.append(self._reader(whole)(whole))
        except OSError as error:
            return error.strerror or in_short(error)
        except BagFileError as error:
            return str(error)
        self._closing.callback(self.opened[-1].close)
        self.notes += self.opened[-1].notes
        return ""

    def _reader(self, file: Path) -> Callable[[Path], BagFile]:
        begin = _begin(file)
        for magic, reader in _READERS.items():
            if begin.startswith(magic):
                return reader
        reader_by_suffix = _READERS_BY_SUFFIX.get(file.suffix)
        if reader_by_suffix is None:
            raise BagFileError("it is no bag file (MCAP, SQLite or ROS 1)")
        return reader_by_suffix

    def _decompressed(self, file: Path) -> Path:
        """Decompress a file to a temporary one, as far as it is intact."""
        folder = self._closing.enter_context(tempfile.TemporaryDirectory())
        whole = Path(folder) / file.name.removesuffix(COMPRESSED)
        try:
            self._decompress(file, whole)
        except OSError as error:
            raise BagFileError(
                f"it cannot be decompressed into {folder} ({error.strerror}): set TMPDIR to a "
                "folder with more room"
            ) from None
        return whole

    def _decompress(self, file: Path, whole: Path) -> None:
        with file.open("rb") as source, whole.open("wb") as target:
            reader = zstandard.ZstdDecompressor().stream_reader(source, read_across_frames=True)
            try:
                while data := reader.read(_DECOMPRESSED_BYTES):
                    target.write(data)
            except (zstandard.ZstdError, MemoryError) as error:
                damage = f"its compression is damaged ({in_short(error)})"
                if not target.tell():
                    raise BagFileError(damage) from None
                self.notes.append(f"{file.name}: {damage}; what is before that is read")


def read_metadata(path: Path) -> Metadata:
    """Return what a bag's description says; what cannot be read is left out and noted."""
    metadata = Metadata()
    try:
        values = load_yaml(path)["rosbag2_bagfile_information"]
    except (DocumentError, TypeError, LookupError) as error:
        metadata.wrong = in_short(error)
        return metadata
    takers = {
        "relative_file_paths": _take_files,
        "topics_with_message_count": _take_counts,
        "message_count": _take_total,
    }
    wrong = []
    for name, take in takers.items():
        try:
            take(metadata, values[name])
        except (TypeError, ValueError, LookupError, AttributeError):
            wrong.append(name)
    if wrong:
        metadata.wrong = f"nothing can be read from its {', '.join(wrong)}"
    return metadata


def _take_files(metadata: Metadata, values: Any) -> None:
    for value in values:
        name = PurePath(value).name
        if not name or "\0" in name:
            raise ValueError(value)
        metadata.files.append(name)


def _take_counts(metadata: Metadata, values: Any) -> None:
    counts: Counter[str] = Counter()
    for value in values:
        counts[_text(value["topic_metadata"]["name"])] += _count(value["message_count"])
    metadata.counts = dict(counts)


def _take_total(metadata: Metadata, value: Any) -> None:
    metadata.total = _count(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError("not a count")
    return value


def shortage(metadata: Metadata, found: Mapping[str, int]) -> str:
    """Return which messages are promised and not there, in words; empty if none are."""
    short = {
        name: (found.get(name, 0), count)
        for name, count in metadata.counts.items()
        if found.get(name, 0) < count
    }
    total = sum(found.values())
    if not short and total >= metadata.total:
        return ""
    promised = max(sum(metadata.counts.values()), metadata.total)
    topics = listed_shortly(
        [f"{has:,} of {count:,} on {name}" for name, (has, count) in short.items()]
    )
    return f"{METADATA} promises {promised:,} messages, the files hold {total:,}" + (
        f" ({topics})" if topics else ""
    )


def _bag_files(folder: Path) -> list[Path]:
    """Return a folder's bag files of the first kind there is; what is there twice, once."""
    for suffix in SUFFIXES:
        plain = sorted(folder.glob(f"*{suffix}"))
        names = {file.name for file in plain}
        compressed = sorted(folder.glob(f"*{suffix}{COMPRESSED}"))
        found = plain + [
            file for file in compressed if file.name.removesuffix(COMPRESSED) not in names
        ]
        if found:
            return [file for file in found if file.is_file()]
    return []


def _holes(files: list[Path]) -> list[str]:
    """Return which numbers are missing in the names of files that were split, as `bag_3`."""
    numbered: dict[str, set[int]] = defaultdict(set)
    for file in files:
        if match := re.fullmatch(r"(.+_)(\d{1,6})", file.name.partition(".")[0]):
            numbered[match[1]].add(int(match[2]))
    return [
        f"{stem}{number}"
        for stem, numbers in numbered.items()
        for number in range(max(numbers))
        if number not in numbers
    ]


def _begin(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(16)
