# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Turns a bag into the frames that a driver sees live, in the order of their stamps.

Each camera image comes with the odometry of the same stamp, the speed of its tick, the route and
events up to it, and the commands that answered it. Messages recorded out of order are sorted
within `HOLD_S`, so no more than that is held in memory.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from td3_driver.bridge import topics
from td3_driver.bridge.driver_topics import full_name
from td3_driver.bridge.messages import (
    ConversionError,
    ackermann_from_message,
    collision_from_message,
    control_from_message,
    image_from_compressed,
    image_from_message,
    lane_invasion_from_message,
    ns_from_stamp,
    odometry_from_message,
    route_from_path,
    speed_from_message,
)
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.control import AckermannCommand
from td3_driver.driving.world import (
    Collision,
    Frame,
    LaneInvasion,
    VehicleControl,
)
from td3_driver.offline.bag import Bag, BagError, RawMessage
from td3_driver.offline.bag_findings import ODD_MESSAGE, Findings
from td3_driver.offline.bag_names import bag_names, driver_of, image_topic
from td3_driver.offline.policy_record import PolicyRecord
from td3_driver.offline.recorded_stops import RecordedStops

HOLD_S = 0.5
"""Recorded time for which an image waits for the messages that belong to it."""
HELD_IMAGES = 256
"""Most images that wait at once, however many are recorded in that time."""
BACK_S = 1.0
"""A stamp this much before the latest one is a jump back, not disorder."""
SPEED_AGE_S = 0.25
"""A speedometer message further than this from the odometry belongs to another tick."""
DEFAULT_DELTA_S = 0.05
FARTHEST_M = 1e7
"""Positions beyond this are on no map, and their squares beyond some numbers."""

_COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"


@dataclass(frozen=True, eq=False)
class BagFrame:
    """One frame of a bag, and the commands recorded in answer to it."""

    frame: Frame
    """As seen live, numbered from 1; `control` is the command in force, from the car's status."""
    log_ns: int
    """Wall-clock time at which the image was recorded."""
    ackermann: AckermannCommand | None = None
    """First Ackermann command between this image and the next; None if there is none."""
    command: VehicleControl | None = None
    """Pedals and steering published for this image; None if there are none."""
    command_log_ns: int | None = None
    """When the first of the two was recorded."""
    status_known: bool = False
    """Whether `frame.control` was recorded, and is not just the default."""


Item = TypeVar("Item")


class _Recent(Generic[Item]):
    """The latest items of a topic, each with the time it is looked up by."""

    DISORDER_NS = int(BACK_S * 1e9)

    def __init__(self) -> None:
        self._items: deque[tuple[int, Item]] = deque(maxlen=16 * HELD_IMAGES)

    def add(self, time_ns: int, item: Item) -> None:
        self._items.append((time_ns, item))

    def around(self, begin_ns: int, end_ns: int) -> list[tuple[int, Item]]:
        """Return the items with their time in [begin, end], in the order they came.

        Items from long before are dropped, because later calls never ask for earlier times.
        """
        while self._items and self._items[0][0] < begin_ns - self.DISORDER_NS:
            self._items.popleft()
        found = []
        for entry in self._items:
            if entry[0] > end_ns + self.DISORDER_NS:
                break
            if begin_ns <= entry[0] <= end_ns:
                found.append(entry)
        return found

    def nearest(self, time_ns: int, within_ns: int) -> Item | None:
        """Return the item closest in time; None if none is close enough."""
        near = self.around(time_ns - within_ns, time_ns + within_ns)
        return min(near, key=lambda entry: abs(entry[0] - time_ns))[1] if near else None

    def clear(self) -> None:
        self._items.clear()


@dataclass(order=True)
class _Waiting:
    """An image that has not been passed on yet."""

    stamp_ns: int
    log_ns: int
    message: RawMessage = field(compare=False)
    odometry: tuple[int, Any] | None = field(default=None, compare=False)


