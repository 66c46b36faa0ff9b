# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The doctor's look at what runs: healthy, with each fault, and with nothing there."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from carla_graph import Observer, own_domain, ros_node, simulator_node
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.topic_endpoint_info import TopicEndpointInfo

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    control_to_message,
    image_to_message,
    make_header,
    odometry_to_message,
)
from td3_driver.bridge.run_state import RunCommand
from td3_driver.bridge.topics import Direction, Qos, Topic
from td3_driver.config import Config, build
from td3_driver.doctor import moving, simulator
from td3_driver.doctor.commanding import LISTENED_TO
from td3_driver.doctor.findings import Finding, Verdict, healthy
from td3_driver.doctor.graph import DISCOVERY_S, examine_graph
from td3_driver.doctor.watching import NODE_NAME, SETTLE_S, Graph, Record
from td3_driver.driving.world import Pose, VehicleControl

TICK_S = 0.05
BOOL = "std_msgs/msg/Bool"
BEST_EFFORT = Qos(reliable=False, latched=False, depth=1)


WATCH_S = 0.3
WATCHED_TICKS = 8
OF_EVERY_TICK = (topics.CLOCK, topics.IMAGE, topics.ODOMETRY, topics.VEHICLE_STATUS)


class PatientGraph(Graph):
    """Waits until all has been found and enough has come, however slow the machine is."""

    def __init__(self, node: Node, config: Config, ends: int, ticks: int) -> None:
        super().__init__(node, config)
        self._ends = ends
        self._ticks = ticks

    def settle(self, timeout_s: float) -> None:
        self.spin_until(lambda: self.ends() >= self._ends, timeout_s)

    def watch(self, duration_s: float) -> None:
        super().watch(duration_s)
        self.spin_until(self._have_ticked, 30.0)

    def _have_ticked(self) -> bool:
        """Return whether enough has come of what every tick publishes, if it comes at all."""
        counts = [self.records[topic].count for topic in OF_EVERY_TICK]
        return self.records[topics.STATUS].count >= self._ticks and all(
            count >= self._ticks for count in counts if count
        )


def ends_of(node: Node, known: set[str]) -> int:
    return sum(end.topic_name in known for end in (*node.publishers, *node.subscriptions))


def examine(
    *nodes: Node,
    move: bool = False,
    required: bool = True,
    ticks: bool = True,
    **settings: dict[str, object],
) -> dict[str, Finding]:
    """Return the findings by what they are of, once all ends of `nodes` have been found."""
    config = build(dict(settings), "the test")
    known = {topic.name(config.carla) for topic in topics.TOPICS}
    ends = sum(ends_of(node, known) for node in nodes)
    context = Context()
    context.init(args=[], domain_id=own_domain())
    seen = PatientGraph(
        Node(NODE_NAME, context=context), config, ends, WATCHED_TICKS if ticks else 0
    )
    try:
        findings = examine_graph(
            seen,
            discovery_s=60.0 if nodes else 0.5,
            watch_s=WATCH_S,
            move=move,
            required=required,
            say=lambda message: None,
        )
    finally:
        seen.close()
        context.try_shutdown()
    for finding in findings:
        assert finding.remedy or finding.verdict is not Verdict.FAILED, finding
    return {finding.check: finding for finding in findings}


def failures(findings: dict[str, Finding]) -> set[str]:
    return {check for check, found in findings.items() if found.verdict is Verdict.FAILED}


def name(topic: Topic) -> str:
    return topic.name(Config().carla)


# --- the embedded simulator --------------------------------------------------------------------


