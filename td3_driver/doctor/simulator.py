# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of the simulator as a whole: is there one, just one, of our car, and does it tick."""

from __future__ import annotations

import math
from collections.abc import Sequence

from td3_driver.bridge import topics
from td3_driver.doctor.findings import Finding, Group
from td3_driver.doctor.watching import Graph, node_names

SIMULATOR = Group("simulator")


def no_ros(error: RuntimeError) -> Finding:
    """Return that this process cannot have a ROS node."""
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return SIMULATOR.failed(
        "ROS",
        f"no node can be made: {reason}",
        "mend ROS_DOMAIN_ID, RMW_IMPLEMENTATION, or the profile that is named in the environment",
    )


def nothing_runs(graph: Graph, required: bool) -> Finding:
    """Return that no simulator was found; a failure where one is `required`."""
    domain = graph.node.context.get_domain_id()
    found = f"nobody publishes {graph.name(topics.STATUS)} in ROS_DOMAIN_ID {domain}"
    if not required:
        return SIMULATOR.skipped(
            "running",
            found,
            "`td3-driver simulate` (or `ros2 launch td3_driver simulator.launch.py`) starts the "
            "embedded simulator; train and drive do so too",
        )
    remedy = (
        "start the simulator (`ros2 launch td3_driver carla.launch.py` for CARLA, "
        "`td3-driver simulate` for the embedded one); if it runs, give both the same "
        "ROS_DOMAIN_ID, RMW_IMPLEMENTATION and ROS_AUTOMATIC_DISCOVERY_RANGE, and containers "
        "--net=host --ipc=host"
    )
    return SIMULATOR.failed("running", found, remedy)


def role_name(ours: str, seen: Sequence[str]) -> Finding:
    """Return whether the car's role name is among those `seen`."""
    if ours in seen:
        others = [name for name in seen if name != ours]
        found = ours + (f" (also seen: {', '.join(others)})" if others else "")
        return SIMULATOR.ok("role name", found)
    found = f"no topics of {ours!r}; seen under /carla: {', '.join(seen) or 'none'}"
    remedy = (
        f"--role-name {seen[0]}, here and for train and drive, or set carla.role_name"
        if seen
        else "spawn the car: carla_spawn_objects with config/carla_objects.json"
    )
    return SIMULATOR.failed("role name", found, remedy)


def only_one(graph: Graph) -> Finding:
    """Return whether one simulator alone publishes."""
    for topic in (topics.STATUS, topics.CLOCK):
        publishers = graph.others_publishing(topic)
        if len(publishers) > 1:
            who = node_names(publishers)
            return SIMULATOR.failed(
                "only one",
                f"{len(publishers)} publish {graph.name(topic)}: {who}",
                "leave one simulator in this ROS_DOMAIN_ID: one bridge, no CARLA server with "
                "--ros2 beside it",
            )
    who = node_names(graph.others_publishing(topics.STATUS))
    return SIMULATOR.ok("only one", who or "none publishes a status")


def running(graph: Graph) -> Finding:
    """Return whether the simulator ticks, in synchronous mode."""
    status = graph.records[topics.STATUS].message
    if status is not None and not status.synchronous_mode:
        return SIMULATOR.failed(
            "running",
            "in asynchronous mode, where no step is repeatable",
            "start carla_ros_bridge with synchronous_mode:=True passive:=False",
        )
    if graph.is_ticking():
        return SIMULATOR.ok("running", f"{graph.tick_rate_hz():.1f} ticks per second")
    holders = graph.others_publishing(topics.CONTROL)
    if holders:
        found = f"paused, or dead; {node_names(holders)} can pause it"
    else:
        found = "paused, or dead: no tick"
    remedy = (
        "`td3-driver doctor --move` plays it; if no tick comes then either, restart the bridge"
    )
    return SIMULATOR.failed("running", found, remedy)


def time_step(graph: Graph) -> Finding:
    """Return whether the simulator's time step is the settings'."""
    status = graph.records[topics.STATUS].message
    if status is None:
        return SIMULATOR.skipped("time step", "no status came")
    wanted_s = graph.config.simulator.fixed_delta_s
    found = f"{status.fixed_delta_seconds:.3g} s"
    if math.isclose(status.fixed_delta_seconds, wanted_s, rel_tol=1e-3):
        return SIMULATOR.ok("time step", found)
    return SIMULATOR.failed(
        "time step",
        f"{found}, not {wanted_s:g} s",
        f"start the bridge with fixed_delta_seconds:={wanted_s:g}, or set simulator.fixed_delta_s",
    )