class BagFrames:
    """The frames of a bag; iterate over them, as often as needed."""

    def __init__(self, bag: Bag, config: CarlaConfig, delta_s: float | None = None) -> None:
        """Find the topics; raises BagError if a required one is missing.

        `delta_s` is the time between two ticks; without it, the bag's `/carla/status` gives it.
        """
        self.bag = bag
        self.names = bag_names(bag, config)
        """Role name and camera in the bag."""
        self.fixed_delta_s = delta_s or self._recorded_delta_s() or DEFAULT_DELTA_S
        self.driver = driver_of(bag, self.names)
        """Full name of the driver node."""
        self.findings = Findings()
        """Of the latest iteration."""
        image = image_topic(bag, self.names)
        assert image is not None  # `bag_names` ensures this
        self._image = image
        self.missing = [
            topic.name(self.names) for topic in topics.TOPICS if not self._count(topic)
        ]
        """Names of the contract's topics that were not recorded."""
        for topic in (topics.ODOMETRY, topics.WAYPOINTS):
            if not self._count(topic):
                raise BagError(
                    f"{bag.path} has nothing on {topic.name(self.names)} ({topic.type_name}), "
                    f"which every observation needs; it has {_listed(bag)}"
                )

    @property
    def images(self) -> int:
        """Number of images recorded."""
        return self._image.count

    def world_info(self) -> Any | None:
        """Return the last `carla_msgs/CarlaWorldInfo`; None if there is none."""
        last = None
        for message in self.bag.messages([topics.WORLD_INFO.name(self.names)]):
            last = message
        return None if last is None else self.bag.decode(last)

    def __iter__(self) -> Iterator[BagFrame]:
        self.findings = Findings(recorded_stops=RecordedStops(self.driver))
        return _Reading(self).frames()

    def _count(self, topic: Topic) -> int:
        found = self.bag.topics.get(topic.name(self.names))
        return found.count if found else 0

    def _recorded_delta_s(self) -> float | None:
        for message in self.bag.messages([topics.STATUS.name(self.names)]):
            try:
                delta_s = float(self.bag.decode(message).fixed_delta_seconds)
            except ODD_MESSAGE:
                return None
            return round(delta_s, 6) if 0.0 < delta_s < 1.0 else None
        return None


def _check_place(positions: np.ndarray) -> None:
    farthest_m = np.abs(positions).max(initial=0.0)
    if farthest_m > FARTHEST_M:
        raise ConversionError(f"a position of {farthest_m:g} m is on no map")


def _listed(bag: Bag) -> str:
    return ", ".join(sorted(name for name, topic in bag.topics.items() if topic.count))


