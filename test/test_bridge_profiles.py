# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Other bridges' names, types, frames and QoS."""

from typing import get_args

import pytest
from carla_graph import CONFIG, Observer, make_start, own_domain, ros_node, simulator_node
from rclpy.qos import ReliabilityPolicy

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import ConversionError, ackermann_to_message
from td3_driver.config import CarlaConfig, ConfigError
from td3_driver.driving.control import AckermannCommand
from td3_driver.driving.world import VehicleControl
from td3_driver.lockstep.world import CarlaWorld


def test_every_profile_can_be_set():
    annotation = CarlaConfig.model_fields["profile"].annotation
    assert set(get_args(annotation)) == set(topics.PROFILES)


@pytest.mark.parametrize(
    "profile, topic, name",
    [
        ("ros_bridge", topics.GOAL, "/carla/hero/goal"),
        ("ttgamage", topics.GOAL, "/carla/hero/goal_pose"),
        ("openads", topics.VEHICLE_CONTROL, "/carla/hero/vehicle_control_cmd_automated"),
    ],
)
def test_names_are_the_forks(profile, topic, name):
    assert topic.name(CarlaConfig(profile=profile, role_name="hero")) == name


def test_names_given_go_over_the_profiles():
    config = CarlaConfig(
        profile="ttgamage",
        role_name="hero",
        topic_names="goal=/goal_pose, image = /carla/{role}/wide/image",
    )
    assert topics.GOAL.name(config) == "/goal_pose"
    assert topics.IMAGE.name(config) == "/carla/hero/wide/image"
    assert topics.ODOMETRY.name(config) == "/carla/hero/odometry"


@pytest.mark.parametrize(
    "names, words",
    [
        ("picture=/image", "'picture' is none of clock, "),
        ("image=image", "not of the form"),
        ("image=/carla/{rolle}/image", "not of the form"),
        ("image", "not of the form"),
    ],
)
def test_a_wrong_name_is_refused(names, words):
    with pytest.raises(ConfigError, match=words):
        topics.IMAGE.name(CarlaConfig(topic_names=names))


@pytest.mark.parametrize("profile", topics.PROFILES)
@pytest.mark.parametrize("topic", topics.TOPICS, ids=lambda topic: topic.template)
def test_our_end_matches_every_bridges(profile, topic):
    config = CarlaConfig(profile=profile)
    publisher, subscriber = topic.bridge_qos_in(config), topic.client_qos_in(config)
    if topic.direction is topics.Direction.TO_SIMULATOR:
        publisher, subscriber = subscriber, publisher
    assert publisher.reliable or not subscriber.reliable
    assert publisher.latched or not subscriber.latched


def test_reliable_images_can_be_asked_for_where_they_are():
    assert topics.IMAGE.client_qos_in(CarlaConfig(image_reliability="reliable")).reliable
    with pytest.raises(ConfigError, match="profile tum publishes images best effort"):
        topics.IMAGE.client_qos_in(CarlaConfig(image_reliability="reliable", profile="tum"))


def test_ackermann_commands_are_stamped_where_the_bridge_wants_them_so():
    command = AckermannCommand(steering_angle=0.25, speed=-1.5)
    plain = ackermann_to_message(command, CarlaConfig(), 7)
    assert type(plain).__name__ == "AckermannDrive"
    assert (plain.steering_angle, plain.speed) == (0.25, -1.5)
    stamped = ackermann_to_message(command, CarlaConfig(profile="openads", role_name="hero"), 7)
    assert type(stamped).__name__ == "AckermannDriveStamped"
    assert (stamped.drive.steering_angle, stamped.drive.speed) == (0.25, -1.5)
    assert (stamped.header.frame_id, stamped.header.stamp.nanosec) == ("hero", 7)
    chosen = CarlaConfig(profile="openads", ackermann_message="AckermannDrive")
    assert type(ackermann_to_message(command, chosen)).__name__ == "AckermannDrive"
    with pytest.raises(ConversionError, match="not finite"):
        ackermann_to_message(AckermannCommand(speed=float("nan")), CarlaConfig())


@pytest.mark.parametrize("profile", topics.PROFILES)
def test_a_world_steps_and_resets_over_a_forks_topics(profile):
    domain = own_domain()
    config = CONFIG.model_copy(update={"profile": profile, "role_name": "hero"})
    with (
        simulator_node(domain, profile=profile, role_name="hero"),
        ros_node("agent", domain) as node,
        ros_node("observer", domain) as other,
    ):
        observer = Observer(other, config)
        observer.listen(topics.ODOMETRY, topics.WAYPOINTS)
        world = CarlaWorld(node, config)
        assert world.reset(make_start()).clean
        assert all(world.step(VehicleControl(throttle=0.5)).clean for _ in range(5))
        observer.wait(
            lambda: world.step(VehicleControl()).clean and all(observer.received.values())
        )
        frame = {"openads": "carla_map"}.get(profile, "map")
        assert {m.header.frame_id for ms in observer.received.values() for m in ms} == {frame}
        info = other.get_publishers_info_by_topic(topics.IMAGE.name(config))[0]
        best_effort = info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        assert best_effort == (profile == "tum")
        world.close()
