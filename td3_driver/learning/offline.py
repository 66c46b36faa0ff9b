# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Training on recorded transitions alone (TD3+BC, Fujimoto and Gu, 2021)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from td3_driver.learning.trainer import Progress, Trainer

BC_ALPHA = 0.5
"""`learning.bc_alpha` for runs that learn from recordings.

Fujimoto and Gu's 2.5 is for data with many behaviours. Recorded drives mostly show a single one,
which teaches the critic little about other actions; with 2.5, such a critic pulls the policy away
(docs/offline.md).
"""
COUNTERS = {"online": False}


class OfflineTraining:
    """One run on recorded transitions: its steps are updates. `show` is called after each."""

    def __init__(self, trainer: Trainer, show: Callable[[Progress], object]) -> None:
        self.trainer = trainer
        self._show = show

    def run(self) -> Path:
        """Take all updates, then save; return the last checkpoint's path.

        If an error ends the training, it saves as well, unless the weights are not finite.
        """
        trainer = self.trainer
        interval = trainer.settings.checkpoint_interval_steps
        trainer.begin()
        try:
            while not trainer.complete:
                trainer.update()
                trainer.standing.step += 1
                self._show(trainer.progress())
                if trainer.standing.step % interval == 0 and not trainer.complete:
                    trainer.save(COUNTERS)
        finally:
            saved = trainer.finish(COUNTERS)
        assert saved is not None
        return saved
