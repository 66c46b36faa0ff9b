# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The process in which `trial` reads a map: a document on stdin, the verdict as JSON on stdout."""

from __future__ import annotations

import json
import sys

from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.road_map import RoadMap
from td3_driver.trial_process import limit_this_process

_NAME = "\0"
# What a process of the largest map takes, twice.
_MEMORY_BYTES = 4 << 30


def refusal_of(text: str) -> str:
    """Return why a map is refused after all that is ever asked of one; "" if it is not.

    `{map}` stands for the map's name.
    """
    try:
        RoadMap(_NAME, text, tried=True).use_all()
    except RoadMapError as error:
        return str(error).replace(f"map {_NAME!r}", "{map}", 1)
    except MemoryError:
        return "{map} takes more memory than there is; cut it into smaller maps"
    except Exception as error:  # whatever the library or numpy make of odd numbers
        first = (str(error).splitlines() or [""])[0][:200]
        return f"{{map}} is read as something impossible ({type(error).__name__}: {first})"
    return ""


def main() -> None:
    """Read one map."""
    limit_this_process(_MEMORY_BYTES)
    refusal = refusal_of(sys.stdin.buffer.read().decode())
    # The library prints warnings to stdout as well, and a line end is not among its habits.
    sys.stdout.write("\n" + json.dumps({"refusal": refusal}))


if __name__ == "__main__":
    main()
