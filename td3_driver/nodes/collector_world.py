# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A collector's world over topics: a simulator of its own, in a ROS domain of its own.

The collector's process starts the simulator in its process group, and both end together.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import rclpy
import yaml
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from td3_driver.bridge import runtime
from td3_driver.config import Config, ConfigError
from td3_driver.driving.environment import DrivingEnv
from td3_driver.fleet.child import SIMULATOR_ENDED, die_with_parent
from td3_driver.fleet.gathering import Brief
from td3_driver.launching import fastdds
from td3_driver.launching.parts import Process
from td3_driver.lockstep.starts import make_sampler
from td3_driver.lockstep.world import CarlaWorld

MOST_SLOTS = 100
"""Of one machine."""
PORTS_APART = 10
"""CARLA takes three ports from the first one on."""
ONLY_KNOWS_LOCALHOST = ("humble",)
"""Distributions without ROS_AUTOMATIC_DISCOVERY_RANGE."""

_held: list[int] = []
"""The slot's lock, which ends with the process."""


def over_topics(brief: Brief) -> DrivingEnv:
    """Start a simulator and return the environment to drive in; raises ConfigError, WorldError."""
    config = brief.config
    folder = Path(tempfile.gettempdir()) / f"td3_driver-{os.getuid()}"
    slot = take_slot(folder)
    os.environ.update(environment(config, slot))
    simulator = subprocess.Popen(
        command(config, folder / f"slot-{slot}.yaml"),
        stdin=subprocess.DEVNULL,
        # Its lines would drown the trainer's; what it has to say is in ROS's log.
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),
    )
    threading.Thread(target=_end_with, args=(simulator,), daemon=True).start()
    options = SignalHandlerOptions.NO
    runtime.begin_ros(lambda: rclpy.init(args=[], signal_handler_options=options))
    node = Node(f"collector_{brief.collector}")
    world = CarlaWorld(node, config.carla, looks=config.simulator)
    return DrivingEnv(world, make_sampler(config.training, world), config.driving)


def take_slot(folder: Path) -> int:
    """Return the lowest number on this machine that no other collector has; raises ConfigError."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for slot in range(MOST_SLOTS):
        file = os.open(folder / f"slot-{slot}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            continue
        _held.append(file)
        return slot
    raise ConfigError(f"{MOST_SLOTS} collectors over topics run here: give a machine fewer slots")


def environment(config: Config, slot: int) -> dict[str, str]:
    """Return the variables of a slot's simulator and node; raises ConfigError."""
    domain = config.fleet.first_domain_id + slot
    if domain > runtime.LARGEST_DOMAIN:
        raise ConfigError(
            f"ROS_DOMAIN_ID of slot {slot} would be {domain}: lower fleet.first_domain_id"
        )
    local = (
        {"ROS_LOCALHOST_ONLY": "1"}
        if os.environ.get("ROS_DISTRO") in ONLY_KNOWS_LOCALHOST
        else {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    )
    return {
        **fastdds.environment(os.environ),
        **local,
        runtime.DOMAIN: str(domain),
        "SLOT": str(slot),
        "CARLA_PORT": str(config.fleet.first_carla_port + PORTS_APART * slot),
        "TRAFFIC_MANAGER_PORT": str(config.fleet.first_traffic_manager_port + slot),
    }


def command(config: Config, parameters: Path) -> list[str]:
    """Return the command that starts a collector's simulator; raises ConfigError."""
    if config.fleet.simulator == "command":
        if not config.fleet.simulator_command:
            raise ConfigError("fleet.simulator_command is empty: say what starts the simulator")
        # The shell becomes the command where that is a single one.
        return ["/bin/sh", "-c", config.fleet.simulator_command]
    values = {"/**": {"ros__parameters": config.model_dump(mode="json")}}
    parameters.write_text(yaml.safe_dump(values))
    return Process("simulator", {"config": str(parameters)}).command_line()


def _end_with(simulator: subprocess.Popen[bytes]) -> None:
    """End this process when its simulator has ended: another one starts both."""
    code = simulator.wait()
    print(f"a collector's simulator has ended ({code})", file=sys.stderr, flush=True)
    os._exit(SIMULATOR_ENDED)
