# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Events, gaps and the driven path in a bag, including frames without a decision."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from td3_driver.bridge import topics
from td3_driver.driving.reward import SOLID_MARKINGS
from td3_driver.offline.bag_file import listed_shortly
from td3_driver.offline.frames import BagFrame, BagFrames

# A watchdog repeats its stop; stops closer together than this are one event.
STOP_SPACING_S = 1.0
# A stop after this long without an image is the watchdog's.
BLIND_S = 0.3
# Two images further apart than this multiple of the tick have a gap between them.
GAP_FACTOR = 1.5


@dataclass(frozen=True)
class Event:
    """Something that happened at one moment in a bag."""

    time_s: float
    kind: str
    text: str


class EventDetector:
    """Inspects every frame that passes through, with or without a decision."""

    def __init__(self, frames: BagFrames) -> None:
        self.positions: list[tuple[float, float]] = []
        self.routes: list[np.ndarray] = []
        self.gaps: list[float] = []
        self.dropped = 0
        self.count = 0
        self.distance_m = 0.0
        self.duration_s = 0.0
        self.size = (0, 0)
        self._frames = frames
        self._events: list[Event] = []
        self._log_ns = array("q")
        self._times_s = array("d")

    def frames(self, progress: Any) -> Iterator[BagFrame]:
        """Pass the frames on, and note their events."""
        latest: BagFrame | None = None
        for source in self._frames:
            self._note(source, latest)
            latest = source
            yield source
            progress.update(self._frames.findings.images - progress.n)

    def time_of(self, source: BagFrame) -> float:
        """Return a frame's time in seconds, on an axis that only goes forward."""
        return self._times_s[source.frame.frame - 1]

    def _note(self, source: BagFrame, latest: BagFrame | None) -> None:
        frame = source.frame
        if latest is None:
            self.size = frame.image.shape[:2]
        else:
            elapsed_s = 1e-9 * (frame.stamp_ns - latest.frame.stamp_ns)
            if elapsed_s <= 0.0:
                self._events.append(Event(self.duration_s, "jump_back", f"{elapsed_s:.2f} s"))
                elapsed_s = max(1e-9 * (source.log_ns - latest.log_ns), 1e-3)
            else:
                self._gap(elapsed_s)
                self.distance_m += abs(frame.speed) * elapsed_s
            self.duration_s += elapsed_s
        self.count += 1
        self._log_ns.append(source.log_ns)
        self._times_s.append(self.duration_s)
        self.positions.append((frame.pose.x, frame.pose.y))
        if len(frame.route) and (latest is None or frame.route is not latest.frame.route):
            self.routes.append(frame.route)
        for collision in frame.collisions:
            text = f"{collision.impulse_ns:.0f} N s, actor {collision.other_actor_id}"
            self._events.append(Event(self.duration_s, "collision", text))
        for invasion in frame.lane_invasions:
            solid = any(mark in SOLID_MARKINGS for mark in invasion.crossed_lane_markings)
            text = "solid line" if solid else "broken line"
            self._events.append(Event(self.duration_s, "lane_invasion", text))

    def _gap(self, elapsed_s: float) -> None:
        delta_s = self._frames.fixed_delta_s
        if elapsed_s > GAP_FACTOR * delta_s:
            self.gaps.append(elapsed_s)
            self.dropped += max(round(elapsed_s / delta_s) - 1, 0)
            if elapsed_s >= 10.0 * delta_s:
                self._events.append(Event(self.duration_s, "gap", f"{elapsed_s:.2f} s"))

    @property
    def recorded_s(self) -> float:
        """Recorded time from the first frame to the last."""
        return 1e-9 * (self._log_ns[-1] - self._log_ns[0])

    def events(self) -> list[Event]:
        """Return the events, in no particular order."""
        return [*self._events, *self._stops()]

    def _stops(self) -> list[Event]:
        """Return the stops that answer no image: as the watchdog reported them, or inferred."""
        findings = self._frames.findings
        reported = findings.recorded_stops
        stops = [
            (stop.log_ns, "watchdog_stop", stop.text)
            for stop in reported.stops
            if self._log_ns[0] <= stop.log_ns
        ]
        reported_ns = [stop.log_ns for stop in reported.stops]
        spacing_ns = 1e9 * STOP_SPACING_S
        latest_ns = -np.inf
        for log_ns, silence_ns in findings.unstamped_stops:
            since_ns = log_ns - latest_ns
            latest_ns = log_ns
            if since_ns < spacing_ns or not self._log_ns[0] <= log_ns <= self._log_ns[-1]:
                continue
            if any(abs(log_ns - other_ns) < spacing_ns for other_ns in reported_ns):
                continue
            blind = not reported.heard and 1e-9 * silence_ns >= BLIND_S
            text = f"no image for {1e-9 * silence_ns:.2f} s" if blind else "the driver's own"
            kind = "watchdog_stop" if blind else "stop"
            stops.append((log_ns, kind, text))
        times_s = self._times_at([log_ns for log_ns, _, _ in stops])
        return [
            Event(time_s, kind, text)
            for time_s, (_, kind, text) in zip(times_s, stops, strict=True)
        ]

    def _times_at(self, logs_ns: list[int]) -> list[float]:
        """Convert recording times to the axis of `time_of`.

        While a simulator hangs, simulation time stops but recorded time continues.
        """
        known_ns = np.maximum.accumulate(self._log_ns)
        return [float(time_s) for time_s in np.interp(logs_ns, known_ns, self._times_s)]

    def notes(self) -> list[str]:
        """Return what was wrong with the bag's messages, in words."""
        findings = self._frames.findings
        notes = [
            f"{count} messages on {topic} were skipped as invalid: {findings.reasons[topic]}"
            for topic, count in findings.unreadable.items()
        ]
        if wrong := findings.stamps.wrong():
            notes.append(wrong)
        if findings.unmatched_images:
            notes.append(f"{findings.unmatched_images} images have no odometry of the same stamp")
        if findings.repeated_images:
            notes.append(f"{findings.repeated_images} images arrived twice or too late")
        if findings.speed_from_odometry:
            notes.append(
                f"{findings.speed_from_odometry} frames have no speedometer reading: their speed "
                "is taken from the odometry"
            )
        wanted = (topics.VEHICLE_CONTROL, topics.ACKERMANN, topics.COLLISION, topics.LANE_INVASION)
        for topic in wanted:
            name = topic.name(self._frames.names)
            if name not in self._frames.bag.topics:
                notes.append(f"{name} was not recorded")
        return notes

    def why_nothing(self) -> str:
        """Return why no decisions were found."""
        findings = self._frames.findings
        found = filter(None, (findings.stamps.wrong(), *findings.reasons.values()))
        reasons = listed_shortly(list(found), "; ")
        invalid = f"{sum(findings.unreadable.values())} messages are invalid"
        if self.count:
            nothing = f"none of its {self.count} frames is on a route"
            return f"{nothing}, and {invalid} ({reasons})" if reasons else nothing
        return (
            f"of its {findings.images} images, {findings.unmatched_images} have no odometry of "
            f"the same stamp, and {invalid}" + (f" ({reasons})" if reasons else "")
        )