def test_all_is_well_with_the_embedded_simulator_and_the_car_moves() -> None:
    with simulator_node(own_domain()) as simulator:
        findings = examine(simulator, move=True)
        assert healthy(list(findings.values())), failures(findings)
        assert findings["the car moves"].verdict is Verdict.OK
        with ros_node("watcher", own_domain()) as node:
            watcher = Observer(node)
            watcher.listen_and_hear(topics.SPEEDOMETER)
            assert abs(watcher.latest[topics.SPEEDOMETER].data) < 0.2  # left standing
    for topic in topics.TOPICS:
        if topic.direction is Direction.FROM_SIMULATOR:
            assert findings[name(topic)].verdict is Verdict.OK, topic
    assert "160x120 bgra8" in findings[name(topics.IMAGE)].found
    assert "ring_meadow" in findings[name(topics.WORLD_INFO)].found
    assert "Hz" in findings[name(topics.ODOMETRY)].found
    assert "ticks per second" in findings["running"].found


def test_the_car_is_not_touched_unless_asked() -> None:
    with simulator_node(own_domain()) as simulator, ros_node("watcher", own_domain()) as node:
        watcher = Observer(node)
        watcher.listen(topics.VEHICLE_CONTROL, topics.CONTROL)
        findings = examine(simulator, node)
        watcher.spin(0.2)
        assert not watcher.received[topics.VEHICLE_CONTROL]
        assert not watcher.received[topics.CONTROL]
    assert findings["the car moves"].verdict is Verdict.SKIPPED


def test_nothing_runs() -> None:
    findings = examine()
    assert failures(findings) == {"running"}
    assert f"ROS_DOMAIN_ID {own_domain()}" in findings["running"].found
    assert "carla.launch.py" in findings["running"].remedy
    assert healthy(list(examine(required=False).values()))


def test_another_role_name_is_listed() -> None:
    with simulator_node(own_domain()) as simulator:
        findings = examine(simulator, carla={"role_name": "hero"})
    assert failures(findings) == {"role name"}
    assert "seen under /carla: ego_vehicle" in findings["role name"].found
    assert "--role-name ego_vehicle" in findings["role name"].remedy


def test_another_camera_is_listed() -> None:
    with simulator_node(own_domain()) as simulator:
        findings = examine(simulator, carla={"camera": "eye"})
    image = "/carla/ego_vehicle/eye/image"
    assert failures(findings) == {image}
    remedy = findings[image].remedy
    assert "sensor.camera.rgb with the id 'eye'" in remedy
    assert "cameras seen: /carla/ego_vehicle/rgb_front/image" in remedy


def test_a_paused_simulator_is_told_from_a_missing_one_and_played_for_the_move_only() -> None:
    with simulator_node(own_domain()) as simulator, ros_node("holder", own_domain()) as node:
        holder = Observer(node)
        holder.listen_and_hear(topics.CLOCK, topics.STATUS)

        def is_paused() -> bool:
            return not holder.latest[topics.STATUS].synchronous_mode_running

        holder.publish(topics.CONTROL, command=int(RunCommand.PAUSE))
        holder.wait(is_paused)
        findings = examine(simulator, node, ticks=False)
        assert failures(findings) == {"running"}
        assert "holder can pause it" in findings["running"].found
        assert "does not tick" in findings[name(topics.IMAGE)].found
        moved = examine(simulator, node, move=True)
        assert not failures(moved)
        holder.wait(is_paused)  # again
        holder.spin(0.2)
        holder.forget()
        holder.spin(0.2)
        assert not holder.received[topics.CLOCK]


def test_a_manual_override_is_named_with_who_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moving, "DRIVE_S", 0.5)  # in vain
    with simulator_node(own_domain()) as simulator, ros_node("manual", own_domain()) as node:
        Observer(node).publish(topics.MANUAL_OVERRIDE, data=True)
        findings = examine(simulator, node, move=True)
    assert failures(findings) == {"manual override", "the car moves"}
    assert "by manual" in findings["manual override"].found
    assert "does not take effect" in findings["the car moves"].found


