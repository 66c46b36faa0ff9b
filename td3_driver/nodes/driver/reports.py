# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reports the driver's state, in the log and on /diagnostics."""

from __future__ import annotations

from queue import SimpleQueue
from typing import Literal

from rclpy.clock import Clock, ClockType

from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.driving.pilot import Pilot
from td3_driver.nodes.driver.company import Company
from td3_driver.nodes.driver.diagnostics import DriverDiagnostics
from td3_driver.nodes.driver.live_frames import LiveFrames
from td3_driver.nodes.driver.outputs import DecisionOutput
from td3_driver.nodes.driver.policy import DrivingPolicy
from td3_driver.safety.guard import Guard
from td3_driver.safety.watchdog import Stop
from td3_driver.workers import Failure, Worker

LOG_PERIOD_S = 3.0
DIAGNOSTICS_PERIOD_S = 1.0


Changes = SimpleQueue[Stop | Literal["end"] | None]
"""New reasons to stand, None while the car drives: whoever adds one never waits for the log."""


class Reports:
    """Logs every change at once and the state now and then, and publishes diagnostics."""

    def __init__(
        self,
        node: ConfiguredNode,
        changes: Changes,
        guard: Guard,
        frames: LiveFrames,
        pilot: Pilot,
        policy: DrivingPolicy,
        decisions: DecisionOutput,
        company: Company,
        watch: Worker,
    ) -> None:
        self.active = False
        """Whether the driver is active, so that its state is worth logging."""
        self._config = node.config
        self._log = node.get_logger()
        self._changes = changes
        self._guard = guard
        self._frames = frames
        self._pilot = pilot
        self._policy = policy
        self._decisions = decisions
        self._company = company
        self._watch = watch
        self._diagnostics = DriverDiagnostics(node)
        # Simulation time stops when the simulator dies.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(LOG_PERIOD_S, self._log_line, clock=steady)
        node.create_timer(DIAGNOSTICS_PERIOD_S, self.publish_diagnostics, clock=steady)
        # The guard must not wait for a blocked terminal.
        self._latest = guard.standing
        self._announcer = Worker("announcer", self._log_changes, self._on_failed)
        self._announcer.start()

    def close(self) -> None:
        """Log the remaining changes, and end the thread."""
        self._changes.put("end")
        self._announcer.join()

    def _log_changes(self) -> None:
        """Log and publish every new reason for a stop, in a thread of its own."""
        while (standing := self._changes.get()) != "end":
            latest, self._latest = self._latest, standing
            if standing is None or standing.fault is None:
                self._log.info(self._state())
            elif standing.over:
                self._log.warning(f"stopped: {standing.reason}")
            elif latest is None or standing.fault is not latest.fault or latest.over:
                self._log.error(_in_words(standing))
            self.publish_diagnostics()

    def _on_failed(self, failure: Failure) -> None:
        self._log.error(str(failure))

    def _log_line(self) -> None:
        """Log which required topics are silent, or else the state."""
        missing = self._frames.missing()
        self._frames.expect()
        if missing:
            self._log.warning(
                f"nothing on {', '.join(missing)} for {LOG_PERIOD_S:.0f} s: is the simulator "
                f"running, not paused, with the role name {self._config.carla.role_name!r}?"
            )
        elif self.active:
            self._log.info(self._state())

    def _state(self) -> str:
        standing = self._guard.standing
        if standing is not None:
            return f"stopped: {standing.reason}"
        return (
            f"{'would be driving' if self._config.driver.shadow else 'driving'}: "
            f"{self._frames.speed or 0.0:.1f} m/s, {self._progress()}, "
            f"inference {1e3 * self._pilot.inference_s:.1f} ms"
        )

    def _progress(self) -> str:
        if not self._pilot.needs_route:
            return "without a route"
        summary, projection = self._pilot.task.summary, self._pilot.task.projection
        return (
            f"{projection.lateral_m:+.2f} m off the centre, "
            f"{100.0 * summary.route_completion:.0f} % of {summary.route_length_m:.0f} m"
        )

    def publish_diagnostics(self) -> None:
        """Publish the state on /diagnostics."""
        self._diagnostics.publish(
            standing=self._guard.standing,
            fault_counts=self._guard.fault_counts(),
            standstills=self._guard.standstills(),
            counts=self._frames.counts,
            camera_rate_hz=self._frames.camera_rate_hz(),
            ages_s=self._guard.latencies_s(),
            inferences_s=list(self._decisions.inferences_s),
            policy=self._policy.loaded.name,
            saturated_share=self._decisions.saturated_share,
            commands_limited=self._guard.commands_limited,
            sensors=self._company.sensors,
            commanders=self._company.commanders,
            failures=self._failures(),
        )

    def _failures(self) -> list[Failure]:
        """Return the latest failure of each thread that has had one."""
        workers = (self._watch, self._policy.worker, self._announcer)
        failures = [worker.failure for worker in workers if worker is not None]
        return [failure for failure in failures if failure is not None]


def _in_words(stop: Stop) -> str:
    """Return a line about a fault that stops the car."""
    assert stop.fault is not None
    began = f" (it began with {stop.first})" if stop.first else ""
    then = (
        "call ~/resume once that is over" if stop.needs_resume else "drives on once that is over"
    )
    return f"stopped ({stop.fault.value}): {stop.reason}{began}; {then}"
