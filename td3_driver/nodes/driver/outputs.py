# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Publishes the driver's commands to the car, and each of its decisions."""

from __future__ import annotations

from collections import deque

import numpy as np

from td3_driver.bridge import driver_topics, runtime, topics
from td3_driver.bridge.conversion import ackermann_to_message, control_to_message
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.deployment.loading import LoadedPolicy
from td3_driver.driving.control import Command
from td3_driver.driving.pilot import Pilot
from td3_driver.learning.td3 import SATURATED
from td3_driver.nodes.driver.policy_messages import policy_output

DECISIONS_KEPT = 200


class CommandOutput:
    """Publishes Ackermann commands, and pedals if configured; in shadow mode on other topics."""

    def __init__(self, node: ConfiguredNode) -> None:
        self._carla, driver = node.config.carla, node.config.driver
        self._publishers = {
            topic: node.create_publisher(
                topic.message_type_in(self._carla),
                (shadow if driver.shadow else topic).name(self._carla),
                topic.client_qos_in(self._carla).profile(),
            )
            for topic, shadow in (
                (topics.ACKERMANN, driver_topics.SHADOW_ACKERMANN),
                (topics.VEHICLE_CONTROL, driver_topics.SHADOW_VEHICLE_CONTROL),
            )
            if driver.shadow or driver.publish_vehicle_control or topic is topics.ACKERMANN
        }

    def send(self, command: Command, stamp_ns: int | None) -> None:
        """Publish a command that the guard lets through; only the guard calls this."""
        message = ackermann_to_message(command.ackermann, self._carla, stamp_ns)
        self._publishers[topics.ACKERMANN].publish(message)
        if topics.VEHICLE_CONTROL in self._publishers:
            pedals = control_to_message(command.control, stamp_ns)
            self._publishers[topics.VEHICLE_CONTROL].publish(pedals)

    def await_delivery(self) -> None:
        """Wait until all published commands have been received."""
        runtime.await_delivery(self._publishers.values())


class DecisionOutput:
    """Publishes each decision on ~/policy_output, and keeps statistics of the latest ones."""

    def __init__(self, node: ConfiguredNode) -> None:
        self.inferences_s: deque[float] = deque(maxlen=DECISIONS_KEPT)
        self._saturated: deque[float] = deque(maxlen=DECISIONS_KEPT)
        self._publisher = topics.create_publisher(
            node, driver_topics.POLICY_OUTPUT, node.config.carla
        )

    @property
    def saturated_share(self) -> float:
        """Share of the latest actions' components that are at their bounds."""
        return float(np.mean(self._saturated)) if self._saturated else 0.0

    def note(
        self,
        pilot: Pilot,
        policy: LoadedPolicy,
        admitted: Command,
        stamp_ns: int,
        latency_s: float,
    ) -> None:
        """Record the pilot's latest decision, and publish it if there is a subscriber.

        `admitted` is the command that the guard let through for the image of `stamp_ns`,
        `latency_s` the time from that image's arrival to the command.
        """
        self.inferences_s.append(pilot.inference_s)
        self._saturated.append(float(np.mean(np.abs(pilot.action) > SATURATED)))
        if not self._publisher.get_subscription_count():
            return
        q_values = policy.q_values and policy.q_values(pilot.observation, pilot.action)
        self._publisher.publish(policy_output(stamp_ns, pilot, admitted, latency_s, q_values))