def test_a_car_that_somebody_commands_is_not_moved() -> None:
    with simulator_node(own_domain()) as simulator, ros_node("somebody", own_domain()) as node:
        command = control_to_message(VehicleControl(brake=1.0))
        Observer(node).publish(topics.VEHICLE_CONTROL, brake=command.brake)
        findings = examine(simulator, node, move=True)
        assert failures(findings) == {"the car moves"}
        assert "somebody commands it" in findings["the car moves"].found
        with ros_node("another", own_domain()) as rival:
            Observer(rival).publish(topics.VEHICLE_CONTROL, brake=1.0)
            findings = examine(simulator, node, rival)
    assert findings["who commands"].verdict is Verdict.WARNING
    assert "another, somebody" in findings["who commands"].found


def test_another_time_step_than_the_settings_is_found() -> None:
    with simulator_node(own_domain()) as simulator:
        findings = examine(simulator, simulator={"fixed_delta_s": 0.025})
    assert failures(findings) == {"time step"}
    assert "fixed_delta_seconds:=0.025" in findings["time step"].remedy


def test_two_simulators_are_found() -> None:
    with simulator_node(own_domain()) as one, simulator_node(own_domain()) as other:
        findings = examine(one, other)
    assert "only one" in failures(findings)
    assert "2 publish /carla/status" in findings["only one"].found


class GrowingGraph(Graph):
    """Finds more ends with each spin, as given."""

    def __init__(self, found: list[int]) -> None:
        self.found = found
        self.spun: list[float] = []

    def ends(self) -> int:
        return self.found[len(self.spun)]

    def spin(self, duration_s: float) -> None:
        self.spun.append(duration_s)


def test_the_search_ends_when_nothing_new_is_found() -> None:
    growing = GrowingGraph([3, 5, 9, 9, 12])
    growing.settle(DISCOVERY_S)
    assert growing.spun == [SETTLE_S] * 3
    growing.settle(0.0)
    assert len(growing.spun) == 3


# --- a bridge with faults ----------------------------------------------------------------------


@dataclass
class Faults:
    """How a hand-made bridge is not as it should be."""

    absent: tuple[Topic, ...] = ()
    silent: tuple[Topic, ...] = ()
    types: dict[Topic, str] = field(default_factory=dict)
    qos: dict[Topic, Qos] = field(default_factory=dict)
    frozen: bool = False
    jumping: bool = False
    encoding: str = "bgra8"
    odometry_late_s: float = 0.0
    asynchronous: bool = False
    route_points: int = 3
    opendrive: str = "<OpenDRIVE/>"


def message_class(type_name: str) -> Any:
    return Topic(
        "", type_name, Direction.FROM_SIMULATOR, BEST_EFFORT, BEST_EFFORT, ""
    ).message_type


class FaultyBridge:
    """Publishes what the bridge does, with faults."""

    def __init__(self, node: Node, faults: Faults) -> None:
        self.node = node
        self.faults = faults
        self.ticks = 0
        self.publishers = {
            topic: node.create_publisher(
                self._type(topic), name(topic), self._qos(topic).profile()
            )
            for topic in topics.TOPICS
            if topic.direction is Direction.FROM_SIMULATOR and topic not in faults.absent
        }
        for topic in LISTENED_TO:
            if topic not in faults.absent:
                node.create_subscription(
                    self._type(topic), name(topic), lambda _: None, self._qos(topic).profile()
                )
        self.publish(
            topics.WORLD_INFO,
            topics.WORLD_INFO.message_type(map_name="Town01", opendrive=faults.opendrive),
        )
        self.publish(topics.VEHICLE_INFO, topics.VEHICLE_INFO.message_type())
        path = topics.WAYPOINTS.message_type()
        path.poses = [message_class("geometry_msgs/msg/PoseStamped")()] * faults.route_points
        self.publish(topics.WAYPOINTS, path)

    def _type(self, topic: Topic) -> Any:
        return message_class(self.faults.types.get(topic, topic.type_name))

    def _qos(self, topic: Topic) -> Qos:
        return self.faults.qos.get(topic, topic.bridge_qos)

    def publish(self, topic: Topic, message: Any) -> None:
        if topic in self.publishers and topic not in self.faults.silent:
            if topic in self.faults.types:
                message = self._type(topic)()
            self.publishers[topic].publish(message)

    def tick(self) -> None:
        self.ticks += 1
        time_ns = round(1e9 * TICK_S) * (100 if self.faults.frozen else self.ticks)
        if self.faults.jumping and self.ticks % 3 == 0:
            time_ns -= round(2.5e9 * TICK_S)
        time_ns = max(time_ns, 1)
        header = make_header(time_ns)
        late = make_header(time_ns + round(1e9 * self.faults.odometry_late_s))
        clock = topics.CLOCK.message_type()
        clock.clock = header.stamp
        self.publish(topics.CLOCK, clock)
        self.publish(
            topics.STATUS,
            topics.STATUS.message_type(
                frame=self.ticks,
                fixed_delta_seconds=TICK_S,
                synchronous_mode=not self.faults.asynchronous,
                synchronous_mode_running=True,
            ),
        )
        image = image_to_message(np.zeros((4, 6, 4), np.uint8), header)
        image.encoding = self.faults.encoding
        self.publish(topics.IMAGE, image)
        odometry = odometry_to_message(Pose(0.0, 0.0, 0.0), (0.0, 0.0, 0.0), late, "ego_vehicle")
        self.publish(topics.ODOMETRY, odometry)
        self.publish(topics.SPEEDOMETER, topics.SPEEDOMETER.message_type())
        status = topics.VEHICLE_STATUS.message_type(header=header)
        self.publish(topics.VEHICLE_STATUS, status)


