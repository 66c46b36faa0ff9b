# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The world behind the bridge's topics, stepped exactly one tick for each command."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    ConversionError,
    control_from_message,
    image_from_message,
    make_header,
    odometry_from_message,
    pose_to_message,
    same_control,
    speed_from_message,
)
from td3_driver.config import CarlaConfig, SimulatorConfig
from td3_driver.driving.world import (
    FULL_BRAKE,
    Frame,
    Pose,
    Start,
    StartRefusedError,
    VehicleControl,
    WorldError,
)
from td3_driver.lockstep.counters import Counters
from td3_driver.lockstep.episode_weather import EpisodeWeather
from td3_driver.lockstep.lock_step import LockStep, SimulatorLostError, Tick
from td3_driver.lockstep.placement import STANDING, Placement
from td3_driver.lockstep.rivals import Rivals
from td3_driver.lockstep.town import Town

if TYPE_CHECKING:
    from td3_driver.roads.road_map import RoadMap

RESETS_AFTER_OUTAGE = 5
# A new route begins where the car projects to its lane and ends where the goal does.
ROUTE_START_TOLERANCE_M = 3.0
ROUTE_END_TOLERANCE_M = 5.0
ROUTE_TIMEOUT_S = 20.0
# carla_waypoint_publisher learns of a new car only while the simulation ticks.
ROUTE_TICK_S = 2.0
# Ticks in a row with missing sensors after which they count as gone.
INCOMPLETE_TICKS = 3


