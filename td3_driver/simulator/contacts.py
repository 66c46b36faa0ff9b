# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What happens when the ego touches a vehicle or another body."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from td3_driver.driving.world import Collision, Pose
from td3_driver.simulator.shapes import Rectangle, overlap
from td3_driver.simulator.vehicle import Vehicle

_RESTITUTION = 0.1


class Body(Protocol):
    """Something on the road that the ego can touch."""

    actor_id: int
    speed: float
    """Along its own axis, m/s."""

    @property
    def mass_kg(self) -> float:
        """Its mass."""

    @property
    def outline(self) -> Rectangle:
        """Its rectangle on the ground."""

    @property
    def velocity(self) -> tuple[float, float]:
        """Velocity in map axes, m/s."""

    def hit(self, speed: float) -> None:
        """Take the speed after a hit, m/s."""


def outline(vehicle: Vehicle) -> Rectangle:
    """Return the ego's rectangle on the ground."""
    return Rectangle(vehicle.pose, vehicle.parameters.length_m, vehicle.parameters.width_m)


def resolve_contacts(ego: Vehicle, others: Iterable[Body], stamp_ns: int) -> tuple[Collision, ...]:
    """Push the ego out of what it touches and exchange momentum; return the contacts.

    The impulse along the contact's normal is (1 + e) times the reduced mass times the closing
    speed. The ego's speed changes by the component of the impulse along its heading; its tyres
    absorb the rest.
    """
    found = []
    ours = outline(ego)
    for other in others:
        contact = overlap(ours, other.outline)
        if contact is None:
            continue
        (nx, ny), depth = contact
        ego.pose = Pose(
            ego.pose.x + nx * depth, ego.pose.y + ny * depth, ego.pose.yaw, ego.pose.z
        )  # fmt: skip
        ours = outline(ego)
        (vx, vy), (ox, oy) = ego.velocity, other.velocity
        approach = -((vx - ox) * nx + (vy - oy) * ny)
        if approach <= 0.0:
            continue
        mass = ego.parameters.mass_kg
        impulse = (1.0 + _RESTITUTION) * approach * mass * other.mass_kg / (mass + other.mass_kg)
        (hx, hy), _ = ours.axes
        ego.set_motion(ego.speed + impulse / mass * (nx * hx + ny * hy), ego.yaw_rate)
        (ax, ay), _ = other.outline.axes
        other.hit(other.speed - impulse / other.mass_kg * (nx * ax + ny * ay))
        # CARLA's y axis points right.
        found.append(Collision(stamp_ns, other.actor_id, (impulse * nx, -impulse * ny, 0.0)))
    return tuple(found)
