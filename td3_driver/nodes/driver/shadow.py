# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Compares the driver's commands with those of whoever is driving."""

from __future__ import annotations

import time
from typing import Any

from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.driver_messages import ComparedWith, Disagreement
from td3_driver.bridge.driver_topics import SHADOW_DISAGREEMENT
from td3_driver.bridge.messages import ackermann_from_message
from td3_driver.config import CarlaConfig
from td3_driver.driving.control import AckermannCommand, Command
from td3_driver.driving.world import VehicleControl
from td3_driver.nodes.driver.policy_messages import disagreement_to_message

# An older command no longer counts.
COMMAND_AGE_S = 0.5


def disagreement(
    own: Command,
    ackermann: AckermannCommand | None,
    control: VehicleControl | None,
    vehicle_max_steer_rad: float,
) -> Disagreement | None:
    """Return `own` minus the other's command; None if there is no other command.

    The other's `ackermann` command takes precedence over `control`, the pedals in force.
    """
    if ackermann is not None:
        return Disagreement(
            ComparedWith.ACKERMANN_COMMAND,
            own.ackermann.steering_angle - ackermann.steering_angle,
            speed_mps=own.ackermann.speed - ackermann.speed,
        )
    if control is None:
        return None
    return Disagreement(
        ComparedWith.VEHICLE_STATUS,
        (control.steer - own.control.steer) * vehicle_max_steer_rad,
        pedal=own.control.throttle - own.control.brake - control.throttle + control.brake,
    )


class Shadow:
    """Listens to whoever is driving, and publishes how the driver's own commands differ."""

    def __init__(self, node: Node, names: CarlaConfig, vehicle_max_steer_rad: float) -> None:
        self._max_steer_rad = vehicle_max_steer_rad
        self._ackermann: AckermannCommand | None = None
        self._ackermann_s = 0.0
        self._control: VehicleControl | None = None
        self._control_s = 0.0
        handlers = {
            topics.ACKERMANN: self._on_ackermann,
            topics.VEHICLE_STATUS: self._on_status,
        }
        for topic, handler in handlers.items():
            topics.create_subscription(node, topic, names, handler)
        self._publisher = topics.create_publisher(node, SHADOW_DISAGREEMENT, names)

    def compare(self, own: Command, stamp_ns: int) -> None:
        """Publish the disagreement about the image of `stamp_ns`, if somebody is driving."""
        oldest_s = time.monotonic() - COMMAND_AGE_S
        found = disagreement(
            own,
            self._ackermann if self._ackermann_s > oldest_s else None,
            self._control if self._control_s > oldest_s else None,
            self._max_steer_rad,
        )
        if found is not None:
            self._publisher.publish(disagreement_to_message(found, stamp_ns))

    def _on_ackermann(self, message: Any) -> None:
        self._ackermann = ackermann_from_message(message)
        self._ackermann_s = time.monotonic()

    def _on_status(self, message: Any) -> None:
        control = message.control
        self._control = VehicleControl(
            throttle=control.throttle, steer=control.steer, brake=control.brake
        )
        self._control_s = time.monotonic()
