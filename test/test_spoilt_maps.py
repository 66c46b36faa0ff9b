# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Good maps with one attribute or element spoilt: read rightly, or refused in words.

TD3_DRIVER_SPOILT_MAPS is how many are tried; docs/maps.md has the counts of a long run.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from many_reader import ManyReader
from map_spoiler import READER, spoil

from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.road_map import RoadMap

MAPS = Path(__file__).resolve().parent / "maps"
COUNT = int(os.environ.get("TD3_DRIVER_SPOILT_MAPS", "400"))
LONG = COUNT > 1000
# A small ring of four roads, and a junction with elevation, offsets, a signal and an object.
SOURCES = ("good", "spoilable_junction")


@pytest.mark.parametrize(
    "source", [pytest.param(name, marks=[pytest.mark.long] if LONG else []) for name in SOURCES]
)
@pytest.mark.timeout(3600 if LONG else 240)
def test_spoilt_maps_are_read_rightly_or_refused_in_words(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcomes: Counter[str] = Counter()
    wrong = []
    reader = ManyReader(READER)
    try:
        for spoilt in spoil((MAPS / f"{source}.xodr").read_text(), COUNT // 2, seed=5):
            answer = reader.answer(spoilt.text)
            if answer is None:
                outcome = trial_outcome(spoilt.text)
            elif answer["refusal"]:
                outcome = refusal_outcome(answer["refusal"])
            elif answer["wrong"]:
                outcome = f"WRONG: {answer['wrong']}"
            else:
                outcome = "read, with remarks" if answer["remarks"] else "read"
            outcomes[outcome.partition(":")[0]] += 1
            if outcome.startswith("WRONG"):
                wrong.append(f"{spoilt.what}: {outcome}")
    finally:
        reader.close()
    print(f"\n{source}: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
    assert not wrong, "\n".join(wrong[:20])
    assert outcomes["read"] > 0 and outcomes["refused"] > 0


def trial_outcome(text: str) -> str:
    """Return what becomes of a map that ends the process that reads it."""
    try:
        RoadMap.from_opendrive("spoilt", text)
    except RoadMapError as error:
        return f"refused after its trial: {error}"
    return "WRONG: ended a process, and was then read"


def refusal_outcome(refusal: str) -> str:
    """Return whether a refusal is one line that names the map and says something."""
    if "\n" in refusal or "{map}" not in refusal or len(refusal) > 600:
        return f"WRONG: {refusal!r}"
    if "impossible" in refusal or "carla.Map refuses" in refusal:
        return f"refused in the library's words: {refusal}"
    return f"refused: {refusal}"
