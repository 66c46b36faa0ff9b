# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The doctor's look at the running system: it finds it, watches it and checks it.

Nothing is published unless the car is to be moved. All times are on the steady clock.
"""

from __future__ import annotations

from collections.abc import Callable

from rclpy.context import Context
from rclpy.node import Node

from td3_driver.bridge import runtime, topics
from td3_driver.bridge.topics import Direction
from td3_driver.config import Config
from td3_driver.doctor import commanding, moving, sensing, simulator
from td3_driver.doctor.findings import Finding
from td3_driver.doctor.watching import NODE_NAME, Graph

DISCOVERY_S = 8.0


def examine(
    config: Config,
    *,
    watch_s: float,
    move: bool,
    required: bool,
    say: Callable[[str], None],
) -> list[Finding]:
    """Watch the running system for `watch_s` and return the findings.

    With `move`, the car is driven a little. Unless `required`, it is no failure if nothing runs.
    `say` gets a line about each thing that is being waited for.
    """
    context = Context()
    try:
        runtime.begin_ros(lambda: context.init(args=[]))
        graph = Graph(Node(NODE_NAME, context=context), config)
    except runtime.NoRosError as error:
        return [simulator.no_ros(error)]
    except RuntimeError as error:  # rclpy's own errors
        return [simulator.no_ros(runtime.no_ros(error))]
    try:
        return examine_graph(
            graph,
            discovery_s=DISCOVERY_S,
            watch_s=watch_s,
            move=move,
            required=required,
            say=say,
        )
    finally:
        graph.close()
        context.try_shutdown()


def examine_graph(
    graph: Graph,
    *,
    discovery_s: float,
    watch_s: float,
    move: bool,
    required: bool,
    say: Callable[[str], None],
) -> list[Finding]:
    """Do the same over `graph`; look for a simulator for up to `discovery_s`."""
    say(f"looking for a simulator, for up to {discovery_s:.0f} s ...")
    if graph.spin_until(lambda: bool(graph.others_publishing(topics.STATUS)), discovery_s):
        graph.settle(discovery_s)
    if not graph.others_publishing(topics.STATUS) and not graph.roles():
        return [simulator.nothing_runs(graph, required)]
    played = move and moving.play_if_paused(graph, say)
    say(f"watching the topics for {watch_s:g} s ...")
    graph.watch(watch_s)
    findings = _judge(graph)
    findings.append(moving.move(graph, say) if move else moving.not_moved())
    if played:
        moving.pause_again(graph)
    return findings


def _judge(graph: Graph) -> list[Finding]:
    """Return the findings about what was watched, in the order of the table."""
    ours, seen = graph.config.carla.role_name, graph.roles()
    car_seen = ours in seen
    return [
        simulator.role_name(ours, seen),
        simulator.only_one(graph),
        simulator.running(graph),
        simulator.time_step(graph),
        simulator.pace(graph),
        *(
            sensing.published(graph, topic, car_seen)
            for topic in graph.records
            if topic.direction is Direction.FROM_SIMULATOR
        ),
        sensing.images_with_odometry(graph),
        *(commanding.listened_to(graph, topic, car_seen) for topic in commanding.LISTENED_TO),
        commanding.manual_override(graph),
        commanding.who_commands(graph),
    ]
