# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Where maps are: the names of the shipped ones, the paths of others. It reads none of them."""

from __future__ import annotations

from os.path import isfile
from pathlib import Path, PurePosixPath

MAPS_FOLDER = Path(__file__).resolve().parent / "maps"
SUFFIX = ".xodr"


def shipped_maps() -> list[str]:
    """Return the names of the maps that come with the package."""
    return sorted(path.stem for path in MAPS_FOLDER.glob(f"*{SUFFIX}"))


def map_file(name_or_path: str | Path) -> Path | None:
    """Return the file of a map, given by a shipped name or a path; None where there is none."""
    shipped = MAPS_FOLDER / f"{name_or_path}{SUFFIX}"
    path = shipped if isfile(shipped) else Path(name_or_path)
    # Unlike Path.is_file, it takes any name, however long.
    return path if isfile(path) else None


def is_shipped(name_or_path: str | Path) -> bool:
    """Return whether this is the name of a map that comes with the package."""
    return isfile(MAPS_FOLDER / f"{name_or_path}{SUFFIX}")


def plain_name(name_or_path: str) -> str:
    """Return `Town01` for `Carla/Maps/Town01`, `town.v3` for `folder/town.v3.xodr`.

    What is not UTF-8 in it is replaced by escapes.
    """
    name = PurePosixPath(name_or_path).name.removesuffix(SUFFIX)
    return name.encode(errors="backslashreplace").decode()
