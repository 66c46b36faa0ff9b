# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The weather of each episode, published where it begins."""

from __future__ import annotations

from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import weather_to_message
from td3_driver.config import CarlaConfig, SimulatorConfig
from td3_driver.driving.world import Start
from td3_driver.lockstep.lock_step import LockStep
from td3_driver.looks import episode_look

# Not every fork of the bridge has the topic; one that has it is found sooner than this.
DISCOVERY_S = 2.0


class EpisodeWeather:
    """Publishes the weather of the looks that `simulator.looks` asks for; none where it is off."""

    def __init__(
        self, node: Node, config: CarlaConfig, lock_step: LockStep, looks: SimulatorConfig
    ) -> None:
        """Publish on `node`, if at all."""
        self._node = node
        self._config = config
        self._lock_step = lock_step
        self._looks = looks
        # Not one of the lock-step's, which waits for a subscriber.
        self._publisher = (
            None
            if looks.looks == "off" and looks.look == "drawn"
            else topics.create_publisher(node, topics.WEATHER, config)
        )
        self._looked_for = False

    def begin(self, start: Start) -> None:
        """Publish the weather of the episode that begins at `start`."""
        look = episode_look(self._looks, start.seed, start.map_name)
        if look is None or self._publisher is None:
            return
        publisher = self._publisher
        if not self._looked_for:
            self._looked_for = True
            if not self._lock_step.spin_until(
                lambda: publisher.get_subscription_count() > 0, DISCOVERY_S
            ):
                self._node.get_logger().warning(
                    f"nobody listens to {topics.WEATHER.name(self._config)}: the weather stays as "
                    "the simulator has it, whatever simulator.looks is"
                )
        publisher.publish(weather_to_message(look.weather))

    def destroy(self) -> None:
        """End the publisher."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
