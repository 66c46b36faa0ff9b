# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of what the simulator publishes: each topic, and whether images match odometry."""

from __future__ import annotations

import itertools
from typing import Any

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import ConversionError, image_from_message
from td3_driver.bridge.endpoints import node_names
from td3_driver.bridge.topics import Topic
from td3_driver.doctor import ends
from td3_driver.doctor.findings import Finding, Group
from td3_driver.doctor.watching import Graph, Record

SENSING = Group("from the simulator")

# Published only when something happens: silence is fine.
EVENTS = (topics.COLLISION, topics.LANE_INVASION)
# Nice to look at; nothing here needs them.
OPTIONAL = (topics.TF, topics.CAMERA_INFO)


def published(graph: Graph, topic: Topic, car_seen: bool) -> Finding:
    """Return whether a topic arrives as it should; `car_seen`: whether the car has any topics."""
    name = graph.name(topic)
    publishers = graph.others_publishing(topic)
    if not publishers:
        if topic in OPTIONAL:
            return SENSING.skipped(name, "not published, but not needed")
        if not ends.is_needed(graph, topic):
            return SENSING.skipped(name, ends.NOT_WITH_OWN_ROUTES)
        if not car_seen and ends.is_of_the_car(topic):
            return SENSING.skipped(name, ends.ONLY_WITH_THE_CAR)
        return SENSING.failed(name, "nobody publishes it", ends.remedy_for_missing(graph, topic))
    problem = ends.mismatch(graph, topic, publishers)
    if problem is not None:
        return SENSING.failed(name, *problem)
    record = graph.records[topic]
    if topic in EVENTS:
        return SENSING.ok(name, f"{record.count} events")
    if not record.count:
        return _silent(graph, topic, publishers)
    if topic.client_qos.latched:
        return _latched(topic, name, record.message)
    return _stream(topic, name, record)


def _silent(graph: Graph, topic: Topic, publishers: list[Any]) -> Finding:
    name = graph.name(topic)
    if topic.client_qos.latched:
        found = f"{node_names(publishers)} publishes it latched, but nothing arrived"
        if not ends.is_needed(graph, topic):
            return SENSING.skipped(name, f"{found}; {ends.NOT_WITH_OWN_ROUTES}")
        return SENSING.failed(name, found, ends.remedy_for_missing(graph, topic))
    if not graph.is_ticking():
        return SENSING.skipped(name, "silent while the simulator does not tick")
    if topic in OPTIONAL:
        return SENSING.skipped(name, "silent, but not needed")
    return SENSING.failed(
        name,
        f"{node_names(publishers)} publishes it, but nothing arrived in {graph.watched_s:g} s",
        "either the bridge waits for a sensor that never reports, or containers do not share "
        "memory: start them with --ipc=host, or use UDP only",
    )


def _latched(topic: Topic, name: str, message: Any) -> Finding:
    if topic is topics.WORLD_INFO:
        size = len(message.opendrive)
        if not size:
            remedy = "load another town: this one has no OpenDRIVE map"
            return SENSING.failed(name, f"{message.map_name}, without OpenDRIVE", remedy)
        return SENSING.ok(name, f"{message.map_name}, {size / 1e3:.0f} kB of OpenDRIVE")
    if topic is topics.WAYPOINTS:
        if not message.poses:
            remedy = "send a goal, or let the driver do it (random_goal)"
            return SENSING.warning(name, "an empty route", remedy)
        return SENSING.ok(name, f"a route of {len(message.poses)} points")
    return SENSING.ok(name, "received")


def _stream(topic: Topic, name: str, record: Record) -> Finding:
    found = f"{record.rate_hz:.1f} Hz"
    stamps_ns = record.stamps_ns or []
    if len(stamps_ns) > 1:
        if stamps_ns[-1] <= stamps_ns[0]:
            return SENSING.failed(
                name,
                f"{found}, but its stamps do not advance",
                "restart the node that publishes it",
            )
        if any(later < earlier for earlier, later in itertools.pairwise(stamps_ns)):
            return SENSING.failed(
                name,
                f"{found}, but its stamps jump back",
                "keep only one simulator in this ROS_DOMAIN_ID",
            )
    if topic is topics.IMAGE:
        return _image(name, found, record.message)
    return SENSING.ok(name, found)


def _image(name: str, found: str, message: Any) -> Finding:
    try:
        image_from_message(message)
    except ConversionError as error:
        return SENSING.failed(name, str(error), "use a camera with the encoding bgra8")
    return SENSING.ok(name, f"{found}, {message.width}x{message.height} {message.encoding}")


def images_with_odometry(graph: Graph) -> Finding:
    """Compare the stamps of images and odometry, which the driver matches."""
    check = "images with odometry"
    images = graph.records[topics.IMAGE].stamps_ns or []
    odometry = graph.records[topics.ODOMETRY].stamps_ns or []
    # The odometry of the first and the last image may be outside the watched time.
    inner = images[1:-1]
    if not inner or not odometry:
        return SENSING.skipped(check, "nothing to compare")
    tolerance_ns = graph.config.simulator.fixed_delta_s * 1e9 / 2
    matched = sum(min(abs(stamp - other) for other in odometry) < tolerance_ns for stamp in inner)
    found = f"{matched} of {len(inner)} have odometry with the same stamp"
    if matched >= 0.9 * len(inner):
        return SENSING.ok(check, found)
    return SENSING.failed(check, found, "remove sensor_tick, and sensors that slow down a tick")
