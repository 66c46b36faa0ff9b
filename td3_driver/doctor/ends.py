# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The two ends of a topic: whether they fit, and who should have the one that is missing."""

from __future__ import annotations

from typing import Any

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from td3_driver.bridge import spawn_objects, topics
from td3_driver.bridge.topics import Direction, Topic
from td3_driver.doctor.watching import NODE_NAME, Graph, full_node_name

Problem = tuple[str, str]
"""What was found, and its remedy."""

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
    """Return whether a topic is there only with the car."""
    return "{role}" in topic.template


def is_needed(graph: Graph, topic: Topic) -> bool:
    """Return whether anything here uses a topic; who plans its own routes needs no planner."""
    own_routes = graph.config.carla.route_planner == "own"
    return not (own_routes and topic in (topics.WAYPOINTS, topics.GOAL))


def remedy_for_missing(graph: Graph, topic: Topic) -> str:
    """Return how to get what publishes, or listens to, a topic that is missing."""
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
    """Return what keeps the other nodes' ends of a topic from ours: types, QoS or definition."""
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
            verb = "offer" if sensing else "ask for no more than"
            return (
                f"QoS of {full_node_name(end)} does not fit: {apart}",
                f"it has to {verb}: {qos}",
            )
    return _other_definition(graph, topic, others)


def _qos_apart(offered: QoSProfile, requested: QoSProfile) -> str:
    """Return what keeps a publisher and a subscription apart; empty where nothing does."""
    if (
        offered.reliability == ReliabilityPolicy.BEST_EFFORT
        and requested.reliability == ReliabilityPolicy.RELIABLE
    ):
        return "best effort is offered, and reliable is asked for"
    if (
        offered.durability == DurabilityPolicy.VOLATILE
        and requested.durability == DurabilityPolicy.TRANSIENT_LOCAL
    ):
        return "volatile is offered, and transient local is asked for"
    return ""


def _other_definition(graph: Graph, topic: Topic, others: list[Any]) -> Problem | None:
    """Return that both call different messages by one name; known since ROS 2 Iron."""
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
                f"build bridge and td3_driver against one {package}",
            )
    return None
