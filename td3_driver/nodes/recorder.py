# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Records the topics of a drive into a bag, in serialised form.

This is for systems whose `ros2 bag record` is missing or cannot write MCAP;
`td3_driver.launching.commands` prefers that one.
"""

from __future__ import annotations

import contextlib
import queue
import re
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from td3_driver.bridge import driver_topics, outlasting, runtime, topics
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.bridge.recorded import recorded_pattern
from td3_driver.config import ConfigError
from td3_driver.driving.world import WorldError
from td3_driver.offline.bag import BagError
from td3_driver.offline.definitions import DefinitionError, embedded_definition
from td3_driver.offline.writer import BagWriter

NODE_NAME = "recorder"
OWN_PARAMETERS = {
    "bag": ("", "Folder of the new bag."),
    "driver": (
        driver_topics.NODE_NAME,
        "Driver whose reports are recorded too: the node's name in the recorder's namespace, or "
        "its full name.",
    ),
    **outlasting.OWN_PARAMETERS,
}

DISCOVERY_PERIOD_S = 0.1
FLUSH_PERIOD_S = 0.5
# Messages of a topic that the middleware holds while this process does not get to run.
DEPTH = 200
# Messages held while the disk is too slow to take them: 10 s of all topics at 20 Hz.
QUEUED = 4000
# Recording ends while there is still room for the bag's index and description.
RESERVE_BYTES = 50_000_000


class RecorderNode(ConfiguredNode):
    """Subscribes to every topic of a drive as soon as it has a publisher."""

    def __init__(
        self,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Start a bag; raises ConfigError if it exists or cannot be created."""
        super().__init__(
            NODE_NAME,
            ("carla",),
            own=OWN_PARAMETERS,
            context=context,
            parameter_overrides=parameter_overrides,
        )
        bag = self.get_parameter("bag").value
        if not bag:
            raise ConfigError("name the bag to record: bag:=FOLDER")
        # A node's full name resolves as a topic's does.
        driver = self.resolve_topic_name(self.get_parameter("driver").value)
        try:
            self.writing = BagThread(Path(bag))
        except BagError as error:
            raise ConfigError(str(error)) from None
        self._wanted = re.compile(recorded_pattern(self.config.carla, driver))
        self._subscriptions_by_topic: dict[str, Subscription] = {}
        self._unknown: set[str] = set()
        self.losses = LostMessages()
        self._outlasted = outlasting.Outlasted(self)
        self.create_timer(
            DISCOVERY_PERIOD_S, self._discover, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self.get_logger().info(f"recording into {bag}")

    def run(self) -> None:
        """Record until the context ends; raises WorldError if the disk fills up or fails."""
        runtime.spin(
            self,
            until=lambda: bool(self.writing.failure),
            outlasted=self._outlasted,
            # Kilted's events executor fails if a callback takes its message's info.
            executor=SingleThreadedExecutor(context=self.context),
        )
        if self.writing.failure:
            raise WorldError(self.writing.failure)

    def finish(self) -> None:
        """Record what has already arrived, and complete the bag."""
        for name, subscription in self._subscriptions_by_topic.items():
            with subscription.handle:
                while taken := subscription.handle.take_message(subscription.msg_type, True):
                    self._record(name, *taken)
        self.writing.close()
        if self.writing.failure:
            return
        lost = self.losses.total + self.writing.dropped
        self.get_logger().info(
            f"recorded {self.writing.bag.messages} messages on "
            f"{len(self._subscriptions_by_topic)} topics into {self.writing.bag.path}, "
            + (f"LOST {lost}" if lost else "none lost")
        )

    def _discover(self) -> None:
        """Subscribe to topics that have been published since the last call."""
        for name, types in self.get_topic_names_and_types():
            if (
                name in self._subscriptions_by_topic
                or name in self._unknown
                or not self._wanted.match(name)
            ):
                continue
            publishers = self.get_publishers_info_by_topic(name)
            if publishers:
                self._subscribe(name, types, [item.qos_profile for item in publishers])

    def _subscribe(self, name: str, types: Sequence[str], offered: Sequence[QoSProfile]) -> None:
        if len(types) > 1:
            self.get_logger().warning(
                f"{name} has several types ({', '.join(types)}); recording {types[0]}"
            )
        try:
            message_type = topics.message_class(types[0])
            definition = embedded_definition(types[0])
        except (DefinitionError, ImportError, AttributeError, ValueError) as error:
            self._unknown.add(name)
            self.get_logger().warning(f"{name} is not recorded: {error}")
            return
        self.writing.add_topic(name, types[0], describe_qos(offered), *definition)
        self._subscriptions_by_topic[name] = self.create_subscription(
            message_type, name, self._recording(name), suitable_qos(offered), raw=True
        )
        self.get_logger().debug(f"recording {name}")

    def _recording(self, name: str) -> Callable[..., None]:
        if not hasattr(Subscription, "CallbackType"):  # Humble's callbacks get no info
            return lambda data: self._record(name, data, {})
        return lambda data, info: self._record(name, data, info)

    def _record(self, name: str, data: bytes, info: Mapping[str, Any]) -> None:
        self.losses.note(name, info)
        received_ns = info.get("received_timestamp") or time.time_ns()
        self.writing.put(name, received_ns, bytes(data), info.get("source_timestamp") or None)


class BagThread:
    """Writes a bag in a thread of its own, so that a slow disk blocks nothing else."""

    def __init__(self, path: Path) -> None:
        """Start the bag; raises BagError."""
        self.bag = BagWriter(path)
        self.failure = ""
        """Why recording has ended early; empty while all is well."""
        self.dropped = 0
        """Messages dropped because the queue was full."""
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUED)
        self.thread = threading.Thread(target=self._run, name="bag", daemon=True)
        self.thread.start()

    def add_topic(self, *description: str) -> None:
        """Add a topic; see `BagWriter.add_topic`."""
        self._queue.put(partial(self.bag.add_topic, *description))

    def put(self, topic: str, log_ns: int, data: bytes, publish_ns: int | None) -> None:
        """Queue a message for writing."""
        try:
            self._queue.put_nowait(partial(self.bag.write, topic, log_ns, data, publish_ns))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued, and complete the bag."""
        if self.thread.is_alive():
            self._queue.put(None)
            self.thread.join()

    def _run(self) -> None:
        try:
            self._write_all()
            self.bag.close()
        except OSError as error:
            self.failure = (
                f"recording has ended: {self.bag.file} cannot be written ({error.strerror}); it "
                "is readable up to this point, and `td3-driver repair` completes it"
            )
            self.bag.abandon()
        except Exception as error:  # whatever ends this thread ends the recording
            self.failure = f"recording has ended: {self.bag.file} is readable up to here ({error})"
            self.bag.abandon()

    def _write_all(self) -> None:
        """Write until closed, or until the disk is nearly full."""
        flush_s = time.monotonic() + FLUSH_PERIOD_S
        while True:
            with contextlib.suppress(queue.Empty):
                write = self._queue.get(timeout=max(flush_s - time.monotonic(), 0.0))
                if write is None:
                    return
                write()
            if time.monotonic() >= flush_s:
                self.bag.flush()
                flush_s = time.monotonic() + FLUSH_PERIOD_S
                free = shutil.disk_usage(self.bag.path).free
                if free < RESERVE_BYTES:
                    self.failure = (
                        f"recording has ended: the disk has only {free / 1e6:.0f} MB left; "
                        f"{self.bag.path} is complete up to this point"
                    )
                    return


class LostMessages:
    """Counts messages that were published but never arrived, by their sequence numbers."""

    def __init__(self) -> None:
        self.by_topic: Counter[str] = Counter()
        self._latest: dict[tuple[str, str], int] = {}

    @property
    def total(self) -> int:
        """Messages lost on all topics."""
        return sum(self.by_topic.values())

    def note(self, topic: str, info: Any) -> None:
        """Check a message's sequence number, if the middleware provides one."""
        number, publisher = info.get("publication_sequence_number"), info.get("publisher_gid")
        if number is None or publisher is None:
            return
        key = topic, str(publisher)
        before = self._latest.get(key, number - 1)
        self.by_topic[topic] += max(number - before - 1, 0)
        self._latest[key] = max(number, before)