@contextmanager
def faulty_bridge(**faults: Any) -> Iterator[Node]:
    with ExitStack() as stack:
        node = stack.enter_context(ros_node("carla_ros_bridge", own_domain()))
        bridge = FaultyBridge(node, Faults(**faults))
        executor = SingleThreadedExecutor(context=node.context)
        executor.add_node(node)
        ended = threading.Event()

        def run() -> None:
            while not ended.is_set():
                bridge.tick()
                executor.spin_once(timeout_sec=0.0)
                time.sleep(TICK_S)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield node
        finally:
            ended.set()
            thread.join()


def test_a_bridge_without_faults_is_healthy() -> None:
    with faulty_bridge(absent=(topics.TF, topics.CAMERA_INFO)) as node:
        findings = examine(node)
    assert not failures(findings), [findings[check] for check in failures(findings)]
    assert findings["/tf"].verdict is Verdict.SKIPPED


@pytest.mark.parametrize(
    "faults, told",
    [
        (
            {
                "absent": (
                    topics.ODOMETRY,
                    topics.WAYPOINTS,
                    topics.SET_TRANSFORM,
                    topics.VEHICLE_CONTROL,
                    topics.CONTROL,
                ),
                "silent": (topics.SPEEDOMETER,),
            },
            {
                topics.ODOMETRY: "nobody publishes it|sensor.pseudo.odom with the id 'odometry'",
                topics.WAYPOINTS: "carla_waypoint_publisher with role_name:=ego_vehicle",
                topics.SET_TRANSFORM: "nobody listens|actor.pseudo.control with the id 'control'",
                topics.VEHICLE_CONTROL: "nobody listens",
                topics.CONTROL: "passive:=False",
                topics.SPEEDOMETER: f"nothing arrived in {WATCH_S:g} s",
            },
        ),
        (
            {
                "types": {
                    topics.SPEEDOMETER: "std_msgs/msg/Bool",
                    topics.GOAL: "std_msgs/msg/Bool",
                },
                "qos": {
                    topics.ODOMETRY: BEST_EFFORT,
                    topics.VEHICLE_INFO: topics.RELIABLE,
                },
                "encoding": "32FC1",
                "opendrive": "",
            },
            {
                topics.SPEEDOMETER: f"carla_ros_bridge has {BOOL}, not std_msgs/msg/Float32",
                topics.GOAL: f"has {BOOL}, not geometry_msgs/msg/PoseStamped",
                topics.ODOMETRY: "does not fit: best effort is offered|reliable, volatile",
                topics.VEHICLE_INFO: "does not fit: volatile is offered|transient local",
                topics.IMAGE: "32FC1|bgra8",
                topics.WORLD_INFO: "without OpenDRIVE",
            },
        ),
        (
            {"odometry_late_s": 50.0, "asynchronous": True},
            {
                "images with odometry": "0 of|with the same stamp",
                "running": "asynchronous mode|synchronous_mode:=True",
            },
        ),
    ],
    ids=["absent", "mismatched", "out of step"],
)
def test_each_fault_is_found_with_its_remedy_and_nothing_else(
    faults: dict[str, Any], told: dict[Topic | str, str]
) -> None:
    with faulty_bridge(**faults) as node:
        findings = examine(node)
    expected = {
        check if isinstance(check, str) else name(check): words for check, words in told.items()
    }
    assert failures(findings) == set(expected)
    for check, words in expected.items():
        for word in words.split("|"):
            assert word in findings[check].found + findings[check].remedy


