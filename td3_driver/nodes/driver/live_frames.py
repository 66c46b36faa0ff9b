# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Frames of a simulator that runs freely: each image with the odometry of its stamp."""

from __future__ import annotations

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

# DDS keeps the order within a topic and not across topics: an odometry may come some images late.
ODOMETRIES_KEPT = 10
ARRIVALS_KEPT = 100
REQUIRED = (topics.IMAGE, topics.ODOMETRY, topics.SPEEDOMETER)


@dataclass
class Counts:
    """What became of the images."""

    images: int = 0
    unmatched: int = 0
    """Images whose odometry had not come before the next image."""
    dropped: int = 0
    """Images that never came, by the stamps of the ones before and after."""
    repeated: int = 0
    """Images with the stamp of the one before, which are left out."""
    refused: int = 0
    """Messages, of any topic, that mean nothing."""


@dataclass(frozen=True)
class _Image:
    stamp_ns: int
    pixels: np.ndarray
    arrived_s: float


class LiveFrames:
    """Subscribes to what a driver sees, and hands on a frame for every image.

    Tells a guard what has come and what is wrong with it. The speedometer has no stamp: the
    latest one counts.
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
        """Subscribe on `node`; `handle` is called from its executor, with each frame.

        Its second argument is when the frame's image came, on the guard's clock in seconds.
        """
        self.counts = Counts()
        self.speed: float | None = None
        """Latest signed forward speed, m/s; None before the first."""
        self.overridden = False
        """Whether somebody drives by hand."""
        self._driver = driver
        self._fixed_delta_ns = fixed_delta_s * 1e9
        self._guard = guard
        self._handle = handle
        self._frames = 0
        self._image: _Image | None = None
        self._last_image: _Image | None = None
        self._size = (driver.image_width_px, driver.image_height_px)
        self._odometries: deque[tuple[int, Pose, float]] = deque(maxlen=ODOMETRIES_KEPT)
        self._route = np.zeros((0, 3))
        self._arrivals_s: deque[float] = deque(maxlen=ARRIVALS_KEPT)
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
        """Return the names of the required topics on which nothing has come since `expect`."""
        return [self._names[topic] for topic in REQUIRED if topic not in self._received]

    def expect(self) -> None:
        """Forget which topics have brought something."""
        self._received.clear()

    def take_speed(self) -> float | None:
        """Take the speeds that have arrived without spinning; return the last, None for none."""
        self.speed = None
        take_waiting(self._subscriptions[topics.SPEEDOMETER])
        return self.speed

    def camera_rate_hz(self) -> float:
        """Return the rate of the latest images in wall-clock time; 0 while there are none."""
        recent = [at for at in self._arrivals_s if self._guard.clock() - at < 2.0]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1] - recent[0], 1e-9)

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
        self._size = (self._size[0] or width, self._size[1] or height)
        if self._size != (width, height):
            raise ConversionError(
                f"the image has {width} x {height} pixels instead of "
                f"{self._size[0]} x {self._size[1]}"
            )

    def _follows(self, image: _Image) -> bool:
        """Look at how time has gone on since the last image; False where it stood still."""
        last = self._last_image
        if last is None:
            return True
        gap_ns = image.stamp_ns - last.stamp_ns
        if gap_ns == 0:
            self.counts.repeated += 1
            return False
        # After a pause of the camera alone, simulation time has gone on without images.
        paused = image.arrived_s - last.arrived_s > self._driver.camera_timeout_s
        too_far = gap_ns > self._driver.max_clock_gap_s * 1e9
        if gap_ns < 0 or (too_far and not paused):
            self._odometries.clear()
            self.speed = None
            way = "ahead" if gap_ns > 0 else "back"
            detail = f"simulation time has jumped {abs(gap_ns) * 1e-9:.2f} s {way}"
            self._guard.report(Fault.CLOCK_JUMP, detail)
        elif not too_far:
            self.counts.dropped += max(round(gap_ns / self._fixed_delta_ns) - 1, 0)
        return True

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
        # What was driven until now has been replaced, even if by something of no use.
        self._route = np.zeros((0, 3))
        self._route = route_from_path(message)
        self._guard.heard(Source.ROUTE)

    def _on_override(self, message: Any) -> None:
        self.overridden = bool(message.data)
        # Whoever only looks on may look on at a human, too.
        if not self._driver.shadow:
            detail = f"somebody drives by hand ({self._names[topics.MANUAL_OVERRIDE]})"
            self._guard.set_lasting(Fault.MANUAL_OVERRIDE, detail if self.overridden else None)

    def _match(self) -> None:
        """Hand on the waiting image if what belongs to it is there."""
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
