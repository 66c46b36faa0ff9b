# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driving task as a gymnasium environment, over either world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np

from td3_driver.config import TOLD_IN, DrivingConfig
from td3_driver.driving.observation import (
    ACTIONS,
    IMAGE,
    PRIVILEGED,
    VECTOR,
    VECTOR_BOUND_SCALES,
    Observation,
    image_shape,
    privileged_scale,
    vector_scale,
)
from td3_driver.driving.reward import End
from td3_driver.driving.route import RouteError
from td3_driver.driving.task import DrivingTask
from td3_driver.driving.world import (
    Collision,
    Frame,
    LaneInvasion,
    ShowsOthers,
    Start,
    StartRefusedError,
    World,
    WorldError,
)

SampleStart = Callable[[np.random.Generator], Start]

STARTS_TRIED = 5
"""After this many refused starts in a row, something else must be wrong."""


def observation_space(config: DrivingConfig) -> gymnasium.spaces.Dict:
    """Return the space of observations: an image stack and a vector in SI units.

    For a privileged critic, there is a second vector, of what only it sees.
    """
    bound = VECTOR_BOUND_SCALES * vector_scale(config)
    spaces: dict[str, gymnasium.Space[Any]] = {
        IMAGE: gymnasium.spaces.Box(0, 255, image_shape(config), np.uint8),
        VECTOR: gymnasium.spaces.Box(-bound, bound, dtype=np.float32),
    }
    if config.privileged:
        bound = VECTOR_BOUND_SCALES * privileged_scale(config)
        spaces[PRIVILEGED] = gymnasium.spaces.Box(-bound, bound, dtype=np.float32)
    return gymnasium.spaces.Dict(spaces)


def action_space() -> gymnasium.spaces.Box:
    """Return the space of actions: steering (+ = left) and speed, in [-1, 1]^2."""
    return gymnasium.spaces.Box(-1.0, 1.0, (len(ACTIONS),), np.float32)


class DrivingEnv(gymnasium.Env[Observation, np.ndarray]):
    """Drive along a route: action (steering + = left, speed) in [-1, 1]^2, one for each decision.

    `sample_start` chooses where an episode starts; `reset(options={"start": Start})` overrides
    it. `info` holds the reward's terms, whether the step was clean, and at the end of an episode
    its `EpisodeSummary` under "summary", as "episode" is a key of gymnasium's own wrappers.
    `frame` is the latest frame.
    """

    frame: Frame
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        world: World,
        sample_start: SampleStart,
        config: DrivingConfig,
        render_mode: str | None = None,
    ) -> None:
        self.world = world
        self.task = DrivingTask(config, world.fixed_delta_s)
        self.observation_space = observation_space(config)  # type: ignore[assignment]
        self.action_space = action_space()
        self.render_mode = render_mode
        self._sample_start = sample_start
        self._running = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode at a sampled start, or at `options["start"]`.

        If the world refuses a sampled start, others are tried.
        """
        super().reset(seed=seed)
        given = (options or {}).get("start")
        self._running = False
        for tries_left in reversed(range(STARTS_TRIED)):
            start = given or self._sample_start(self.np_random)
            try:
                self.frame = self._complete(self.world.reset(start))
                break
            except StartRefusedError:
                if given or not tries_left:
                    raise
        observation = self.task.begin(self.frame, RouteError.drawn(start, self.task.config))
        self._running = True
        return observation, {"start": start}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Hold `action` for `action_repeat` ticks, or until a collision."""
        if not self._running:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        frame = self.frame
        collisions: list[Collision] = []
        lane_invasions: list[LaneInvasion] = []
        ticks = 0
        while ticks < self.task.config.action_repeat:
            ticks += 1
            _, control = self.task.command(action, frame.speed)
            frame = self.world.step(control)
            collisions += frame.collisions
            lane_invasions += frame.lane_invasions
            if frame.collisions or not frame.clean:
                break
        self.frame = frame = self._complete(frame)
        outcome = self.task.judge(action, frame, tuple(collisions), tuple(lane_invasions), ticks)
        end = outcome.end
        info: dict[str, Any] = {
            "reward_terms": outcome.reward.as_dict(),
            "clean": end is not End.UNCLEAN_STEP,
        }
        if end is not None:
            info["summary"] = self.task.summary
            self._running = False
        terminated = end is not None and end.terminated
        truncated = end is not None and not end.terminated
        return outcome.observation, outcome.reward.total, terminated, truncated, info

    def _complete(self, frame: Frame) -> Frame:
        """Return the world's latest frame, with the others on the road if they are needed."""
        if not self.task.config.needs_others:
            return frame
        if not isinstance(self.world, ShowsOthers):
            raise WorldError(f"this world does not show who else is on the road: {TOLD_IN}")
        return replace(frame, others=self.world.shown_others())

    def render(self) -> np.ndarray | None:
        """Return the camera's image, uint8 (height, width, 3), red first."""
        if self.render_mode != "rgb_array" or not hasattr(self, "frame"):
            return None
        return np.ascontiguousarray(self.frame.image[:, :, 2::-1])

    def close(self) -> None:
        """Stop the car and leave the world."""
        self.world.close()
