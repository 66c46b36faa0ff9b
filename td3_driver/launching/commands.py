# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What runs with what: processes of train, drive, replay and simulate, and the options they take.

The launch files and the `td3-driver` command are both made from `COMMANDS`, so that an option or
a process is added here and nowhere else. Only launch files can start carla-ros-bridge, by the
launch files of its packages (`Include`); the command joins one that is running.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from td3_driver import config
from td3_driver.faults import Fault
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
    launch_only: bool = False
    """Whether only the launch files have it."""
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
    """Name of the node, of its file in executables/ and of its module in `td3_driver.nodes`."""
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
class Include:
    """A launch file of another package, with every argument it is to be given."""

    package: str
    file: str
    """Its name; in `share/<package>/`."""
    arguments: dict[str, str]


def _nothing(values: Mapping[str, Any]) -> list[Any]:
    return []


@dataclass(frozen=True)
class Command:
    """A set of processes that is started together, and the options it takes."""

    summary: str
    options: tuple[Option, ...]
    build: Callable[[Mapping[str, Any]], list[Process]]
    build_includes: Callable[[Mapping[str, Any]], list[Include]] = _nothing

    def processes(self, values: Mapping[str, Any]) -> list[Process]:
        """Return the processes in the order of their start; they are stopped in reverse.

        `values` gives every option's value by name. The last process is the one that the others
        serve: its end is the end of the whole. Raises ConfigError naming a wrong value.
        """
        return self.build(values)

    def includes(self, values: Mapping[str, Any]) -> list[Include]:
        """Return what a launch file starts before the processes; raises ConfigError."""
        return self.build_includes(values)