@pytest.mark.parametrize(
    "fault, words", [("frozen", "stamps do not advance"), ("jumping", "stamps jump back")]
)
def test_stamps_have_to_advance(fault: str, words: str) -> None:
    with faulty_bridge(**{fault: True}) as node:
        findings = examine(node)
    for topic in OF_EVERY_TICK:
        assert findings[name(topic)].verdict is Verdict.FAILED
        assert words in findings[name(topic)].found


def test_another_definition_of_a_message_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(TopicEndpointInfo, "topic_type_hash"):
        pytest.skip("this ROS 2 does not tell definitions apart")
    real = TopicEndpointInfo.topic_type_hash.fget
    setter = TopicEndpointInfo.topic_type_hash.fset

    def type_hash(end: TopicEndpointInfo) -> object:
        theirs = end.node_name == "carla_ros_bridge"
        status = end.topic_type == topics.STATUS.type_name
        return "RIHS01_of_a_fork" if theirs and status else real(end)

    monkeypatch.setattr(TopicEndpointInfo, "topic_type_hash", property(type_hash, setter))
    with faulty_bridge() as node:
        findings = examine(node)
    assert failures(findings) == {name(topics.STATUS)}
    assert (
        "another definition of carla_msgs/msg/CarlaStatus" in findings[name(topics.STATUS)].found
    )


def test_an_empty_route_is_a_warning() -> None:
    with faulty_bridge(route_points=0) as node:
        findings = examine(node)
    assert findings[name(topics.WAYPOINTS)].verdict is Verdict.WARNING
    assert healthy(list(findings.values()))


@pytest.mark.parametrize(
    "stamps_s, verdict, words",
    [
        ((0.0, 1.0, 2.0), Verdict.OK, "1.00 simulated seconds"),
        ((0.0, 4.75, 9.5), Verdict.WARNING, "4.75 simulated seconds"),
        ((0.0, 0.3, 0.6), Verdict.WARNING, "0.30 simulated seconds"),
        ((5.0,), Verdict.SKIPPED, "no clock"),
    ],
)
def test_a_pace_other_than_real_time_is_a_warning(
    stamps_s: tuple[float, ...], verdict: Verdict, words: str
) -> None:
    record = Record(
        count=len(stamps_s), last_s=2.0, stamps_ns=[round(1e9 * stamp) for stamp in stamps_s]
    )
    graph: Any = SimpleNamespace(records={topics.CLOCK: record})
    finding = simulator.pace(graph)
    assert finding.verdict is verdict and words in finding.found


def test_who_plans_its_own_routes_needs_no_route_planner() -> None:
    with faulty_bridge(absent=(topics.WAYPOINTS, topics.GOAL)) as node:
        assert {name(topics.WAYPOINTS), name(topics.GOAL)} <= failures(examine(node))
        findings = examine(node, carla={"route_planner": "own"})
    for topic in (topics.WAYPOINTS, topics.GOAL):
        assert findings[name(topic)].verdict is Verdict.SKIPPED
        assert "route_planner" in findings[name(topic)].found
