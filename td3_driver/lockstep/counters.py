# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How often a command did not get exactly one clean tick, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Counters:
    """Counts since the start; an unclean step never becomes a transition in a batch."""

    ticks: int = 0
    unclean_steps: int = 0
    """Steps that were not exactly one complete tick under the requested command."""
    action_misses: int = 0
    """Ticks during which a different command was in force than the one given."""
    frame_jumps: int = 0
    """Times another client stepped or played the simulation."""
    clock_jumps: int = 0
    """Ticks after which simulation time was not one tick later."""
    incomplete_ticks: int = 0
    """Ticks that ended without one of the required topics."""
    unreadable_ticks: int = 0
    """Ticks with an invalid message, such as one with NaN."""
    missing: Counter[str] = field(default_factory=Counter)
    """The same ticks, by topic name."""
    outages: int = 0
    """Times the simulator did not answer, or its sensors did not come back."""
    outage_s: float = 0.0
    """Wall-clock time spent waiting for it."""
    steps_resent: int = 0
    reset_retries: int = 0
    starts_refused: int = 0
    """Starts at which the car did not come to rest, or from which no route came."""

    def as_dict(self) -> dict[str, float]:
        """Return every count by name, `missing <topic>` for each topic that was."""
        counts = {
            name: value for name, value in vars(self).items() if isinstance(value, (int, float))
        }
        return counts | {f"missing {topic}": count for topic, count in self.missing.items()}

    def in_words(self) -> str:
        """Return the counts that are not 0, except `ticks`; empty if all are 0."""
        counts = [
            f"{name.replace('_', ' ')}: {value}"
            for name, value in vars(self).items()
            if isinstance(value, int) and value and name != "ticks"
        ]
        counts += [f"without {topic}: {count}" for topic, count in self.missing.items()]
        if self.outage_s:
            counts.append(f"waited: {self.outage_s:.0f} s")
        return ", ".join(counts)
