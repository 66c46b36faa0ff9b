# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The car and its sensors in the format of carla_spawn_objects, matched to the settings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from td3_driver.config import CONFIG_FOLDER, Config, ConfigError
from td3_driver.documents import DocumentError, in_short, load_json

SHIPPED = CONFIG_FOLDER / "carla_objects.json"

CAMERA = "sensor.camera.rgb"
CONTROL = "actor.pseudo.control"
# The sensors whose topics are needed, by type, with the id that names their topic.
SENSORS = {
    "sensor.pseudo.odom": "odometry",
    "sensor.pseudo.speedometer": "speedometer",
    "sensor.other.collision": "collision",
    "sensor.other.lane_invasion": "lane_invasion",
}
POSE_FIELDS = ("x", "y", "z", "roll", "pitch", "yaw")

Objects = dict[str, Any]


def shipped(config: Config, spawn_pose: str = "") -> Objects:
    """Return the shipped objects with the names and the camera of `config`.

    `spawn_pose` is "x,y,z,roll,pitch,yaw" in metres and degrees, ROS axes; if it is empty, CARLA
    chooses one of the map's spawn points. Raises ConfigError for any other text.
    """
    objects: Objects = json.loads(SHIPPED.read_text())
    (vehicle,) = objects["objects"]
    vehicle["id"] = config.carla.role_name
    if spawn_pose:
        vehicle["spawn_point"] = _parse_pose(spawn_pose)
    for sensor in vehicle["sensors"]:
        if sensor["type"] == CONTROL:
            sensor["id"] = config.carla.control
        elif sensor["type"] == CAMERA:
            _set_camera(sensor, config)
    return objects


def _parse_pose(text: str) -> dict[str, float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(POSE_FIELDS) or not all(map(math.isfinite, values)):
        raise ConfigError(f"spawn_point is {','.join(POSE_FIELDS)} (m, degrees), not {text!r}")
    return dict(zip(POSE_FIELDS, values, strict=True))


def _set_camera(sensor: dict[str, Any], config: Config) -> None:
    camera = config.simulator
    sensor["id"] = config.carla.camera
    # carla_spawn_objects takes an integer for none of these.
    sensor["spawn_point"].update(
        x=camera.camera_x_m, z=camera.camera_z_m, pitch=camera.camera_pitch_deg
    )
    sensor["image_size_x"] = camera.image_width_px
    sensor["image_size_y"] = camera.image_height_px
    sensor["fov"] = camera.camera_fov_deg


def load(path: Path, config: Config) -> Objects:
    """Read an objects file and check that it has what `config` names; raises ConfigError."""
    try:
        objects: Objects = load_json(path)
    except DocumentError as error:
        raise ConfigError(str(error)) from None
    lacking = _lacking(objects, config)
    if lacking:
        raise ConfigError(
            f"{path} does not fit the settings: {'; '.join(lacking)}. Change the file, or the "
            "settings carla.role_name, carla.camera and carla.control"
        )
    return objects


def _lacking(objects: Any, config: Config) -> list[str]:
    """List what the nodes need but the file lacks."""
    names = config.carla
    try:
        vehicles = {item["id"]: item for item in objects["objects"] if _is_vehicle(item)}
        vehicle = vehicles.get(names.role_name)
        if vehicle is None:
            found = in_short(", ".join(vehicles) or "none")
            return [f"no vehicle has the id {names.role_name!r} (vehicles: {found})"]
        sensors = {(item["type"], item["id"]) for item in vehicle.get("sensors", [])}
    except (KeyError, TypeError, AttributeError):
        return ["it is not a list of 'objects', each with 'type' and 'id'"]
    needed = {CAMERA: names.camera, CONTROL: names.control, **SENSORS}
    return [
        f"{names.role_name} has no {kind} with the id {name!r}"
        for kind, name in needed.items()
        if (kind, name) not in sensors
    ]


def _is_vehicle(item: dict[str, Any]) -> bool:
    return str(item["type"]).startswith("vehicle.")
