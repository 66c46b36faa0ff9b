"""Decides whether what a driver needs is there and sound.

It knows no clock, every call brings the time: seconds of a steady clock, as simulation time
stands still when the simulator dies.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from td3_driver.config import DriverConfig
from td3_driver.driving.faults import Fault


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
    """In plain words."""
    fault: Fault | None = None
    """None where nothing is wrong, and it only has to wait."""
    needs_resume: bool = False
    """Whether somebody must vouch before it drives on."""


class Watchdog:
    """Knows the limits, what has been heard and what has gone wrong."""

    def __init__(self, config: DriverConfig) -> None:
        self._config = config
        self._limits_s = {
            Source.CAMERA: config.camera_timeout_s,
            Source.ODOMETRY: config.odometry_timeout_s,
            Source.SPEEDOMETER: config.speedometer_timeout_s,
            Source.FRAME: max(config.camera_timeout_s, config.odometry_timeout_s),
        }
        if config.route_timeout_s:
            self._limits_s[Source.ROUTE] = config.route_timeout_s
        self._heard_s: dict[Source, float] = {}
        self._lasting: dict[Fault, str] = {}
        self._deciding_since_s: float | None = None
        self._stop: Stop | None = None
        self._wrong_s = 0.0
        """When something was last wrong."""
        self._vouched = True
        self.counts = dict.fromkeys(Fault, 0)
        """How often the car has been stopped by each fault."""

    def heard(self, source: Source, now_s: float) -> None:
        """Note that something sound has come."""
        self._heard_s[source] = now_s

    def age_s(self, source: Source, now_s: float) -> float | None:
        """Return how long ago something has come; None before the first."""
        heard_s = self._heard_s.get(source)
        return None if heard_s is None else now_s - heard_s

    def report(self, fault: Fault, detail: str, now_s: float) -> None:
        """Note that something has gone wrong just now."""
        self._trip(fault, detail, now_s)

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
        self._vouched = True

    def check(self, now_s: float) -> Stop | None:
        """Return why the car has to stand; None where it may drive."""
        if self._deciding_since_s is not None:
            self._check_decision(now_s - self._deciding_since_s, now_s)
        for fault, detail in self._lasting.items():
            self._trip(fault, detail, now_s)
        silent = self._silence(now_s)
        if silent is not None:
            self._trip(*silent, now_s)
        if self._stop is not None and self._vouched:
            quiet_s = now_s - self._wrong_s
            if quiet_s >= self._config.resume_delay_s and not self._waits_for():
                self._stop = None
        if self._stop is None:
            waits_for = self._waits_for()
            return Stop(f"waits for the first {waits_for}") if waits_for else None
        return self._stop

    def _waits_for(self) -> str:
        """Return what has not come once yet."""
        return " and ".join(
            source.value for source in (*SENSORS, Source.FRAME) if source not in self._heard_s
        )

    def _check_decision(self, taken_s: float, now_s: float) -> None:
        if taken_s > self._config.policy_timeout_s:
            self._trip(Fault.POLICY_SLOW, f"the policy takes {taken_s:.2f} s to decide", now_s)

    def _silence(self, now_s: float) -> tuple[Fault, str] | None:
        """Return what has fallen silent, after it had come; the first is the cause of others."""
        ages_s = {
            source: now_s - self._heard_s[source]
            for source in self._limits_s
            if source in self._heard_s
        }
        for source, age_s in ages_s.items():
            if age_s <= self._limits_s[source]:
                continue
            if source in SENSORS and all(
                ages_s.get(other, 0.0) > TOGETHER_SHARE * self._limits_s[other]
                for other in SENSORS
            ):
                detail = f"nothing from the simulator for {age_s:.1f} s: it is gone or paused"
                return Fault.SIMULATOR_GONE, detail
            return SILENCE[source], f"no {source.value} for {age_s:.1f} s"
        return None

    def _trip(self, fault: Fault, detail: str, now_s: float) -> None:
        """Stop the car; a fault that needs somebody to vouch outweighs one that does not."""
        self._wrong_s = now_s
        needs_resume = fault not in self._config.resume_after
        outweighs = needs_resume and not (self._stop and self._stop.needs_resume)
        if self._stop is None or outweighs:
            self._stop = Stop(detail, fault, needs_resume)
            self.counts[fault] += 1
            self._vouched = not needs_resume
        elif needs_resume:
            self._vouched = False
