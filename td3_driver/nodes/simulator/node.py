# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The embedded simulator behind the topics of carla-ros-bridge in active synchronous mode."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rclpy.context import Context
from rclpy.parameter import Parameter

from td3_driver.bridge import outlasting, runtime, topics
from td3_driver.bridge.conversion import (
    ConversionError,
    control_from_message,
    pose_from_message,
    target_velocity_from_message,
    weather_from_message,
)
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.bridge.run_state import RunCommand, RunState
from td3_driver.bridge.topics import Topic
from td3_driver.config import Config, ConfigError
from td3_driver.driving.world import Collision, Frame, VehicleControl
from td3_driver.nodes.simulator.bridge_faults import BRIDGE_SENSOR_TIMEOUT_S, Agenda, Faults
from td3_driver.nodes.simulator.publications import Publications, vehicle_info_to_message
from td3_driver.roads.errors import RoadMapError
from td3_driver.simulator.world import EGO_ACTOR_ID, SPAWN_SPACING_M, SimulatedWorld

NODE_NAME = "simulator"
SECTIONS = ("simulator", "carla")
SETTABLE = ("simulator.map", "simulator.realtime_factor", "simulator.faults")
OWN_PARAMETERS = outlasting.OWN_PARAMETERS
VEHICLE_TYPE = "vehicle.tesla.model3"
# A simulator that has fallen further behind real time does not catch up.
MAX_LAG_S = 0.2


AUTOPILOT = VehicleControl(throttle=0.4)
"""What stands in for CARLA's autopilot: it drives, and not as commanded."""