def suitable_qos(offered: Sequence[QoSProfile]) -> QoSProfile:
    """Return the strictest QoS that all publishers of a topic can serve."""
    reliable = all(qos.reliability == ReliabilityPolicy.RELIABLE for qos in offered)
    latched = all(qos.durability == DurabilityPolicy.TRANSIENT_LOCAL for qos in offered)
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=DEPTH,
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
    )


def describe_qos(profiles: Sequence[QoSProfile]) -> str:
    """Return the QoS that publishers offer, in rosbag2's format."""
    described = [
        {
            "history": int(qos.history),
            "depth": qos.depth,
            "reliability": int(qos.reliability),
            "durability": int(qos.durability),
            "deadline": _duration(qos.deadline),
            "lifespan": _duration(qos.lifespan),
            "liveliness": int(qos.liveliness),
            "liveliness_lease_duration": _duration(qos.liveliness_lease_duration),
            "avoid_ros_namespace_conventions": qos.avoid_ros_namespace_conventions,
        }
        for qos in profiles
    ]
    return str(yaml.safe_dump(described, sort_keys=False)).strip()


def _duration(duration: Any) -> dict[str, int]:
    seconds, nanoseconds = divmod(duration.nanoseconds, 1_000_000_000)
    return {"sec": seconds, "nsec": nanoseconds}


def main(args: list[str] | None = None) -> None:
    """Run the recorder's process."""
    sys.exit(runtime.run(lambda: runtime.run_and_finish(RecorderNode), args))


if __name__ == "__main__":
    main()
