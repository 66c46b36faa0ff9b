# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of the simulator as a whole: exactly one, with our car, and ticking."""

from __future__ import annotations

import math
from collections.abc import Sequence

from td3_driver.bridge import topics
from td3_driver.bridge.endpoints import node_names
from td3_driver.bridge.runtime import NoRosError
from td3_driver.doctor.findings import Finding, Group
from td3_driver.doctor.watching import Graph

SIMULATOR = Group("simulator")
REAL_TIME = (0.8, 1.25)
"""Simulated seconds per second that count as real time."""


def no_ros(error: NoRosError) -> Finding:
    """Return that this process cannot create a ROS node."""
    return SIMULATOR.failed("ROS", error.reason, error.remedy)


def nothing_runs(graph: Graph, required: bool) -> Finding:
    """Return that no simulator was found; a failure if one is `required`."""
    domain = graph.node.context.get_domain_id()
    found = f"nobody publishes {graph.name(topics.STATUS)} in ROS_DOMAIN_ID {domain}"
    if not required:
        return SIMULATOR.skipped(
            "running",
            found,
            "`td3-driver simulate` (or `ros2 launch td3_driver simulator.launch.py`) starts the "
            "embedded simulator; train and drive start it too",
        )
    remedy = (
        "start the simulator (`ros2 launch td3_driver carla.launch.py` for CARLA, "
        "`td3-driver simulate` for the embedded one); if it is running, give both the same "
        "ROS_DOMAIN_ID, RMW_IMPLEMENTATION and ROS_AUTOMATIC_DISCOVERY_RANGE, and start "
        "containers with --net=host --ipc=host"
    )
    return SIMULATOR.failed("running", found, remedy)


def role_name(ours: str, seen: Sequence[str]) -> Finding:
    """Return whether the car's role name is among those `seen`."""
    if ours in seen:
        others = [name for name in seen if name != ours]
        found = ours + (f" (also seen: {', '.join(others)})" if others else "")
        return SIMULATOR.ok("role name", found)
    found = f"no topics for {ours!r}; seen under /carla: {', '.join(seen) or 'none'}"
    remedy = (
        f"use --role-name {seen[0]}, here and for train and drive, or set carla.role_name"
        if seen
        else "spawn the car: carla_spawn_objects with config/carla_objects.json"
    )
    return SIMULATOR.failed("role name", found, remedy)


def only_one(graph: Graph) -> Finding:
    """Return whether exactly one simulator publishes."""
    for topic in (topics.STATUS, topics.CLOCK):
        publishers = graph.others_publishing(topic)
        if len(publishers) > 1:
            who = node_names(publishers)
            return SIMULATOR.failed(
                "only one",
                f"{len(publishers)} publish {graph.name(topic)}: {who}",
                "keep only one simulator in this ROS_DOMAIN_ID: one bridge, and no CARLA server "
                "with --ros2 beside it",
            )
    who = node_names(graph.others_publishing(topics.STATUS))
    return SIMULATOR.ok("only one", who or "nobody publishes a status")


def running(graph: Graph) -> Finding:
    """Return whether the simulator ticks, in synchronous mode."""
    status = graph.records[topics.STATUS].message
    if status is not None and not status.synchronous_mode:
        return SIMULATOR.failed(
            "running",
            "in asynchronous mode, in which no step is repeatable",
            "start carla_ros_bridge with synchronous_mode:=True passive:=False",
        )
    if graph.is_ticking():
        return SIMULATOR.ok("running", f"{graph.tick_rate_hz():.1f} ticks per second")
    holders = graph.others_publishing(topics.CONTROL)
    if holders:
        found = f"paused or dead; {node_names(holders)} can pause it"
    else:
        found = "paused or dead: no ticks"
    remedy = (
        "`td3-driver doctor --move` lets it run; if there are still no ticks, restart the bridge"
    )
    return SIMULATOR.failed("running", found, remedy)


def pace(graph: Graph) -> Finding:
    """Return whether simulated time runs at the pace of real time, as a driver expects."""
    record = graph.records[topics.CLOCK]
    stamps_ns, elapsed_s = record.stamps_ns or [], record.last_s - record.first_s
    if len(stamps_ns) < 2 or elapsed_s <= 0.0:
        return SIMULATOR.skipped("pace", "no clock to compare with")
    factor = 1e-9 * (stamps_ns[-1] - stamps_ns[0]) / elapsed_s
    found = f"{factor:.2f} simulated seconds per second"
    if REAL_TIME[0] <= factor <= REAL_TIME[1]:
        return SIMULATOR.ok("pace", found)
    return SIMULATOR.warning(
        "pace",
        found,
        "training steps the simulator itself and does not mind; a driver gets correspondingly "
        "less, or more, time for each image: docs/carla.md says how to set the pace",
    )


def time_step(graph: Graph) -> Finding:
    """Return whether the simulator's time step is the configured one."""
    status = graph.records[topics.STATUS].message
    if status is None:
        return SIMULATOR.skipped("time step", "no status received")
    wanted_s = graph.config.simulator.fixed_delta_s
    found = f"{status.fixed_delta_seconds:.3g} s"
    if math.isclose(status.fixed_delta_seconds, wanted_s, rel_tol=1e-3):
        return SIMULATOR.ok("time step", found)
    return SIMULATOR.failed(
        "time step",
        f"{found}, not {wanted_s:g} s",
        f"start the bridge with fixed_delta_seconds:={wanted_s:g}, or set simulator.fixed_delta_s",
    )
