"""What runs with what: processes of train, drive, replay and simulate, and the options they take.

The launch files and the `td3-driver` command are both made from `COMMANDS`, so that an option or
a process is added here and nowhere else.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from td3_driver import config
from td3_driver.runs import RunFolder

PACKAGE = "td3_driver"
BAGS = Path("bags")

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
    positional: bool = False
    """Whether the command line takes it without dashes, though it may be left out."""

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
    tool: tuple[str, ...] = ()
    """Command line of another program that does the node's work."""

    def ros_arguments(self) -> list[str]:
        """Return what follows `--ros-args` on the node's command line."""
        # ROS reads a value as YAML, of which JSON is a part; its quotes keep "1" a string.
        assignments = [f"{name}:={json.dumps(value)}" for name, value in self.parameters.items()]
        return [part for assignment in assignments for part in ("-p", assignment)]

    def command_line(self) -> list[str]:
        """Return the command that runs the node with this interpreter, or the tool."""
        if self.tool:
            return list(self.tool)
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

RECORD = Option(
    "record",
    "Bag to record the drive into: a new folder, or true for one named by the time under bags/.",
)

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
    if values["resume"] and values["from"]:
        raise config.ConfigError("resume goes on with a run, from begins a new one: give one")
    earlier = values["resume"] or values["from"]
    shared = _shared(values, values["config"] or (_run_configuration(earlier) if earlier else ""))
    own = {name: values[name] for name in ("run", "resume", "from") if values[name]}
    if values["from"]:
        shared.setdefault("training.random_steps", 0)  # there is a policy to explore with
    own["evaluate_at_end"] = values["evaluate"]
    if values["map"]:
        own["training.maps"] = [values["map"]]
    trainer = Process("trainer", {**own, **shared}, stop_timeout_s=TRAINER_STOP_TIMEOUT_S)
    return [*_recorder(values, shared), *_simulator(values, shared), trainer]


def _drive(values: Mapping[str, Any]) -> list[Process]:
    if bool(values["run"]) == values["baseline"]:
        raise config.ConfigError("name the run to drive with, or say baseline: one of the two")
    # The car, its camera and the task are those of the run.
    configuration = _run_configuration(values["run"]) if values["run"] else ""
    shared = _shared(values, values["config"] or configuration)
    own = {
        **({"baseline": True} if values["baseline"] else {"run": values["run"]}),
        "random_goal": values["random_goal"],
        "seed": _whole_number("seed", values["seed"]),
    }
    driver = Process("driver", {**own, **shared})
    return [*_recorder(values, shared), *_simulator(values, shared), driver]


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


def _recorder(values: Mapping[str, Any], parameters: Parameters) -> list[Process]:
    """Return what records, first of all so that it ends last; raises ConfigError for a bag."""
    text = values["record"]
    if text.lower() in ("", "false"):
        return []
    bag = BAGS / time.strftime("%Y%m%d-%H%M%S") if text.lower() == "true" else Path(text)
    if bag.exists():
        raise config.ConfigError(f"{bag} exists, and no bag is overwritten: name another one")
    tool = _ros2_bag_record(bag, parameters) if _has_ros2_bag() else ()
    return [Process("recorder", {"bag": str(bag), **parameters}, essential=False, tool=tool)]


def _has_ros2_bag() -> bool:
    return bool(shutil.which("ros2")) and importlib.util.find_spec("ros2bag") is not None


def _ros2_bag_record(bag: Path, parameters: Parameters) -> tuple[str, ...]:
    """Return the command that records the same topics, in every distribution since Humble."""
    from td3_driver.carla.topics import recorded_pattern

    pattern = recorded_pattern(_in_effect(parameters).carla)
    return ("ros2", "bag", "record", "-s", "mcap", "-o", str(bag), "--regex", pattern)


def _in_effect(parameters: Parameters) -> config.Config:
    """Return the configuration that a process with these parameters has."""
    base = config.load(parameters["config"]) if "config" in parameters else config.Config()
    settings = {name: value for name, value in parameters.items() if name != "config"}
    return config.override(base, settings, "the command")


def _replay(values: Mapping[str, Any]) -> list[Process]:
    from td3_driver.offline.bag import BagError
    from td3_driver.offline.frames import bag_names

    shared = _shared(values, _run_configuration(values["run"]))
    try:
        found = bag_names(values["bag"], _in_effect(shared).carla)
    except BagError as error:
        raise config.ConfigError(str(error)) from None
    names = {"carla.role_name": found.role_name, "carla.camera": found.camera}
    player = {
        "bag": values["bag"],
        "rate": _number("rate", values["rate"]),
        "loop": values["loop"],
        "clock": values["clock"],
    }
    driver = {"run": values["run"], "shadow": True, "random_goal": False, **shared, **names}
    return [Process("driver", driver), Process("player", player)]


def _run_configuration(run: str) -> str:
    """Return the path of a run's configuration; raises ConfigError if there is no such run."""
    return str(RunFolder(run).path / "config.yaml")


def _shared(values: Mapping[str, Any], configuration: str) -> Parameters:
    """Return the parameters of every process: configuration, role name, map and settings.

    `configuration` is a name or a path, or empty for the defaults. Raises ConfigError.
    """
    base = config.load(configuration) if configuration else config.Config()
    parameters: Parameters = {"config": configuration} if configuration else {}
    if values.get("role_name"):
        parameters["carla.role_name"] = values["role_name"]
    if values.get("map"):
        _check_map(values["map"])
        parameters["simulator.map"] = values["map"]
    return {**parameters, **setting_overrides(values["set"], base)}


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


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise config.ConfigError(f"{name} is a number, not {text!r}") from None


COMMANDS: dict[str, Command] = {
    "train": Command(
        "Train a driver from camera images.",
        (
            CONFIG,
            Option("run", "Name of the run's new folder under runs/, or its path."),
            Option("resume", "Run to go on with, with its configuration unless one is given."),
            Option(
                "from",
                "Run, such as a pretrained one, from whose networks and transitions a new run "
                "goes on; with its configuration unless one is given.",
            ),
            Option("evaluate", "Evaluate on the held-out maps at the end.", default=False),
            WORLD,
            RECORD,
            ROLE_NAME,
            MAP,
            SET,
        ),
        _train,
    ),
    "drive": Command(
        "Drive with the actor of a run, or with the baseline.",
        (
            Option("run", "Folder of the run, or its name under runs/.", positional=True),
            Option("baseline", "Follow the route by pure pursuit, without a run.", default=False),
            Option("config", "Configuration of the baseline's drive, if not the defaults."),
            Option(
                "random_goal",
                "Choose a goal at random whenever there is none.",
                default=True,
            ),
            Option("seed", "Seed of the random goals.", default="0"),
            WORLD,
            RECORD,
            ROLE_NAME,
            MAP,
            SET,
        ),
        _drive,
    ),
    "replay": Command(
        "Play a bag to the driver, who decides without anybody obeying (shadow mode).",
        (
            Option("bag", "Bag to play: a folder, or a file .mcap, .db3 or .bag.", default=None),
            Option("run", "Folder of the run, or its name under runs/.", default=None),
            Option("rate", "Speed of the playing, times that of the recording.", default="1.0"),
            Option("loop", "Play the bag over and over.", default=False),
            Option("clock", "Publish /clock from the stamps, for a bag without.", default=True),
            SET,
        ),
        _replay,
    ),
    "simulate": Command(
        "Run the embedded simulator alone.", (CONFIG, ROLE_NAME, MAP, SET), _simulate
    ),
}
