# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""An environment of random images, for benchmarks in which the world does not matter."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class NoiseEnv(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """Returns `images` (stack, height, width) of noise; an episode has `length` steps."""

    def __init__(self, images: tuple[int, int, int], vector: int = 23, length: int = 50) -> None:
        self.observation_space = gymnasium.spaces.Dict(  # type: ignore[assignment]
            {
                "image": gymnasium.spaces.Box(0, 255, images, np.uint8),
                "vector": gymnasium.spaces.Box(-1, 1, (vector,), np.float32),
            }
        )
        self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self._images = images
        self._vector = vector
        self._length = length
        self._count = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self._count = 0
        return self._observation(), {}

    def step(
        self, action: np.ndarray
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Reward the action's first component."""
        self._count += 1
        return self._observation(), float(action[0]), self._count == self._length, False, {}

    def _observation(self) -> dict[str, np.ndarray]:
        return {
            "image": self.np_random.integers(0, 256, self._images, np.uint8),
            "vector": self.np_random.uniform(-1, 1, self._vector).astype(np.float32),
        }
