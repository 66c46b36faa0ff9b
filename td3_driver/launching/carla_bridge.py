# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How carla-ros-bridge is started: its options, and the launch files of its packages.

Only launch files can start it; the command line joins one that is running.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from td3_driver import config
from td3_driver.launching.parts import Include, LaunchCommand, Option
from td3_driver.launching.settings import (
    CONFIG,
    ROLE_NAME,
    SET,
    effective_settings,
    whole_number,
)
from td3_driver.roads.map_files import SUFFIX, is_shipped, map_file

CONFIGURATION = "carla"
PACKAGES = ("carla_ros_bridge", "carla_spawn_objects", "carla_waypoint_publisher")

# CARLA's server also uses the two ports above its own.
PORTS = (1, 65533)

START = Option(
    "start_bridge",
    "Start carla-ros-bridge, the car and its route publisher too (with world:=carla); false joins "
    "those that are running.",
    default=True,
    launch_only=True,
)
OPTIONS = (
    Option("host", "Host of the CARLA server.", default="localhost", launch_only=True),
    Option("port", "Port of the CARLA server.", default="2000", launch_only=True),
    Option(
        "timeout",
        "Seconds that the CARLA server may take to answer, and to load a town.",
        default="60",
        launch_only=True,
    ),
    Option(
        "wait_for_command",
        "Have the bridge wait up to 1 s in each tick for a vehicle command: simulated time then "
        "goes no faster than the driver, and crawls at one tick per second while nobody commands.",
        default=False,
        launch_only=True,
    ),
    Option(
        "town",
        "Town that the bridge loads: one of CARLA's, a shipped map, or the path of an OpenDRIVE "
        "file.",
        default="Town01",
        launch_only=True,
    ),
    Option(
        "objects",
        "Objects file for carla_spawn_objects; default: carla_objects.json, with the role name "
        "and the camera of the configuration.",
        launch_only=True,
    ),
    Option(
        "spawn_point",
        "Where the shipped car is put: x,y,z,roll,pitch,yaw (m, degrees, y to the left); default: "
        "one of the town's spawn points.",
        launch_only=True,
    ),
)


def includes_where_wanted(values: Mapping[str, Any], configuration: str) -> list[Include]:
    """Return the launch files to start beside our nodes; none where no bridge is wanted.

    `values` are the command's options; `configuration` is a name or path, or empty for the
    defaults. Raises ConfigError.
    """
    if values["world"] != "carla" or not values["start_bridge"]:
        return []
    return includes(values, configuration)


def includes(values: Mapping[str, Any], configuration: str) -> list[Include]:
    """Return carla-ros-bridge in active synchronous mode, the car, and its route publisher.

    Every argument is given: some of their defaults are of no use (a list that becomes one string,
    a time limit of 2 s), and an argument left out takes the value of the including file's.
    Raises ConfigError.
    """
    settings = effective_settings(values, configuration)
    role_name = settings.carla.role_name
    server = {
        "host": values["host"],
        "port": str(whole_number("port", values["port"], *PORTS)),
        "timeout": str(whole_number("timeout", values["timeout"], 1, 3600)),
    }
    waits = str(values["wait_for_command"])
    bridge, spawner, route_publisher = PACKAGES
    return [
        Include(
            bridge,
            f"{bridge}.launch.py",
            {
                **server,
                "passive": "False",
                "synchronous_mode": "True",
                "synchronous_mode_wait_for_vehicle_control_command": waits,
                "fixed_delta_seconds": str(settings.simulator.fixed_delta_s),
                "town": _town(values["town"]),
                "register_all_sensors": "False",
                "ego_vehicle_role_name": json.dumps([role_name]),
            },
        ),
        Include(
            spawner,
            f"{spawner}.launch.py",
            {
                "objects_definition_file": str(_objects_file(values, settings)),
                "spawn_point_ego_vehicle": "None",
                "spawn_sensors_only": "False",
            },
        ),
        Include(
            route_publisher,
            f"{route_publisher}.launch.py",
            {**server, "role_name": role_name},
        ),
    ]


def _town(name: str) -> str:
    """Return the path of a shipped map, or of a file; other names are CARLA's towns."""
    if not (is_shipped(name) or name.endswith(SUFFIX)):
        return name
    found = map_file(name)
    if found is None:
        raise config.ConfigError(f"town: there is no file {name}")
    return str(found.resolve())


def _objects_file(values: Mapping[str, Any], settings: config.Config) -> Path:
    from td3_driver.bridge import spawn_objects

    if not values["objects"]:
        content = spawn_objects.shipped(settings, values["spawn_point"])
        if content == json.loads(spawn_objects.SHIPPED.read_text()):
            return spawn_objects.SHIPPED
        path = Path(tempfile.mkdtemp(prefix="td3_driver-")) / spawn_objects.SHIPPED.name
        path.write_text(json.dumps(content, indent=2))
        return path
    path = Path(values["objects"]).resolve()
    if values["spawn_point"]:
        raise config.ConfigError("spawn_point is for the shipped car: write it into your objects")
    spawn_objects.load(path, settings)
    return path


COMMAND = LaunchCommand(
    "Start carla-ros-bridge, the car and its route publisher, for others to join.",
    (
        Option(CONFIG.name, CONFIG.description, default=CONFIGURATION, launch_only=True),
        *OPTIONS,
        ROLE_NAME,
        SET,
    ),
    lambda values: [],
    lambda values: includes({**values, "map": ""}, values["config"]),
)
