# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Turns Ackermann commands into pedals: one command out for each command in.

It replaces carla_ackermann_control, whose timer stops with simulation time, whose speed has no
sign, and which sends nothing at standstill. The control law is the one used in training.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.parameter import Parameter

from td3_driver.bridge import outlasting, runtime, topics
from td3_driver.bridge.conversion import (
    control_to_message,
    max_steer_from_vehicle_info,
    ns_from_stamp,
)
from td3_driver.bridge.messages import ackermann_from_message
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.bridge.topics import Topic
from td3_driver.config import Config
from td3_driver.driving.control import AckermannCommand, PedalController, stopping_pedals
from td3_driver.driving.world import FULL_BRAKE, VehicleControl
from td3_driver.nodes.unblocked import never_wait_for_stderr

NODE_NAME = "ackermann_controller"
SECTIONS = ("carla", "driving", "ackermann_controller")
SETTABLE = ("ackermann_controller.input_timeout_s", "ackermann_controller.speed_timeout_s")
OWN_PARAMETERS = outlasting.OWN_PARAMETERS
WATCHDOG_PERIOD_S = 0.05


class AckermannControllerNode(ConfiguredNode):
    """Ackermann commands and the signed speed in; pedals out.

    The control law uses simulation time, so a paused simulator adds nothing to its integral; the
    watchdog uses wall-clock time. The Ackermann command's acceleration, jerk and steering
    velocity are ignored: the sender limits them.
    """

    def __init__(
        self,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Subscribe to the commands; raises ConfigError."""
        super().__init__(
            NODE_NAME,
            SECTIONS,
            settable=SETTABLE,
            own=OWN_PARAMETERS,
            context=context,
            parameter_overrides=parameter_overrides,
        )
        self._stopped = False
        self._pedals = PedalController(self.config.driving.vehicle_max_steer_rad)
        self._last = FULL_BRAKE
        self._speed = math.nan
        self._speed_s = -math.inf
        """When the speed arrived; this and the next two are times of the steady clock."""
        self._running_since_s = -math.inf
        self._input_s = -math.inf
        self._paused = False
        self._clock_ns: int | None = None
        self._applied_ns: int | None = None
        """Simulation time of the latest command; None after a stop."""
        self._stopped_because = ""
        self._stops_left = 0
        handlers: dict[Topic, Callable[[Any], None]] = {
            topics.CLOCK: self._on_clock,
            topics.STATUS: self._on_status,
            topics.SPEEDOMETER: self._on_speed,
            topics.VEHICLE_INFO: self._on_vehicle_info,
            topics.MANUAL_OVERRIDE: self._on_override,
            topics.ACKERMANN: self._on_command,
        }
        names = self.config.carla
        for topic, handler in handlers.items():
            topics.create_subscription(self, topic, names, handler)
        self._publisher = topics.create_publisher(self, topics.VEHICLE_CONTROL, names)
        # Simulation time stops with the simulator.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCHDOG_PERIOD_S, self._watch, clock=steady)
        self.get_logger().info(
            f"turning commands on {topics.ACKERMANN.name(names)} into pedals on "
            f"{topics.VEHICLE_CONTROL.name(names)}"
        )

    def stop(self) -> None:
        """End `run`; may be called from any thread."""
        self._stopped = True

    def run(self) -> None:
        """Answer commands until stopped, or until the context ends."""
        outlasted = outlasting.Outlasted(self)
        runtime.spin(self, until=lambda: self._stopped, outlasted=outlasted)

    def stop_car(self) -> None:
        """Stop the car if it was ever commanded, and wait until the stop has been delivered."""
        if self.context.ok() and self._input_s > -math.inf:
            runtime.insist(
                lambda: self._stop("the controller is shutting down"), [self._publisher]
            )

    def change_settings(self, new: Config) -> None:
        """Accept new time limits."""

    def _on_clock(self, message: Any) -> None:
        self._clock_ns = ns_from_stamp(message.clock)

    def _on_status(self, message: Any) -> None:
        was_paused = self._paused
        self._paused = message.synchronous_mode and not message.synchronous_mode_running
        if was_paused and not self._paused:
            self._running_since_s = time.monotonic()

    def _on_speed(self, message: Any) -> None:
        self._speed, self._speed_s = float(message.data), time.monotonic()

    def _on_vehicle_info(self, message: Any) -> None:
        max_steer_rad = max_steer_from_vehicle_info(message)
        if not (math.isfinite(max_steer_rad) and max_steer_rad > 0.0):
            self.get_logger().warning(
                f"{topics.VEHICLE_INFO.name(self.config.carla)} gives an unusable largest "
                f"steering angle, {max_steer_rad} rad; using driving.vehicle_max_steer_rad "
                f"({self.config.driving.vehicle_max_steer_rad:g}) instead"
            )
            max_steer_rad = self.config.driving.vehicle_max_steer_rad
        self._pedals = PedalController(max_steer_rad)

    def _on_override(self, message: Any) -> None:
        # Somebody else is driving: the error that builds up meanwhile must not be made up for.
        self._pedals.reset()

    def _on_command(self, message: Any) -> None:
        """Answer a command with pedals, or with a stop if it cannot be followed."""
        self._input_s = time.monotonic()
        command = ackermann_from_message(message)
        problem = self._problem(command)
        if problem:
            self._stop(problem)
            return
        if self._stopped_because:
            self.get_logger().info("following commands again")
            self._stopped_because, self._stops_left = "", 0
        self._publish(self._pedals.control(command, self._speed, self._elapsed_s()))

    def _problem(self, command: AckermannCommand) -> str:
        """Return why a command cannot be followed; empty if it can."""
        if not (math.isfinite(command.steering_angle) and math.isfinite(command.speed)):
            return f"the command is not finite: {command}"
        return self._speed_problem()

    def _speed_problem(self) -> str:
        name = topics.SPEEDOMETER.name(self.config.carla)
        if self._speed_s == -math.inf:
            return f"nothing received on {name} yet"
        if not math.isfinite(self._speed):
            return f"the speed on {name} is not finite: {self._speed}"
        # A paused simulator is silent, and its car does not move.
        silence_s = time.monotonic() - max(self._speed_s, self._running_since_s)
        if not self._paused and silence_s > self.config.ackermann_controller.speed_timeout_s:
            return f"nothing on {name} for {silence_s:.1f} s"
        return ""

    def _elapsed_s(self) -> float:
        """Return the simulated time since the previous command; 0 if it is not known."""
        before, self._applied_ns = self._applied_ns, self._clock_ns
        if before is None or self._clock_ns is None:
            return 0.0
        if self._clock_ns < before:  # the simulation has restarted
            self._pedals.reset()
            return 0.0
        return 1e-9 * (self._clock_ns - before)

    def _watch(self) -> None:
        """Stop the car if the commands, or the speed that they need, have stopped arriving."""
        if self._stops_left:
            self._stops_left -= 1
            self._publish(stopping_pedals(self._last))
        if self._stopped_because or self._input_s == -math.inf:
            return
        silence_s = time.monotonic() - self._input_s
        if silence_s > self.config.ackermann_controller.input_timeout_s:
            name = topics.ACKERMANN.name(self.config.carla)
            self._stop(f"nothing on {name} for {silence_s:.1f} s")
            self._stops_left = runtime.STOP_REPEATS - 1
        elif problem := self._speed_problem():
            self._stop(problem)

    def _stop(self, reason: str) -> None:
        """Publish full brake, and log the reason if this is a new stop."""
        if not self._stopped_because:
            self.get_logger().error(f"stopped: {reason}")
        self._stopped_because = reason
        self._applied_ns = None
        self._pedals.reset()
        self._publish(stopping_pedals(self._last))

    def _publish(self, control: VehicleControl) -> None:
        self._last = control
        self._publisher.publish(control_to_message(control, self._clock_ns))


def control() -> None:
    """Follow commands until asked to stop, and leave the car stationary."""
    never_wait_for_stderr()
    node = AckermannControllerNode()
    try:
        node.run()
    finally:
        node.stop_car()


def main(args: list[str] | None = None) -> None:
    """Run the controller's process."""
    sys.exit(runtime.run(control, args))


if __name__ == "__main__":
    main()
