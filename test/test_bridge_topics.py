# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The table of topics."""

import pytest
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from td3_driver.bridge import topics
from td3_driver.config import CarlaConfig


def test_names_follow_role_camera_and_control():
    config = CarlaConfig(role_name="hero", camera="front", control="pilot")
    assert topics.IMAGE.name(config) == "/carla/hero/front/image"
    assert topics.SET_TRANSFORM.name(config) == "/carla/hero/pilot/set_transform"
    assert topics.STATUS.name(config) == "/carla/status"


def test_no_two_topics_share_a_name():
    names = [topic.name(CarlaConfig()) for topic in topics.TOPICS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("topic", topics.TOPICS, ids=lambda topic: topic.template)
def test_our_end_matches_the_bridges(topic):
    publisher, subscriber = topic.bridge_qos, topic.client_qos
    if topic.direction is topics.Direction.TO_SIMULATOR:
        publisher, subscriber = subscriber, publisher
    assert publisher.reliable or not subscriber.reliable
    assert publisher.latched or not subscriber.latched


def test_profile_says_what_the_table_says():
    profile = topics.Qos(reliable=False, latched=True, depth=3).profile()
    assert profile.reliability is ReliabilityPolicy.BEST_EFFORT
    assert profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
    assert profile.depth == 3


def test_message_types_are_found():
    assert topics.STATUS.message_type.__name__ == "CarlaStatus"
    for topic in topics.TOPICS:
        assert topic.message_type.__name__ == topic.type_name.split("/")[-1]
