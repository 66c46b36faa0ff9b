# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The stops that a driver's watchdog reported, read from a bag's /diagnostics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from td3_driver.bridge.driver_topics import (
    DEFAULT_DRIVER,
    FAULT,
    STOPPED,
    STOPS,
    WATCHDOG,
    status_name,
)
from td3_driver.bridge.messages import ConversionError


@dataclass(frozen=True)
class RecordedStop:
    """A stop that the watchdog reported."""

    log_ns: int
    """Wall-clock time at which the report was recorded."""
    text: str
    """The fault and, if it was reported, the reason in words."""


class RecordedStops:
    """Collects the stops that the watchdog reported."""

    def __init__(self, driver: str = DEFAULT_DRIVER) -> None:
        """Listen to one driver, by its full name."""
        self._status = status_name(driver, WATCHDOG)
        self.heard = False
        """Whether the bag has reports of a watchdog at all."""
        self.stops: list[RecordedStop] = []
        self._counts: dict[str, int] = {}

    def hear(self, log_ns: int, array: Any) -> None:
        """Add a diagnostic_msgs/DiagnosticArray; raises ConversionError for invalid counts.

        The watchdog counts its stops by fault, so none is missed if a message is lost. Stops
        counted before the first message happened earlier, except for the fault in force.
        """
        for status in array.status:
            if status.name != self._status:
                continue
            values = {pair.key: pair.value for pair in status.values}
            counts = _counts(values)
            in_force = values.get(FAULT, "")
            for fault, count in counts.items():
                known = self._counts.get(fault, 0)
                # A count that has decreased is from another driver.
                more = count - known if count >= known else count
                if more and (self.heard or fault == in_force):
                    reason = status.message.removeprefix(STOPPED)
                    text = f"{fault}: {reason}" if fault == in_force else fault
                    self.stops.append(RecordedStop(log_ns, text))
            self.heard, self._counts = True, counts


def _counts(values: Mapping[str, str]) -> dict[str, int]:
    """Return how often each fault has stopped the car."""
    try:
        return {
            key.removeprefix(STOPS): int(value)
            for key, value in values.items()
            if key.startswith(STOPS)
        }
    except ValueError as error:
        raise ConversionError(f"the watchdog's counts are not numbers: {error}") from None
