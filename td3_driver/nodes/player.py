# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Plays a bag: its serialised messages on their topics, at the pace they were recorded.

Messages that this package's own nodes published are left out: the nodes that listen publish their
own.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import NameValidationException
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher

from td3_driver.bridge import runtime, topics
from td3_driver.bridge.driver_topics import drivers_among
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.bridge.recorded import topics_of_nodes
from td3_driver.bridge.topics import Direction, Qos
from td3_driver.config import ConfigError
from td3_driver.offline.bag import Bag, BagError, BagTopic, RawMessage
from td3_driver.offline.bag_names import bag_names

NODE_NAME = "player"
OWN_PARAMETERS: dict[str, tuple[Any, str]] = {
    "bag": ("", "Bag to play: a folder, or a .mcap, .db3 or .bag file."),
    "rate": (1.0, "Playback speed, as a multiple of the recording's."),
    "loop": (False, "Play the bag over and over."),
    "clock": (True, "Publish /clock from the odometry's stamps if the bag has no /clock."),
}

LOG_PERIOD_S = 3.0
# A listener must have discovered the topics to see the bag from its beginning.
LISTENER_TIMEOUT_S = 20.0
CHECK_S = 0.05
SETTLE_S = 0.5


class PlayerNode(ConfiguredNode):
    """Publishes a bag's messages."""

    def __init__(
        self,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Open the bag; raises ConfigError if it cannot be played."""
        super().__init__(
            NODE_NAME,
            ("carla",),
            own=OWN_PARAMETERS,
            context=context,
            parameter_overrides=parameter_overrides,
        )
        self._rate = self.get_parameter("rate").value
        if not self._rate > 0.0:
            raise ConfigError(f"rate must be above 0, it is {self._rate}")
        if not self.get_parameter("bag").value:
            raise ConfigError("name the bag to play: bag:=FOLDER")
        try:
            self._bag = Bag(Path(self.get_parameter("bag").value))
            self._names = bag_names(self._bag, self.config.carla)
        except BagError as error:
            raise ConfigError(str(error)) from None
        self._told: set[str] = set()
        self._unplayable: set[str] = set()
        self._tell()
        self._contract = {topic.name(self._names): topic for topic in topics.TOPICS}
        self._publishers_by_topic = self._create_publishers()
        self._clock_publisher: Publisher | None = None
        clock, odometry = (topic.name(self._names) for topic in (topics.CLOCK, topics.ODOMETRY))
        if self.get_parameter("clock").value and clock not in self._publishers_by_topic:
            self._clock_publisher = topics.create_bridge_publisher(self, topics.CLOCK, self._names)
        self._clocked_by = odometry

    def run(self) -> None:
        """Play to the end, or over and over."""
        self._wait_for_listener()
        while self.context.ok():
            messages = self._play_once()
            self._tell()
            self.get_logger().info(f"played all of {self._bag.path}: {messages} messages")
            if not self.get_parameter("loop").value:
                break
        time.sleep(SETTLE_S)  # the last messages have yet to be processed

    def close(self) -> None:
        """Close the bag."""
        self._bag.close()

    def _tell(self) -> None:
        """Log what is wrong with the bag, as far as that is new."""
        for note in self._bag.notes:
            if note not in self._told:
                self._told.add(note)
                self.get_logger().warning(note)

    def _create_publishers(self) -> dict[str, Publisher]:
        types = {name: topic.type_name for name, topic in self._bag.topics.items()}
        from_nodes = topics_of_nodes(self._names, drivers_among(types))
        publishers = {}
        for name, topic in self._bag.topics.items():
            if not topic.count or name in from_nodes:
                continue
            try:
                message_type = topics.message_class(topic.type_name)
                publishers[name] = self.create_publisher(
                    message_type, name, self._qos(topic).profile()
                )
            except (ImportError, AttributeError, TypeError, ValueError):
                self.get_logger().warning(
                    f"{name} is not played: its type {topic.type_name} is not installed"
                )
            except NameValidationException:
                self.get_logger().warning(f"{name!r} is not played: it is no topic's name")
        return publishers

    def _qos(self, topic: BagTopic) -> Qos:
        """Return the QoS of the contract, or else one that suits the recording's subscribers."""
        known = self._contract.get(topic.name)
        if known is None:
            return topics.LATCHED_DEEP if topic.latched else topics.RELIABLE
        if known.direction is Direction.FROM_SIMULATOR:
            return known.bridge_qos_in(self._names)
        return known.client_qos_in(self._names)

    def _wait_for_listener(self) -> None:
        """Wait for a subscriber of the camera."""
        image = next(
            (
                name
                for name in self._publishers_by_topic
                if name.endswith(("/image", "/compressed"))
            ),
            None,
        )
        if image is None:
            return
        publisher = self._publishers_by_topic[image]
        deadline = time.monotonic() + LISTENER_TIMEOUT_S
        while not publisher.get_subscription_count():
            if time.monotonic() > deadline:
                self.get_logger().warning(
                    f"no subscriber on {image} after {LISTENER_TIMEOUT_S:.0f} s; playing anyway"
                )
                return
            time.sleep(CHECK_S)
            runtime.check_signals()
        self._let_settle()

    def _let_settle(self) -> None:
        """Wait until no more subscriptions appear, because a listener has several."""
        before = -1
        while (found := self._listeners()) != before:
            before = found
            self._sleep_until(time.monotonic() + SETTLE_S)

    def _listeners(self) -> int:
        return sum(
            publisher.get_subscription_count() for publisher in self._publishers_by_topic.values()
        )

    def _play_once(self) -> int:
        """Publish every message at its time; return how many were published."""
        begin_ns: int | None = None
        begin_s = reported_s = time.monotonic()
        count = 0
        for message in self._bag.messages(list(self._publishers_by_topic)):
            begin_ns = message.log_ns if begin_ns is None else begin_ns
            played_s = 1e-9 * (message.log_ns - begin_ns)
            if not self._sleep_until(begin_s + played_s / self._rate):
                return count
            try:
                self._publish(message)
                count += 1
            except (BagError, AttributeError) as error:  # another type under that name
                if message.topic not in self._unplayable:
                    self._unplayable.add(message.topic)
                    self._bag.note(f"not all messages on {message.topic} are played: {error}")
            if time.monotonic() - reported_s >= LOG_PERIOD_S:
                reported_s = time.monotonic()
                self.get_logger().info(f"playing: {played_s:.1f} s")
        return count

    def _sleep_until(self, due_s: float) -> bool:
        """Wait for a time of the steady clock; return whether to continue."""
        runtime.check_signals()
        while (remaining_s := due_s - time.monotonic()) > 0.0:
            time.sleep(min(remaining_s, CHECK_S))
            runtime.check_signals()
            if not self.context.ok():
                return False
        return True

    def _publish(self, message: RawMessage) -> None:
        if self._clock_publisher is not None and message.topic == self._clocked_by:
            stamp = self._bag.decode(message).header.stamp
            clock = topics.CLOCK.message_type()
            clock.clock.sec, clock.clock.nanosec = int(stamp.sec), int(stamp.nanosec)
            self._clock_publisher.publish(clock)
        self._publishers_by_topic[message.topic].publish(self._bag.serialised(message))


def play() -> None:
    """Play to the end, or until asked to stop."""
    node = PlayerNode()
    try:
        node.run()
    finally:
        node.close()


def main(args: list[str] | None = None) -> None:
    """Run the player's process."""
    sys.exit(runtime.run(play, args))


if __name__ == "__main__":
    main()
