# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Learning from recorded transitions alone (TD3+BC, Fujimoto and Gu, 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

from td3_driver.config import LearningConfig, TrainingConfig
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.training import Training
from td3_driver.learning.warm_start import restored

BC_ALPHA = 0.5
"""`learning.bc_alpha` for runs that learn from records.

Fujimoto and Gu's 2.5 is for records of many behaviours. Drives mostly show one, which teaches the
critic little about other actions, and with 2.5 it pulls the policy away (docs/offline.md).
"""


class RecordedTask(gymnasium.Env[Any, Any]):
    """The spaces of a task that was recorded; nobody can drive in it."""

    def __init__(
        self, observation_space: gymnasium.spaces.Dict, action_space: gymnasium.spaces.Box
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space


class Pretraining(Training):
    """A run on recorded transitions: its steps are updates, `training.offline_updates` of them."""

    online = False

    def __init__(
        self,
        recorded: ReplayBuffer,
        task: RecordedTask,
        vector_scale: np.ndarray,
        learning: LearningConfig,
        training: TrainingConfig,
        folder: Path,
        **hooks: Any,
    ) -> None:
        """Take what was recorded; `hooks` are those of `Training`."""
        self._recorded = recorded
        training = training.model_copy(update={"total_steps": training.offline_updates})
        super().__init__(task, vector_scale, learning, training, folder, **hooks)

    def _make_replay(self, spec: NetworkSpec, device: torch.device) -> ReplayBuffer:
        state = self._recorded.state()
        return restored(state, spec, self._learning, device)

    def _collect(self) -> None:
        """Update, where an online run would step its environment."""
        interval = self._training.checkpoint_interval_steps
        while not self._over():
            self._update()
            self.step += 1
            self._show(self.progress())
            if self.step % interval == 0 and not self._over():
                self.save()

    def _refresh_policy(self, update: int) -> None:
        """Nobody acts meanwhile."""
