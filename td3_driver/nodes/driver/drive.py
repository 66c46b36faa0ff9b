# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a driver is made of: frames to a pilot, its commands through a guard to the car."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal

import numpy as np
from rclpy.clock import Clock, ClockType
from rclpy.publisher import Publisher
from std_srvs.srv import Trigger

from td3_driver.bridge import driver_topics, runtime, topics
from td3_driver.bridge.conversion import ackermann_to_message, control_to_message
from td3_driver.bridge.driver_messages import BASELINE
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.bridge.topics import Topic
from td3_driver.config import Config, ConfigError
from td3_driver.deployment.description import check_observed
from td3_driver.deployment.loading import load_policy
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.control import Command
from td3_driver.driving.observation import ACTIONS, Observation, image_shape, vector_names
from td3_driver.driving.pilot import Pilot
from td3_driver.driving.world import Frame
from td3_driver.faults import Fault
from td3_driver.learning.manifest import CheckpointError
from td3_driver.learning.policy import Policy
from td3_driver.learning.serving import Reloader, Served
from td3_driver.learning.td3 import SATURATED
from td3_driver.nodes.driver.diagnostics import DriverDiagnostics
from td3_driver.nodes.driver.goals import RandomGoals
from td3_driver.nodes.driver.live_frames import LiveFrames
from td3_driver.nodes.driver.policy_messages import policy_info, policy_output
from td3_driver.nodes.driver.shadow import Shadow
from td3_driver.runs import RunFolder
from td3_driver.safety.guard import WATCH_PERIOD_S, Guard, Watch
from td3_driver.safety.watchdog import Stop

LOG_PERIOD_S = 3.0
DIAGNOSTICS_PERIOD_S = 1.0
# A simulator that says nothing for so long will not tell when the car stands.
NO_SPEED_S = 0.3
STANDSTILL_MPS = 0.1
DECISIONS_KEPT = 200


