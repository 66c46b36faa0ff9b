# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""From the options of a command to the settings of its processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from td3_driver import config
from td3_driver.launching.parts import Option, Parameters

CONFIG = Option("config", "Name of a shipped configuration, or path of a YAML file.")
ROLE_NAME = Option(
    "role_name",
    "Role name of the car, if not the configuration's; topics: /carla/<role_name>/.",
)
MAP = Option(
    "map", "Map of the embedded simulator: a shipped name, or the path of an OpenDRIVE file."
)
SET = Option("set", "A setting over the configuration's, as section.setting=value.", default=())


def setting_overrides(assignments: Sequence[str], base: config.Config) -> Parameters:
    """Return `section.setting=value` assignments as ROS parameters of the settings' types.

    Raises ConfigError for an unknown setting, or a value that is wrong beside those of `base`.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not (equals and "." in name):
            raise config.ConfigError(f"{assignment!r} is not of the form section.setting=value")
        try:
            values[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise config.ConfigError(f"{name}: {text!r} is not a value") from None
    checked = config.override(base, values, "the command").model_dump(mode="json")
    return {name: _setting(checked, name) for name in values}


def _setting(sections: Mapping[str, Any], name: str) -> Any:
    section, _, setting = name.partition(".")
    return sections[section][setting]


def shared_parameters(values: Mapping[str, Any], configuration: str) -> Parameters:
    """Return the parameters of every process: configuration, role name, map and settings.

    `configuration` is a name or a path, or empty for the defaults. Raises ConfigError.
    """
    base = _base(configuration)
    parameters: Parameters = {"config": configuration} if configuration else {}
    if values.get("role_name"):
        parameters["carla.role_name"] = values["role_name"]
    if values.get("map"):
        _check_map(values["map"])
        parameters["simulator.map"] = values["map"]
    return {**parameters, **setting_overrides(values["set"], base)}


def _base(configuration: str) -> config.Config:
    return config.load(configuration) if configuration else config.Config()


def effective_settings(values: Mapping[str, Any], configuration: str) -> config.Config:
    """Return the settings that the processes will have; raises ConfigError."""
    return settings_of(shared_parameters(values, configuration))


def settings_of(parameters: Parameters) -> config.Config:
    """Return the configuration that a process with these parameters has."""
    settings = {name: value for name, value in parameters.items() if name != "config"}
    return config.override(_base(parameters.get("config", "")), settings, "the command")


def _check_map(name: str) -> None:
    from td3_driver.roads.road_map import RoadMap, RoadMapError  # brings CARLA's library

    try:
        RoadMap.load(name)
    except RoadMapError as error:
        raise config.ConfigError(str(error)) from None


def whole_number(name: str, text: str) -> int:
    """Return the value of an option that is a whole number; raises ConfigError naming it."""
    try:
        return int(text)
    except ValueError:
        raise config.ConfigError(f"{name} is a whole number, not {text!r}") from None


def number(name: str, text: str) -> float:
    """Return the value of an option that is a number; raises ConfigError naming it."""
    try:
        return float(text)
    except ValueError:
        raise config.ConfigError(f"{name} is a number, not {text!r}") from None
