# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The policy that drives: loaded, published on ~/policy, and replaced by newer checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from std_srvs.srv import Trigger

from td3_driver.bridge import driver_topics, topics
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.deployment.loading import (
    LoadedPolicy,
    baseline_policy,
    load_checkpoint,
    load_policy,
)
from td3_driver.driving.observation import Observation
from td3_driver.learning.reloader import Reloader
from td3_driver.nodes.driver.policy_messages import policy_info
from td3_driver.runs import RunFolder
from td3_driver.workers import Worker


class DrivingPolicy:
    """Chooses actions; a newer checkpoint of the run takes over between two frames."""

    def __init__(self, node: ConfiguredNode, run: RunFolder | None, policy_file: str) -> None:
        """Load the policy file or, if that is empty, the newest usable policy of a run.

        Without a run, the baseline drives. Raises ConfigError if the policy cannot be loaded. Only
        a run's policy is replaced while driving.
        """
        self._config = node.config
        self._log = node.get_logger()
        self._run = run
        self._loaded_at_s = time.time()
        self._refused: tuple[Path, str] | None = None
        driving = node.config.driving
        self.loaded: LoadedPolicy = (
            baseline_policy(driving)
            if run is None
            else load_policy(
                run,
                policy_file,
                driving,
                node.config.simulator.fixed_delta_s,
                self._log.warning,
            )
        )
        self._publisher = topics.create_publisher(node, driver_topics.POLICY, node.config.carla)
        self._reloader: Reloader[LoadedPolicy] | None = None
        if run is not None and not policy_file:
            assert self.loaded.source is not None
            driver = node.config.driver
            self._reloader = Reloader(
                run.checkpoints,
                self.loaded.source,
                lambda checkpoint: load_checkpoint(checkpoint, driving),
                self._on_refused,
                driver.watch_period_s if driver.watch_checkpoints else None,
                lambda failure: self._log.error(str(failure)),
            )
            self._reloader.start()
        node.create_service(Trigger, driver_topics.RELOAD.name, self._on_reload)

    @property
    def worker(self) -> Worker | None:
        """The thread that looks for newer checkpoints; None if there is none."""
        return None if self._reloader is None else self._reloader.worker

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action for an observation, float32 (2,) in [-1, 1]."""
        return self.loaded.act(observation)

    def take_over_newer(self) -> None:
        """Switch to a newer checkpoint, if one is ready."""
        newer = self._reloader.take() if self._reloader is not None else None
        if newer is not None:
            self.loaded, self._loaded_at_s, self._refused = newer, time.time(), None
            self.announce()

    def announce(self) -> None:
        """Log and publish which policy drives."""
        self._log.info(f"driving with {self.loaded.name}")
        self._publish()

    def close(self) -> None:
        """End the thread that looks for newer checkpoints."""
        if self._reloader is not None:
            self._reloader.end()

    def _publish(self) -> None:
        self._publisher.publish(
            policy_info(self.loaded, self._run, self._config, self._loaded_at_s, self._refused)
        )

    def _on_refused(self, checkpoint: Path, reason: str) -> None:
        self._refused = (checkpoint, reason)
        self._log.error(
            f"checkpoint {checkpoint.name} refused, still driving with the previous one: {reason}"
        )
        self._publish()

    def _on_reload(self, request: Any, response: Any) -> Any:
        driving = self.loaded.source
        if self._reloader is None or driving is None:
            response.success = False
            response.message = f"driving with {self.loaded.name}, which has no newer checkpoints"
            return response
        newer = self._reloader.newer()
        if newer is not None:
            self._reloader.look()
        response.success = newer is not None
        response.message = (
            f"loading {newer}; ~/policy reports the result"
            if newer
            else f"{driving.parent} has nothing newer than {driving.name}"
        )
        return response
