# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Decides whether a driver's inputs are present and valid.

It has no clock of its own. Every call passes the time, in seconds of a steady clock, because
simulation time stops when the simulator dies.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from td3_driver.config import DriverConfig
from td3_driver.faults import Fault
from td3_driver.safety.standstills import Standstills


class Source(enum.Enum):
    """An input that must keep arriving; its value is its name in messages."""

    CAMERA = "camera image"
    ODOMETRY = "odometry"
    SPEEDOMETER = "speed"
    FRAME = "image with odometry of the same stamp"
    ROUTE = "route"


SILENCE = {
    Source.CAMERA: Fault.CAMERA_SILENT,
    Source.ODOMETRY: Fault.ODOMETRY_SILENT,
    Source.SPEEDOMETER: Fault.SPEEDOMETER_SILENT,
    Source.FRAME: Fault.STAMPS_UNMATCHED,
    Source.ROUTE: Fault.ROUTE_OLD,
}
SENSORS = (Source.CAMERA, Source.ODOMETRY, Source.SPEEDOMETER)
# The sensors of a dead simulator fall silent within a tick of each other: when the first reaches
# its limit, the last is at least this share of the way to its own.
TOGETHER_SHARE = 0.5
MIXED = (Fault.IMAGE_MALFORMED, Fault.CLOCK_JUMP)
"""What the messages of several publishers of one sensor look like."""
UNSEEN_S = 5.0
"""For so long, a publisher may have been heard before it is seen in the graph."""
LATE_S = 1.0
"""For so long, a publisher may be heard after it has left the graph."""


@dataclass(frozen=True)
class Stop:
    """Why the car is stopped."""

    reason: str
    """The current reason, in plain words."""
    fault: Fault | None = None
    """None if nothing is wrong and the car only has to wait."""
    needs_resume: bool = False
    """Whether ~/resume must be called before the car drives on."""
    over: bool = False
    """Whether the fault is over and the car only waits for ~/resume."""
    first: str = ""
    """The fault that the stop began with, if it is not the current one."""


@dataclass
class _Trouble:
    """A fault that the car has not resumed from yet."""

    detail: str
    wrong_s: float
    """When the fault was last present."""
    began_s: float
    needs_resume: bool
    acknowledged: bool = False


