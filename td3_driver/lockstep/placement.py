# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Puts the car down at a pose without respawning it: teleport, wait, verify, retry."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from rclpy.node import Node
from std_msgs.msg import Bool

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    pose_to_message,
    same_control,
    target_velocity_to_message,
)
from td3_driver.bridge.runtime import take_waiting
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import (
    FULL_BRAKE,
    Frame,
    Pose,
    StartRefusedError,
    VehicleControl,
)
from td3_driver.lockstep.lock_step import LockStep, SimulatorLostError

STANDING = replace(FULL_BRAKE, hand_brake=True)
TRIES = 3
CLEAN_FRAME_TRIES = 10
FOREIGN_COMMANDS = 3
"""Ticks under another command than ours after which the autopilot is taken to be on."""
POSITION_TOLERANCE_M = 0.5
YAW_TOLERANCE_RAD = 0.1
TILT_TOLERANCE_RAD = 0.5
STANDING_SPEED_MPS = 0.1
# Dropped from CARLA's 0.3 to 0.5 m above the road, the car is at rest well before that.
FALLING_TICKS = 40


class Placement:
    """The topics that move the car, and the checks that it stands where it was put."""

    def __init__(
        self,
        node: Node,
        config: CarlaConfig,
        lock_step: LockStep,
        step: Callable[[VehicleControl], Frame],
    ) -> None:
        """Publish on `node`; `step` takes one tick under a command."""
        self._node = node
        self._config = config
        self._lock_step = lock_step
        self._inbox = lock_step.inbox
        self._step = step
        for topic in (topics.SET_TRANSFORM, topics.SET_TARGET_VELOCITY):
            lock_step.publisher(topic)
        # These need no subscriber.
        self._publishers = {
            topic: topics.create_publisher(node, topic, config)
            for topic in (topics.MANUAL_OVERRIDE, topics.ENABLE_AUTOPILOT)
        }
        self._autopilot = False
        """Whether somebody has switched the autopilot on, as far as is known."""
        self._subscription = topics.create_subscription(
            node, topics.ENABLE_AUTOPILOT, config, self._on_autopilot
        )

    def _on_autopilot(self, message: Bool) -> None:
        self._autopilot = message.data

    def destroy(self) -> None:
        """End the subscription, and the publishers that are not the lock-step's."""
        self._node.destroy_subscription(self._subscription)
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def put_down(self, pose: Pose) -> Frame:
        """Teleport the car, let it come to rest and return its frame there.

        Retried, because physics may interfere; raises StartRefusedError in the end.
        """
        problem = ""
        for attempt in range(TRIES):
            self._lock_step.counters.reset_retries += attempt > 0
            frame = self.teleport(pose)
            problem = _displacement(frame, pose, self.velocity()) or self.tilt()
            if not problem:
                return frame
            self._node.get_logger().warning(f"the car was put down at {pose}, but {problem}")
        raise StartRefusedError(
            f"the car does not stay at x {pose.x:.1f}, y {pose.y:.1f}, where it was put "
            f"{TRIES} times: {problem}. Start elsewhere, or check what is in the way there."
        )

    def tilt(self) -> str:
        """Describe how far the car is tilted; empty if it stands upright."""
        orientation = self._inbox.messages[topics.ODOMETRY].pose.pose.orientation
        upright = 1.0 - 2.0 * (orientation.x**2 + orientation.y**2)
        tilt_rad = math.acos(min(max(upright, -1.0), 1.0))
        return f"it is tilted by {tilt_rad:.2f} rad" if tilt_rad > TILT_TOLERANCE_RAD else ""

    def clean_frame(self, frame: Frame) -> Frame:
        """If the tick of `frame` was not clean, hold the car still until one is."""
        for tries in range(CLEAN_FRAME_TRIES):
            if frame.clean:
                return frame
            if tries == FOREIGN_COMMANDS and not same_control(frame.control, STANDING):
                # Switched on before anybody listened, perhaps.
                self._switch_autopilot_off("another command is in force than ours")
            frame = self._step(STANDING)
        raise SimulatorLostError(f"no clean tick in {CLEAN_FRAME_TRIES}: {frame.reason}.")

    def teleport(self, pose: Pose) -> Frame:
        """Stop the car, move it to `pose` and return the frame after it has settled."""
        take_waiting(self._subscription)
        if self._autopilot:
            self._switch_autopilot_off("it has been switched on")
        self._publishers[topics.MANUAL_OVERRIDE].publish(Bool(data=False))
        self._lock_step.command(STANDING)
        self._stop()
        above = replace(pose, z=pose.z + self._config.teleport_height_m)
        self._lock_step.publisher(topics.SET_TRANSFORM).publish(pose_to_message(above))
        self._step(STANDING)
        # A teleport keeps the velocity, and CARLA may take two ticks to set a new one.
        self._stop()
        for _ in range(self._config.reset_settle_ticks):
            frame = self._step(STANDING)
        for _ in range(FALLING_TICKS):
            if self.velocity() <= STANDING_SPEED_MPS:
                break
            frame = self._step(STANDING)
        return self.clean_frame(frame)

    def _switch_autopilot_off(self, reason: str) -> None:
        """Switch CARLA's autopilot off.

        Only if needed: even for that, the bridge builds a traffic manager. Meanwhile it holds
        commands and teleports back, for many seconds on a large map.
        """
        self._node.get_logger().warning(f"switching the autopilot off: {reason}")
        self._publishers[topics.ENABLE_AUTOPILOT].publish(Bool(data=False))
        self._autopilot = False

    def velocity(self) -> float:
        """Return the speed in any direction, m/s, including that of a fall."""
        status = self._inbox.messages.get(topics.VEHICLE_STATUS)
        return math.inf if status is None else float(status.velocity)

    def _stop(self) -> None:
        self._lock_step.publisher(topics.SET_TARGET_VELOCITY).publish(
            target_velocity_to_message(0.0)
        )


def _displacement(frame: Frame, pose: Pose, speed: float) -> str:
    """Describe why the car does not stand at `pose`; empty if it does.

    `speed` (m/s) is in any direction, so it reveals a fall as well.
    """
    apart_m = math.hypot(frame.pose.x - pose.x, frame.pose.y - pose.y)
    turned_rad = abs(math.remainder(frame.pose.yaw - pose.yaw, math.tau))
    if apart_m > POSITION_TOLERANCE_M:
        return f"it is {apart_m:.2f} m away"
    if turned_rad > YAW_TOLERANCE_RAD:
        return f"it is turned by {turned_rad:.2f} rad"
    if speed > STANDING_SPEED_MPS:
        return f"it moves at {speed:.2f} m/s"
    return ""
