# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What runs with what: processes of train, drive, replay and simulate, and the options they take.

The launch files and the `td3-driver` command are both made from `COMMANDS`, so that an option or
a process is added here and nowhere else. In CARLA, launch files also start its bridge
(`carla_bridge.py`).
"""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from td3_driver import config
from td3_driver.faults import Fault
from td3_driver.launching import carla_bridge
from td3_driver.launching.parts import Include, LaunchCommand, Option, Parameters, Process
from td3_driver.launching.settings import (
    CONFIG,
    LOG_LEVEL,
    MAP,
    NAMESPACE,
    PARAMS_FILE,
    ROLE_NAME,
    SEEDS,
    SET,
    USE_SIM_TIME,
    nodes_namespace,
    number,
    settings_of,
    shared_parameters,
    whole_number,
)
from td3_driver.runs import RunFolder

BAGS = Path("bags")

WORLD = Option(
    "world",
    "Where to drive: in the embedded simulator, which is started along, or in CARLA through "
    "carla-ros-bridge.",
    default="embedded",
    choices=("embedded", "carla"),
)
RECORD = Option(
    "record",
    "Bag to record the drive into: a new folder, or true for one named by the time under bags/.",
)

# What every node can be started with.
NODES = (NAMESPACE, LOG_LEVEL, PARAMS_FILE)
# Whose clock stamps /diagnostics and the log; a bag's times are the system's.
FOLLOW_CLOCK = ("trainer", "driver", "ackermann_controller")
# The trainer writes a checkpoint with the whole replay buffer before it ends.
TRAINER_STOP_TIMEOUT_S = 30.0
# Of a driver to end, once its car stands.
DRIVER_END_S = 2.5
# Long enough for the driver to stand, and to report why, before it begins anew.
REPLAY_RESUME_DELAY_S = 0.1


def _train(values: Mapping[str, Any]) -> list[Process]:
    if values["resume"] and values["from"]:
        raise config.ConfigError("resume goes on with a run, from begins a new one: give one")
    shared = {**_fleet(values), **shared_parameters(values, _training_configuration(values))}
    own = {name: values[name] for name in ("run", "resume", "from") if values[name]}
    if values["from"]:
        shared.setdefault("training.random_steps", 0)  # there is a policy to explore with
    own["evaluate_at_end"] = values["evaluate"]
    if values["map"]:
        own["training.maps"] = [values["map"]]
    trainer = Process("trainer", {**own, **shared}, stop_timeout_s=TRAINER_STOP_TIMEOUT_S)
    fleet = settings_of(values, shared).fleet
    if fleet.collectors:
        return _as_wanted(values, shared, [*_collectors_world(values, fleet), trainer])
    return _as_wanted(
        values, shared, [*_recorder(values, shared), *_simulator(values, shared), trainer]
    )


def _fleet(values: Mapping[str, Any]) -> Parameters:
    """Return the settings that the options of collectors stand for."""
    parameters: Parameters = {}
    if values["collectors"]:
        parameters["fleet.collectors"] = whole_number(
            "collectors", values["collectors"], 0, config.MOST_COLLECTORS
        )
    if values["cluster"]:
        parameters["fleet.cluster"] = values["cluster"]
    return parameters


def _collectors_world(values: Mapping[str, Any], fleet: config.FleetConfig) -> list[Process]:
    """Return what runs beside a trainer with collectors: nothing; raises ConfigError."""
    if values["world"] != "embedded" and fleet.simulator != "command":
        raise config.ConfigError(
            "collectors start their simulators themselves: for carla set fleet.simulator to "
            "command, and fleet.simulator_command (docs/fleet.md)"
        )
    if values["record"].lower() not in ("", "false"):
        raise config.ConfigError("collectors' topics are their own: there is nothing to record")
    return []


def _drive(values: Mapping[str, Any]) -> list[Process]:
    if bool(values["run"]) == values["baseline"]:
        raise config.ConfigError("name the run to drive with, or say baseline: one of the two")
    if values["baseline"] and values["policy"]:
        raise config.ConfigError("policy drives instead of a run's actor: not with baseline")
    shared = shared_parameters(values, _driving_configuration(values))
    own = {
        **({"baseline": True} if values["baseline"] else {"run": values["run"]}),
        "policy": _policy_file(values["policy"]),
        "random_goal": values["random_goal"],
        "seed": whole_number("seed", values["seed"], *SEEDS),
    }
    if values["shadow"]:
        own["driver.shadow"] = True
    standstill_timeout_s = settings_of(values, shared).driver.standstill_timeout_s
    stop_timeout_s = standstill_timeout_s + DRIVER_END_S
    if not values["ackermann_controller"]:
        driving = [Process("driver", {**own, **shared}, stop_timeout_s=stop_timeout_s)]
    else:
        alone = {"driver.publish_vehicle_control": False}
        driving = [
            Process("ackermann_controller", shared),
            Process("driver", {**own, **shared, **alone}, stop_timeout_s=stop_timeout_s),
        ]
    return _as_wanted(
        values, shared, [*_recorder(values, shared), *_simulator(values, shared), *driving]
    )


def _as_wanted(
    values: Mapping[str, Any], shared: Parameters, processes: list[Process]
) -> list[Process]:
    """Return the processes with what the options say of every node: where it is, how it logs."""
    namespace = nodes_namespace(values, shared)
    file = str(Path(values["params_file"]).resolve()) if values["params_file"] else ""
    log_level = "" if values["log_level"] == LOG_LEVEL.default else values["log_level"]
    return [
        replace(
            process,
            namespace=namespace,
            log_level=log_level,
            parameters_file=file,
            parameters={**process.parameters, **_clock(values, process)},
        )
        for process in processes
    ]


def _clock(values: Mapping[str, Any], process: Process) -> Parameters:
    """Return the parameter that has a node live by /clock: not those that publish it."""
    lives_by_it = values.get("use_sim_time") and process.name in FOLLOW_CLOCK
    return {"use_sim_time": True} if lives_by_it else {}


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
    return carla_bridge.CONFIGURATION if values["world"] == "carla" else ""


def _simulate(values: Mapping[str, Any]) -> list[Process]:
    shared = shared_parameters(values, values["config"])
    return _as_wanted(values, shared, [Process("simulator", shared)])


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
    shared = {**_fleet(values), **shared_parameters(values, _training_configuration(values))}
    if settings_of(values, shared).fleet.collectors:
        return []  # They start one each.
    return carla_bridge.includes_where_wanted(values, _training_configuration(values))


def _drive_bridge(values: Mapping[str, Any]) -> list[Include]:
    return carla_bridge.includes_where_wanted(values, _driving_configuration(values))


def _recorder(values: Mapping[str, Any], parameters: Parameters) -> list[Process]:
    """Return what records, first of all so that it ends last; raises ConfigError for a bag."""
    text = values["record"]
    if text.lower() in ("", "false"):
        return []
    bag = BAGS / time.strftime("%Y%m%d-%H%M%S") if text.lower() == "true" else Path(text)
    if bag.exists():
        raise config.ConfigError(f"{bag} exists, and no bag is overwritten: name another one")
    tool = _ros2_bag_record(bag, values, parameters) if _ros2_bag_writes_mcap() else ()
    return [Process("recorder", {"bag": str(bag), **parameters}, essential=False, tool=tool)]


def _ros2_bag_writes_mcap() -> bool:
    """Say whether `ros2 bag` is there with its plugin for MCAP, which Humble lacks by default."""
    if not shutil.which("ros2") or importlib.util.find_spec("ros2bag") is None:
        return False
    from ament_index_python import has_resource

    try:
        return bool(has_resource("rosbag2_storage__pluginlib__plugin", "rosbag2_storage_mcap"))
    except OSError:  # Nothing is sourced.
        return False


def _ros2_bag_record(bag: Path, values: Mapping[str, Any], shared: Parameters) -> tuple[str, ...]:
    """Return the command that records the same topics, in every distribution since Humble."""
    from td3_driver.bridge.driver_topics import NODE_NAME
    from td3_driver.bridge.recorded import recorded_pattern

    driver = f"{nodes_namespace(values, shared).rstrip('/')}/{NODE_NAME}"
    pattern = recorded_pattern(settings_of(values, shared).carla, driver)
    return ("ros2", "bag", "record", "-s", "mcap", "-o", str(bag), "--regex", pattern)


def _replay(values: Mapping[str, Any]) -> list[Process]:
    from td3_driver.offline.bag import BagError
    from td3_driver.offline.bag_names import bag_names

    shared = shared_parameters(values, _run_configuration(values["run"]))
    settings = settings_of(values, shared)
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
    return _as_wanted(
        values,
        {**shared, **names},
        [
            Process("driver", {**watching, **shared, **names, "driver.shadow": True}),
            Process("player", {**player, **shared, **names}),
        ],
    )


def _rate(text: str, settings: config.Config) -> float:
    """Return the speed of a replay; raises ConfigError where a driver cannot follow."""
    rate, driver = number("rate", text), settings.driver
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


def _policy_file(path: str) -> str:
    """Return the absolute path of a policy file, empty where none is named."""
    if path and not Path(path).is_file():
        raise config.ConfigError(f"no policy file {path!r}: td3-driver export RUN writes one")
    return str(Path(path).resolve()) if path else ""


COMMANDS: dict[str, LaunchCommand] = {
    "train": LaunchCommand(
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
            Option(
                "collectors",
                "Simulators that collect side by side, each in a process that starts along; "
                "default: the configuration's fleet.collectors.",
            ),
            Option(
                "cluster",
                "Where they run: none = on this machine; auto, or an address = on that Ray "
                "cluster; default: the configuration's fleet.cluster.",
            ),
            Option("evaluate", "Evaluate on the held-out maps at the end.", default=False),
            WORLD,
            carla_bridge.START,
            *carla_bridge.OPTIONS,
            RECORD,
            ROLE_NAME,
            MAP,
            *NODES,
            USE_SIM_TIME,
            SET,
        ),
        _train,
        _train_bridge,
    ),
    "drive": LaunchCommand(
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
            carla_bridge.START,
            *carla_bridge.OPTIONS,
            RECORD,
            ROLE_NAME,
            MAP,
            *NODES,
            USE_SIM_TIME,
            SET,
        ),
        _drive,
        _drive_bridge,
    ),
    "replay": LaunchCommand(
        "Play a bag to the driver, who decides without anybody obeying (shadow mode).",
        (
            Option("bag", "Bag to play: a folder, or a file .mcap, .db3 or .bag.", default=None),
            Option("run", "Folder of the run, or its name under runs/.", default=None),
            Option("rate", "Speed of the playing, times that of the recording.", default="1.0"),
            Option("loop", "Play the bag over and over.", default=False),
            Option("clock", "Publish /clock from the stamps, for a bag without.", default=True),
            *NODES,
            USE_SIM_TIME,
            SET,
        ),
        _replay,
    ),
    "simulate": LaunchCommand(
        "Run the embedded simulator alone.", (CONFIG, ROLE_NAME, MAP, *NODES, SET), _simulate
    ),
}

LAUNCHES: dict[str, LaunchCommand] = {**COMMANDS, "carla": carla_bridge.COMMAND}
"""What the launch files start: the commands, and what only they can."""
