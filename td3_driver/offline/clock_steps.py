# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Finds where the clock of a recorder was set back, and moves the times after it on.

A bag is otherwise read in the order of its recorded times. Those fall in a file for two reasons:
its parts were not written in the order they were recorded, or the clock was set back while they
were. The messages' own stamps there show which it is.
"""

from __future__ import annotations

import itertools
from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from td3_driver.offline.bag_file import (
    FALL_NS,
    BagFileError,
    Part,
    RawMessage,
    decompressed,
    is_compressed,
)

STAMPED = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "nav_msgs/msg/Odometry",
)
"""Types of messages that begin with a stamp and come with every tick."""

_MOST_PARTS_READ = 4
# So many messages before a step are all later than so many after it: one odd time is no step.
_NEIGHBOURS = 5


@dataclass(frozen=True)
class ClockSteps:
    """Where a recorder's clock was set back."""

    at: list[int] = field(default_factory=list)
    """Number of the first message after each step, in the order of the files."""
    back_ns: list[int] = field(default_factory=list)
    """How far the clock was set back in each."""

    def in_words(self) -> str:
        """Return what was found, in words; empty if there was no step."""
        if not self.at:
            return ""
        by_s = 1e-9 * max(self.back_ns)
        often = f" {len(self.at)} times, by up to" if len(self.at) > 1 else " by"
        return (
            f"the recorder's clock was set back{often} {by_s:,.1f} s: messages are read in the "
            "order of the files, and recorded times continue where it was set back"
        )

    def straightened(self, parts: Sequence[Part]) -> Iterator[RawMessage]:
        """Yield the messages in the order of the files, with times that continue."""
        steps = dict(zip(self.at, self.back_ns, strict=True))
        shift_ns = 0
        for number, (_, message) in enumerate(_recorded(parts)):
            shift_ns += steps.get(number, 0)
            if message is not None:
                yield replace(message, log_ns=message.log_ns + shift_ns)


def may_have_steps(parts: Sequence[Part]) -> bool:
    """Return whether recorded times may fall, by what is known before messages are read."""
    if any(part.falls for part in parts):
        return True
    if any(
        part.end_ns - following.begin_ns > FALL_NS for part, following in itertools.pairwise(parts)
    ):
        return True
    unknown = [
        part for part in parts if part.falls is None and part.end_ns - part.begin_ns > FALL_NS
    ]
    return bool(unknown) and len(parts) <= _MOST_PARTS_READ


def find_steps(parts: Sequence[Part], stamped: Collection[str]) -> ClockSteps:
    """Read the parts of a bag in the order of its files; return where the clock was set back.

    `stamped` are the names of topics of the types STAMPED. There are no steps where the stamps
    fall with the recorded times: the parts are out of order then.
    """
    logs = array("q")
    stamps: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, (log_ns, message) in enumerate(_recorded(parts)):
        logs.append(log_ns)
        if message is not None and message.topic in stamped:
            stamp_ns = _stamp_ns(message.data)
            if stamp_ns is not None:
                stamps[message.topic].append((number, stamp_ns))
    logs_ns = np.array(logs, np.int64)
    falls = _falls(logs_ns)
    if not all(_stamps_rise(stamps.values(), number) for number in falls):
        return ClockSteps()
    return ClockSteps(falls, [int(logs_ns[number - 1] - logs_ns[number]) for number in falls])


def _recorded(parts: Sequence[Part]) -> Iterator[tuple[int, RawMessage | None]]:
    for part in parts:
        yield from part.recorded()


def _falls(logs_ns: np.ndarray) -> list[int]:
    """Return the numbers of messages before which recorded times fall, and stay down."""
    count = len(logs_ns) - 2 * _NEIGHBOURS + 1
    if count <= 0:
        return []
    before = np.min([logs_ns[k : k + count] for k in range(_NEIGHBOURS)], axis=0)
    after = np.max([logs_ns[k : k + count] for k in range(_NEIGHBOURS, 2 * _NEIGHBOURS)], axis=0)
    numbers: list[int] = (np.flatnonzero(before - after > FALL_NS) + _NEIGHBOURS).tolist()
    return numbers


def _stamps_rise(topics: Collection[list[tuple[int, int]]], number: int) -> bool:
    """Return whether the stamps of every topic rise across a message, and of one at least."""
    rise = []
    for stamps in topics:
        numbers = [at for at, _ in stamps]
        place = int(np.searchsorted(numbers, number))
        if 0 < place < len(stamps):
            rise.append(stamps[place][1] > stamps[place - 1][1])
    return bool(rise) and all(rise)


def _stamp_ns(data: bytes) -> int | None:
    """Return the stamp that a serialised message begins with; None if it cannot be read."""
    try:
        data = decompressed(data) if is_compressed(data) else data
    except BagFileError:
        return None
    if len(data) < 12:
        return None
    # CDR: four bytes of which the second gives the byte order, then the header's seconds and ns.
    order = "<" if data[1] & 1 else ">"
    seconds, nanoseconds = np.frombuffer(data, f"{order}u4", 2, 4).tolist()
    return int(seconds) * 1_000_000_000 + int(nanoseconds)