class CarlaWorld:
    """A `World` over topics: the embedded simulator's node, or CARLA's through its bridge.

    It spins its node in the calling thread, and only while it waits. If the simulator stops
    answering, it waits up to `carla.outage_timeout_s`; the current step then becomes unclean, and
    a reset starts over.
    """

    def __init__(
        self,
        node: Node,
        config: CarlaConfig,
        on_outage: Callable[[str], object] = lambda line: None,
        looks: SimulatorConfig | None = None,
    ) -> None:
        """Connect to the simulator and pause it; nothing else may spin `node`.

        `on_outage` is called with a line now and then while waiting for a lost simulator, and with
        an empty line when it is back. `looks` are the settings by which each episode's weather is
        drawn and published; None = it stays as it is. Raises WorldError if the simulator or one of
        its topics does not appear in time.
        """
        self.on_outage = on_outage
        self._node = node
        self.config = config
        self.frame: Frame | None = None
        self._planned_route: np.ndarray | None = None
        """The episode's route, if it is not the published one."""
        self._incomplete_ticks = 0
        self.lock_step = LockStep(node, config)
        self.inbox = self.lock_step.inbox
        self._town = Town(node, config, self.lock_step)
        self.rivals = Rivals(node, config)
        self.placement = Placement(node, config, self.lock_step, self._step)
        self._weather = EpisodeWeather(node, config, self.lock_step, looks or SimulatorConfig())
        # Not one of the lock-step's, which waits for a subscriber: there may be no route planner.
        self.goals = topics.create_publisher(node, topics.GOAL, config)
        try:
            self.lock_step.connect()
        except BaseException:
            self._destroy()
            raise

    @property
    def fixed_delta_s(self) -> float:
        """Simulated time of one step, seconds."""
        return self.lock_step.fixed_delta_s

    @property
    def counters(self) -> Counters:
        """How often a command did not get exactly one clean tick."""
        return self.lock_step.counters

    @property
    def map_name(self) -> str:
        """Name of the map, as the simulator gives it."""
        return self._town.name

    @property
    def road_map(self) -> RoadMap:
        """The map's roads, read from `/carla/world_info`."""
        return self._town.road_map

    def reset(self, start: Start) -> Frame:
        """Bring the car to rest at `start.pose`, with a route from there to `start.goal`.

        `start.seed` does not travel over topics, only the weather drawn for it: the simulator has
        a seed of its own. Raises
        StartRefusedError if the car does not stay there or no route arrives, and WorldError.
        """
        try:
            return self._reset_despite_outages(start)
        except StartRefusedError as refusal:
            self.counters.starts_refused += 1
            self.rivals.look()
            self._node.get_logger().warning(str(refusal))
            raise

    def _reset_despite_outages(self, start: Start) -> Frame:
        map_before = self.map_name
        for _ in range(RESETS_AFTER_OUTAGE):
            try:
                return self._reset(start)
            except SimulatorLostError as lost:
                self._wait_for_return(lost)
                problem = str(lost)
            if self.map_name != map_before and not self._town.can_change():
                raise StartRefusedError(
                    f"the simulator came back with map {self.map_name!r} instead of {map_before!r}"
                )
        raise WorldError(f"{RESETS_AFTER_OUTAGE} resets in a row did not finish: {problem}")

    def _reset(self, start: Start) -> Frame:
        if not self._town.is_of(start):
            self._town.change(start)
            self.frame = None
        # It may act a tick later than it is sent, and putting the car down takes several.
        self._weather.begin(start)
        frame = self.placement.put_down(start.pose)
        self._planned_route = self._known_route(start)
        if self._planned_route is None:
            frame = self._request_route(start.goal, frame)
        frame = self.placement.clean_frame(frame)
        self.inbox.forget_events(until_ns=frame.stamp_ns)
        self.frame = replace(frame, route=self._route, collisions=(), lane_invasions=())
        return self.frame

    @property
    def _route(self) -> np.ndarray:
        """The route of the episode."""
        return self.inbox.route if self._planned_route is None else self._planned_route

    def _known_route(self, start: Start) -> np.ndarray | None:
        """Return the route if no node has to be asked for it."""
        if start.route is not None or self.config.route_planner == "waypoint_publisher":
            return start.route
        from td3_driver.roads.errors import RoadMapError

        try:
            return self.road_map.route(start.pose, start.goal)
        except RoadMapError as error:
            raise StartRefusedError(f"no route: {error}") from error

    def published_path(self) -> list[Pose]:
        """Wait for the published route and return it, including heights.

        Raises WorldError if there is none.
        """
        deadline = time.monotonic() + ROUTE_TIMEOUT_S
        while not self.lock_step.spin_until(lambda: len(self.inbox.path) > 1, ROUTE_TICK_S):
            if time.monotonic() >= deadline:
                raise WorldError(
                    f"no Path of two points or more on {topics.WAYPOINTS.name(self.config)} in "
                    f"{ROUTE_TIMEOUT_S:g} s: publish a route, or choose other training.starts"
                )
            self._step(STANDING)
        return self.inbox.path

    def step(self, control: VehicleControl) -> Frame:
        """Apply `control` for one tick and return the state after it.

        If the step was not one complete tick of `control`, the frame says so. Raises WorldError
        if there is no frame to return.
        """
        try:
            frame = self._step(control)
        except SimulatorLostError as lost:
            before = self.frame
            self._wait_for_return(lost)
            if before is None:
                raise
            frame = replace(before, clean=False, reason=str(lost))
        if not frame.clean:
            self.counters.unclean_steps += 1
            self.rivals.look()
        return frame

    def interrupt(self) -> None:
        """End a wait for the simulator with KeyboardInterrupt; a signal handler may call it."""
        self.lock_step.interrupt()

    def _step(self, control: VehicleControl) -> Frame:
        tick = self.lock_step.tick(control)
        self.frame = self._make_frame(tick, control)
        return self.frame

    def _wait_for_return(self, lost: SimulatorLostError) -> None:
        """Wait for a lost simulator; raise WorldError if it does not come back."""
        logger = self._node.get_logger()

        def say(line: str) -> None:
            logger.warning(line)
            self.on_outage(line)

        self.lock_step.reconnect(lost, say)
        self._incomplete_ticks = 0
        self._town.forget()
        logger.info("the simulator is back")
        self.on_outage("")

    def close(self) -> None:
        """Stop the car and let the simulator run on without this client."""
        if self._node.context.ok():
            self.lock_step.command(FULL_BRAKE)
            if self.config.command_lead_s:
                time.sleep(self.config.command_lead_s)
            self.lock_step.play()
        self._destroy()

    def _destroy(self) -> None:
        self.lock_step.destroy()
        self.placement.destroy()
        self._weather.destroy()
        self._node.destroy_publisher(self.goals)

    def _make_frame(self, tick: Tick, control: VehicleControl) -> Frame:
        """Return the tick's messages as a frame; missing parts repeat the previous frame's."""
        inbox, before = self.inbox, self.frame
        image = inbox.messages.get(topics.IMAGE)
        odometry = inbox.messages.get(topics.ODOMETRY)
        speedometer = inbox.messages.get(topics.SPEEDOMETER)
        status = inbox.messages.get(topics.VEHICLE_STATUS)
        self._incomplete_ticks += bool(tick.reason)
        if image is None or odometry is None or speedometer is None or status is None:
            if before is None or self._incomplete_ticks >= INCOMPLETE_TICKS:
                raise SimulatorLostError(f"{tick.reason}: does the car have these sensors?")
            return _repeated(before, tick, tick.reason)
        try:
            pose, yaw_rate = odometry_from_message(odometry)
            pixels = image_from_message(image)
            speed = speed_from_message(speedometer)
        except ConversionError as error:
            self.counters.unreadable_ticks += 1
            self._incomplete_ticks += not tick.reason
            reason = f"frame {tick.number} cannot be read: {error}"
            if before is None or self._incomplete_ticks >= INCOMPLETE_TICKS:
                raise WorldError(reason) from error
            return _repeated(before, tick, reason)
        executed = control_from_message(status.control)
        reason = tick.reason
        if not reason:
            self._incomplete_ticks = 0
        if not reason and not same_control(executed, control):
            self.counters.action_misses += 1
            reason = f"{executed} was in force instead of {control}"
        tolerance_ns = int(self.fixed_delta_s * 1e9 / 2)
        collisions, lane_invasions = inbox.take_events(tick.stamp_ns + tolerance_ns)
        return Frame(
            frame=tick.number,
            stamp_ns=tick.stamp_ns,
            image=pixels,
            pose=pose,
            speed=speed,
            yaw_rate=yaw_rate,
            route=self._route,
            collisions=collisions,
            lane_invasions=lane_invasions,
            control=executed,
            clean=not reason,
            reason=reason,
        )

    def _request_route(self, goal: Pose, frame: Frame) -> Frame:
        """Request a route from the car's position, in `frame`, to `goal`, and wait for it.

        Returns the latest frame.
        """
        before = self.inbox.routes_received
        goal_message = PoseStamped(
            header=make_header(frame.stamp_ns, topics.map_frame(self.config))
        )
        goal_message.pose = pose_to_message(goal)
        name = topics.GOAL.name(self.config)
        try:
            self.lock_step.wait_until(
                lambda: self.goals.get_subscription_count() > 0,
                self.config.startup_timeout_s,
                lambda: f"{name} (no subscriber)",
                "No node plans routes.",
            )
        except SimulatorLostError as error:
            # The simulator is there: waiting for its return would not help.
            raise WorldError(
                f"{error} Start carla_waypoint_publisher, or set carla.route_planner to own"
            ) from error
        self.goals.publish(goal_message)

        def arrived() -> bool:
            new = self.inbox.routes_received > before
            return new and not self._route_problem(goal, frame.pose)

        deadline = time.monotonic() + ROUTE_TIMEOUT_S
        while not self.lock_step.spin_until(arrived, ROUTE_TICK_S):
            if time.monotonic() >= deadline:
                problem = self._route_problem(goal, frame.pose)
                raise StartRefusedError(
                    f"no route on {topics.WAYPOINTS.name(self.config)} in {ROUTE_TIMEOUT_S:g} s "
                    f"for the goal at x {goal.x:.1f}, y {goal.y:.1f}: {problem or 'no new Path'}"
                )
            frame = self._step(STANDING)
        return frame

    def _route_problem(self, goal: Pose, car: Pose) -> str:
        """Say why the latest route does not lead from the car to `goal`; empty if it does."""
        route = self.inbox.route
        if not len(route):
            return "the Path is empty"
        from_car_m = _distance(route[0], car)
        to_goal_m = _distance(route[-1], goal)
        if from_car_m > ROUTE_START_TOLERANCE_M:
            return f"the Path begins {from_car_m:.1f} m from the car"
        if to_goal_m > ROUTE_END_TOLERANCE_M:
            return f"the Path ends {to_goal_m:.1f} m from the goal"
        return ""


def _repeated(before: Frame, tick: Tick, reason: str) -> Frame:
    """Return the frame `before` in place of a tick's missing one."""
    return replace(before, frame=tick.number, stamp_ns=tick.stamp_ns, clean=False, reason=reason)


def _distance(point: np.ndarray, pose: Pose) -> float:
    return math.hypot(point[0] - pose.x, point[1] - pose.y)