WORLD = Option(
    "world",
    "Where to drive: in the embedded simulator, which is started along, or in CARLA through "
    "carla-ros-bridge.",
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

START_BRIDGE = Option(
    "start_bridge",
    "Start carla-ros-bridge, the car and its route publisher too (with world:=carla); false joins "
    "those that are running.",
    default=True,
    launch_only=True,
)
BRIDGE_OPTIONS = (
    Option("host", "Host of the CARLA server.", default="localhost", launch_only=True),
    Option("port", "Port of the CARLA server.", default="2000", launch_only=True),
    Option(
        "timeout",
        "Seconds that the CARLA server may take to answer, and to load a town.",
        default="60",
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
CARLA_CONFIGURATION = "carla"
BRIDGE_PACKAGES = ("carla_ros_bridge", "carla_spawn_objects", "carla_waypoint_publisher")
RECORD = Option(
    "record",
    "Bag to record the drive into: a new folder, or true for one named by the time under bags/.",
)

# The trainer writes a checkpoint with the whole replay buffer before it ends.
TRAINER_STOP_TIMEOUT_S = 30.0
# Long enough for the driver to stand, and be told why, before it begins anew.
REPLAY_RESUME_DELAY_S = 0.1


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
    shared = _shared(values, _training_configuration(values))
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
    if values["baseline"] and values["policy"]:
        raise config.ConfigError("policy drives instead of a run's actor: not with baseline")
    shared = _shared(values, _driving_configuration(values))
    own = {
        **({"baseline": True} if values["baseline"] else {"run": values["run"]}),
        "policy": _policy_file(values["policy"]),
        "random_goal": values["random_goal"],
        "seed": _whole_number("seed", values["seed"]),
    }
    if values["shadow"]:
        own["driver.shadow"] = True
    if not values["ackermann_controller"]:
        driver = Process("driver", {**own, **shared})
        return [*_recorder(values, shared), *_simulator(values, shared), driver]
    alone = {"driver.publish_vehicle_control": False}
    return [
        *_recorder(values, shared),
        *_simulator(values, shared),
        Process("ackermann_controller", shared),
        Process("driver", {**own, **shared, **alone}),
    ]


def _training_configuration(values: Mapping[str, Any]) -> str:
    """Return the configuration given, or that of the earlier run, or what suits the world."""
    if values["config"]:
        return str(values["config"])
    earlier = values["resume"] or values["from"]
    return _run_configuration(earlier) if earlier else _configuration_of_world(values)


def _driving_configuration(values: Mapping[str, Any]) -> str:
    """Return the configuration given, or that of the run, or what suits the baseline's world."""
    if values["config"]:
        return str(values["config"])
    # The car, its camera and the task are those of the run.
    return _run_configuration(values["run"]) if values["run"] else _configuration_of_world(values)


def _configuration_of_world(values: Mapping[str, Any]) -> str:
    return CARLA_CONFIGURATION if values["world"] == "carla" else ""


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


def _train_bridge(values: Mapping[str, Any]) -> list[Include]:
    if values["world"] != "carla" or not values["start_bridge"]:
        return []
    return _bridge(values, _training_configuration(values))


def _drive_bridge(values: Mapping[str, Any]) -> list[Include]:
    if values["world"] != "carla" or not values["start_bridge"]:
        return []
    return _bridge(values, _driving_configuration(values))


def _bridge(values: Mapping[str, Any], configuration: str) -> list[Include]:
    """Return carla-ros-bridge in active synchronous mode, the car, and its route publisher.

    Every argument is given: some of their defaults are of no use (a list that becomes one string,
    a time limit of 2 s), and an argument left out takes the value of the including file's.
    """
    settings = effective_settings(values, configuration)
    role_name = settings.carla.role_name
    server = {
        "host": values["host"],
        "port": str(_whole_number("port", values["port"])),
        "timeout": str(_whole_number("timeout", values["timeout"])),
    }
    bridge, spawner, route_publisher = BRIDGE_PACKAGES
    return [
        Include(
            bridge,
            f"{bridge}.launch.py",
            {
                **server,
                "passive": "False",
                "synchronous_mode": "True",
                "synchronous_mode_wait_for_vehicle_control_command": "False",
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
    from td3_driver.roads.road_map import MAPS_FOLDER

    shipped = MAPS_FOLDER / f"{name}.xodr"
    if shipped.is_file():
        return str(shipped)
    if not name.endswith(".xodr"):
        return name
    if not Path(name).is_file():
        raise config.ConfigError(f"town: there is no file {name}")
    return str(Path(name).resolve())


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
    from td3_driver.bridge.recorded import recorded_pattern

    pattern = recorded_pattern(_in_effect(parameters).carla)
    return ("ros2", "bag", "record", "-s", "mcap", "-o", str(bag), "--regex", pattern)


def _replay(values: Mapping[str, Any]) -> list[Process]:
    from td3_driver.offline.bag import BagError
    from td3_driver.offline.frames import bag_names

    shared = _shared(values, _run_configuration(values["run"]))
    settings = _in_effect(shared)
    try:
        found = bag_names(values["bag"], settings.carla)
    except BagError as error:
        raise config.ConfigError(str(error)) from None
    names = {"carla.role_name": found.role_name, "carla.camera": found.camera}
    player = {
        "bag": values["bag"],
        "rate": _rate(values["rate"], settings),
        "loop": values["loop"],
        "clock": values["clock"],
    }
    # No car is at risk: after a jump of the clock, and whatever else is in the bag, it goes on.
    unharmed = {
        "driver.resume_after": [fault.value for fault in Fault],
        "driver.resume_delay_s": REPLAY_RESUME_DELAY_S,
    }
    watching = {"run": values["run"], "random_goal": False, **unharmed}
    return [
        Process("driver", {**watching, **shared, **names, "driver.shadow": True}),
        Process("player", {**player, **shared, **names}),
    ]


def _rate(text: str, settings: config.Config) -> float:
    """Return the speed of a replay; raises ConfigError where a driver cannot follow."""
    rate, driver = _number("rate", text), settings.driver
    silent_s = min(
        driver.camera_timeout_s, driver.odometry_timeout_s, driver.speedometer_timeout_s
    )
    slowest = settings.simulator.fixed_delta_s / silent_s
    if not rate > slowest:
        raise config.ConfigError(
            f"rate must be above {slowest:.2f}: with more than {silent_s:g} s from one image to "
            "the next, the driver takes the camera for silent"
        )
    return rate


def _run_configuration(run: str) -> str:
    """Return the path of a run's configuration; raises ConfigError if there is no such run."""
    return str(RunFolder(run).path / "config.yaml")


def _shared(values: Mapping[str, Any], configuration: str) -> Parameters:
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
    return _in_effect(_shared(values, configuration))


def _in_effect(parameters: Parameters) -> config.Config:
    """Return the configuration that a process with these parameters has."""
    settings = {name: value for name, value in parameters.items() if name != "config"}
    return config.override(_base(parameters.get("config", "")), settings, "the command")


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
            START_BRIDGE,
            *BRIDGE_OPTIONS,
            RECORD,
            ROLE_NAME,
            MAP,
            SET,
        ),
        _train,
        _train_bridge,
    ),
    "drive": Command(
        "Drive with the actor of a run, or with the baseline.",
        (
            Option("run", "Folder of the run, or its name under runs/.", positional=True),
            Option("baseline", "Follow the route by pure pursuit, without a run.", default=False),
            Option(
                "config",
                "Configuration to drive by, if not the run's, or the baseline's defaults.",
            ),
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
            Option(
                "ackermann_controller",
                "Leave the pedals to a node of their own, ackermann_controller, which follows the "
                "driver's Ackermann commands.",
                default=False,
            ),
            Option(
                "shadow",
                "Command nothing; publish what would be commanded, and how it differs from the "
                "commands of whoever drives.",
                default=False,
            ),
            WORLD,
            START_BRIDGE,
            *BRIDGE_OPTIONS,
            RECORD,
            ROLE_NAME,
            MAP,
            SET,
        ),
        _drive,
        _drive_bridge,
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

CARLA = Command(
    "Start carla-ros-bridge, the car and its route publisher, for others to join.",
    (
        Option(
            CONFIG.name,
            CONFIG.description,
            default=CARLA_CONFIGURATION,
            launch_only=True,
        ),
        *BRIDGE_OPTIONS,
        ROLE_NAME,
        SET,
    ),
    _nothing,
    lambda values: _bridge({**values, "map": ""}, values["config"]),
)

LAUNCHES: dict[str, Command] = {**COMMANDS, "carla": CARLA}
"""What the launch files start: the commands, and what only they can."""
