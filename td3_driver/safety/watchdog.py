# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Decides whether what a driver needs is there and sound.

It knows no clock, every call brings the time: seconds of a steady clock, as simulation time
stands still when the simulator dies.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from td3_driver.config import DriverConfig
from td3_driver.faults import Fault
from td3_driver.safety.standstills import Standstills


class Source(enum.Enum):
    """What has to keep coming, by the words for it."""

    CAMERA = "camera image"
    ODOMETRY = "odometry"
    SPEEDOMETER = "speed"
    FRAME = "image with the odometry of its stamp"
    ROUTE = "route"


SILENCE = {
    Source.CAMERA: Fault.CAMERA_SILENT,
    Source.ODOMETRY: Fault.ODOMETRY_SILENT,
    Source.SPEEDOMETER: Fault.SPEEDOMETER_SILENT,
    Source.FRAME: Fault.STAMPS_UNMATCHED,
    Source.ROUTE: Fault.ROUTE_OLD,
}
SENSORS = (Source.CAMERA, Source.ODOMETRY, Source.SPEEDOMETER)
# Sensors of one dead simulator end within a tick of each other: the last of them is at least this
# share of the way to its limit when the first reaches its own.
TOGETHER_SHARE = 0.5


@dataclass(frozen=True)
class Stop:
    """Why the car is stopped."""

    reason: str
    """What is in force now, in plain words."""
    fault: Fault | None = None
    """None where nothing is wrong, and it only has to wait."""
    needs_resume: bool = False
    """Whether somebody must vouch before it drives on."""
    over: bool = False
    """Whether the fault is over, and the car stands only until somebody vouches."""
    first: str = ""
    """What the stop began with, where that is not what is in force now."""


@dataclass
class _Trouble:
    """A fault that the car has not driven on from yet."""

    detail: str
    wrong_s: float
    """When it was last wrong."""
    needs_resume: bool
    vouched: bool = False


class Watchdog:
    """Knows the limits, what has been heard and what has gone wrong.

    A fault is in force until nothing has been wrong with it for `resume_delay_s`. The car drives
    on when none is in force, and somebody has vouched for those that ask for it.
    """

    def __init__(self, config: DriverConfig) -> None:
        self.change_limits(config)
        self._heard_s: dict[Source, float] = {}
        self._lasting: dict[Fault, str] = {}
        self._deciding_since_s: float | None = None
        self._troubles: dict[Fault, _Trouble] = {}
        """In the order in which they came."""
        self._first: tuple[Fault, str] | None = None
        self._told: Fault | None = None
        """The fault in force that was last given as the reason."""
        self.own = Standstills()
        """When the driver's own threads did not run."""
        self.counts = dict.fromkeys(Fault, 0)
        """How often each fault has become the reason to stand."""

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
        """Note that something sound has come."""
        self._heard_s[source] = now_s

    def report(self, fault: Fault, detail: str, now_s: float) -> None:
        """Note that something has gone wrong just now."""
        trouble = self._troubles.get(fault)
        if trouble is None or self._is_over(trouble, now_s):
            # The words of its beginning stay while it goes on.
            needs_resume = fault not in self._config.resume_after
            trouble = _Trouble(detail, now_s, needs_resume)
            self._first = self._first or (fault, detail)
            self._troubles[fault] = trouble
        trouble.wrong_s, trouble.vouched = now_s, False

    def set_lasting(self, fault: Fault, detail: str | None) -> None:
        """Note that something is wrong from now on, until it is set to None."""
        if detail is None:
            self._lasting.pop(fault, None)
        else:
            self._lasting[fault] = detail

    def deciding(self, now_s: float) -> None:
        """Note that the policy has been asked."""
        self._deciding_since_s = now_s

    def decided(self, now_s: float) -> None:
        """Note that the policy has answered."""
        since_s, self._deciding_since_s = self._deciding_since_s, None
        if since_s is not None:
            self._check_decision(now_s - since_s, now_s)

    def resume(self) -> None:
        """Vouch for what went wrong: once nothing is wrong any more, the car may drive on."""
        for trouble in self._troubles.values():
            trouble.vouched = True

    def check(self, now_s: float) -> Stop | None:
        """Return why the car has to stand; None where it may drive."""
        if self._deciding_since_s is not None:
            self._check_decision(now_s - self._deciding_since_s, now_s)
        for fault, detail in self._lasting.items():
            self.report(fault, detail, now_s)
        silent = self._silence(now_s)
        if silent is not None:
            self.report(*silent, now_s)
        for fault, trouble in list(self._troubles.items()):
            if self._is_over(trouble, now_s) and (trouble.vouched or not trouble.needs_resume):
                del self._troubles[fault]
        if self._troubles:
            return self._stop(now_s)
        self._first = self._told = None
        waits_for = self._waits_for()
        return Stop(f"waits for the first {waits_for}") if waits_for else None

    def _stop(self, now_s: float) -> Stop:
        """Return the stop for the gravest of what is in force, else for what is over."""
        fault, trouble = min(
            self._troubles.items(),
            key=lambda item: (self._is_over(item[1], now_s), not item[1].needs_resume),
        )
        over = self._is_over(trouble, now_s)
        if not over and fault is not self._told:
            self.counts[fault] += 1
        self._told = None if over else fault
        reason = f"until ~/resume is called, after: {trouble.detail}" if over else trouble.detail
        assert self._first is not None
        first_fault, first_detail = self._first
        first = "" if first_fault is fault else f"{first_fault.value}: {first_detail}"
        needs_resume = any(one.needs_resume and not one.vouched for one in self._troubles.values())
        return Stop(reason, fault, needs_resume, over, first)

    def _is_over(self, trouble: _Trouble, now_s: float) -> bool:
        quiet_s = now_s - trouble.wrong_s
        return quiet_s > 0.0 and quiet_s >= self._config.resume_delay_s

    def _waits_for(self) -> str:
        """Return what has not come once yet."""
        return " and ".join(
            source.value for source in (*SENSORS, Source.FRAME) if source not in self._heard_s
        )

    def _check_decision(self, taken_s: float, now_s: float) -> None:
        if taken_s > self._config.policy_timeout_s:
            self.report(Fault.POLICY_SLOW, f"the policy takes {taken_s:.2f} s to decide", now_s)

    def _silence(self, now_s: float) -> tuple[Fault, str] | None:
        """Return what has fallen silent, after it had come; the first is the cause of others."""
        ages_s = {
            source: now_s - self._heard_s[source]
            for source in self._limits_s
            if source in self._heard_s
        }
        for source, age_s in ages_s.items():
            limit_s = self._limits_s[source]
            if age_s <= limit_s:
                continue
            # Messages that came while the driver itself stood still have not been looked at yet.
            stood_still_s = self.own.between(self._heard_s[source], now_s)
            if age_s - stood_still_s <= limit_s:
                detail = f"the driver itself stood still for {stood_still_s:.1f} s"
                return Fault.DRIVER_STALLED, detail
            if source in SENSORS and all(
                ages_s.get(other, 0.0) > TOGETHER_SHARE * self._limits_s[other]
                for other in SENSORS
            ):
                detail = f"nothing from the simulator for {age_s:.1f} s: it is gone or paused"
                return Fault.SIMULATOR_GONE, detail
            return SILENCE[source], f"no {source.value} for {age_s:.1f} s"
        return None
