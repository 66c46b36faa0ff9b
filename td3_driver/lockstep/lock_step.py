# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Exactly one simulator tick for each command, over topics: PAUSE, STEP_ONCE and their statuses.

Every wait is on the steady clock: simulation time stands still while the simulator is paused. Time
in which this process itself did not run is not counted: what came meanwhile has not been read.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rclpy.node import Node
from rclpy.publisher import Publisher

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import control_to_message
from td3_driver.bridge.run_state import RunCommand
from td3_driver.bridge.runtime import BEAT_S, Spinner
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig
from td3_driver.driving.world import FULL_BRAKE, VehicleControl, WorldError
from td3_driver.lockstep.counters import Counters
from td3_driver.lockstep.inbox import Inbox

# A bridge that is already paused does not answer PAUSE.
PAUSE_ANSWER_S = 2.0
# One that keeps running has not received PAUSE, and gets it again.
PAUSE_AGAIN_S = 0.5
# The first status of a step comes before its tick, so this much silence means a lost STEP_ONCE.
STEP_ANSWER_S = 1.0
# The bridge itself gives up on a sensor after 1 s, so anything later never arrives.
SENSOR_GRACE_S = 1.5
# A speed later than that counts as lost.
LATE_SPEED_S = 5.0
# Silence that ends the messages of earlier ticks.
QUIET_S = 0.02
DRAIN_S = 2.0
RESYNCHRONISATIONS = 3
PROGRESS_S = 5.0
# Time for one attempt to regain control of a lost simulator.
ATTEMPT_S = 5.0


class SimulatorLostError(WorldError):
    """The simulator does not answer, or its sensors are gone: it may come back."""


@dataclass(frozen=True)
class Tick:
    """How one tick went."""

    number: int
    stamp_ns: int
    reason: str = ""
    """Why it was not exactly one complete tick; empty if it was."""