class Watchdog:
    """Keeps track of time limits, inputs and faults.

    A fault stays in force until it has been absent for `resume_delay_s`. The car drives on when
    no fault is in force and those that require it have been acknowledged.
    """

    def __init__(self, config: DriverConfig) -> None:
        self.change_limits(config)
        self._heard_s: dict[Source, float] = {}
        self._lasting: dict[Fault, str] = {}
        self._several = ""
        self._several_until_s = -math.inf
        """Until when `MIXED` is the doing of several publishers."""
        self._deciding_since_s: float | None = None
        self._troubles: dict[Fault, _Trouble] = {}
        """In the order in which they occurred."""
        self._first: tuple[Fault, str] | None = None
        self._reported: Fault | None = None
        """The fault in force that was last given as the reason."""
        self.own = Standstills()
        """When the driver's own threads did not run."""
        self.counts = dict.fromkeys(Fault, 0)
        """How often each fault has become the reason for a stop."""

    def change_limits(self, config: DriverConfig) -> None:
        """Have other limits apply from the next check on."""
        self._config = config
        self._limits_s = {
            Source.CAMERA: config.camera_timeout_s,
            Source.ODOMETRY: config.odometry_timeout_s,
            Source.SPEEDOMETER: config.speedometer_timeout_s,
            Source.FRAME: max(config.camera_timeout_s, config.odometry_timeout_s),
        }
        if config.route_timeout_s:
            self._limits_s[Source.ROUTE] = config.route_timeout_s

    def heard(self, source: Source, now_s: float) -> None:
        """Note that valid data has arrived from a source."""
        self._heard_s[source] = now_s

    def report(self, fault: Fault, detail: str, now_s: float) -> None:
        """Note that a fault has just occurred."""
        if fault in MIXED and now_s <= self._several_until_s:
            fault, detail = Fault.SEVERAL_PUBLISHERS, self._several
        trouble = self._troubles.get(fault)
        if trouble is None or self._is_over(trouble, now_s):
            # While a fault lasts, it keeps the detail that it began with.
            needs_resume = fault not in self._config.resume_after
            trouble = _Trouble(detail, now_s, now_s, needs_resume)
            self._first = self._first or (fault, detail)
            self._troubles[fault] = trouble
        trouble.wrong_s, trouble.acknowledged = now_s, False

    def set_lasting(self, fault: Fault, detail: str | None) -> None:
        """Set a fault that lasts until its detail is set to None."""
        if detail is None:
            self._lasting.pop(fault, None)
        else:
            self._lasting[fault] = detail

    def note_publishers(self, several: str | None, now_s: float) -> None:
        """Note who publishes the same sensor, in words; None for one publisher or none.

        Faults that this causes then count as one, which is over when one publisher is left.
        """
        if several is None:
            self._several_until_s = min(self._several_until_s, now_s + LATE_S)
            return
        self._several, self._several_until_s = several, math.inf
        for fault in MIXED:
            trouble = self._troubles.get(fault)
            if trouble is not None and now_s - trouble.began_s <= UNSEEN_S:
                del self._troubles[fault]
                self.report(fault, trouble.detail, trouble.wrong_s)
        known = self._troubles.get(Fault.SEVERAL_PUBLISHERS)
        if known is not None:
            known.detail = several  # The names of nodes become known later than they are heard.

    def deciding(self, now_s: float) -> None:
        """Note that the policy has started to decide."""
        self._deciding_since_s = now_s

    def decided(self, now_s: float) -> None:
        """Note that the policy has decided."""
        since_s, self._deciding_since_s = self._deciding_since_s, None
        if since_s is not None:
            self._check_decision(now_s - since_s, now_s)

    def resume(self) -> None:
        """Acknowledge the faults so far: once none is in force, the car may drive on."""
        for trouble in self._troubles.values():
            trouble.acknowledged = True

    def check(self, now_s: float) -> Stop | None:
        """Return why the car must not drive; None if it may."""
        if self._deciding_since_s is not None:
            self._check_decision(now_s - self._deciding_since_s, now_s)
        for fault, detail in self._lasting.items():
            self.report(fault, detail, now_s)
        silent = self._silence(now_s)
        if silent is not None:
            self.report(*silent, now_s)
        for fault, trouble in list(self._troubles.items()):
            resumable = trouble.acknowledged or not trouble.needs_resume
            if self._is_over(trouble, now_s) and resumable:
                del self._troubles[fault]
        if self._troubles:
            return self._stop(now_s)
        self._first = self._reported = None
        awaited = self._awaited()
        return Stop(f"waiting for the first {awaited}") if awaited else None

    def _stop(self, now_s: float) -> Stop:
        """Return the stop for the gravest fault in force, or else for one that is over."""
        fault, trouble = min(
            self._troubles.items(),
            key=lambda item: (
                self._is_over(item[1], now_s),
                not item[1].needs_resume,
                item[0] is not Fault.SEVERAL_PUBLISHERS,  # The cause of others.
            ),
        )
        over = self._is_over(trouble, now_s)
        if not over and fault is not self._reported:
            self.counts[fault] += 1
        self._reported = None if over else fault
        reason = f"waiting for ~/resume after: {trouble.detail}" if over else trouble.detail
        assert self._first is not None
        first_fault, first_detail = self._first
        first = "" if first_fault is fault else f"{first_fault.value}: {first_detail}"
        needs_resume = any(
            one.needs_resume and not one.acknowledged for one in self._troubles.values()
        )
        return Stop(reason, fault, needs_resume, over, first)

    def _is_over(self, trouble: _Trouble, now_s: float) -> bool:
        quiet_s = now_s - trouble.wrong_s
        return quiet_s > 0.0 and quiet_s >= self._config.resume_delay_s

    def _awaited(self) -> str:
        """Return which sources have not delivered anything yet."""
        return " and ".join(
            source.value for source in (*SENSORS, Source.FRAME) if source not in self._heard_s
        )

    def _check_decision(self, taken_s: float, now_s: float) -> None:
        if taken_s > self._config.policy_timeout_s:
            self.report(Fault.POLICY_SLOW, f"the policy takes {taken_s:.2f} s to decide", now_s)

    def _silence(self, now_s: float) -> tuple[Fault, str] | None:
        """Return the fault of the first source that has fallen silent, as it causes the others."""
        ages_s = {
            source: now_s - self._heard_s[source]
            for source in self._limits_s
            if source in self._heard_s
        }
        for source, age_s in ages_s.items():
            limit_s = self._limits_s[source]
            if age_s <= limit_s:
                continue
            # Messages that arrived while the driver itself stalled have not been handled yet.
            stood_still_s = self.own.between(self._heard_s[source], now_s)
            if age_s - stood_still_s <= limit_s:
                detail = f"the driver itself stalled for {stood_still_s:.1f} s"
                return Fault.DRIVER_STALLED, detail
            if source in SENSORS and all(
                ages_s.get(other, 0.0) > TOGETHER_SHARE * self._limits_s[other]
                for other in SENSORS
            ):
                detail = f"nothing from the simulator for {age_s:.1f} s: it is gone or paused"
                return Fault.SIMULATOR_GONE, detail
            return SILENCE[source], f"no {source.value} for {age_s:.1f} s"
        return None
