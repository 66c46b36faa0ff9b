# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of the topics to the simulator: who listens, and who commands the car."""

from __future__ import annotations

from td3_driver.bridge import topics
from td3_driver.bridge.endpoints import node_names
from td3_driver.bridge.topics import Topic
from td3_driver.doctor import ends
from td3_driver.doctor.findings import Finding, Group
from td3_driver.doctor.watching import Graph

COMMANDING = Group("to the simulator")

# Topics that something must subscribe to for training and driving.
LISTENED_TO = (
    topics.CONTROL,
    topics.VEHICLE_CONTROL,
    topics.MANUAL_OVERRIDE,
    topics.SET_TRANSFORM,
    topics.SET_TARGET_VELOCITY,
    topics.GOAL,
)


def listened_to(graph: Graph, topic: Topic, car_seen: bool) -> Finding:
    """Return whether anybody subscribes to a topic; `car_seen`: whether the car has any topics."""
    name = graph.name(topic)
    listeners = graph.others_subscribing(topic)
    if not listeners:
        if not car_seen and ends.is_of_the_car(topic):
            return COMMANDING.skipped(name, ends.ONLY_WITH_THE_CAR)
        if not ends.is_needed(graph, topic):
            return COMMANDING.skipped(name, ends.NOT_WITH_OWN_ROUTES)
        return COMMANDING.failed(
            name, "nobody listens to it", ends.remedy_for_missing(graph, topic)
        )
    problem = ends.mismatch(graph, topic, listeners)
    if problem is not None:
        return COMMANDING.failed(name, *problem)
    return COMMANDING.ok(name, f"heard by {node_names(listeners)}")


def manual_override(graph: Graph) -> Finding:
    """Return whether the simulator ignores our commands in favour of a person's."""
    check, topic = "manual override", topics.MANUAL_OVERRIDE
    message = graph.records[topic].message
    if message is None or not message.data:
        return COMMANDING.ok(check, "off" if message else "not switched on")
    publishers = node_names(graph.others_publishing(topic))
    return COMMANDING.failed(
        check,
        f"on, set by {publishers or 'a node that has ended'}: commands are ignored",
        f"switch it off: publish false, latched, on {graph.name(topic)}, or stop "
        "carla_manual_control",
    )


def who_commands(graph: Graph) -> Finding:
    """Return who commands the car; more than one is a warning."""
    check = "who commands"
    commanders = graph.others_publishing(topics.VEHICLE_CONTROL)
    if len(commanders) > 1:
        remedy = "keep only one, or they fight for the car (driver.publish_vehicle_control=false)"
        return COMMANDING.warning(check, f"{len(commanders)}: {node_names(commanders)}", remedy)
    return COMMANDING.ok(check, node_names(commanders) or "nobody at the moment")
