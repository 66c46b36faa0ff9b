# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Good bags with one thing spoilt: read rightly, read but for what is told, or refused in words.

TD3_DRIVER_SPOILT_BAGS is how many are tried; docs/bags.md has the counts of a long run.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from bag_drives import drive
from bag_kinds import KINDS, Kind, Recording, recording_of
from bag_spoiler import READER, Spoiler, Spoilt
from many_reader import ManyReader

from td3_driver.config import SimulatorConfig

COUNT = int(os.environ.get("TD3_DRIVER_SPOILT_BAGS", "360"))
LONG = COUNT > 1000
TICKS = 8
REPAIRED = 4
"""Of so many spoilt bags, one is repaired as well."""
SMALL = SimulatorConfig(map="ring_meadow", image_width_px=32, image_height_px=24)


@pytest.fixture(scope="module")
def recording() -> Recording:
    return recording_of(drive(ticks=TICKS, simulator=SMALL).messages)


@pytest.fixture(scope="module")
def reader() -> Iterator[ManyReader]:
    reader = ManyReader(READER)
    yield reader
    reader.close()


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.long] if LONG else [], id=kind.name) for kind in KINDS],
)
@pytest.mark.timeout(3600 if LONG else 240)
def test_spoilt_bags_are_read_rightly_or_what_they_lack_is_told(
    kind: Kind, recording: Recording, reader: ManyReader, tmp_path: Path
) -> None:
    spoiler = Spoiler(tmp_path, recording, kind, seed=7)
    good = reader.answer([str(spoiler.good), False])
    assert good is not None and len(good["frames"]) == TICKS
    outcomes: Counter[str] = Counter()
    wrong = []
    for number, spoilt in enumerate(spoiler.spoil(COUNT // len(KINDS))):
        answer = reader.answer([str(spoilt.path), number % REPAIRED == 0])
        outcome = judged(answer, spoilt, good, kind)
        outcomes[outcome.partition(":")[0]] += 1
        if outcome.startswith("WRONG"):
            wrong.append(f"{spoilt.what}: {outcome}")
    print(f"\n{kind.name}: " + ", ".join(f"{n} {name}" for name, n in outcomes.most_common()))
    assert not wrong, "\n".join(wrong[:20])
    assert outcomes["all read"] > 0


def judged(answer: dict | None, spoilt: Spoilt, good: dict, kind: Kind) -> str:
    """Return what became of a spoilt bag."""
    if answer is None:
        return "WRONG: it ended the process, or hung"
    if "traceback" in answer:
        return f"WRONG: {answer['traceback']}"
    if "refusal" in answer:
        return refusal_outcome(answer["refusal"], spoilt)
    if answer["refused_frames"]:
        outcome = refusal_outcome(answer["refused_frames"], spoilt)
        if outcome.startswith("WRONG"):
            return outcome
    notes = [note for note in answer["notes"] if note not in good["notes"]]
    if any("\n" in note or len(note) > 900 for note in notes):
        return f"WRONG: no plain line among {notes}"
    found = Counter(map(tuple, answer["messages"]))
    there = written(spoilt.recording)
    missing, changed = (there - found).total(), (found - there).total()
    times = [log_ns for _, log_ns, _ in answer["messages"]]
    if times != sorted(times):
        return "WRONG: not in the order of time"
    if (repaired := answer.get("repaired")) is not None:
        again = Counter(map(tuple, repaired["messages"]))
        if again != found and not repaired["notes"]:
            return "WRONG: repaired to something else without a word"
    if notes or answer["refused_frames"]:
        return "the rest read, loss told" if missing or changed else "all read, oddity told"
    if missing > changed or (changed and kind.checksums):
        return f"WRONG: {missing} missing and {changed} changed without a word"
    if changed:
        return "a value changed that no checksum covers"
    if spoilt.same_frames and answer["frames"] != good["frames"]:
        return "WRONG: other frames without a word"
    return "all read"


def refusal_outcome(refusal: str, spoilt: Spoilt) -> str:
    """Return whether a refusal is one line that names the bag and says something."""
    if "\n" in refusal or str(spoilt.path) not in refusal or len(refusal) > 1500:
        return f"WRONG: {refusal!r}"
    return f"refused: {refusal}"


def written(recording: Recording) -> Counter[tuple[str, int, str]]:
    """Return the messages of a recording as the reader's process tells of them."""
    return Counter(
        (
            recording.topics[message.topic].name,
            message.log_ns,
            hashlib.sha1(message.data).hexdigest(),
        )
        for message in recording.messages
    )
