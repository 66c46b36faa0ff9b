# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Does a policy do as the navigator says? Told left for right, it has to take the wrong turn."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from td3_driver.config import DrivingConfig
from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.navigator import TURN_RAD, Direction, Turn
from td3_driver.driving.observation import VECTOR, vector_names
from td3_driver.driving.route import RouteTracker
from td3_driver.driving.world import Start
from td3_driver.evaluation.rollout import Act
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.world import SimulatedWorld

CONDITION = "wrong command"
APPROACH_M = 4.0
"""So far before a turn, a route still leads along the road to it."""
TURNED_RAD = math.radians(45.0)
"""A car that faces this far to one side of the road it came from has turned."""
ASTRAY_M = 15.0
"""A car that is this far off its route and has not turned has gone straight on, or nowhere."""


@dataclass
class WrongCommands:
    """What came of turns commanded the wrong way, where roads lead both ways."""

    junctions: int = 0
    obeyed: int = 0
    """Times the car turned as commanded."""
    kept_to_route: int = 0
    """Times it turned the other way, as the route does."""

    @property
    def obeyed_share(self) -> float:
        """Share of the junctions at which it turned as commanded; NaN without any."""
        return self.obeyed / self.junctions if self.junctions else math.nan

    def line(self) -> str:
        """Return the one line that says it."""
        if not self.junctions:
            return "No turn of these routes could be commanded the wrong way."
        return (
            f"Told left for right, it took the wrong turn at {self.obeyed} of {self.junctions} "
            f"junctions ({self.obeyed_share:.2f}) and kept to its route at {self.kept_to_route}."
        )

    def as_dict(self) -> dict[str, Any]:
        """Return this for a report."""
        share = self.obeyed_share if self.junctions else None
        return {**asdict(self), "obeyed_share": share, "says": self.line()}


def swapped(vector: np.ndarray, config: DrivingConfig) -> np.ndarray:
    """Return an observation's vector with its command's left and right exchanged."""
    names = vector_names(config)
    left, right = (names.index(f"command_{d.value}") for d in (Direction.LEFT, Direction.RIGHT))
    vector = vector.copy()
    vector[[left, right]] = vector[[right, left]]
    return vector


def wrong_commands(
    world: SimulatedWorld,
    act: Act,
    starts: Sequence[Start],
    config: DrivingConfig,
    done: Callable[[str, float], object] = lambda name, share: None,
) -> WrongCommands:
    """Drive from each start to the first turn that roads lead both ways of, and command the other.

    Before it, commands are right. Ends of episodes are wide, or a car would never get to turn off
    its route. `done` is called after every start with the share so far.
    """
    wide = config.model_copy(
        update={
            "lateral_limit_m": max(config.lateral_limit_m, ASTRAY_M),
            "wrong_way_rad": math.pi,
        }
    )
    outcome = WrongCommands()
    env = DrivingEnv(world, lambda rng: starts[0], wide)
    for start in starts:
        turned = _first_fork(env, act, start)
        if turned is not None:
            outcome.junctions += 1
            outcome.obeyed += turned < 0.0
            outcome.kept_to_route += turned > 0.0
        done(CONDITION, outcome.obeyed_share)
    return outcome


def _first_fork(env: DrivingEnv, act: Act, start: Start) -> float | None:
    """Drive to the first fork under a wrong command; return which way the car turned there.

    +1 is as the route does, -1 the other way, 0 neither. None if there is no fork.
    """
    observation, _ = env.reset(options={"start": start})
    assert isinstance(env.world, SimulatedWorld)
    route = RouteTracker(env.frame.route)
    fork = next(
        (i for i, turn in enumerate(route.turns) if _is_fork(env.world.road_map, route, turn)),
        None,
    )
    if fork is None:
        return None
    turn = route.turns[fork]
    told_from_m = route.turns[fork - 1].end_m if fork else 0.0
    came_from = route.pose_at(turn.begin_m - APPROACH_M)
    while True:
        progress_m = env.task.projection.progress_m
        if progress_m >= told_from_m:
            vector = swapped(observation[VECTOR], env.task.config)
            observation = {**observation, VECTOR: vector}
        if progress_m >= turn.begin_m - APPROACH_M:
            facing = wrap_angle(env.frame.pose.yaw - came_from.yaw)
            if abs(facing) >= TURNED_RAD:
                return math.copysign(1.0, facing * turn.angle_rad)
        observation, _, terminated, truncated, _ = env.step(act(observation))
        if terminated or truncated:
            return 0.0


def _is_fork(road_map: RoadMap, route: RouteTracker, turn: Turn) -> bool:
    """Return whether a lane also turns the other way where a route turns."""
    if turn.begin_m < APPROACH_M:
        return False
    graph = road_map.graph
    before = route.pose_at(turn.begin_m - APPROACH_M)
    for key in graph.successors(graph.project(before).key):
        yaws = graph.lanes[key].points[:, 2]
        angle = float(yaws[-1] - yaws[0])
        if abs(angle) >= TURN_RAD and angle * turn.angle_rad < 0.0:
            return True
    return False
