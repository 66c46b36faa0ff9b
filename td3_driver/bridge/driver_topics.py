# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the driver publishes besides its commands, and the services it answers, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from td3_driver.bridge.topics import LATCHED, RELIABLE, Direction, Qos, Topic
from td3_driver.config import CarlaConfig

NODE_NAME = "driver"
DEFAULT_DRIVER = f"/{NODE_NAME}"
"""What `~` stands for in a driver without a namespace."""
WATCHDOG = "watchdog"
"""Its status on /diagnostics, after the node's full name."""
FAULT = "fault"
"""That status's key for the current fault."""
STOPPED = "stopped: "
"""That status's message starts with this while the car is stopped; the reason follows."""
STOPS = "stops_"
"""With a fault's name: that status's key for how often that fault has stopped the car."""

PROCESS = "process"
"""The status of its own process on /diagnostics, after the node's full name."""
STANDSTILLS = "standstills"
"""That status's key for how often the driver's own threads stood still."""


def _published(template: str, type_name: str, description: str, qos: Qos = RELIABLE) -> Topic:
    return Topic(template, type_name, Direction.FROM_NODES, qos, qos, description)


POLICY = _published(
    "~/policy",
    "td3_driver_msgs/msg/PolicyInfo",
    "Which policy drives, what its actions mean, and the last checkpoint refused.",
    LATCHED,
)
POLICY_OUTPUT = _published(
    "~/policy_output",
    "td3_driver_msgs/msg/PolicyOutput",
    "Each decision, stamped as its image: action, command, Q-values and durations.",
)
SHADOW_ACKERMANN = _published(
    "~/shadow/ackermann_cmd",
    "ackermann_msgs/msg/AckermannDrive",
    "In shadow mode: what would have been commanded.",
)
SHADOW_VEHICLE_CONTROL = _published(
    "~/shadow/vehicle_control_cmd",
    "carla_msgs/msg/CarlaEgoVehicleControl",
    "In shadow mode: the pedals that would have been commanded.",
)
SHADOW_DISAGREEMENT = _published(
    "~/shadow/disagreement",
    "td3_driver_msgs/msg/ShadowDisagreement",
    "In shadow mode, stamped as the image: own command minus the active driver's; speeds if "
    "ackermann_cmd is in use, else the pedals of vehicle_status.",
)

DRIVER_TOPICS: tuple[Topic, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Topic)
)


def full_name(topic: Topic, config: CarlaConfig, driver: str = DEFAULT_DRIVER) -> str:
    """Return a topic's name in the graph and in bags; `driver` is the node's full name."""
    return topic.name(config).replace("~", driver, 1)


def drivers_among(types: Mapping[str, str]) -> list[str]:
    """Return the full names of the drivers that published topics, given with their types.

    Where the types do not show it, as in older bags, it is the driver without a namespace.
    """
    shown = {
        name.removesuffix(ending)
        for topic in (POLICY, POLICY_OUTPUT, SHADOW_DISAGREEMENT)
        for ending in (topic.template.removeprefix("~"),)
        for name, type_name in types.items()
        if type_name == topic.type_name and name.endswith(ending)
    }
    return sorted(shown) or [DEFAULT_DRIVER]


def status_name(driver: str, status: str) -> str:
    """Return what a status on /diagnostics is called, after a node's full name."""
    return f"{driver.lstrip('/')}: {status}"


@dataclass(frozen=True)
class Service:
    """One service of the driver."""

    name: str
    type_name: str
    description: str


RELOAD = Service(
    "~/reload",
    "std_srvs/srv/Trigger",
    "Look for a newer checkpoint now; ~/policy has the result.",
)
RESUME = Service(
    "~/resume",
    "std_srvs/srv/Trigger",
    "Confirm that the car may drive again after a stop; it resumes once no fault is active.",
)
DRIVER_SERVICES = (RELOAD, RESUME)
