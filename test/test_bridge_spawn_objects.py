# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The car and its sensors, as carla_spawn_objects reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from td3_driver.bridge import spawn_objects, topics
from td3_driver.config import Config, ConfigError, build
from td3_driver.launching.commands import COMMANDS


def sensors_of(content: spawn_objects.Objects) -> dict[str, dict[str, Any]]:
    (vehicle,) = content["objects"]
    return {sensor["id"]: sensor for sensor in vehicle["sensors"]}


def test_the_shipped_objects_are_those_of_the_default_settings() -> None:
    assert spawn_objects.shipped(Config()) == json.loads(spawn_objects.SHIPPED.read_text())
    spawn_objects.load(spawn_objects.SHIPPED, Config())


def test_every_topic_of_a_sensor_has_a_sensor_that_publishes_it() -> None:
    config = Config().carla
    ids = set(sensors_of(spawn_objects.shipped(Config())))
    for topic in (
        topics.IMAGE,
        topics.ODOMETRY,
        topics.SPEEDOMETER,
        topics.COLLISION,
        topics.LANE_INVASION,
        topics.SET_TRANSFORM,
    ):
        assert topic.name(config).split("/")[3] in ids


def test_nothing_in_it_slows_a_tick() -> None:
    # The bridge waits in every tick for each sensor that is neither an event nor computed by it.
    waited_for = [
        name
        for name, sensor in sensors_of(spawn_objects.shipped(Config())).items()
        if ".pseudo." not in sensor["type"]
        and sensor["type"] not in ("sensor.other.collision", "sensor.other.lane_invasion")
    ]
    assert waited_for == ["rgb_front"]
    # A sensor_tick makes the bridge wait for data that does not come.
    assert "sensor_tick" not in spawn_objects.SHIPPED.read_text()


def test_names_and_camera_follow_the_settings() -> None:
    config = build(
        {
            "carla": {"role_name": "hero", "camera": "eye", "control": "pilot"},
            "simulator": {
                "image_width_px": 320,
                "image_height_px": 240,
                "camera_fov_deg": 70,
                "camera_x_m": 1,
                "camera_pitch_deg": 5,
            },
        },
        "the test",
    )
    content = spawn_objects.shipped(config, "1,2,0.5,0,0,90")
    (vehicle,) = content["objects"]
    assert vehicle["id"] == "hero"
    assert vehicle["spawn_point"] == {"x": 1, "y": 2, "z": 0.5, "roll": 0, "pitch": 0, "yaw": 90}
    camera = sensors_of(content)["eye"]
    assert (camera["image_size_x"], camera["image_size_y"], camera["fov"]) == (320, 240, 70.0)
    assert "pilot" in sensors_of(content)
    # An integer makes geometry_msgs refuse the pose.
    for pose in (vehicle["spawn_point"], camera["spawn_point"]):
        assert all(isinstance(value, float) for value in pose.values())
    assert camera["spawn_point"]["pitch"] == 5.0


@pytest.mark.parametrize("pose", ["1,2,3", "a,b,c,d,e,f", "1,2,3,4,5,nan", "1 2 3 4 5 6"])
def test_a_wrong_spawn_point_is_refused(pose: str) -> None:
    with pytest.raises(ConfigError, match="spawn_point is x,y,z,roll,pitch,yaw"):
        spawn_objects.shipped(Config(), pose)


def edited(**changes: str) -> str:
    text = spawn_objects.SHIPPED.read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(f'"{old}"', f'"{new}"')
    return text


@pytest.mark.parametrize(
    "text, reason",
    [
        ("{", "is not JSON"),
        ("[]", "not a list of 'objects'"),
        ('{"objects": [{"id": "ego_vehicle"}]}', "not a list of 'objects'"),
        ('{"objects": []}', r"no vehicle has the id 'ego_vehicle' \(vehicles: none\)"),
        (edited(ego_vehicle="hero"), r"no vehicle has the id 'ego_vehicle' \(vehicles: hero\)"),
        (edited(rgb_front="front"), "no sensor.camera.rgb with the id 'rgb_front'"),
        (edited(control="pilot", odometry="odom"), "actor.pseudo.control.*odom with the id 'odom"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_what_it_lacks(
    text: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        spawn_objects.load(file, Config())
    with pytest.raises(ConfigError, match=reason):
        COMMANDS["train"].includes(launch_values(world="carla", objects=str(file)))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nonesuch\.json is missing"):
        spawn_objects.load(tmp_path / "nonesuch.json", Config())


def launch_values(**given: object) -> dict[str, object]:
    return {option.name: option.default for option in COMMANDS["train"].options} | given


def spawned(**given: object) -> str:
    includes = COMMANDS["train"].includes(launch_values(world="carla", **given))
    return includes[1].arguments["objects_definition_file"]


def test_the_launch_hands_on_the_users_own_file_and_changes_the_shipped_one_where_needed(
    tmp_path: Path,
) -> None:
    mine = tmp_path / "mine.json"
    mine.write_text(edited())
    assert spawned(objects=str(mine)) == str(mine)
    assert spawned() == str(spawn_objects.SHIPPED)
    other = json.loads(Path(spawned(role_name="hero", set=("carla.camera=eye",))).read_text())
    assert other["objects"][0]["id"] == "hero" and "eye" in sensors_of(other)
    with pytest.raises(ConfigError, match="spawn_point is for the shipped car"):
        spawned(objects=str(mine), spawn_point="0,0,0,0,0,0")


@pytest.mark.parametrize(
    "given, reason",
    [
        ({"port": "many"}, "port is a whole number"),
        ({"timeout": "long"}, "timeout is a whole number"),
        ({"town": "nonesuch.xodr"}, "town: there is no file nonesuch.xodr"),
    ],
)
def test_wrong_values_for_the_bridge_are_named(given: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        spawned(**given)
