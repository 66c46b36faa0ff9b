# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The faults that a driver can meet, as things that a script of a car does wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scripted_car import SENSORS, Script

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import stamp_from_ns
from td3_driver.bridge.topics import Topic
from td3_driver.faults import Fault


@dataclass(frozen=True)
class Wrong:
    """One thing that goes wrong, and what a driver makes of it."""

    fault: Fault
    words: str
    """What the reason of the stop contains."""
    silent: tuple[Topic, ...] = ()
    tampered: Topic | None = None
    change: Callable[[Any], None] | None = None
    """What is done to the messages of the tampered topic."""
    jump_s: float = 0.0
    override: bool = False
    speed_mps: float | None = None

    def begin(self, script: Script) -> list[float]:
        """Have it go wrong; the list gets the time at which it did, at the earliest."""
        if self.tampered is not None:
            return self._tamper(script, self.tampered)
        if self.silent:
            script.silent.update(self.silent)
            return [min(script.published_s[topic] for topic in self.silent)]
        begin_s = script.clock()
        script.stamp_ns += round(self.jump_s * 1e9)
        if self.override:
            script.override(True)
        if self.speed_mps is not None:
            script.speed_mps = self.speed_mps
        return [begin_s]

    def _tamper(self, script: Script, topic: Topic) -> list[float]:
        first: list[float] = []
        change = self.change
        assert change is not None

        def changed(message: Any) -> None:
            if not first:
                first.append(script.clock())
            change(message)

        script.tamper[topic] = changed
        return first


def _shift(message: Any) -> None:
    stamp = message.header.stamp
    ns = stamp.sec * 10**9 + stamp.nanosec - 30_000_000
    message.header.stamp = stamp_from_ns(ns)


def _shorten(message: Any) -> None:
    message.data = message.data[:-4]


def _shrink(message: Any) -> None:
    message.height //= 2
    message.data = message.data[: len(message.data) // 2]


def _encode(message: Any) -> None:
    message.encoding = "bayer_rggb8"


def _lose_yaw(message: Any) -> None:
    message.pose.pose.orientation.z = float("nan")


def _lose_place(message: Any) -> None:
    message.pose.pose.position.x = float("inf")


def _lose_speed(message: Any) -> None:
    message.data = float("nan")


def _lose_route(message: Any) -> None:
    message.poses[3].pose.position.y = float("nan")


def _silence(fault: Fault, words: str, *silent: Topic) -> Wrong:
    return Wrong(fault, words, silent=silent)


def _malformed(words: str, change: Callable[[Any], None]) -> Wrong:
    return Wrong(Fault.IMAGE_MALFORMED, words, tampered=topics.IMAGE, change=change)


def _not_finite(words: str, topic: Topic, change: Callable[[Any], None]) -> Wrong:
    return Wrong(Fault.NOT_FINITE, words, tampered=topic, change=change)


FAULTS = {
    "the camera falls silent": _silence(
        Fault.CAMERA_SILENT, "no camera image for 0.", topics.IMAGE
    ),
    "the odometry falls silent": _silence(
        Fault.ODOMETRY_SILENT, "no odometry for 0.", topics.ODOMETRY
    ),
    "the speedometer falls silent": _silence(
        Fault.SPEEDOMETER_SILENT, "no speed for 0.", topics.SPEEDOMETER
    ),
    "the route is not renewed": _silence(Fault.ROUTE_OLD, "no route for 0.", topics.WAYPOINTS),
    "the simulator falls silent": _silence(
        Fault.SIMULATOR_GONE, "nothing from the simulator for 0.", *SENSORS
    ),
    "stamps do not match": Wrong(
        Fault.STAMPS_UNMATCHED,
        "no image with odometry of the same stamp",
        tampered=topics.ODOMETRY,
        change=_shift,
    ),
    "an image of another encoding": _malformed("encoding is 'bayer_rggb8'", _encode),
    "an image of another size": _malformed("160 x 60 pixels instead of 160 x 120", _shrink),
    "an image that is too short": _malformed("76796 bytes instead of 120 rows of 640", _shorten),
    "NaN in the heading": _not_finite("odometry", topics.ODOMETRY, _lose_yaw),
    "infinity in the position": _not_finite("odometry", topics.ODOMETRY, _lose_place),
    "NaN in the speed": _not_finite("speedometer", topics.SPEEDOMETER, _lose_speed),
    "NaN in the route": _not_finite("waypoints", topics.WAYPOINTS, _lose_route),
    "the clock jumps ahead": Wrong(Fault.CLOCK_JUMP, "has jumped 10.", jump_s=10.0),
    "the clock jumps back": Wrong(Fault.CLOCK_JUMP, "s back", jump_s=-0.5),
    "somebody drives by hand": Wrong(
        Fault.MANUAL_OVERRIDE, "somebody is driving by hand", override=True
    ),
}
"""Those that come over topics."""
