# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Frames of a free-running simulator: each image with the odometry of the same stamp."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    ConversionError,
    image_from_message,
    ns_from_stamp,
    odometry_from_message,
    route_from_path,
    speed_from_message,
)
from td3_driver.bridge.runtime import take_waiting
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig, DriverConfig
from td3_driver.driving.world import Frame, Pose
from td3_driver.faults import Fault
from td3_driver.safety.guard import Guard
from td3_driver.safety.watchdog import Source

# DDS keeps the order within a topic but not across topics: odometry may arrive some images late.
ODOMETRIES_KEPT = 10
ARRIVALS_KEPT = 100
FASTEST_PACE = 10.0
"""Simulated seconds per second that are taken for possible until the pace is known."""
PACE_IMAGES = 5
PACE_S = 0.2
"""Images, and time in seconds, from which the pace is known."""
PACE_IMAGES_KEPT = 40
LATE_IMAGES_S = 0.5
"""For so long, images of a camera that has left the graph may still come."""
REQUIRED = (topics.IMAGE, topics.ODOMETRY, topics.SPEEDOMETER)


@dataclass
class Counts:
    """What happened to the images."""

    images: int = 0
    unmatched: int = 0
    """Images whose odometry had not arrived before the next image."""
    dropped: int = 0
    """Images that never arrived, judging by the stamps of the ones before and after."""
    repeated: int = 0
    """Images with the same stamp as the one before, which are skipped."""
    refused: int = 0
    """Invalid messages, on any topic."""


@dataclass(frozen=True)
class _Image:
    stamp_ns: int
    pixels: np.ndarray
    arrived_s: float


