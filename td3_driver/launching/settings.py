# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""From the options of a command to the settings of its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from td3_driver import config
from td3_driver.documents import DocumentError, in_short, parse_yaml
from td3_driver.launching.parts import Option, Parameters

CONFIG = Option("config", "Name of a shipped configuration, or path of a YAML file.")
ROLE_NAME = Option(
    "role_name",
    "Role name of the car, if not the configuration's; topics: /carla/<role_name>/.",
)
MAP = Option(
    "map", "Map of the embedded simulator: a shipped name, or the path of an OpenDRIVE file."
)
NAMESPACE = Option(
    "namespace",
    "Namespace of the nodes; default: the one that an including launch file gives, else the role "
    f"name where that is not {config.CarlaConfig().role_name}, else none (/). Topics under /carla "
    "stay, as the bridge's do.",
)
LOG_LEVEL = Option(
    "log_level",
    "Least severity that the nodes log.",
    default="info",
    choices=("debug", "info", "warn", "error", "fatal"),
)
PARAMS_FILE = Option(
    "params_file",
    "ROS parameter file over the configuration; each node takes what is headed by its name or a "
    "wildcard.",
)
USE_SIM_TIME = Option(
    "use_sim_time",
    "Stamp /diagnostics and the log with simulation time (/clock) instead of the system's.",
    default=False,
)
SEEDS = (0, 2**31 - 1)
SET = Option("set", "A setting over the configuration's, as section.setting=value.", default=())


def setting_overrides(assignments: Sequence[str], base: config.Config) -> Parameters:
    """Return `section.setting=value` assignments as ROS parameters of the settings' types.

    Raises ConfigError for an unknown setting, or a value that is wrong beside those of `base`.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not (equals and "." in name):
            raise config.ConfigError(
                f"{config.shown(assignment)} is not of the form section.setting=value"
            )
        try:
            values[name] = parse_yaml(text, name)
        except DocumentError:
            raise config.ConfigError(
                f"{in_short(name)}: {config.shown(text)} is not a value"
            ) from None
    checked = config.override(base, values, "the command").model_dump(mode="json")
    return {name: _setting(checked, name) for name in values}


def _setting(sections: Mapping[str, Any], name: str) -> Any:
    section, _, setting = name.partition(".")
    return sections[section][setting]


def shared_parameters(values: Mapping[str, Any], configuration: str) -> Parameters:
    """Return the parameters of every process: configuration, role name, map and settings.

    `configuration` is a name or a path, or empty for the defaults. Raises ConfigError.
    """
    base = _base(configuration, values.get("params_file", ""))
    parameters: Parameters = {"config": configuration} if configuration else {}
    if values.get("role_name"):
        parameters["carla.role_name"] = values["role_name"]
    if values.get("map"):
        _check_map(values["map"])
        parameters["simulator.map"] = values["map"]
    return {**parameters, **setting_overrides(values["set"], base)}


def _base(configuration: str, params_file: str = "") -> config.Config:
    base = config.load(configuration) if configuration else config.Config()
    if not params_file:
        return base
    if not Path(params_file).is_file():
        raise config.ConfigError(f"params_file: there is no file {params_file}")
    given = config.read_parameters(Path(params_file))
    sections = base.model_dump()
    for section, names in given.items():
        if section in sections:
            # Anything but names is refused by the section's own name.
            sections[section] = (
                {**sections[section], **names} if isinstance(names, dict) else names
            )
    return config.build(sections, params_file)


def effective_settings(values: Mapping[str, Any], configuration: str) -> config.Config:
    """Return the settings that the processes will have; raises ConfigError."""
    return settings_of(values, shared_parameters(values, configuration))


def settings_of(values: Mapping[str, Any], shared: Parameters) -> config.Config:
    """Return the settings of a command's processes with these `shared_parameters`.

    A parameter file's settings count whichever node they are for. Raises ConfigError.
    """
    settings = {name: value for name, value in shared.items() if name != "config"}
    base = _base(shared.get("config", ""), values.get("params_file", ""))
    return config.override(base, settings, "the command")


def nodes_namespace(values: Mapping[str, Any], shared: Parameters) -> str:
    """Return the full namespace of a command's nodes, "/" for none; raises ConfigError."""
    given = values["namespace"]
    if not given:
        role_name = settings_of(values, shared).carla.role_name
        given = "" if role_name == config.CarlaConfig().role_name else role_name
    namespace = "/" + given.strip("/")
    parts = namespace[1:].split("/")
    fits = len(namespace) <= config.LONGEST_ROS_NAME
    if namespace != "/" and not (fits and all(map(config.ROS_NAME.fullmatch, parts))):
        raise config.ConfigError(
            f"namespace: {config.shown(given)} is none; it is made of names of letters, digits "
            f"and _, such as /left or /fleet/left, and has at most {config.LONGEST_ROS_NAME} "
            "characters"
        )
    return namespace


def under_namespace(pushed: str, given: str) -> str:
    """Return the namespace that is `given` below one that a launch file has `pushed`."""
    if not pushed or given.startswith("/"):
        return given
    return f"{pushed.rstrip('/')}/{given}".rstrip("/") or "/"


def _check_map(name: str) -> None:
    from td3_driver.roads.road_map import RoadMap, RoadMapError  # brings CARLA's library

    try:
        RoadMap.load(name)
    except RoadMapError as error:
        raise config.ConfigError(str(error)) from None


def whole_number(name: str, text: str, lowest: int, highest: int) -> int:
    """Return the value of an option that is a whole number from `lowest` to `highest`.

    Raises ConfigError naming it, its value and the range.
    """
    try:
        value = int(text)
    except ValueError:
        value = None
    if value is None or not lowest <= value <= highest:
        raise config.ConfigError(
            f"{name} is a whole number from {lowest} to {highest}, not {text!r}"
        )
    return value


def number(name: str, text: str) -> float:
    """Return the value of an option that is a number; raises ConfigError naming it."""
    try:
        return float(text)
    except ValueError:
        raise config.ConfigError(f"{name} is a number, not {text!r}") from None
