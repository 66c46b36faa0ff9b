# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The simulator's map: its name, its roads, and switching to another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from carla_msgs.msg import CarlaWorldInfo
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

from td3_driver.bridge import topics
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import Start, WorldError
from td3_driver.lockstep.lock_step import LockStep
from td3_driver.roads.map_files import plain_name

if TYPE_CHECKING:
    from td3_driver.roads.road_map import RoadMap

SIMULATOR_NODE = "simulator"
"""Relative: the simulator is looked for in the namespace of the node that trains."""
MAP_PARAMETER = "simulator.map"
SERVICE_DISCOVERY_S = 3.0


class Town:
    """What `/carla/world_info` has said so far."""

    def __init__(self, node: Node, config: CarlaConfig, lock_step: LockStep) -> None:
        self._node = node
        self._config = config
        self._lock_step = lock_step
        self._inbox = lock_step.inbox
        self._road_map: RoadMap | None = None
        self._not_the_files: CarlaWorldInfo | None = None
        """The latest map that was taken for a file's by its name, having another text."""

    @property
    def name(self) -> str:
        """Name of the map, as the simulator gives it."""
        self._await()
        assert self._inbox.world_info is not None
        return str(self._inbox.world_info.map_name)

    @property
    def road_map(self) -> RoadMap:
        """The map's roads, read from `/carla/world_info`."""
        if self._road_map is None:
            # Only callers that need roads need the carla wheel, which not every platform has.
            from td3_driver.roads.road_map import RoadMap

            name = self.name
            assert self._inbox.world_info is not None
            self._road_map = RoadMap.from_opendrive(name, self._inbox.world_info.opendrive)
        return self._road_map

    def forget(self) -> None:
        """Forget what is known: the simulator may have another map."""
        self._road_map = None

    def is_of(self, start: Start) -> bool:
        """Return whether a start is on this map.

        Names like `Town01`, `Carla/Maps/Town01` and `folder/Town01.xodr` mean the same town, but
        several maps of the embedded simulator may be called `town`.
        """
        same_name = plain_name(start.map_name) == plain_name(self.name)
        if not start.opendrive:
            return same_name
        assert self._inbox.world_info is not None
        if start.opendrive == self._inbox.world_info.opendrive:
            return True
        if same_name and self._inbox.world_info is not self._not_the_files:
            # CARLA's own text of a town need not be that of the file.
            if self.can_change():
                return False
            self._not_the_files = self._inbox.world_info
        return same_name

    def can_change(self) -> bool:
        """Return whether the simulator is the embedded one, which loads maps on request."""
        client = self._client()
        try:
            return self._lock_step.spin_until(client.service_is_ready, SERVICE_DISCOVERY_S)
        finally:
            self._node.destroy_client(client)

    def change(self, start: Start) -> None:
        """Have the embedded simulator load a start's map; CARLA's town is its bridge's choice.

        Raises WorldError where it cannot.
        """
        name = start.map_name
        self._node.get_logger().debug(f"loading map {name}")
        client = self._client()
        try:
            if not self._lock_step.spin_until(client.service_is_ready, SERVICE_DISCOVERY_S):
                raise WorldError(
                    f"the simulator's map is {self.name!r} and the episode's is {name!r}; "
                    f"only the embedded simulator can change its map (no {self._service} found). "
                    "Train on its current map with training.starts:=town, or start CARLA's bridge "
                    "with the other one."
                )
            before = self._inbox.world_info
            parameter = Parameter(MAP_PARAMETER, value=name).to_parameter_msg()
            future = client.call_async(SetParameters.Request(parameters=[parameter]))

            def has_changed() -> bool:
                return self._inbox.world_info is not before and plain_name(name) == plain_name(
                    self.name
                )

            # DDS loses the answer if the simulator's side has not found this client yet.
            self._lock_step.wait_until(
                lambda: future.done() or has_changed(),
                self._config.startup_timeout_s,
                lambda: self._service,
                "The simulator hangs while it loads the map, or has died.",
            )
            response = future.result() if future.done() else None
        finally:
            self._node.destroy_client(client)
        if response is not None and not (result := response.results[0]).successful:
            raise WorldError(f"the simulator cannot load map {name!r}: {result.reason}")
        self._await(before)
        if not self.is_of(start):
            raise WorldError(
                f"the simulator has loaded another map {name!r} than the one read here: start the "
                "simulator anew, in the same folder, if the map's file has changed meanwhile"
            )
        self._road_map = None
        # Time restarts: stamps from before no longer mean anything.
        self._inbox.forget_events(until_ns=-1)
        self._lock_step.begin_new_time()

    @property
    def _service(self) -> str:
        """Full name of the service by which the embedded simulator changes its map."""
        return str(self._node.resolve_service_name(f"{SIMULATOR_NODE}/set_parameters"))

    def _await(self, before: CarlaWorldInfo | None = None) -> None:
        """Wait for a map that is not the one `before`."""
        if self._inbox.world_info is not before:
            return
        self._lock_step.wait_until(
            lambda: self._inbox.world_info is not before,
            self._config.startup_timeout_s,
            lambda: topics.WORLD_INFO.name(self._config),
            "The simulator publishes it once, latched; is this a complete bridge?",
        )

    def _client(self) -> Any:
        return self._node.create_client(SetParameters, self._service)