class _Reading:
    """One pass through a bag."""

    def __init__(self, source: BagFrames) -> None:
        self._source = source
        self._bag = source.bag
        self._findings = source.findings
        self._tolerance_ns = int(source.fixed_delta_s * 1e9 / 2)
        self._waiting: list[_Waiting] = []
        self._odometries: _Recent[tuple[int, Any]] = _Recent()
        self._speeds: _Recent[float] = _Recent()
        self._statuses: _Recent[VehicleControl] = _Recent()
        self._ackermanns: _Recent[AckermannCommand] = _Recent()
        self._commands: _Recent[tuple[int, VehicleControl]] = _Recent()
        self._events: list[Collision | LaneInvasion] = []
        self._routes: deque[tuple[int, np.ndarray]] = deque()
        self._route = np.zeros((0, 3))
        self._latest_ns: int | None = None
        self._handed_on_ns: int | None = None
        self._image_log_ns: int | None = None
        self._frames = 0

    def frames(self) -> Iterator[BagFrame]:
        names = self._source.names
        image = self._source._image.name
        handlers: dict[str, Callable[[RawMessage], None]] = {
            topic.name(names): handle
            for topic, handle in (
                (topics.ODOMETRY, self._on_odometry),
                (topics.SPEEDOMETER, self._on_speed),
                (topics.VEHICLE_STATUS, self._on_status),
                (topics.WAYPOINTS, self._on_path),
                (topics.ACKERMANN, self._on_ackermann),
                (topics.VEHICLE_CONTROL, self._on_command),
                (topics.COLLISION, self._on_event(collision_from_message)),
                (topics.LANE_INVASION, self._on_event(lane_invasion_from_message)),
                (topics.DIAGNOSTICS, self._on_diagnostics),
            )
        }
        handlers |= {
            full_name(topic, names, self._source.driver): partial(self._on_driver_message, topic)
            for topic in PolicyRecord.TOPICS
        }
        for message in self._bag.messages([image, *handlers]):
            if message.topic == image:
                yield from self._on_image(message)
                continue
            try:
                handlers[message.topic](message)
            except ODD_MESSAGE as error:
                self._findings.note_unreadable(message.topic, error)
        yield from self._hand_on(lambda waiting: True)

    def _on_image(self, message: RawMessage) -> Iterator[BagFrame]:
        self._findings.images += 1
        self._image_log_ns = message.log_ns
        try:
            stamp_ns = self._stamp_ns(message)
        except ODD_MESSAGE as error:
            self._findings.note_unreadable(message.topic, error)
            return
        self._findings.stamps.note(stamp_ns)
        if self._latest_ns is not None and stamp_ns < self._latest_ns - BACK_S * 1e9:
            yield from self._hand_on(lambda waiting: True)
            self._jump_back()
        elif self._is_known(stamp_ns):
            self._findings.repeated_images += 1
            return
        self._latest_ns = max(stamp_ns, self._latest_ns or stamp_ns)
        insort(self._waiting, _Waiting(stamp_ns, message.log_ns, message))
        self._findings.images_held = max(self._findings.images_held, len(self._waiting))
        hold_ns = int(HOLD_S * 1e9)
        yield from self._hand_on(
            lambda waiting: (
                message.log_ns - waiting.log_ns >= hold_ns or len(self._waiting) > HELD_IMAGES
            )
        )

    def _is_known(self, stamp_ns: int) -> bool:
        """Return whether an image of this stamp is already here, or comes too late."""
        handed_on = self._handed_on_ns is not None and stamp_ns <= self._handed_on_ns
        return handed_on or any(waiting.stamp_ns == stamp_ns for waiting in self._waiting)

    def _stamp_ns(self, message: RawMessage) -> int:
        return ns_from_stamp(self._bag.decode(message).header.stamp)

    def _jump_back(self) -> None:
        self._findings.jumps_back += 1
        self._odometries.clear()
        self._statuses.clear()
        self._events.clear()
        self._latest_ns = self._handed_on_ns = None

    def _on_odometry(self, message: RawMessage) -> None:
        odometry = self._bag.decode(message)
        self._odometries.add(ns_from_stamp(odometry.header.stamp), (message.log_ns, odometry))

    def _on_speed(self, message: RawMessage) -> None:
        self._speeds.add(message.log_ns, speed_from_message(self._bag.decode(message)))

    def _on_status(self, message: RawMessage) -> None:
        status = self._bag.decode(message)
        self._statuses.add(
            ns_from_stamp(status.header.stamp), control_from_message(status.control)
        )

    def _on_path(self, message: RawMessage) -> None:
        route = route_from_path(self._bag.decode(message))
        _check_place(route[:, :2])
        self._routes.append((message.log_ns, route))

    def _on_ackermann(self, message: RawMessage) -> None:
        self._ackermanns.add(message.log_ns, ackermann_from_message(self._bag.decode(message)))

    def _on_command(self, message: RawMessage) -> None:
        command = self._bag.decode(message)
        stamp_ns, control = ns_from_stamp(command.header.stamp), control_from_message(command)
        self._commands.add(message.log_ns, (stamp_ns, control))
        # The driver stamps a command with its image's time; a stop of its own has none.
        if not stamp_ns and control.brake >= 1.0:
            silence_ns = message.log_ns - (self._image_log_ns or message.log_ns)
            self._findings.unstamped_stops.append((message.log_ns, silence_ns))

    def _on_diagnostics(self, message: RawMessage) -> None:
        self._findings.recorded_stops.hear(message.log_ns, self._bag.decode(message))

    def _on_driver_message(self, topic: Topic, message: RawMessage) -> None:
        self._findings.policy_record.hear(topic, self._bag.decode(message))

    def _on_event(self, convert: Callable[[Any], Any]) -> Callable[[RawMessage], None]:
        def on_event(message: RawMessage) -> None:
            self._events.append(convert(self._bag.decode(message)))

        return on_event

    def _hand_on(self, due: Callable[[_Waiting], bool]) -> Iterator[BagFrame]:
        """Yield the frames of the images that have waited long enough, in order of stamps."""
        while self._waiting and due(self._waiting[0]):
            waiting = self._waiting.pop(0)
            self._handed_on_ns = waiting.stamp_ns
            try:
                frame = self._frame(waiting)
            except ODD_MESSAGE as error:
                self._findings.note_unreadable(waiting.message.topic, error)
                continue
            if frame is not None:
                yield frame

    def _frame(self, waiting: _Waiting) -> BagFrame | None:
        stamp_ns, log_ns = waiting.stamp_ns, waiting.log_ns
        found = self._odometries.nearest(stamp_ns, self._tolerance_ns)
        if found is None:
            self._findings.unmatched_images += 1
            return None
        odometry_log_ns, odometry = found
        pose, yaw_rate = odometry_from_message(odometry)
        _check_place(np.array([pose.x, pose.y]))
        control = self._statuses.nearest(stamp_ns, self._tolerance_ns)
        events = self._take_events(stamp_ns)
        answer = self._answer(waiting)
        frame = Frame(
            frame=self._frames + 1,
            stamp_ns=stamp_ns,
            image=self._decoded_image(waiting.message),
            pose=pose,
            speed=self._speed(odometry_log_ns, odometry),
            yaw_rate=yaw_rate,
            route=self._route_at(max(log_ns, odometry_log_ns)),
            collisions=tuple(event for event in events if isinstance(event, Collision)),
            lane_invasions=tuple(event for event in events if isinstance(event, LaneInvasion)),
            control=control or VehicleControl(),
        )
        self._frames += 1  # only now: a frame that cannot be built gets no number
        return BagFrame(frame, log_ns, *answer, status_known=control is not None)

    def _decoded_image(self, message: RawMessage) -> np.ndarray:
        decoded = self._bag.decode(message)
        if self._source._image.type_name == _COMPRESSED_TYPE:
            return image_from_compressed(decoded)
        return image_from_message(decoded)

    def _speed(self, log_ns: int, odometry: Any) -> float:
        """Return the speed of the tick whose odometry was recorded at `log_ns`."""
        speed = self._speeds.nearest(log_ns, int(SPEED_AGE_S * 1e9))
        if speed is None:
            self._findings.speed_from_odometry += 1
            speed = float(odometry.twist.twist.linear.x)
            if not math.isfinite(speed):
                raise ConversionError(f"the speed is not finite: {speed}")
        return speed

    def _take_events(self, until_ns: int) -> list[Collision | LaneInvasion]:
        until_ns += self._tolerance_ns
        due = [event for event in self._events if event.stamp_ns <= until_ns]
        self._events = [event for event in self._events if event.stamp_ns > until_ns]
        return due

    def _route_at(self, log_ns: int) -> np.ndarray:
        """Return the route in force; it is the same object until a new one arrives."""
        while self._routes and self._routes[0][0] <= log_ns:
            self._route = self._routes.popleft()[1]
        return self._route

    def _answer(
        self, waiting: _Waiting
    ) -> tuple[AckermannCommand | None, VehicleControl | None, int | None]:
        """Return the commands published between this image and the next."""
        later = [other.log_ns for other in self._waiting if other.log_ns > waiting.log_ns]
        hold_ns = int(HOLD_S * 1e9)
        end_ns = min(later, default=waiting.log_ns + hold_ns) - 1
        recorded = self._commands.around(waiting.log_ns, waiting.log_ns + hold_ns)
        # The driver's commands carry their image's stamp; others have none, so their time counts.
        stamped = [entry for entry in recorded if entry[1][0] == waiting.stamp_ns]
        unstamped = [entry for entry in recorded if not entry[1][0] and entry[0] <= end_ns]
        command = next(iter(stamped or unstamped), None)
        near_ns: int | None = None
        ackermann: AckermannCommand | None = None
        if stamped:
            near_ns = stamped[0][0]
            ackermann = self._ackermanns.nearest(near_ns, self._tolerance_ns)
        else:
            between = self._ackermanns.around(waiting.log_ns, end_ns)
            if between:
                near_ns, ackermann = between[0]
        when_ns = command[0] if command else near_ns
        return ackermann, command[1][1] if command else None, when_ns