class LockStep:
    """The simulator's ticks, one at a time, spun in the calling thread."""

    def __init__(self, node: Node, config: CarlaConfig) -> None:
        """Create publishers and subscriptions on `node`, which nothing else may spin."""
        self.counters = Counters()
        self.inbox = Inbox(node, config)
        self.fixed_delta_s = 0.0
        self._node = node
        self.config = config
        self._logger = node.get_logger()
        self._publishers: dict[Topic, Publisher] = {}
        self._spinner = Spinner(node)
        self._run_commands = {
            command: topics.CONTROL.message_type(command=int(command)) for command in RunCommand
        }
        self._number: int | None = None
        self._time: tuple[int, int] | None = None
        """Number and simulation time (ns) of the latest tick; None after time restarts."""
        self._told_to_pause_s = 0.0
        self._interruptible = False
        self._interrupted = False
        for topic in (topics.CONTROL, topics.VEHICLE_CONTROL):
            self.publisher(topic)

    @property
    def _tolerance_ns(self) -> int:
        return int(self.fixed_delta_s * 1e9 / 2)

    def publisher(self, topic: Topic) -> Publisher:
        """Return the publisher of a topic, created on first use."""
        if topic not in self._publishers:
            self._publishers[topic] = topics.create_publisher(self._node, topic, self.config)
        return self._publishers[topic]

    def connect(self) -> None:
        """Wait for the simulator, pause it, and learn its frame number and time step.

        Raises WorldError saying which topics are missing.
        """
        self._take_hold(self.config.startup_timeout_s)
        self.counters = Counters()

    def reconnect(self, lost: SimulatorLostError, waiting: Callable[[str], object]) -> None:
        """Wait for a lost simulator to come back, and regain control of it.

        `waiting` is called with a line at every attempt. Raises WorldError if the simulator does
        not come back within `outage_timeout_s`, and KeyboardInterrupt after `interrupt`.
        """
        timeout_s = self.config.outage_timeout_s
        start_s = self.now_s()
        problem = lost
        self.counters.outages += 1
        try:
            with self._interruptibly():
                while (waited_s := self.now_s() - start_s) < timeout_s:
                    waiting(
                        f"{problem} Waiting for the simulator to come back, {waited_s:.0f} s of "
                        f"at most {timeout_s:.0f} s"
                    )
                    attempt_s = min(ATTEMPT_S, timeout_s - waited_s)
                    attempt_end_s = self.now_s() + attempt_s
                    try:
                        self.inbox.renew_map()
                        self._take_hold(attempt_s)
                        return
                    except SimulatorLostError as error:
                        problem = error
                    self.spin_until(lambda: False, attempt_end_s - self.now_s())
        finally:
            self.counters.outage_s += self.now_s() - start_s
        raise WorldError(f"the simulator was away for {timeout_s:.0f} s: {problem}")

    def interrupt(self) -> None:
        """End any long wait with KeyboardInterrupt; a signal handler may call it."""
        self._interrupted = True

    @contextlib.contextmanager
    def _interruptibly(self) -> Iterator[None]:
        outer, self._interruptible = self._interruptible, True
        try:
            yield
        finally:
            self._interruptible = outer

    def _take_hold(self, timeout_s: float) -> None:
        """Wait for the simulator's topics, pause it, and tick until a tick is complete."""
        self.wait_until(
            lambda: not self._unmatched(),
            timeout_s,
            lambda: ", ".join(self._unmatched()),
            "Is the simulator (or carla-ros-bridge in active synchronous mode) running, in "
            f"ROS_DOMAIN_ID {self._node.context.get_domain_id()}, with a car whose role name is "
            f"{self.config.role_name!r} and a camera {self.config.camera!r}?",
        )
        self.pause(timeout_s)
        self._time = None
        self._first_ticks(timeout_s)

    def pause(self, timeout_s: float) -> None:
        """Pause the simulator and take its frame number as the current one."""
        self.inbox.begin_tick()
        self._send_pause()
        if not self.spin_until(self._is_held, min(PAUSE_ANSWER_S, timeout_s)):
            if not self.inbox.statuses:
                self.send(RunCommand.STEP_ONCE)
            self.wait_until(
                self._is_held,
                timeout_s,
                lambda: f"{self._name(topics.STATUS)} with synchronous_mode_running False",
                self._paused_hint,
            )
        self.settle()

    def begin_new_time(self) -> None:
        """Settle after a map was loaded and the clock restarted at 0."""
        self.settle()
        self._time = None

    def settle(self) -> None:
        """Let the messages of earlier ticks arrive, and take the latest frame as current."""
        self._drain()
        status = self.inbox.last_status
        if status is None:
            raise SimulatorLostError(f"no message on {self._name(topics.STATUS)}.")
        if not status.synchronous_mode:
            raise SimulatorLostError(
                "the bridge runs in asynchronous mode, where no step is repeatable: start "
                "carla_ros_bridge with synchronous_mode:=True and passive:=False."
            )
        self._number = int(status.frame)
        # A float32 on the wire: 0.05 arrives as 0.0500000007.
        self.fixed_delta_s = round(float(status.fixed_delta_seconds), 7)

    def command(self, control: VehicleControl) -> None:
        """Publish the command for the next tick."""
        self.publisher(topics.VEHICLE_CONTROL).publish(control_to_message(control))

    def tick(self, control: VehicleControl) -> Tick:
        """Run one tick under `control` and wait for everything it publishes.

        Raises SimulatorLostError where the simulator does not answer in time.
        """
        if self._number is None:
            raise WorldError("the simulator is not connected")
        self._await_late_speed()
        expected = self._number + 1
        # Statuses between two ticks are not ours. Taking one for an answer would leave every
        # later observation one tick behind its command.
        self.inbox.take_statuses()
        if self._has_moved():
            return self._resynchronised(control, expected)
        self._step(control, expected)
        if self._number != expected:
            return self._resynchronised(control, expected)
        return self._completed()

    def play(self) -> None:
        """Let the simulator run freely."""
        self.send(RunCommand.PLAY)

    def destroy(self) -> None:
        """End the subscriptions and publishers; the node still belongs to its owner."""
        self._spinner.close()
        self.inbox.destroy()
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)

    def wait_until(
        self,
        condition: Callable[[], bool],
        timeout_s: float,
        missing: Callable[[], str],
        advice: str | Callable[[], str],
    ) -> None:
        """Spin until `condition` holds; a long wait is logged.

        Raises SimulatorLostError with what `missing()` and `advice` say after `timeout_s`, and
        KeyboardInterrupt after `interrupt`.
        """
        start_s = self.now_s()
        with self._interruptibly():
            while not self.spin_until(
                condition, min(PROGRESS_S, start_s + timeout_s - self.now_s())
            ):
                waited_s = self.now_s() - start_s
                if waited_s >= timeout_s:
                    hint = advice if isinstance(advice, str) else advice()
                    raise SimulatorLostError(f"nothing on {missing()} for {timeout_s:g} s. {hint}")
                self._logger.info(f"waiting for {missing()}, {waited_s:.0f} s")

    def spin_until(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Spin until `condition` holds; return whether it did within `timeout_s`."""
        deadline_s = self.now_s() + timeout_s
        while not condition():
            remaining_s = deadline_s - self.now_s()
            if remaining_s <= 0.0:
                return False
            if self._interruptible and self._interrupted:
                raise KeyboardInterrupt
            self._spinner.once(min(remaining_s, BEAT_S))
            # One wake-up for all that came together: an executor's own round is dearer.
            self.inbox.take_all()
        return True

    def now_s(self) -> float:
        """Return the time that all waits are measured by: on a steady clock.

        It stops while this process stands still in a wait.
        """
        return self._spinner.now_s()

    def send(self, command: RunCommand) -> None:
        """Publish a command to run, pause or step the simulation."""
        self.publisher(topics.CONTROL).publish(self._run_commands[command])

    def _name(self, topic: Topic) -> str:
        return topic.name(self.config)

    def _unmatched(self) -> list[str]:
        """Return the names of the topics whose other end does not exist yet."""
        unheard = [
            self._name(topic)
            for topic, publisher in self._publishers.items()
            if not publisher.get_subscription_count()
        ]
        return unheard + self.inbox.unpublished()

    def _is_paused(self) -> bool:
        return bool(self.inbox.statuses) and not self.inbox.statuses[-1].synchronous_mode_running

    def _is_held(self) -> bool:
        """Return whether it is paused; resend PAUSE now and then while it runs.

        A simulator started in the meantime has not received the earlier PAUSE.
        """
        if self._is_paused():
            return True
        runs = bool(self.inbox.statuses)
        if runs and self.now_s() - self._told_to_pause_s >= PAUSE_AGAIN_S:
            self._send_pause()
        return False

    def _send_pause(self) -> None:
        self._told_to_pause_s = self.now_s()
        self.send(RunCommand.PAUSE)

    def _paused_hint(self) -> str:
        if not self.inbox.statuses:
            return (
                "Its topics are there, but it does not tick: it hangs, or its synchronisation "
                "thread has died; restart it."
            )
        return (
            f"It keeps running, at frame {self.inbox.statuses[-1].frame}: somebody else plays "
            "it, or a tick takes too long."
        )

    def _await_step(self, expected: int) -> None:
        """Wait for the statuses that end a step; resend one that was lost."""
        answer_s = min(STEP_ANSWER_S, self.config.step_timeout_s / 2.0)
        if self.spin_until(lambda: self._step_ended(expected), answer_s):
            return
        resent = not self.inbox.statuses
        if resent:
            self.counters.steps_resent += 1
            self._logger.warning(f"no answer to STEP_ONCE for {answer_s:g} s: sending it again")
            self.send(RunCommand.STEP_ONCE)
        self.wait_until(
            lambda: self._step_ended(expected),
            max(self.config.step_timeout_s - answer_s, 0.0),
            lambda: f"{self._name(topics.STATUS)} for the end of frame {expected}",
            self._stalled_hint,
        )
        if resent:
            # The first may have been late and not lost; then there are two ticks.
            self._drain()

    def _step_ended(self, expected: int) -> bool:
        statuses = self.inbox.statuses
        return bool(statuses) and (
            (statuses[-1].frame >= expected and not statuses[-1].synchronous_mode_running)
            or statuses[-1].frame > expected
            # A map was loaded: the frame count restarts.
            or statuses[-1].frame + 1 < expected
        )

    def _stalled_hint(self) -> str:
        if not self.inbox.statuses:
            return "The simulator did not answer two STEP_ONCE commands; is it still running?"
        last = self.inbox.statuses[-1]
        return (
            f"Its last status is frame {last.frame}, running {last.synchronous_mode_running}: the "
            "simulator hangs in its tick or has died. Restart it, or raise carla.step_timeout_s."
        )

    def _first_ticks(self, timeout_s: float) -> None:
        """Tick under full brake until a tick is complete; new sensors may need a while."""
        deadline_s = self.now_s() + timeout_s
        while reason := self.tick(FULL_BRAKE).reason:
            if self.now_s() >= deadline_s:
                raise SimulatorLostError(
                    f"{reason}, for {timeout_s:g} s: does the car have these sensors?"
                )
            self._logger.info(reason)

    def _has_moved(self) -> bool:
        last = self.inbox.last_status
        return last is not None and (
            last.frame != self._number or bool(last.synchronous_mode_running)
        )

    def _step(self, control: VehicleControl, expected: int) -> None:
        """Run one tick and record the frame number it ended with."""
        self.inbox.begin_tick()
        self.command(control)
        if self.config.command_lead_s:
            time.sleep(self.config.command_lead_s)
        self.send(RunCommand.STEP_ONCE)
        self._await_step(expected)
        self._number = int(self.inbox.statuses[-1].frame)
        self.counters.ticks += 1

    def _completed(self, reason: str = "") -> Tick:
        """Wait for the tick's messages, which DDS does not order across topics."""
        assert self._number is not None
        inbox, tolerance_ns = self.inbox, self._tolerance_ns
        due_ns = self._due_ns(self._number)
        if due_ns is None:
            # The first clock message would be taken for this tick's: wait for the latest.
            self._drain()
        if not self.spin_until(lambda: not inbox.missing(tolerance_ns, due_ns), SENSOR_GRACE_S):
            reason = reason or self._incomplete(due_ns)
            inbox.speed_due = topics.SPEEDOMETER not in inbox.messages
        # Without a clock the next tick's time is counted from where this one's should be.
        stamp_ns = due_ns if inbox.clock_ns is None else inbox.clock_ns
        self._time = None if stamp_ns is None else (self._number, stamp_ns)
        return Tick(self._number, stamp_ns or 0, reason)

    def _due_ns(self, number: int) -> int | None:
        """Return the simulation time that a frame should have; None if any will do."""
        if self._time is None:
            return None
        latest, stamp_ns = self._time
        return stamp_ns + round((number - latest) * self.fixed_delta_s * 1e9)

    def _incomplete(self, due_ns: int | None) -> str:
        """Count and describe what a tick lacks: some messages, or the right time."""
        missing = self.inbox.missing(self._tolerance_ns)
        if not missing:
            assert self.inbox.clock_ns is not None and due_ns is not None
            self.counters.clock_jumps += 1
            return (
                f"simulation time is {self.inbox.clock_ns / 1e9:.3f} s at frame {self._number} "
                f"and should be {due_ns / 1e9:.3f} s: a map was loaded, or somebody else ticks"
            )
        self.counters.incomplete_ticks += 1
        self.counters.missing.update(missing)
        return f"frame {self._number} came without {', '.join(missing)}"

    def _await_late_speed(self) -> None:
        """Wait for a missing speed, so that it is not mistaken for the next tick's.

        The speedometer has no stamp: one extra message makes all later ones a tick old.
        """
        if self.inbox.speed_due:
            self.spin_until(lambda: not self.inbox.speed_due, LATE_SPEED_S)
            self.inbox.speed_due = False

    def _drain(self) -> None:
        """Let pending messages arrive; if they never end, somebody plays the simulation."""
        deadline_s = self.now_s() + DRAIN_S
        while self.now_s() < deadline_s:
            before = self.inbox.received, self._spinner.stood_still_s
            self._spinner.once(QUIET_S)
            if before == (self.inbox.received, self._spinner.stood_still_s):
                return

    def _resynchronised(self, control: VehicleControl, expected: int) -> Tick:
        """Pause a simulator that somebody else steps, and bring it to one complete tick."""
        assert self.inbox.last_status is not None
        reason = (
            f"the simulator is at frame {self.inbox.last_status.frame} where {expected} should "
            "follow: somebody else steps or plays it, or it was restarted"
        )
        self._logger.warning(reason)
        for _ in range(RESYNCHRONISATIONS):
            self.counters.frame_jumps += 1
            self.pause(self.config.step_timeout_s)
            assert self._number is not None
            expected = self._number + 1
            self._step(control, expected)
            if self._number == expected:
                return self._completed(reason)
        raise SimulatorLostError(f"{reason}. Its frames cannot be held: find the other client.")
