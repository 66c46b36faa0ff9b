# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Examinations while a run trains: which policy was the best, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from td3_driver.config import ValidationConfig
from td3_driver.learning.counters import SavedValidation
from td3_driver.learning.policy import Policy

Act = Callable[[dict[str, np.ndarray]], np.ndarray]
Examine = Callable[[Act], float]
"""Drives without noise, and returns the mean route completion."""
IN_A_ROW = 2
"""Examinations that must reach the completion at which training stops."""


class Validation:
    """Examines a policy every so many decisions."""

    def __init__(self, settings: ValidationConfig, examine: Examine) -> None:
        """Take what drives; the first examination is due after an interval."""
        self._settings = settings
        self._examine = examine
        self._examined_step = 0
        self._passed_in_a_row = 0
        self.best_completion = -1.0
        """Of the best policy so far; of several, the latest is the best."""

    @classmethod
    def none(cls) -> Validation:
        """Return one that never examines."""
        return cls(ValidationConfig(interval_steps=0), lambda act: math.nan)

    @property
    def passed(self) -> bool:
        """Whether the run has driven well enough to stop."""
        return self._passed_in_a_row >= IN_A_ROW

    @property
    def wanted(self) -> bool:
        """Whether there are examinations at all."""
        return self._settings.interval_steps > 0

    def due(self, step: int) -> bool:
        """Return whether an interval has passed since the last examination."""
        interval = self._settings.interval_steps
        return interval > 0 and step // interval > self._examined_step // interval

    def examine(self, policy: Policy, step: int) -> tuple[float, bool]:
        """Drive with a policy; return its completion, and whether it is the best so far."""
        completion = self._examine(policy.act)
        self._examined_step = step
        wanted = self._settings.stop_at_completion
        passed = bool(wanted) and completion >= wanted
        self._passed_in_a_row = self._passed_in_a_row + 1 if passed else 0
        is_best = completion >= self.best_completion
        self.best_completion = max(completion, self.best_completion)
        return completion, is_best

    def counters(self) -> dict[str, Any]:
        """Return the state that a resumed run continues from."""
        return {
            "examined_step": self._examined_step,
            "passed_in_a_row": self._passed_in_a_row,
            "best_completion": self.best_completion,
        }

    def restore(self, saved: SavedValidation) -> None:
        """Continue from `counters`; a run that had passed is to pass again."""
        self._examined_step = saved.examined_step
        self._passed_in_a_row = saved.passed_in_a_row % IN_A_ROW
        self.best_completion = saved.best_completion
