# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driver: drives with a run's actor or the baseline, one command for every camera image.

It is a managed (lifecycle) node: when configured, it has loaded its policy and watches; when
active, it drives. It configures and activates itself unless `autostart` is off. What it consists
of is in `nodes/driver/drive.py`.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rclpy.context import Context
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from td3_driver.bridge import runtime
from td3_driver.bridge.driver_topics import DRIVER_TOPICS, NODE_NAME
from td3_driver.bridge.interfaces import require_messages
from td3_driver.bridge.parameters import ConfiguredLifecycleNode
from td3_driver.config import Config, ConfigError
from td3_driver.nodes.driver.drive import Drive
from td3_driver.nodes.unblocked import never_wait_for_stderr
from td3_driver.runs import RunFolder

LAST_ANSWER_READ_S = 1.0
SECTIONS = ("carla", "driving", "driver", "evaluation")
SETTABLE = (
    "random_goal",
    "driver.camera_timeout_s",
    "driver.odometry_timeout_s",
    "driver.speedometer_timeout_s",
    "driver.route_timeout_s",
    "driver.policy_timeout_s",
    "driver.max_clock_gap_s",
    "driver.resume_delay_s",
)
OWN_PARAMETERS = {
    "run": ("", "Folder of the run whose actor drives, or its name under runs/."),
    "policy": ("", "ONNX file from td3-driver export, to drive with instead of the run's actor."),
    "baseline": (False, "Follow the route by pure pursuit instead of using a run's actor."),
    "random_goal": (True, "Choose a random goal whenever there is no route to drive."),
    "seed": (0, "Seed of the random goals.", 0, 2**31 - 1),
    "autostart": (True, "Configure and activate at once, without a lifecycle manager."),
}


class DriverNode(ConfiguredLifecycleNode):
    """Camera, odometry, speed and route in; Ackermann commands, and pedals, out."""

    def __init__(
        self,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Read the settings; raises ConfigError if they are wrong or a message is missing."""
        require_messages(DRIVER_TOPICS)
        self._drive: Drive | None = None
        self._refusal: ConfigError | None = None
        self._finalized = False
        super().__init__(
            NODE_NAME,
            SECTIONS,
            settable=SETTABLE,
            own=OWN_PARAMETERS,
            context=context,
            parameter_overrides=parameter_overrides,
        )
        self._own_entities = self._entities()

    def start(self) -> None:
        """Configure and activate; raises ConfigError if the policy cannot be used."""
        if self.trigger_configure() != TransitionCallbackReturn.SUCCESS:
            raise self._refusal or RuntimeError("the driver could not be configured")
        if self.trigger_activate() != TransitionCallbackReturn.SUCCESS:
            raise RuntimeError("the driver could not be activated")

    def run(self) -> None:
        """Spin until the context ends or the node is shut down."""
        runtime.spin(self, until=lambda: self._finalized)
        if self._finalized:
            # Its last answer lies in shared memory, which goes with the process.
            time.sleep(LAST_ANSWER_READ_S)

    def stop_car(self) -> None:
        """Stop the car and release it, whatever state the node is in."""
        if self._drive is not None:
            self._drive.close()

    def change_settings(self, new: Config) -> None:
        """Have the limits of time apply from now on."""
        if self._drive is not None:
            self._drive.change_limits(new.driver)

    def change_own(self, values: Mapping[str, Any]) -> None:
        """Begin or cease to choose goals at random."""
        if self._drive is not None:
            self._drive.choose_goals(values["random_goal"])

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the policy, subscribe and start watching."""
        return self._transition(self._configure, super().on_configure, state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start driving."""
        return self._transition(lambda: self._configured().activate(), super().on_activate, state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the car to a stop, and command nothing after that."""
        return self._transition(
            lambda: self._configured().deactivate(), super().on_deactivate, state
        )

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Forget the policy and unsubscribe."""
        return self._transition(self._clean_up, super().on_cleanup, state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the car to a stop, and end."""
        self._finalized = True
        return self._transition(self._clean_up, super().on_shutdown, state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Bring the car to a stop, and return to the state before configuration."""
        return self._transition(self._clean_up, super().on_error, state)

    def _transition(
        self,
        body: Callable[[], Any],
        rest: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
    ) -> TransitionCallbackReturn:
        """Run a transition, and log its errors, which rclpy would hide."""
        try:
            body()
        except ConfigError as error:
            self._refusal = error
            self.get_logger().error(str(error))
            return TransitionCallbackReturn.FAILURE
        except Exception as error:
            self.get_logger().error(f"transition from {state.label} failed: {error!r}")
            return TransitionCallbackReturn.ERROR
        return rest(state)

    def _configure(self) -> None:
        name, policy = self.get_parameter("run").value, self.get_parameter("policy").value
        baseline = self.get_parameter("baseline").value
        if baseline and (name or policy):
            raise ConfigError("baseline:=true excludes run and policy: give only one of them")
        self._drive = Drive(
            self,
            None if baseline else _find_run(name),
            policy,
            random_goal=self.get_parameter("random_goal").value,
            seed=self.get_parameter("seed").value,
        )
        # Collecting all objects, including PyTorch's and ROS's, takes 0.1 s or more and blocks
        # everything else. The objects that exist now will stay, so exempt them.
        gc.collect()
        gc.freeze()

    def _configured(self) -> Drive:
        if self._drive is None:
            raise RuntimeError("the driver is not configured")
        return self._drive

    def _clean_up(self) -> None:
        if self._drive is not None:
            self._drive.close()
            self._drive = None
        for kind, entities in self._entities().items():
            for entity in entities:
                if entity not in self._own_entities[kind]:
                    getattr(self, f"destroy_{kind}")(entity)

    def _entities(self) -> dict[str, list[Any]]:
        """Return the node's ROS entities, by kind."""
        return {
            "subscription": list(self.subscriptions),
            "publisher": list(self.publishers),
            "service": list(self.services),
            "timer": list(self.timers),
        }

    def _take_overrides(self) -> dict[str, Any]:
        """Start from the run's configuration, unless another is named."""
        given = super()._take_overrides()
        if given.get("run") and not given.get("config"):
            given["config"] = str(_find_run(given["run"]).path / "config.yaml")
        return given


def _find_run(name_or_path: str) -> RunFolder:
    if not name_or_path:
        raise ConfigError("name the run to drive with: set run:=FOLDER, or baseline:=true")
    return RunFolder(name_or_path)


def drive() -> None:
    """Drive until asked to stop, and leave the car stationary."""
    never_wait_for_stderr()
    # One observation is too little work to split, and the simulator needs the other cores.
    torch.set_num_threads(1)
    node = DriverNode()
    try:
        if node.get_parameter("autostart").value:
            node.start()
        node.run()
    finally:
        node.stop_car()
        node.destroy_node()  # at once, for those that wait for it to leave the graph


def main(args: list[str] | None = None) -> None:
    """Run the driver's process."""
    sys.exit(runtime.run(drive, args))
