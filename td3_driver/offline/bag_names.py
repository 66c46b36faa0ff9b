# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Finds out which car and which camera a bag was recorded from."""

from __future__ import annotations

import re
from pathlib import Path

from td3_driver.bridge import topics
from td3_driver.bridge.driver_topics import DEFAULT_DRIVER, drivers_among
from td3_driver.config import CarlaConfig
from td3_driver.offline.bag import Bag, BagError, BagTopic

COMPRESSED = "/compressed"
"""Suffix of the topic with a camera's compressed images."""


def bag_names(bag: Bag | str | Path, wanted: CarlaConfig) -> CarlaConfig:
    """Return the names of the car and its camera in a bag: the wanted ones, or the only ones.

    Raises BagError with the names in the bag if neither applies.
    """
    if not isinstance(bag, Bag):
        with Bag(bag) as opened:
            return bag_names(opened, wanted)
    if image_topic(bag, wanted) is not None:
        return wanted
    pattern = re.compile(r"^/carla/(?P<role>[^/]+)/(?P<camera>.+)/image(/compressed)?$")
    cameras = {
        (match["role"], match["camera"])
        for name, topic in bag.topics.items()
        if topic.count and (match := pattern.match(name))
    }
    expected = topics.IMAGE.name(wanted)
    if not cameras:
        others = [name for name, topic in bag.topics.items() if topic.type_name.endswith("Image")]
        there = f"; it has images on {', '.join(others)}" if others else ""
        raise BagError(f"{bag.path} has no camera image on {expected}{there}")
    if len(cameras) > 1:
        listed = ", ".join(f"{role}/{camera}" for role, camera in sorted(cameras))
        raise BagError(
            f"{bag.path} has nothing on {expected}, but several cameras ({listed}): choose one "
            "by role name and camera id"
        )
    role, camera = cameras.pop()
    return wanted.model_copy(update={"role_name": role, "camera": camera})


def image_topic(bag: Bag, config: CarlaConfig) -> BagTopic | None:
    """Return the topic of the camera's images, plain or compressed; None if there is none."""
    name = topics.IMAGE.name(config)
    for topic in (bag.topics.get(name), bag.topics.get(name + COMPRESSED)):
        if topic is not None and topic.count:
            return topic
    return None


def driver_of(bag: Bag, config: CarlaConfig) -> str:
    """Return the full name of the driver in a bag: the only one, or the one named after the car.

    Of several others, none is taken, and a note of the bag says so.
    """
    found = drivers_among({name: topic.type_name for name, topic in bag.topics.items()})
    if len(found) > 1:
        found = [name for name in found if config.role_name in name.split("/")] or found
    if len(found) == 1:
        return found[0]
    bag.note(f"several drivers reported ({', '.join(found)}), none of them taken for the car's")
    return DEFAULT_DRIVER
