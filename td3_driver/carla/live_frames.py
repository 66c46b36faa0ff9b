"""Frames of a simulator that runs freely: each image with the odometry of its stamp."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.node import Node

from td3_driver.carla import topics
from td3_driver.carla.conversion import (
    ConversionError,
    image_from_message,
    ns_from_stamp,
    odometry_from_message,
    route_from_path,
)
from td3_driver.carla.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Frame, WorldError

# DDS keeps the order within a topic and not across topics: an odometry may come some images late.
ODOMETRIES_KEPT = 10
REQUIRED = (topics.IMAGE, topics.ODOMETRY, topics.SPEEDOMETER)


class LiveFrames:
    """Subscribes to what a driver sees, and hands on a frame for every image.

    The speedometer has no stamp: the latest one counts.
    """

    def __init__(
        self,
        node: Node,
        config: CarlaConfig,
        fixed_delta_s: float,
        handle: Callable[[Frame], None],
    ) -> None:
        """Subscribe on `node`; `handle` is called from its executor, with each frame."""
        self.unmatched_images = 0
        """Images whose odometry had not come before the next image."""
        self.frames = 0
        self._tolerance_ns = int(fixed_delta_s * 1e9 / 2)
        self._handle = handle
        self._image: Any | None = None
        self._odometries: deque[Any] = deque(maxlen=ODOMETRIES_KEPT)
        self.speed: float | None = None
        """Latest signed forward speed, m/s; None before the first."""
        self._route = np.zeros((0, 3))
        handlers: dict[Topic, Callable[[Any], None]] = {
            topics.IMAGE: self._on_image,
            topics.ODOMETRY: self._on_odometry,
            topics.SPEEDOMETER: self._on_speed,
            topics.WAYPOINTS: self._on_path,
        }
        self._names = {topic: topic.name(config) for topic in handlers}
        self._received: set[Topic] = set()
        for topic, handler in handlers.items():
            node.create_subscription(
                topic.message_type,
                self._names[topic],
                self._noting(topic, handler),
                topic.client_qos.profile(),
            )

    def missing(self) -> list[str]:
        """Return the names of the required topics on which nothing has come since `expect`."""
        return [self._names[topic] for topic in REQUIRED if topic not in self._received]

    def expect(self) -> None:
        """Forget which topics have brought something."""
        self._received.clear()

    def _noting(self, topic: Topic, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        def note(message: Any) -> None:
            self._received.add(topic)
            try:
                handler(message)
            except ConversionError as error:
                raise WorldError(f"{self._names[topic]}: {error}") from error

        return note

    def _on_image(self, message: Any) -> None:
        self.unmatched_images += self._image is not None
        self._image = message
        self._match()

    def _on_odometry(self, message: Any) -> None:
        self._odometries.append(message)
        self._match()

    def _on_speed(self, message: Any) -> None:
        self.speed = float(message.data)
        self._match()

    def _on_path(self, message: Any) -> None:
        self._route = route_from_path(message)

    def _match(self) -> None:
        """Hand on the waiting image if what belongs to it is there."""
        if self._image is None or self.speed is None:
            return
        stamp_ns = ns_from_stamp(self._image.header.stamp)
        for odometry in reversed(self._odometries):
            if abs(ns_from_stamp(odometry.header.stamp) - stamp_ns) < self._tolerance_ns:
                break
        else:
            return
        pose, yaw_rate = odometry_from_message(odometry)
        image, self._image = image_from_message(self._image), None
        self.frames += 1
        self._handle(
            Frame(
                frame=self.frames,
                stamp_ns=stamp_ns,
                image=image,
                pose=pose,
                speed=self.speed,
                yaw_rate=yaw_rate,
                route=self._route,
            )
        )