class SimulatorNode(ConfiguredNode):
    """A bridge with one car, and the world behind it. Starts in PLAY, as the bridge does.

    It injects the faults in `simulator.faults`.
    """

    def __init__(
        self,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Load the map and announce the world; raise ConfigError or RoadMapError."""
        super().__init__(
            NODE_NAME,
            SECTIONS,
            settable=SETTABLE,
            own=OWN_PARAMETERS,
            context=context,
            parameter_overrides=parameter_overrides,
        )
        self.world = SimulatedWorld(self.config.simulator)
        self._run_state = RunState(self._publish_status)
        self._faults = Faults(self.config.simulator.faults)
        self._agenda = Agenda()
        self._held = False
        """Whether the current tick hangs, or the ticking thread is dead."""
        self._inputs_held_until_s = 0.0
        """Until when switching the autopilot holds what is received, on the steady clock."""
        self._late_control: VehicleControl | None = None
        self._stopped = False
        self._override = False
        self._autopilot = False
        """Whether commands are not the ones in force."""
        self._next_tick_s = time.monotonic()
        self._published_route: Any = None
        self.publications = Publications(
            self, self.config.carla, self.config.simulator, self._deliver
        )
        handlers: dict[Topic, Callable[[Any], None]] = {
            topics.MANUAL_OVERRIDE: self._on_override,
            topics.SET_TRANSFORM: self._on_transform,
            topics.SET_TARGET_VELOCITY: self._on_target_velocity,
            topics.GOAL: self._on_goal,
            topics.WEATHER: self._on_weather,
            topics.ENABLE_AUTOPILOT: self.on_autopilot,
            topics.VEHICLE_CONTROL: lambda message: self._on_control(message, manual=False),
            topics.VEHICLE_CONTROL_MANUAL: lambda message: self._on_control(message, manual=True),
        }
        self._inputs = [
            self._subscribe(topic, self._held_by_autopilot(handler))
            for topic, handler in handlers.items()
        ]
        self._control = self._subscribe(topics.CONTROL, self._on_run_command)
        self._publish_status(self._run_state.running)
        self.publications.vehicle_info(
            vehicle_info_to_message(
                self.world.vehicle.parameters,
                EGO_ACTOR_ID,
                VEHICLE_TYPE,
                self.config.carla.role_name,
            )
        )
        self.get_logger().info(self.announce_map())

    @property
    def speed(self) -> float:
        """Signed forward speed of the car in the world, m/s."""
        return self.world.vehicle.speed

    def stop(self) -> None:
        """End `run`; may be called from any thread."""
        self._stopped = True

    def run(self) -> None:
        """Tick and handle messages until stopped, or until the context ends."""
        runtime.spin(
            self,
            until=lambda: self._stopped,
            idle_s=lambda: min(self._idle_s(), self._agenda.idle_s),
            work=self._do_what_is_due,
            outlasted=outlasting.Outlasted(self),
        )

    def change_settings(self, new: Config) -> None:
        """Load another map or set other faults; raises ConfigError if they are unusable."""
        if new.simulator.faults != self.config.simulator.faults:
            self._faults = Faults(new.simulator.faults)
        name = new.simulator.map
        if new.simulator == self.config.simulator:
            self.announce_map()  # Whoever asked for it waits for an answer.
        if name == self.config.simulator.map:
            return
        try:
            self.world.load_map(name)
        except RoadMapError as error:
            raise ConfigError(str(error)) from error
        # A trainer changes the map with every episode.
        self.get_logger().debug(self.announce_map())

    def _subscribe(self, topic: Topic, handler: Callable[[Any], None]) -> Any:
        return topics.create_bridge_subscription(self, topic, self.config.carla, handler)

    def announce_map(self) -> str:
        """Publish the map and its route; return a line that describes the map."""
        road_map, config = self.world.road_map, self.config.simulator
        self.publications.world_info(road_map.name, road_map.opendrive)
        self._publish_route()
        spawn_poses = len(road_map.spawn_poses(SPAWN_SPACING_M))
        return (
            f"map {road_map.name}: {spawn_poses} spawn poses; {1.0 / config.fixed_delta_s:.0f} "
            f"ticks per simulated second, {config.realtime_factor:g} x real time"
        )

    def _idle_s(self) -> float:
        """Return the wall-clock time until there is something to do."""
        if self._held or self._run_state.waiting:
            return float("inf")
        if self._run_state.commanded:
            return 0.0
        return self._next_tick_s - time.monotonic()

    def _do_what_is_due(self) -> None:
        self._agenda.do_what_is_due()
        if self._idle_s() <= 0.0:
            self._iterate()

    def _iterate(self) -> None:
        """Run one iteration of the bridge's loop: take commands, tick, publish."""
        runtime.take_waiting(self._control)
        if self._held or not self._run_state.may_tick():
            return
        if self._faults.next("dead_thread"):
            self._held = True
        elif hang := self._faults.next("hang"):
            self._held = True
            self._agenda.after(hang.seconds or 0.0, self._tick)
        else:
            self._tick()

    def _tick(self) -> None:
        """Tick, and publish the result."""
        self._held = False
        # A command that arrived before its STEP_ONCE must act in that step.
        for subscription in self._inputs:
            runtime.take_waiting(subscription)
        self._faults.begin_tick()
        self._schedule()
        frame = self._disturbed(self.world.tick)
        self._publish_status(self._run_state.running)
        vehicle = self.world.vehicle
        self.publications.tick(frame, vehicle.lateral_speed, self.world.acceleration)
        self._publish_route()

    def _disturbed(self, tick: Callable[[], Frame]) -> Frame:
        """Tick, and inject the faults that are due around it."""
        faults = self._faults
        if faults.now("extra_tick"):
            tick()
        if faults.now("map_load"):
            self.world.load_map(self.config.simulator.map)
            self.announce_map()
        frame = tick()
        if self._late_control is not None:
            self.world.apply(self._late_control)
            self._late_control = None
        if faults.now("foreign_step"):
            self._run_state.command(RunCommand.STEP_ONCE)
        if faults.now("foreign_play"):
            self._run_state.command(RunCommand.PLAY)
        if faults.now("collision"):
            frame = replace(frame, collisions=(Collision(frame.stamp_ns, 0, (1e4, 0.0, 0.0)),))
        return frame

    def _deliver(self, topic: Topic, publish: Callable[[], None]) -> None:
        """Publish a message; late or not at all if a fault is due."""
        if missing := self._faults.now("missing", topic):
            given_s = missing.seconds
            time.sleep(BRIDGE_SENSOR_TIMEOUT_S if given_s is None else given_s)
            return
        late = self._faults.now("late", topic)
        self._agenda.in_order(topic, (late.seconds or 0.0) if late else 0.0, publish)

    def _schedule(self) -> None:
        """Set the wall-clock time of the next tick in free-running mode."""
        config = self.config.simulator
        period_s = config.fixed_delta_s / config.realtime_factor
        now = time.monotonic()
        self._next_tick_s += period_s
        if abs(self._next_tick_s - now) > MAX_LAG_S + period_s:
            self._next_tick_s = now + period_s

    def _publish_status(self, running: bool) -> None:
        self.publications.status(self.world.frame, running)

    def _publish_route(self) -> None:
        """Publish the route if it has changed."""
        route = self.world.route
        if route is not self._published_route:
            self._published_route = route
            self.publications.waypoints(route, self.world.stamp_ns)

    def _on_run_command(self, message: Any) -> None:
        try:
            command = RunCommand(message.command)
        except ValueError:
            self.get_logger().warning(f"unknown run command {message.command} ignored")
            return
        if command is RunCommand.STEP_ONCE:
            if self._faults.next("lost_step"):
                return
            if late := self._faults.next("late_step"):
                self._agenda.after(late.seconds or 0.0, lambda: self._run_state.command(command))
                return
        self._run_state.command(command)

    def _held_by_autopilot(self, handler: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a handler that waits while the autopilot is being switched, in order."""

        def handle(message: Any) -> None:
            held_s = self._inputs_held_until_s - time.monotonic()
            if held_s > 0.0:
                self._agenda.after(held_s, lambda: handler(message))
            else:
                handler(message)

        return handle

    def on_autopilot(self, message: Any) -> None:
        """Hand the car to the autopilot, or take it back; a fault holds other messages up."""
        self._autopilot = message.data
        if self._autopilot:
            self.world.apply(AUTOPILOT)
        if fault := self._faults.next("autopilot"):
            self._inputs_held_until_s = time.monotonic() + (fault.seconds or 0.0)

    def _on_override(self, message: Any) -> None:
        self._override = message.data

    def _on_control(self, message: Any, manual: bool) -> None:
        if self._autopilot or manual != self._override or self._faults.next("lost_command"):
            return
        control = control_from_message(message)
        if self._faults.next("late_command"):
            self._late_control = control
        else:
            self.world.apply(control)

    def _on_transform(self, message: Any) -> None:
        try:
            self.world.teleport(pose_from_message(message))
        except ConversionError as error:
            self.get_logger().warning(f"teleport refused: {error}")
        self._publish_route()

    def _on_target_velocity(self, message: Any) -> None:
        if self._override:
            return
        try:
            forward, _, yaw_rate = target_velocity_from_message(message)
            self.world.set_velocity(forward, yaw_rate)
        except ConversionError as error:
            self.get_logger().warning(f"velocity refused: {error}")

    def _on_goal(self, message: Any) -> None:
        try:
            self.world.set_goal(pose_from_message(message.pose))
        except (ConversionError, RoadMapError) as error:
            self.get_logger().warning(f"goal refused: {error}")
        self._publish_route()

    def _on_weather(self, message: Any) -> None:
        try:
            self.world.set_weather(weather_from_message(message))
        except ConversionError as error:
            self.get_logger().warning(f"weather refused: {error}")


def main(args: list[str] | None = None) -> None:
    """Run the simulator's process."""
    sys.exit(runtime.run(lambda: SimulatorNode().run(), args))
