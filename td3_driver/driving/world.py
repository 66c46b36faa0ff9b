# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The interface of a world: poses, vehicle commands, frames, and the methods of every world.

Frames and axes follow REP-103: x forward, y left, z up, yaw counter-clockwise, SI units. The one
exception is `VehicleControl`, which mirrors the bridge's own message, including CARLA's signs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Pose:
    """A position in the map frame (metres) and a heading (radians, + = left)."""

    x: float
    y: float
    yaw: float
    z: float = 0.0


@dataclass(frozen=True)
class VehicleControl:
    """Pedals and steering, field for field `carla_msgs/CarlaEgoVehicleControl`.

    `throttle` and `brake` are in [0, 1]; `steer` is in [-1, 1] and **+ is right**.
    """

    throttle: float = 0.0
    steer: float = 0.0
    brake: float = 0.0
    hand_brake: bool = False
    reverse: bool = False
    gear: int = 0
    manual_gear_shift: bool = False


FULL_BRAKE = VehicleControl(brake=1.0)

CAR_LENGTH_M, CAR_WIDTH_M = 4.8, 1.9
"""Of CARLA's vehicle.tesla.model3, and so of the embedded simulator's car."""


@dataclass(frozen=True)
class Collision:
    """One contact in one frame; the impulse (N s) keeps CARLA's axes, as the bridge sends it."""

    stamp_ns: int
    other_actor_id: int
    normal_impulse: tuple[float, float, float]

    @property
    def impulse_ns(self) -> float:
        """Magnitude of the impulse in newton seconds."""
        x, y, z = self.normal_impulse
        return (x * x + y * y + z * z) ** 0.5


@dataclass(frozen=True)
class LaneInvasion:
    """Lane markings crossed in one frame, as CARLA's LaneMarking type numbers (2 = solid)."""

    stamp_ns: int
    crossed_lane_markings: tuple[int, ...]


@dataclass(frozen=True)
class Other:
    """A body that the car can hit: a vehicle or a pedestrian, by its box on the ground."""

    pose: Pose
    """Of its middle."""
    length: float
    width: float
    velocity: tuple[float, float]
    """m/s, in map axes."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Everything the world reports about one simulation tick."""

    frame: int
    """Number of the tick."""
    stamp_ns: int
    """Simulation time of the tick."""
    image: np.ndarray
    """Forward camera, uint8 (height, width, 4), channels blue, green, red, alpha (`bgra8`)."""
    pose: Pose
    speed: float
    """Signed forward speed, m/s."""
    yaw_rate: float
    """rad/s, + = left."""
    route: np.ndarray
    """float64 (n, 3): x, y, yaw of points 1 m apart along the lane; (0, 3) while there is none.
    The same array object as in the frame before unless the route changed."""
    collisions: tuple[Collision, ...] = ()
    lane_invasions: tuple[LaneInvasion, ...] = ()
    control: VehicleControl = field(default_factory=VehicleControl)
    """The command that the simulator had in force during this tick."""
    clean: bool = True
    """False if the step was not exactly one tick under the requested command."""
    reason: str = ""
    """Why the step was not clean."""
    others: tuple[Other, ...] | None = None
    """All that the car can hit; None where nobody asked, or the world cannot say."""


@dataclass(frozen=True)
class Start:
    """Where an episode begins and where it leads."""

    map_name: str
    pose: Pose
    goal: Pose
    seed: int = 0
    route: np.ndarray | None = field(default=None, compare=False)
    """float64 (n, 3) as in `Frame.route`, if already known; otherwise the world finds it."""
    opendrive: str = field(default="", compare=False, repr=False)
    """The map's OpenDRIVE text, if known: it tells maps of one name apart."""


class WorldError(RuntimeError):
    """The world cannot continue; the message says what is wrong and what to do."""


class StartRefusedError(WorldError):
    """An episode cannot begin at this start; another may work."""


class World(Protocol):
    """A simulator that is stepped: in process or over topics."""

    @property
    def fixed_delta_s(self) -> float:
        """Simulated time of one step, seconds."""

    def reset(self, start: Start) -> Frame:
        """Bring the car to rest at `start.pose`, with a route from there to `start.goal`.

        Raises StartRefusedError if another start may work.
        """

    def step(self, control: VehicleControl) -> Frame:
        """Apply `control` for one tick and return the state after it."""

    def close(self) -> None:
        """Stop the car and let the simulator run on without this client."""


@runtime_checkable
class ShowsOthers(Protocol):
    """A world that knows everything on the road."""

    def shown_others(self) -> tuple[Other, ...]:
        """Return all that the car can hit, as it is now."""
