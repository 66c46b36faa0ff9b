# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The two ends of a topic: whether they match, and who should provide a missing one."""

from __future__ import annotations

from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from td3_driver.bridge import spawn_objects, topics
from td3_driver.bridge.endpoints import full_node_name
from td3_driver.bridge.topics import Direction, Topic
from td3_driver.doctor.watching import NODE_NAME, Graph

Problem = tuple[str, str]
"""What was found, and its remedy."""

ONLY_WITH_THE_CAR = "exists only with the car"

NOT_WITH_OWN_ROUTES = "not needed for training, with carla.route_planner own"

SENSOR_TYPES = {
    topics.ODOMETRY: "sensor.pseudo.odom",
    topics.SPEEDOMETER: "sensor.pseudo.speedometer",
    topics.COLLISION: "sensor.other.collision",
    topics.LANE_INVASION: "sensor.other.lane_invasion",
    topics.IMAGE: spawn_objects.CAMERA,
    topics.SET_TRANSFORM: spawn_objects.CONTROL,
    topics.SET_TARGET_VELOCITY: spawn_objects.CONTROL,
}


def is_of_the_car(topic: Topic) -> bool:
    """Return whether a topic exists only with the car."""
    return "{role}" in topic.template


def is_needed(graph: Graph, topic: Topic) -> bool:
    """Return whether anything uses a topic; with our own routes, the planner's are not needed."""
    own_routes = graph.config.carla.route_planner == "own"
    return not (own_routes and topic in (topics.WAYPOINTS, topics.GOAL))


def remedy_for_missing(graph: Graph, topic: Topic) -> str:
    """Return how to get the missing publisher or subscriber of a topic."""
    if topic in SENSOR_TYPES:
        seen = [name for name in graph.topic_names() if name.endswith("/image")]
        cameras = f"; cameras seen: {', '.join(seen)}" if topic is topics.IMAGE and seen else ""
        sensor = graph.name(topic).split("/")[3]
        return (
            f"give the car a {SENSOR_TYPES[topic]} with the id {sensor!r} "
            f"(config/carla_objects.json has one){cameras}"
        )
    if topic in (topics.WAYPOINTS, topics.GOAL):
        return f"start carla_waypoint_publisher with role_name:={graph.config.carla.role_name}"
    if topic is topics.CONTROL:
        return "start carla_ros_bridge with synchronous_mode:=True passive:=False"
    return "start, or restart, carla_ros_bridge"


def mismatch(graph: Graph, topic: Topic, others: list[Any]) -> Problem | None:
    """Return why other nodes' ends of a topic do not match ours: type, QoS or definition."""
    names = graph.config.carla
    wanted = topic.type_name_in(names)
    qos = topic.client_qos_in(names)
    sensing = topic.direction is Direction.FROM_SIMULATOR
    for end in others:
        if end.topic_type != wanted:
            found = f"{full_node_name(end)} has {end.topic_type}, not {wanted}"
            remedy = "stop what is not the bridge (CARLA's --ros2, another fork), or rename it"
            return found, remedy
        ours, theirs = qos.profile(), end.qos_profile
        apart = _qos_apart(*((theirs, ours) if sensing else (ours, theirs)))
        if apart:
            verb = "offer" if sensing else "request no more than"
            return (
                f"QoS of {full_node_name(end)} does not fit: {apart}",
                f"it has to {verb}: {qos}",
            )
    return _other_definition(graph, topic, others)


def _qos_apart(offered: QoSProfile, requested: QoSProfile) -> str:
    """Return why a publisher and a subscription do not match; empty if they do."""
    if (
        offered.reliability == ReliabilityPolicy.BEST_EFFORT
        and requested.reliability == ReliabilityPolicy.RELIABLE
    ):
        return "best effort is offered, but reliable is requested"
    if (
        offered.durability == DurabilityPolicy.VOLATILE
        and requested.durability == DurabilityPolicy.TRANSIENT_LOCAL
    ):
        return "volatile is offered, but transient local is requested"
    return ""


def _other_definition(graph: Graph, topic: Topic, others: list[Any]) -> Problem | None:
    """Return whether both use one name for different messages; only ROS 2 Iron or newer knows."""
    name = graph.name(topic)
    ours = [
        end
        for end in (
            *graph.node.get_subscriptions_info_by_topic(name),
            *graph.node.get_publishers_info_by_topic(name),
        )
        if end.node_name == NODE_NAME
    ]
    if not ours or not hasattr(ours[0], "topic_type_hash"):
        return None
    wanted = str(ours[0].topic_type_hash)
    for end in others:
        given = str(end.topic_type_hash)
        if "INVALID" not in given and given != wanted:
            package = topic.type_name.split("/")[0]
            return (
                f"{full_node_name(end)} was built with another definition of {topic.type_name}",
                f"build the bridge and td3_driver against the same {package}",
            )
    return None
