"""What runs with what: the processes of train, drive and simulate, and the options they take.

The launch files and the `td3-driver` command are both made from `COMMANDS`, so that an option or
a process is added here and nowhere else.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from td3_driver import config
from td3_driver.runs import RunFolder

PACKAGE = "td3_driver"

OptionValue = str | bool | tuple[str, ...]
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Option:
    """One option of a command: a launch argument, and an option of the command line."""

    name: str
    description: str
    default: OptionValue | None = ""
    """None: must be given. A bool: a switch. A tuple: may be given several times."""
    choices: tuple[str, ...] = ()

    def parse(self, text: str) -> OptionValue:
        """Return the value that a launch argument's text means; raises ConfigError."""
        if isinstance(self.default, bool):
            if text.lower() not in ("true", "false"):
                raise config.ConfigError(f"{self.name} is true or false, not {text!r}")
            return text.lower() == "true"
        if isinstance(self.default, tuple):
            return tuple(shlex.split(text))
        return text

    def format(self) -> str | None:
        """Return the default as a launch argument's text, None where there is no default."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        if isinstance(self.default, tuple):
            return shlex.join(self.default)
        return self.default


@dataclass(frozen=True)
class Process:
    """One ROS node in a process of its own."""

    name: str
    """Name of the node, of the package's executable and of its module in `td3_driver.nodes`."""
    parameters: Parameters = field(default_factory=dict)
    essential: bool = True
    """The others end when this one does."""
    stop_timeout_s: float = 5.0
    """Time to end after SIGINT, before SIGTERM is sent."""

    def ros_arguments(self) -> list[str]:
        """Return what follows `--ros-args` on the node's command line."""
        # ROS reads a value as YAML, of which JSON is a part; its quotes keep "1" a string.
        assignments = [f"{name}:={json.dumps(value)}" for name, value in self.parameters.items()]
        return [part for assignment in assignments for part in ("-p", assignment)]

    def command_line(self) -> list[str]:
        """Return the command that runs the node with this interpreter, without `ros2 run`."""
        module = f"{PACKAGE}.nodes.{self.name}"
        return [sys.executable, "-m", module, "--ros-args", *self.ros_arguments()]


@dataclass(frozen=True)
class Command:
    """A set of processes that is started together, and the options it takes."""

    summary: str
    options: tuple[Option, ...]
    build: Callable[[Mapping[str, Any]], list[Process]]

    def processes(self, values: Mapping[str, Any]) -> list[Process]:
        """Return the processes in the order of their start; they are stopped in reverse.

        `values` gives every option's value by name. The last process is the one that the others
        serve: its end is the end of the whole. Raises ConfigError naming a wrong value.
        """
        return self.build(values)


WORLD = Option(
    "world",
    "Where to drive: in the embedded simulator, which is started along, or in a CARLA whose "
    "carla-ros-bridge is running already.",
    default="embedded",
    choices=("embedded", "carla"),
)
CONFIG = Option("config", "Name of a shipped configuration, or path of a YAML file.")
ROLE_NAME = Option(
    "role_name",
    "Role name of the car, if not the configuration's; topics: /carla/<role_name>/.",
)
MAP = Option(
    "map", "Map of the embedded simulator: a shipped name, or the path of an OpenDRIVE file."
)
SET = Option("set", "A setting over the configuration's, as section.setting=value.", default=())

# The trainer writes a checkpoint with the whole replay buffer before it ends.
TRAINER_STOP_TIMEOUT_S = 30.0


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


def _train(values: Mapping[str, Any]) -> list[Process]:
    resumed = _run_configuration(values["resume"]) if values["resume"] else ""
    shared = _shared(values, values["config"] or resumed)
    own = {name: values[name] for name in ("run", "resume") if values[name]}
    own["evaluate_at_end"] = values["evaluate"]
    if values["map"]:
        own["training.maps"] = [values["map"]]
    trainer = Process("trainer", {**own, **shared}, stop_timeout_s=TRAINER_STOP_TIMEOUT_S)
    return [*_simulator(values, shared), trainer]


def _drive(values: Mapping[str, Any]) -> list[Process]:
    # The car, its camera and the task are those of the run.
    shared = _shared(values, _run_configuration(values["run"]))
    own = {
        "run": values["run"],
        "policy": _policy_file(values["policy"]),
        "random_goal": values["random_goal"],
        "seed": _whole_number("seed", values["seed"]),
    }
    return [*_simulator(values, shared), Process("driver", {**own, **shared})]


def _simulate(values: Mapping[str, Any]) -> list[Process]:
    return [Process("simulator", _shared(values, values["config"]))]


def _simulator(values: Mapping[str, Any], parameters: Parameters) -> list[Process]:
    """Return the embedded simulator where that is the world."""
    if values["world"] == "embedded":
        return [Process("simulator", parameters)]
    if values["map"]:
        raise config.ConfigError(
            "map is for the embedded simulator; CARLA's map is its bridge's choice"
        )
    return []


def _run_configuration(run: str) -> str:
    """Return the path of a run's configuration; raises ConfigError if there is no such run."""
    return str(RunFolder(run).path / "config.yaml")


def _shared(values: Mapping[str, Any], configuration: str) -> Parameters:
    """Return the parameters of every process: configuration, role name, map and settings.

    `configuration` is a name or a path, or empty for the defaults. Raises ConfigError.
    """
    base = config.load(configuration) if configuration else config.Config()
    parameters: Parameters = {"config": configuration} if configuration else {}
    if values["role_name"]:
        parameters["carla.role_name"] = values["role_name"]
    if values["map"]:
        _check_map(values["map"])
        parameters["simulator.map"] = values["map"]
    return {**parameters, **setting_overrides(values["set"], base)}


def _policy_file(path: str) -> str:
    """Return the absolute path of a policy file, empty where none is named."""
    if path and not Path(path).is_file():
        raise config.ConfigError(f"no policy file {path!r}: td3-driver export RUN writes one")
    return str(Path(path).resolve()) if path else ""


def _check_map(name: str) -> None:
    from td3_driver.roads.road_map import RoadMap, RoadMapError  # brings CARLA's library

    try:
        RoadMap.load(name)
    except RoadMapError as error:
        raise config.ConfigError(str(error)) from None


def _whole_number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise config.ConfigError(f"{name} is a whole number, not {text!r}") from None


COMMANDS: dict[str, Command] = {
    "train": Command(
        "Train a driver from camera images.",
        (
            CONFIG,
            Option("run", "Name of the run's new folder under runs/, or its path."),
            Option("resume", "Run to go on with, with its configuration unless one is given."),
            Option("evaluate", "Evaluate on the held-out maps at the end.", default=False),
            WORLD,
            ROLE_NAME,
            MAP,
            SET,
        ),
        _train,
    ),
    "drive": Command(
        "Drive with the actor of a run.",
        (
            Option("run", "Folder of the run, or its name under runs/.", default=None),
            Option(
                "policy",
                "ONNX file of td3-driver export that drives instead of the run's actor.",
            ),
            Option(
                "random_goal",
                "Choose a goal at random whenever there is none.",
                default=True,
            ),
            Option("seed", "Seed of the random goals.", default="0"),
            WORLD,
            ROLE_NAME,
            MAP,
            SET,
        ),
        _drive,
    ),
    "simulate": Command(
        "Run the embedded simulator alone.", (CONFIG, ROLE_NAME, MAP, SET), _simulate
    ),
}
