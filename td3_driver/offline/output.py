# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Files that are made of a bag: never written over its own, and whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from td3_driver.files import replacing
from td3_driver.offline.bag import Bag, BagError


def check_output(path: Path, bag: Bag) -> None:
    """Raise BagError if a file cannot be written, or is one of the bag's by whatever name."""
    if not path.parent.is_dir():
        raise BagError(f"{path} cannot be written: there is no folder {path.parent}")
    if path.is_dir():
        raise BagError(f"{path} cannot be written: it is a folder")
    own = [file for file in bag.paths if file.exists()]
    if path.exists() and any(file.samefile(path) for file in own):
        raise BagError(f"{path} is a file of the bag {bag.path}: choose another name")


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Yield a new file that takes the place of `path` at the end; raises BagError if it cannot."""
    try:
        with replacing(path) as new:
            yield new
    except OSError as error:
        raise BagError(
            f"{path} cannot be written ({error.strerror}); what was there before still is"
        ) from None
