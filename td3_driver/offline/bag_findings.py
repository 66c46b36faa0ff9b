# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What is found wrong, or was reported by the driver, while a bag's frames are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from td3_driver.documents import in_short
from td3_driver.offline.policy_record import PolicyRecord
from td3_driver.offline.recorded_stops import RecordedStops

ODD_MESSAGE = (
    AttributeError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    RecursionError,
)
"""What reading a message of another type, or of odd values, raises; BagError is among them."""


@dataclass
class StampCheck:
    """Finds out whether images are stamped at all."""

    images: int = 0
    zeros: int = 0
    first_ns: int = 0
    all_same: bool = True

    def note(self, stamp_ns: int) -> None:
        """Note an image's stamp."""
        self.first_ns = stamp_ns if not self.images else self.first_ns
        self.all_same &= stamp_ns == self.first_ns
        self.images += 1
        self.zeros += not stamp_ns

    def wrong(self) -> str:
        """Return what is wrong with the stamps, in words; empty if nothing is."""
        if self.images > 1 and self.all_same:
            return f"all {self.images} images have the same stamp, {1e-9 * self.first_ns:g} s"
        return f"{self.zeros} images have the stamp 0" if self.zeros > 1 else ""


@dataclass
class Findings:
    """Findings from reading a bag's frames; complete once all have been read."""

    images: int = 0
    unmatched_images: int = 0
    """Images without odometry of the same stamp."""
    repeated_images: int = 0
    """Images whose stamp had been seen before, or that came too late to be sorted."""
    stamps: StampCheck = field(default_factory=StampCheck)
    images_held: int = 0
    """Most images held at once, waiting for the messages that belong to them."""
    unreadable: Counter[str] = field(default_factory=Counter)
    """Invalid messages, by topic."""
    reasons: dict[str, str] = field(default_factory=dict)
    """What was wrong with the first of them, by topic."""
    speed_from_odometry: int = 0
    """Frames without a speedometer message near them."""
    jumps_back: int = 0
    unstamped_stops: list[tuple[int, int]] = field(default_factory=list)
    """When stops were commanded that answer no image, and how long no image had come (ns)."""
    recorded_stops: RecordedStops = field(default_factory=RecordedStops)
    """What the driver's watchdog reported about its stops."""
    policy_record: PolicyRecord = field(default_factory=PolicyRecord)
    """What the driver published about its policy and its decisions."""

    def note_unreadable(self, topic: str, error: Exception) -> None:
        """Count an invalid message."""
        self.unreadable[topic] += 1
        self.reasons.setdefault(topic, in_short(error))