class LiveFrames:
    """Subscribes to a driver's inputs, and passes on a frame for every image.

    It reports to a guard what has arrived and what is wrong with it. Speeds have no stamp, so the
    latest one is used.
    """

    def __init__(
        self,
        node: Node,
        carla: CarlaConfig,
        driver: DriverConfig,
        fixed_delta_s: float,
        guard: Guard,
        handle: Callable[[Frame, float], None],
    ) -> None:
        """Subscribe on `node`; `handle` is called from its executor with each frame.

        Its second argument is when the frame's image arrived, in seconds of the guard's clock.
        """
        self.counts = Counts()
        self.speed: float | None = None
        """Latest signed forward speed, m/s; None before the first."""
        self.pace = FASTEST_PACE
        """Simulated seconds per second, by the latest images."""
        self.overridden = False
        """Whether somebody is driving by hand."""
        self._driver = driver
        self._fixed_delta_ns = fixed_delta_s * 1e9
        self._guard = guard
        self._handle = handle
        self._frames = 0
        self._image: _Image | None = None
        self._last_image: _Image | None = None
        self._size = (driver.image_width_px, driver.image_height_px)
        self._any_size_until_s = -math.inf
        self._odometries: deque[tuple[int, Pose, float]] = deque(maxlen=ODOMETRIES_KEPT)
        self._route = np.zeros((0, 3))
        self._arrivals_s: deque[float] = deque(maxlen=ARRIVALS_KEPT)
        self._clock_readings: deque[tuple[float, int]] = deque(maxlen=PACE_IMAGES_KEPT)
        """Arrival (s) and stamp (ns) of the latest images between which time did not jump."""
        handlers: dict[Topic, Callable[[Any], None]] = {
            topics.IMAGE: self._on_image,
            topics.ODOMETRY: self._on_odometry,
            topics.SPEEDOMETER: self._on_speed,
            topics.WAYPOINTS: self._on_path,
            topics.MANUAL_OVERRIDE: self._on_override,
        }
        self._names = {topic: topic.name(carla) for topic in handlers}
        self._received: set[Topic] = set()
        self._subscriptions = {
            topic: topics.create_subscription(node, topic, carla, self._noting(topic, handler))
            for topic, handler in handlers.items()
        }

    def change_limits(self, driver: DriverConfig) -> None:
        """Judge gaps between images by other limits from now on."""
        self._driver = driver

    def missing(self) -> list[str]:
        """Return the names of the required topics that have been silent since `expect`."""
        return [self._names[topic] for topic in REQUIRED if topic not in self._received]

    def expect(self) -> None:
        """Forget which topics have delivered a message."""
        self._received.clear()

    def take_speed(self) -> float | None:
        """Take the speeds that have arrived, without spinning; return the last, or None."""
        self.speed = None
        take_waiting(self._subscriptions[topics.SPEEDOMETER])
        return self.speed

    def camera_rate_hz(self) -> float:
        """Return the rate of the latest images in wall-clock time; 0 while there are none."""
        recent = [at for at in self._arrivals_s if self._guard.clock() - at < 2.0]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-9)

    def expect_another_size(self) -> None:
        """Take the images' size from those that come next, as those of another camera.

        A size that is a setting stays.
        """
        self._any_size_until_s = self._guard.clock() + LATE_IMAGES_S

    def _noting(self, topic: Topic, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def note(message: Any) -> None:
            self._received.add(topic)
            try:
                handler(message)
            except ConversionError as error:
                self.counts.refused += 1
                fault = Fault.IMAGE_MALFORMED if topic is topics.IMAGE else Fault.NOT_FINITE
                self._guard.report(fault, f"{self._names[topic]}: {error}")

        return note

    def _on_image(self, message: Any) -> None:
        arrived_s = self._guard.clock()
        self.counts.images += 1
        self._arrivals_s.append(arrived_s)
        pixels = image_from_message(message)
        self._check_size(pixels)
        image = _Image(ns_from_stamp(message.header.stamp), pixels, arrived_s)
        self._guard.heard(Source.CAMERA)
        if not self._follows(image):
            return
        self._last_image = image
        self.counts.unmatched += self._image is not None
        self._image = image
        self._match()

    def _check_size(self, pixels: np.ndarray) -> None:
        height, width, _ = pixels.shape
        if self._guard.clock() < self._any_size_until_s:
            self._size = (self._driver.image_width_px, self._driver.image_height_px)
        self._size = (self._size[0] or width, self._size[1] or height)
        if self._size != (width, height):
            raise ConversionError(
                f"the image has {width} x {height} pixels instead of "
                f"{self._size[0]} x {self._size[1]}"
            )

    def _follows(self, image: _Image) -> bool:
        """Check how much time has passed since the last image; return False if none has."""
        last = self._last_image
        if last is None:
            return True
        gap_ns = image.stamp_ns - last.stamp_ns
        if gap_ns == 0:
            self.counts.repeated += 1
            return False
        limit_s = self._driver.max_clock_gap_s * max(self.pace, 1.0)
        too_far = gap_ns > limit_s * 1e9
        if gap_ns < 0 or (too_far and not self._is_explained(image, last, gap_ns)):
            self._odometries.clear()
            self._clock_readings.clear()
            self.speed = None
            way = "ahead" if gap_ns > 0 else "back"
            detail = f"simulation time has jumped {abs(gap_ns) * 1e-9:.2f} s {way}"
            self._guard.report(Fault.CLOCK_JUMP, detail)
        elif not too_far:
            self.counts.dropped += max(round(gap_ns / self._fixed_delta_ns) - 1, 0)
        self._note_pace(image)
        return True

    def _is_explained(self, image: _Image, last: _Image, gap_ns: int) -> bool:
        """Return whether simulated time has only gone on while no image was taken."""
        # If only the camera paused, simulation time has advanced without images. In a simulator
        # faster than real time, a few images that were not taken in time are a long gap.
        if image.arrived_s - last.arrived_s > self._driver.camera_timeout_s:
            return True
        # Images that waited because the driver itself stood still come at once.
        gap_s, pace = 1e-9 * gap_ns, max(self.pace, 1.0)
        stood_still_s = self._guard.stood_still_s(image.arrived_s - gap_s / pace)
        return gap_s <= pace * (self._driver.max_clock_gap_s + stood_still_s)

    def _note_pace(self, image: _Image) -> None:
        readings = self._clock_readings
        readings.append((image.arrived_s, image.stamp_ns))
        (first_s, first_ns), (latest_s, latest_ns) = readings[0], readings[-1]
        if len(readings) >= PACE_IMAGES and latest_s - first_s >= PACE_S:
            self.pace = 1e-9 * (latest_ns - first_ns) / (latest_s - first_s)

    def _on_odometry(self, message: Any) -> None:
        pose, yaw_rate = odometry_from_message(message)
        self._odometries.append((ns_from_stamp(message.header.stamp), pose, yaw_rate))
        self._guard.heard(Source.ODOMETRY)
        self._match()

    def _on_speed(self, message: Any) -> None:
        self.speed = speed_from_message(message)
        self._guard.heard(Source.SPEEDOMETER)
        self._match()

    def _on_path(self, message: Any) -> None:
        # The old route has been replaced, even if the new one is unusable.
        self._route = np.zeros((0, 3))
        self._route = route_from_path(message)
        self._guard.heard(Source.ROUTE)

    def _on_override(self, message: Any) -> None:
        self.overridden = bool(message.data)
        # In shadow mode, the driver may watch a human drive.
        if not self._driver.shadow:
            detail = f"somebody is driving by hand ({self._names[topics.MANUAL_OVERRIDE]})"
            self._guard.set_lasting(Fault.MANUAL_OVERRIDE, detail if self.overridden else None)

    def _match(self) -> None:
        """Pass on the waiting image once its odometry and a speed are there."""
        if self._image is None or self.speed is None:
            return
        stamp_ns = self._image.stamp_ns
        matching = (
            (pose, yaw_rate)
            for odometry_ns, pose, yaw_rate in reversed(self._odometries)
            if abs(odometry_ns - stamp_ns) < self._fixed_delta_ns / 2
        )
        pose, yaw_rate = next(matching, (None, 0.0))
        if pose is None:
            return
        image, self._image = self._image, None
        self._frames += 1
        self._guard.heard(Source.FRAME)
        self._handle(
            Frame(
                frame=self._frames,
                stamp_ns=stamp_ns,
                image=image.pixels,
                pose=pose,
                speed=self.speed,
                yaw_rate=yaw_rate,
                route=self._route,
            ),
            image.arrived_s,
        )
