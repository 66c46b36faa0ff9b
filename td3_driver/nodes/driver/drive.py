# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The configured driver: passes frames to a pilot, and its commands through a guard to the car."""

from __future__ import annotations

import time
from queue import SimpleQueue
from typing import Any

from rclpy.clock import Clock, ClockType
from std_srvs.srv import Trigger

from td3_driver.bridge import driver_topics, runtime
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import DriverConfig
from td3_driver.driving.pilot import Halt, Pilot
from td3_driver.driving.world import Frame
from td3_driver.faults import Fault
from td3_driver.nodes.driver.company import Company
from td3_driver.nodes.driver.goals import RandomGoals
from td3_driver.nodes.driver.live_frames import LiveFrames
from td3_driver.nodes.driver.outputs import CommandOutput, DecisionOutput
from td3_driver.nodes.driver.policy import DrivingPolicy
from td3_driver.nodes.driver.reports import Changes, Reports
from td3_driver.nodes.driver.shadow import Shadow
from td3_driver.runs import RunFolder
from td3_driver.safety.guard import WATCH_PERIOD_S, Guard, WatchThread
from td3_driver.workers import Failure

# After this long without a speed, do not wait for one to show that the car has stopped.
NO_SPEED_S = 0.3
STANDSTILL_MPS = 0.1


class Drive:
    """Everything a configured driver consists of; created and closed with its configuration."""

    def __init__(
        self,
        node: ConfiguredNode,
        run: RunFolder | None,
        policy_file: str,
        random_goal: bool,
        seed: int,
    ) -> None:
        """Take a run, a policy file, or neither for the baseline; see `DrivingPolicy`.

        Raises ConfigError if the policy cannot drive.
        """
        self._node = node
        self._config = config = node.config
        self._log = node.get_logger()
        self._active = False
        self._off_course: object = None
        fixed_delta_s = config.simulator.fixed_delta_s
        self._policy = DrivingPolicy(node, run, policy_file)
        self._pilot = Pilot(config.driving, fixed_delta_s, self._policy.act)
        self._commands = CommandOutput(node)
        self._decisions = DecisionOutput(node)
        self._shadow = (
            Shadow(node, config.carla, config.driving.vehicle_max_steer_rad)
            if config.driver.shadow
            else None
        )
        changes: Changes = SimpleQueue()
        self._guard = Guard(
            config.driving, config.driver, fixed_delta_s, self._commands.send, changes.put
        )
        self._frames = LiveFrames(
            node, config.carla, config.driver, fixed_delta_s, self._guard, self._on_frame
        )
        self._seed = seed
        self._goals: RandomGoals | None = None
        self._chooses_goals = False
        self.choose_goals(random_goal)
        node.create_service(Trigger, driver_topics.RESUME.name, self._on_resume)
        # Simulation time stops when the simulator dies.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(WATCH_PERIOD_S, lambda: self._guard.beat("executor"), clock=steady)
        self._watch = WatchThread(self._guard, self._on_watch_failed)
        self._watch.start()
        self._reports = Reports(
            node,
            changes,
            self._guard,
            self._frames,
            self._pilot,
            self._policy,
            self._decisions,
            Company(node, self._guard, self._frames),
            self._watch.worker,
        )
        self._policy.announce()

    def activate(self) -> None:
        """Take command of the car."""
        self._pilot.restart()
        self._active = self._reports.active = True
        self._guard.engage()

    def choose_goals(self, wanted: bool) -> None:
        """Choose random goals from now on, or no longer."""
        # A goal is a command, too: it changes the route of whoever drives.
        self._chooses_goals = wanted and not self._config.driver.shadow
        if self._chooses_goals and self._goals is None:
            self._goals = RandomGoals(
                self._node,
                self._config.carla,
                self._config.evaluation.route_length_m,
                self._seed,
                self._before_reading,
            )

    def change_limits(self, limits: DriverConfig) -> None:
        """Have other limits of time apply from now on."""
        self._guard.change_limits(limits)
        self._frames.change_limits(limits)

    def deactivate(self) -> None:
        """Stop the car, wait until it is stationary, and command nothing from then on."""
        if not self._guard.engaged or not self._node.context.ok():
            return
        self._active = self._reports.active = False
        self._bring_to_stand()
        self._guard.disengage()

    def close(self) -> None:
        """Stop the car and end the threads."""
        self.deactivate()
        self._watch.end()
        self._reports.close()
        self._policy.close()

    def _on_frame(self, frame: Frame, arrived_s: float) -> None:
        self._policy.take_over_newer()
        if not self._active:
            return
        pilot, guard = self._pilot, self._guard
        decisions = pilot.decisions
        try:
            with guard.deciding:
                decision = pilot.drive(frame)
        except ValueError as error:
            guard.report(Fault.NOT_FINITE, str(error))
            pilot.restart()
            return
        if isinstance(decision, Halt):
            guard.stand(decision.reason)
            if self._goals is not None and self._chooses_goals:
                self._goals.request(frame)
            return
        # Also run while the car must not drive: this shows whether the policy is valid and fast.
        admitted = guard.drive(decision, frame, arrived_s)
        if admitted is None:
            pilot.restart()
            return
        if self._shadow is not None:
            self._shadow.compare(admitted, frame.stamp_ns)
        if pilot.decisions != decisions:
            loaded, latency_s = self._policy.loaded, guard.latest_latency_s
            self._decisions.note(pilot, loaded, admitted, frame.stamp_ns, latency_s)
        if pilot.off_course is not self._off_course:
            self._off_course = pilot.off_course
            if pilot.off_course is not None:
                self._log.warning(f"off course: {pilot.off_course.value}")

    def _bring_to_stand(self) -> None:
        """Repeat the stop until the car is stationary, or no longer reports its speed."""
        config = self._config.driver
        begin_s = heard_s = time.monotonic()
        for repeats in range(1, 1 << 30):
            self._guard.end("the driver is shutting down")
            time.sleep(runtime.STOP_INTERVAL_S)
            now_s = time.monotonic()
            speed = self._frames.take_speed()
            heard_s = heard_s if speed is None else now_s
            stands = speed is not None and abs(speed) < STANDSTILL_MPS
            given_up = (
                now_s - begin_s > config.standstill_timeout_s or now_s - heard_s > NO_SPEED_S
            )
            in_vain = config.shadow or self._frames.overridden
            if repeats >= runtime.STOP_REPEATS and (stands or given_up or in_vain):
                break
        self._commands.await_delivery()

    def _before_reading(self) -> None:
        if self._active:
            self._guard.stand("reading a new map")
            self._pilot.restart()

    def _on_resume(self, request: Any, response: Any) -> Any:
        standing = self._guard.resume()
        # The faults are acknowledged now; whatever still stops the car may pass by itself.
        response.success = standing is None or not standing.needs_resume
        if standing is None:
            response.message = "the car drives on"
        elif standing.fault is None:
            response.message = standing.reason
        else:
            response.message = f"{standing.reason}; " + (
                "call ~/resume again once that is over"
                if standing.needs_resume
                else "the car drives on once that is over"
            )
        return response

    def _on_watch_failed(self, failure: Failure) -> None:
        # Without the watchdog, the guard lets no command through.
        if self._node.context.ok():
            self._log.fatal(str(failure))
