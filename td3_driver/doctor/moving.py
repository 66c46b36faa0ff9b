# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Everything that the doctor does itself, if asked to: run the simulator and move the car."""

from __future__ import annotations

import time
from collections.abc import Callable

from td3_driver.bridge import runtime, topics
from td3_driver.bridge.conversion import (
    control_from_message,
    control_to_message,
    same_control,
)
from td3_driver.bridge.endpoints import node_names
from td3_driver.bridge.run_state import RunCommand
from td3_driver.doctor.commanding import COMMANDING
from td3_driver.doctor.ends import Problem
from td3_driver.doctor.findings import Finding
from td3_driver.doctor.watching import Graph
from td3_driver.driving.world import FULL_BRAKE, VehicleControl

CHECK = "the car moves"
PLAY_TRIES = 2
PLAY_S = 1.5
"""Time in which a running simulator ticks at least twice."""
DRIVE_S = 5.0
DRIVE_THROTTLE = 0.5
MOVING_MPS = 0.5
BRAKE_S = 5.0
STANDING_MPS = 0.1
COMMAND_INTERVAL_S = 0.05


def play_if_paused(graph: Graph, say: Callable[[str], None]) -> bool:
    """Let a paused simulator run; return whether it was asked to."""
    graph.forget()
    if _ticks(graph):
        return False
    if not graph.others_subscribing(topics.CONTROL):
        return False
    say("letting the paused simulator run ...")
    for _ in range(PLAY_TRIES):  # the first may arrive before the other end is ready
        _send(graph, RunCommand.PLAY)
        if _ticks(graph):
            break
    return True


def pause_again(graph: Graph) -> None:
    """Pause a simulator that `play_if_paused` let run."""
    runtime.insist(lambda: _send(graph, RunCommand.PAUSE), [graph.publisher(topics.CONTROL)])


def _ticks(graph: Graph) -> bool:
    return graph.spin_until(lambda: graph.records[topics.CLOCK].count > 1, PLAY_S)


def _send(graph: Graph, command: RunCommand) -> None:
    graph.publish(topics.CONTROL, topics.CONTROL.message_type(command=int(command)))


def not_moved() -> Finding:
    """Return that moving the car was not asked for."""
    return COMMANDING.skipped(CHECK, "not tried; --move drives it a few metres")


def move(graph: Graph, say: Callable[[str], None]) -> Finding:
    """Drive the car a little, then stop it."""
    commanders = graph.others_publishing(topics.VEHICLE_CONTROL)
    if commanders:
        found = f"not tried: {node_names(commanders)} commands it"
        return COMMANDING.failed(CHECK, found, "stop that node first")
    if not graph.is_ticking() or not graph.records[topics.SPEEDOMETER].count:
        return COMMANDING.failed(CHECK, "not tried: no speed arrives", "fix the failures above")
    say("driving the car a few metres ...")
    throttle = VehicleControl(throttle=DRIVE_THROTTLE)
    try:
        moved = _command_until(graph, throttle, lambda: _speed(graph) > MOVING_MPS, DRIVE_S)
        fastest, executed = _speed(graph), _executed(graph)
    finally:
        stands = _brake(graph)
    if not moved:
        return COMMANDING.failed(CHECK, *_why_not_moved(throttle, executed))
    if not stands:
        found = f"it drove at {fastest:.1f} m/s, but does not stop"
        remedy = "check whether something else commands it (autopilot, another client)"
        return COMMANDING.failed(CHECK, found, remedy)
    return COMMANDING.ok(CHECK, f"reached {fastest:.1f} m/s, and stopped")


def _brake(graph: Graph) -> bool:
    """Stop the car; return whether it stands."""
    stands = _command_until(graph, FULL_BRAKE, lambda: abs(_speed(graph)) < STANDING_MPS, BRAKE_S)
    runtime.insist(lambda: _command(graph, FULL_BRAKE), [graph.publisher(topics.VEHICLE_CONTROL)])
    return stands


def _command_until(
    graph: Graph, control: VehicleControl, condition: Callable[[], bool], timeout_s: float
) -> bool:
    """Repeat a command until something holds; return whether it does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        _command(graph, control)
        graph.spin(COMMAND_INTERVAL_S)
    return True


def _command(graph: Graph, control: VehicleControl) -> None:
    graph.publish(topics.VEHICLE_CONTROL, control_to_message(control))


def _speed(graph: Graph) -> float:
    return float(graph.records[topics.SPEEDOMETER].message.data)


def _executed(graph: Graph) -> VehicleControl | None:
    status = graph.records[topics.VEHICLE_STATUS].message
    return None if status is None else control_from_message(status.control)


def _why_not_moved(given: VehicleControl, executed: VehicleControl | None) -> Problem:
    """Return what was found, and a remedy, if a command did not move the car."""
    if executed is not None and same_control(given, executed):
        return (
            "it has the command, but does not move",
            "check for an obstacle in its way, the hand brake and the gear; or respawn it",
        )
    return (
        "the command was sent, but does not take effect",
        "switch off the manual override and the autopilot; nothing else may command the car",
    )