class Drive:
    """Everything of a configured driver; made and unmade with the node's configuration."""

    def __init__(
        self,
        node: ConfiguredNode,
        run: RunFolder | None,
        policy_file: str,
        random_goal: bool,
        seed: int,
    ) -> None:
        """Load the policy file, or where that is empty the newest usable policy of a run.

        Without a run, the baseline drives. Raises ConfigError where that cannot be. Only a run's
        policy is exchanged while it drives.
        """
        self._node = node
        self._config = node.config
        self._run = run
        self._log = node.get_logger()
        self._served = self._load_first(run, policy_file)
        self._refused: tuple[Path, str] | None = None
        self._loaded_at = time.time()
        self._active = False
        self._off_course: object = None
        self._inferences_s: deque[float] = deque(maxlen=DECISIONS_KEPT)
        self._saturated: deque[float] = deque(maxlen=DECISIONS_KEPT)
        config, driver = self._config, self._config.driver
        fixed_delta_s = config.simulator.fixed_delta_s
        self._pilot = Pilot(config.driving, fixed_delta_s, self._act)
        self._diagnostics = DriverDiagnostics(node)
        self._policy_publisher = self._publisher(driver_topics.POLICY)
        self._output_publisher = self._publisher(driver_topics.POLICY_OUTPUT)
        self._outputs = {
            topic: node.create_publisher(
                topic.message_type_in(config.carla),
                (shadow if driver.shadow else topic).name(config.carla),
                topic.client_qos_in(config.carla).profile(),
            )
            for topic, shadow in (
                (topics.ACKERMANN, driver_topics.SHADOW_ACKERMANN),
                (topics.VEHICLE_CONTROL, driver_topics.SHADOW_VEHICLE_CONTROL),
            )
            if driver.shadow or driver.publish_vehicle_control or topic is topics.ACKERMANN
        }
        self._shadow = (
            Shadow(node, config.carla, config.driving.vehicle_max_steer_rad)
            if driver.shadow
            else None
        )
        # The guard must not wait for a terminal that takes no more lines.
        self._changes: SimpleQueue[Stop | Literal["end"] | None] = SimpleQueue()
        self._announcer = threading.Thread(
            target=self._announce_changes, name="announcer", daemon=True
        )
        self._guard = Guard(config.driving, driver, fixed_delta_s, self._send, self._changes.put)
        self._frames = LiveFrames(
            node, config.carla, driver, fixed_delta_s, self._guard, self._on_frame
        )
        # A goal is a command, too: it changes the route of whoever drives.
        self._goals = (
            RandomGoals(
                node, config.carla, config.evaluation.route_length_m, seed, self._before_reading
            )
            if random_goal and not driver.shadow
            else None
        )
        self._reloader: Reloader | None = None
        if run is not None and not policy_file:
            self._reloader = Reloader(
                run.checkpoints,
                self._served.checkpoint,
                self._load,
                self._on_refused,
                driver.watch_period_s if driver.watch_checkpoints else None,
            )
            self._reloader.start()
        node.create_service(Trigger, driver_topics.RELOAD.name, self._on_reload)
        node.create_service(Trigger, driver_topics.RESUME.name, self._on_resume)
        # Simulation time stands still when the simulator dies.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(WATCH_PERIOD_S, lambda: self._guard.beat("executor"), clock=steady)
        node.create_timer(LOG_PERIOD_S, self._report, clock=steady)
        node.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self._watch = Watch(self._guard, self._on_watch_failed)
        self._watch.start()
        self._announcer.start()
        self._announce_policy()

    def activate(self) -> None:
        """Take command of the car."""
        self._pilot.stop("it has not begun")
        self._active = True
        self._guard.engage()

    def deactivate(self) -> None:
        """Stop the car, wait until it stands, and command nothing from then on."""
        if not self._guard.engaged or not self._node.context.ok():
            return
        self._active = False
        self._bring_to_stand()
        self._guard.disengage()

    def close(self) -> None:
        """Stop the car and end the threads."""
        self.deactivate()
        self._watch.end()
        self._changes.put("end")
        self._announcer.join()
        if self._reloader is not None:
            self._reloader.end()

    # The policy

    def _load_first(self, run: RunFolder | None, policy_file: str) -> Served:
        if run is None:
            return Served(Path(BASELINE), RouteFollower(self._config.driving), None, "")
        if policy_file:
            return self._load_file(run, policy_file)
        try:
            return self._load(run.latest_checkpoint(self._log.warning))
        except CheckpointError as error:
            raise ConfigError(str(error)) from None

    def _load(self, checkpoint: Path) -> Served:
        def check(policy: Policy) -> None:
            self._check_fits(policy, checkpoint.parents[1])

        return Served.load(checkpoint, check, _blank_observation(self._config))

    def _load_file(self, run: RunFolder, path: str) -> Served:
        config = self._config
        loaded = load_policy(run, path, config.driving, config.simulator.fixed_delta_s)
        return Served(Path(path), loaded, None, loaded.actor_sha256)

    def _check_fits(self, policy: Policy, run: Path) -> None:
        try:
            check_observed(policy.observed, self._config.driving, str(run))
        except ConfigError as error:
            raise CheckpointError(str(error)) from None
        actions = policy.spec.actions
        if actions != len(ACTIONS):
            raise CheckpointError(f"its actions are {actions} numbers, not {len(ACTIONS)}")

    def _act(self, observation: Observation) -> np.ndarray:
        return self._served.policy.act(observation)

    def _take_over_newer(self) -> None:
        newer = self._reloader.take() if self._reloader is not None else None
        if newer is not None:
            self._served, self._loaded_at, self._refused = newer, time.time(), None
            self._announce_policy()

    def _announce_policy(self) -> None:
        served = self._served
        self._log.info(f"drives with {served.checkpoint}")
        self._publish_policy()

    def _publish_policy(self) -> None:
        self._policy_publisher.publish(
            policy_info(self._served, self._run, self._config, self._loaded_at, self._refused)
        )

    def _on_refused(self, checkpoint: Path, reason: str) -> None:
        self._refused = (checkpoint, reason)
        self._log.error(
            f"checkpoint {checkpoint.name} is refused, the old one drives on: {reason}"
        )
        self._publish_policy()

    def _on_reload(self, request: Any, response: Any) -> Any:
        if self._reloader is None:
            response.success = False
            response.message = f"{self._served.checkpoint} drives, not the checkpoints of a run"
            return response
        newer, driving = self._reloader.newer(), self._served.checkpoint
        self._reloader.look()
        response.success = newer is not None
        response.message = (
            f"{newer} is being loaded; ~/policy tells what came of it"
            if newer
            else f"{driving.parent} holds nothing newer than {driving.name}"
        )
        return response

    # Driving

    def _on_frame(self, frame: Frame, arrived_s: float) -> None:
        self._take_over_newer()
        if not self._active:
            return
        pilot, guard = self._pilot, self._guard
        decisions = pilot.decisions
        try:
            with guard.deciding:
                command = pilot.drive(frame)
        except ValueError as error:
            guard.report(Fault.NOT_FINITE, str(error))
            pilot.stop(str(error))
            return
        if pilot.standing_because:
            guard.stand(pilot.standing_because)
            if self._goals is not None:
                self._goals.request(frame)
            return
        admitted = guard.drive(command, frame, arrived_s)
        if admitted is None:
            # Asked all the same: whether the policy is sound and quick shows only so.
            pilot.stop("the guard does not let it drive")
            return
        if self._shadow is not None:
            self._shadow.compare(admitted, frame.stamp_ns)
        if pilot.decisions != decisions:
            self._note_decision(admitted, frame.stamp_ns)
        if pilot.off_course is not self._off_course:
            self._off_course = pilot.off_course
            if pilot.off_course is not None:
                self._log.warning(f"off course: {pilot.off_course.value}")

    def _note_decision(self, command: Command, stamp_ns: int) -> None:
        pilot = self._pilot
        self._inferences_s.append(pilot.inference_s)
        self._saturated.append(float(np.mean(np.abs(pilot.action) > SATURATED)))
        if not self._output_publisher.get_subscription_count():
            return
        q_values = None
        if self._served.evaluator is not None:
            q_values = self._served.evaluator.q_values(pilot.observation, pilot.action)
        self._output_publisher.publish(
            policy_output(stamp_ns, pilot, command, self._guard.latest_latency_s, q_values)
        )

    def _send(self, command: Command, stamp_ns: int | None) -> None:
        """Publish what the guard lets through; nothing else calls this."""
        carla = self._config.carla
        message = ackermann_to_message(command.ackermann, carla, stamp_ns)
        self._outputs[topics.ACKERMANN].publish(message)
        if topics.VEHICLE_CONTROL in self._outputs:
            pedals = control_to_message(command.control, stamp_ns)
            self._outputs[topics.VEHICLE_CONTROL].publish(pedals)

    def _bring_to_stand(self) -> None:
        """Keep telling the car to stop until it stands, or no longer tells its speed."""
        config = self._config.driver
        begin_s = heard_s = time.monotonic()
        for repeats in range(1, 1 << 30):
            self._guard.end("the driver ends")
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
        runtime.await_delivery(self._outputs.values())

    def _before_reading(self) -> None:
        if self._active:
            self._guard.stand("it reads a new map")
            self._pilot.stop("it reads a new map")

    # What others are told

    def _announce_changes(self) -> None:
        """Log and publish, in a thread of its own, every new reason to stand."""
        latest = self._guard.standing
        while (standing := self._changes.get()) != "end":
            if standing is None or standing.fault is None:
                self._log.info(self._state())
            elif standing.over:
                self._log.warning(f"stands {standing.reason}")
            elif latest is None or standing.fault is not latest.fault or latest.over:
                self._log.error(_in_words(standing))
            latest = standing
            self._publish_diagnostics()

    def _on_resume(self, request: Any, response: Any) -> Any:
        standing = self._guard.resume()
        # Vouched for, the car waits no longer than for what is over by itself.
        response.success = standing is None or not standing.needs_resume
        if standing is None:
            response.message = "it drives on"
        elif standing.fault is None:
            response.message = standing.reason
        else:
            response.message = f"{standing.reason}; " + (
                "call again when that is over"
                if standing.needs_resume
                else "it drives on when that is over"
            )
        return response

    def _on_watch_failed(self, error: BaseException) -> None:
        # Without it nothing passes the guard any more.
        if self._node.context.ok():
            self._log.fatal(f"the watchdog has failed: {error!r}")

    def _report(self) -> None:
        """Log a line on how it goes."""
        missing = self._frames.missing()
        self._frames.expect()
        if missing:
            self._log.warning(
                f"nothing on {', '.join(missing)} for {LOG_PERIOD_S:.0f} s: is the simulator "
                f"running, not paused, with the role name {self._config.carla.role_name!r}?"
            )
        elif self._active:
            self._log.info(self._state())

    def _state(self) -> str:
        standing = self._guard.standing
        if standing is not None:
            return f"stopped: {standing.reason}"
        summary, projection = self._pilot.task.summary, self._pilot.task.projection
        return (
            f"{'would drive' if self._shadow else 'drives'}: {self._frames.speed or 0.0:.1f} m/s, "
            f"{projection.lateral_m:+.2f} m off the centre, "
            f"{100.0 * summary.route_completion:.0f} % of {summary.route_length_m:.0f} m, "
            f"inference {1e3 * self._pilot.inference_s:.1f} ms"
        )

    def _publish_diagnostics(self) -> None:
        self._diagnostics.publish(
            standing=self._guard.standing,
            fault_counts=self._guard.fault_counts(),
            standstills=self._guard.standstills(),
            counts=self._frames.counts,
            camera_rate_hz=self._frames.camera_rate_hz(),
            ages_s=self._guard.latencies_s(),
            inferences_s=list(self._inferences_s),
            policy=str(self._served.checkpoint),
            saturated_share=float(np.mean(self._saturated)) if self._saturated else 0.0,
            commands_limited=self._guard.commands_limited,
        )

    def _publisher(self, topic: Topic) -> Publisher:
        return topics.create_publisher(self._node, topic, self._config.carla)


def _in_words(stop: Stop) -> str:
    """Return a line about a fault that stops the car."""
    assert stop.fault is not None
    began = f" (it began with {stop.first})" if stop.first else ""
    then = (
        "stands until ~/resume is called" if stop.needs_resume else "drives on when that is over"
    )
    return f"stopped ({stop.fault.value}): {stop.reason}{began}; {then}"


def _blank_observation(config: Config) -> Observation:
    """Return an observation of zeros, of the shapes that the driving settings give."""
    driving = config.driving
    return {
        "image": np.zeros(image_shape(driving), np.uint8),
        "vector": np.zeros(len(vector_names(driving)), np.float32),
    }
