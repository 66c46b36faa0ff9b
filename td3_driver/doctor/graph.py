# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of what runs: each topic of the simulator, who commands, and whether the car moves.

Nothing is published unless the car is to be moved. All times are the steady clock's.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any

from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from td3_driver.bridge import runtime, spawn_objects, topics
from td3_driver.bridge.conversion import (
    ConversionError,
    control_from_message,
    control_to_message,
    image_from_message,
    same_control,
)
from td3_driver.bridge.run_state import RunCommand
from td3_driver.bridge.topics import Direction, Topic
from td3_driver.config import Config
from td3_driver.doctor.findings import Finding, Verdict
from td3_driver.doctor.watching import NODE_NAME, Graph, Record, node_names
from td3_driver.driving.world import FULL_BRAKE, VehicleControl

SIMULATOR, SENSING, COMMANDING = "simulator", "from the simulator", "to the simulator"

DISCOVERY_S = 8.0
SETTLE_S = 1.5
"""Time in which nothing new is found, once something has been, that ends the search."""
PLAY_TRIES = 2
DRIVE_S = 5.0
DRIVE_THROTTLE = 0.5
MOVING_MPS = 0.5
BRAKE_S = 5.0
STANDING_MPS = 0.1
COMMAND_INTERVAL_S = 0.05

# Published when something happens: silence is in order.
EVENTS = (topics.COLLISION, topics.LANE_INVASION)
EACH_TICK = (topics.CLOCK, topics.STATUS, topics.ODOMETRY, topics.IMAGE)
# Nice to look at; nothing here needs them.
OPTIONAL = (topics.TF, topics.CAMERA_INFO)
# Who has to listen for training and driving.
LISTENED_TO = (
    topics.CONTROL,
    topics.VEHICLE_CONTROL,
    topics.MANUAL_OVERRIDE,
    topics.SET_TRANSFORM,
    topics.SET_TARGET_VELOCITY,
    topics.GOAL,
)
SENSOR_TYPES = {
    topics.ODOMETRY: "sensor.pseudo.odom",
    topics.SPEEDOMETER: "sensor.pseudo.speedometer",
    topics.COLLISION: "sensor.other.collision",
    topics.LANE_INVASION: "sensor.other.lane_invasion",
    topics.IMAGE: spawn_objects.CAMERA,
    topics.SET_TRANSFORM: spawn_objects.CONTROL,
    topics.SET_TARGET_VELOCITY: spawn_objects.CONTROL,
}


def examine(
    config: Config,
    *,
    watch_s: float,
    move: bool,
    required: bool,
    say: Callable[[str], None],
    context: Context | None = None,
) -> list[Finding]:
    """Watch what runs for `watch_s` and return the findings.

    With `move` the car is told to drive a little. Where `required` is false, that nothing runs is
    no failure. `say` is told what is being waited for. `context` is an initialised one, if not one
    from the environment.
    """
    own = context is None
    try:
        if context is None:
            context = Context()
            context.init(args=[])
        graph = Graph(Node(NODE_NAME, context=context), config)
    except RuntimeError as error:  # rclpy's own errors, a wrong ROS_DOMAIN_ID say
        return [_no_ros(error)]
    try:
        return _Examination(graph, watch_s, say).findings(move, required)
    finally:
        graph.close()
        if own:
            context.try_shutdown()


def _no_ros(error: RuntimeError) -> Finding:
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return Finding(
        SIMULATOR,
        "ROS",
        Verdict.FAILED,
        f"no node can be made: {reason}",
        "mend ROS_DOMAIN_ID, RMW_IMPLEMENTATION, or the profile that is named in the environment",
    )


class _Examination:
    """The checks, in their order, and what they need to know of each other."""

    def __init__(self, graph: Graph, watch_s: float, say: Callable[[str], None]) -> None:
        self._graph = graph
        self._names = graph.config.carla
        self._watch_s = watch_s
        self._say = say
        self._ticking = False
        self._role_seen = False

    def findings(self, move: bool, required: bool) -> list[Finding]:
        graph = self._graph
        self._say(f"looking for a simulator, for up to {DISCOVERY_S:.0f} s ...")
        anybody = graph.spin_until(self._somebody_is_there, DISCOVERY_S)
        if anybody:
            self._let_settle()
        if not graph.others_publishing(topics.STATUS) and not self._roles():
            return [self._nothing_runs(required)]
        played = move and self._play_if_paused()
        self._say(f"watching the topics for {self._watch_s:g} s ...")
        graph.forget()
        graph.spin(self._watch_s)
        self._ticking = any(graph.records[topic].count > 1 for topic in EACH_TICK)
        findings = [self._role(), self._one_of_each(), self._running(), self._time_step()]
        findings += [self._sensing(topic) for topic in graph.records if topic is not OVERRIDE]
        findings += [self._matching()]
        findings += [self._listening(topic) for topic in LISTENED_TO]
        findings += [self._override(), self._commander()]
        findings += [self._moves() if move else self._not_moved()]
        if played:
            runtime.insist(
                lambda: graph.publish(topics.CONTROL, _run_command(RunCommand.PAUSE)),
                [graph.publisher(topics.CONTROL)],
            )
        return findings

    # --- the simulator as a whole --------------------------------------------------------------

    def _somebody_is_there(self) -> bool:
        return bool(self._graph.others_publishing(topics.STATUS))

    def _let_settle(self) -> None:
        """Wait until the graph has stopped growing."""
        deadline = time.monotonic() + DISCOVERY_S
        before, ends = -1, self._graph.ends()
        while ends != before and time.monotonic() < deadline:
            self._graph.spin(SETTLE_S)
            before, ends = ends, self._graph.ends()

    def _roles(self) -> list[str]:
        """Return the role names that topics are seen of."""
        parts = [name.split("/") for name in self._graph.topic_names()]
        return sorted({part[2] for part in parts if len(part) > 3 and part[1] == "carla"})

    def _nothing_runs(self, required: bool) -> Finding:
        domain = self._graph.node.context.get_domain_id()
        found = f"nobody publishes {self._graph.name(topics.STATUS)} in ROS_DOMAIN_ID {domain}"
        if not required:
            return Finding(
                SIMULATOR,
                "running",
                Verdict.SKIPPED,
                found,
                "`td3-driver simulate` starts the embedded simulator; train and drive do so too",
            )
        remedy = (
            "start the simulator (`ros2 launch td3_driver carla.launch.py` for CARLA, "
            "`td3-driver simulate` for the embedded one); if it runs, give both the same "
            "ROS_DOMAIN_ID, RMW_IMPLEMENTATION and ROS_AUTOMATIC_DISCOVERY_RANGE, and containers "
            "--net=host --ipc=host"
        )
        return Finding(SIMULATOR, "running", Verdict.FAILED, found, remedy)

    def _role(self) -> Finding:
        ours, seen = self._names.role_name, self._roles()
        self._role_seen = ours in seen
        if self._role_seen:
            others = [name for name in seen if name != ours]
            found = ours + (f" (also seen: {', '.join(others)})" if others else "")
            return Finding(SIMULATOR, "role name", Verdict.OK, found)
        found = f"no topics of {ours!r}; seen under /carla: {', '.join(seen) or 'none'}"
        remedy = (
            f"--role-name {seen[0]}, here and for train and drive, or set carla.role_name"
            if seen
            else "spawn the car: carla_spawn_objects with config/carla_objects.json"
        )
        return Finding(SIMULATOR, "role name", Verdict.FAILED, found, remedy)

    def _one_of_each(self) -> Finding:
        for topic in (topics.STATUS, topics.CLOCK):
            publishers = self._graph.others_publishing(topic)
            if len(publishers) > 1:
                who = node_names(publishers)
                found = f"{len(publishers)} publish {self._graph.name(topic)}: {who}"
                remedy = (
                    "leave one simulator in this ROS_DOMAIN_ID: one bridge, no CARLA server with "
                    "--ros2 beside it"
                )
                return Finding(SIMULATOR, "only one", Verdict.FAILED, found, remedy)
        found = (
            node_names(self._graph.others_publishing(topics.STATUS)) or "none publishes a status"
        )
        return Finding(SIMULATOR, "only one", Verdict.OK, found)

    def _running(self) -> Finding:
        status = self._graph.records[topics.STATUS].message
        if status is not None and not status.synchronous_mode:
            return Finding(
                SIMULATOR,
                "running",
                Verdict.FAILED,
                "in asynchronous mode, where no step is repeatable",
                "start carla_ros_bridge with synchronous_mode:=True passive:=False",
            )
        if self._ticking:
            rate_hz = max(self._graph.records[topic].rate_hz for topic in EACH_TICK)
            return Finding(SIMULATOR, "running", Verdict.OK, f"{rate_hz:.1f} ticks per second")
        holders = self._graph.others_publishing(topics.CONTROL)
        if holders:
            found = f"paused, or dead; {node_names(holders)} can pause it"
        else:
            found = "paused, or dead: no tick"
        remedy = (
            "`td3-driver doctor --move` plays it; if no tick comes then either, restart the bridge"
        )
        return Finding(SIMULATOR, "running", Verdict.FAILED, found, remedy)

    def _time_step(self) -> Finding:
        status = self._graph.records[topics.STATUS].message
        if status is None:
            return self._skipped(SIMULATOR, "time step", "no status came")
        wanted_s = self._graph.config.simulator.fixed_delta_s
        found = f"{status.fixed_delta_seconds:.3g} s"
        if math.isclose(status.fixed_delta_seconds, wanted_s, rel_tol=1e-3):
            return Finding(SIMULATOR, "time step", Verdict.OK, found)
        return Finding(
            SIMULATOR,
            "time step",
            Verdict.FAILED,
            f"{found}, not {wanted_s:g} s",
            f"start the bridge with fixed_delta_seconds:={wanted_s:g}, or set "
            "simulator.fixed_delta_s",
        )

    # --- what the simulator publishes ----------------------------------------------------------

    def _sensing(self, topic: Topic) -> Finding:
        name = self._graph.name(topic)
        publishers = self._graph.others_publishing(topic)
        if not publishers:
            if topic in OPTIONAL:
                return self._skipped(SENSING, name, "not published, and not needed")
            if not self._role_seen and _is_of_the_car(topic):
                return self._skipped(SENSING, name, "not without the car")
            return self._failed(name, "nobody publishes it", self._source(topic))
        problem = self._ends_problem(topic, publishers, Direction.FROM_SIMULATOR)
        if problem is not None:
            return problem
        record = self._graph.records[topic]
        if topic in EVENTS:
            return self._ok(name, f"{record.count} events")
        if not record.count:
            return self._silent(topic, name, publishers)
        if topic.client_qos.latched:
            return self._latched(topic, name, record)
        return self._stream(topic, name, record)

    def _source(self, topic: Topic) -> str:
        """Say what publishes, or listens to, a topic that is missing."""
        if topic in SENSOR_TYPES:
            seen = [name for name in self._graph.topic_names() if name.endswith("/image")]
            cameras = (
                f"; cameras seen: {', '.join(seen)}" if topic is topics.IMAGE and seen else ""
            )
            sensor = self._graph.name(topic).split("/")[3]
            return (
                f"give the car a {SENSOR_TYPES[topic]} with the id {sensor!r} "
                f"(config/carla_objects.json has one){cameras}"
            )
        if topic in (topics.WAYPOINTS, topics.GOAL):
            return f"start carla_waypoint_publisher with role_name:={self._names.role_name}"
        if topic is topics.CONTROL:
            return "start carla_ros_bridge with synchronous_mode:=True passive:=False"
        return "start, or restart, carla_ros_bridge"

    def _ends_problem(
        self, topic: Topic, endpoints: list[Any], direction: Direction
    ) -> Finding | None:
        """Return what keeps the two ends of a topic apart: their types or their QoS."""
        name = self._graph.name(topic)
        group = SENSING if direction is Direction.FROM_SIMULATOR else COMMANDING
        wanted = topic.type_name_in(self._names)
        qos = topic.client_qos_in(self._names)
        for end in endpoints:
            if end.topic_type != wanted:
                found = f"{end.node_name} has {end.topic_type}, not {wanted}"
                remedy = "stop what is not the bridge (CARLA's --ros2, another fork), or rename it"
                return Finding(group, name, Verdict.FAILED, found, remedy)
            ours, theirs = qos.profile(), end.qos_profile
            sensing = direction is Direction.FROM_SIMULATOR
            apart = _qos_apart(*((theirs, ours) if sensing else (ours, theirs)))
            if apart:
                found = f"QoS of {end.node_name} does not fit: {apart}"
                verb = "offer" if sensing else "ask for no more than"
                remedy = f"it has to {verb}: {qos}"
                return Finding(group, name, Verdict.FAILED, found, remedy)
        return self._definition_problem(topic, endpoints, name, group)

    def _definition_problem(
        self, topic: Topic, endpoints: list[Any], name: str, group: str
    ) -> Finding | None:
        """Return that both call different messages by one name; known since ROS 2 Iron."""
        ours = [
            end
            for end in (
                *self._graph.node.get_subscriptions_info_by_topic(name),
                *self._graph.node.get_publishers_info_by_topic(name),
            )
            if end.node_name == NODE_NAME
        ]
        if not ours or not hasattr(ours[0], "topic_type_hash"):
            return None
        wanted = str(ours[0].topic_type_hash)
        for end in endpoints:
            given = str(end.topic_type_hash)
            if "INVALID" not in given and given != wanted:
                package = topic.type_name.split("/")[0]
                found = f"{end.node_name} was built with another definition of {topic.type_name}"
                remedy = f"build bridge and td3_driver against one {package}"
                return Finding(group, name, Verdict.FAILED, found, remedy)
        return None

    def _silent(self, topic: Topic, name: str, publishers: list[Any]) -> Finding:
        if topic.client_qos.latched:
            found = f"{node_names(publishers)} publishes it latched, but nothing came"
            return self._failed(name, found, self._source(topic))
        if not self._ticking:
            return self._skipped(SENSING, name, "there; silent while the simulator stands still")
        if topic in OPTIONAL:
            return self._skipped(SENSING, name, "there; silent, and not needed")
        return self._failed(
            name,
            f"{node_names(publishers)} publishes it, but nothing came in {self._watch_s:g} s",
            "a sensor that the bridge waits for in vain, or shared memory between containers: "
            "start them with --ipc=host, or use UDP alone",
        )

    def _latched(self, topic: Topic, name: str, record: Record) -> Finding:
        message = record.message
        if topic is topics.WORLD_INFO:
            size = len(message.opendrive)
            if not size:
                remedy = "the town has no OpenDRIVE map: load another one"
                return self._failed(name, f"{message.map_name}, without OpenDRIVE", remedy)
            return self._ok(name, f"{message.map_name}, {size / 1e3:.0f} kB of OpenDRIVE")
        if topic is topics.WAYPOINTS:
            if not message.poses:
                remedy = "send a goal, or have the driver do so (random_goal)"
                return Finding(SENSING, name, Verdict.WARNING, "an empty route", remedy)
            return self._ok(name, f"a route of {len(message.poses)} points")
        return self._ok(name, "there")

    def _stream(self, topic: Topic, name: str, record: Record) -> Finding:
        found = f"{record.rate_hz:.1f} Hz"
        stamps_ns = record.stamps_ns or []
        if len(stamps_ns) > 1:
            if stamps_ns[-1] <= stamps_ns[0]:
                return self._failed(
                    name, f"{found}, but its stamps do not advance", "restart what publishes it"
                )
            if any(later < earlier for earlier, later in itertools.pairwise(stamps_ns)):
                return self._failed(
                    name,
                    f"{found}, but its stamps jump back",
                    "leave one simulator in this ROS_DOMAIN_ID",
                )
        if topic is topics.IMAGE:
            return self._image(name, found, record.message)
        return self._ok(name, found)

    def _image(self, name: str, found: str, message: Any) -> Finding:
        try:
            image_from_message(message)
        except ConversionError as error:
            return self._failed(name, str(error), "use a camera with the encoding bgra8")
        return self._ok(name, f"{found}, {message.width}x{message.height} {message.encoding}")

    def _matching(self) -> Finding:
        """Compare the stamps of images and odometry, which the driver matches."""
        check = "images with odometry"
        images = self._graph.records[topics.IMAGE].stamps_ns or []
        odometry = self._graph.records[topics.ODOMETRY].stamps_ns or []
        # What came at either end may have its other half outside.
        inner = images[1:-1]
        if not inner or not odometry:
            return self._skipped(SENSING, check, "nothing to compare")
        tolerance_ns = self._graph.config.simulator.fixed_delta_s * 1e9 / 2
        matched = sum(
            min(abs(stamp - other) for other in odometry) < tolerance_ns for stamp in inner
        )
        found = f"{matched} of {len(inner)} have one of the same stamp"
        if matched >= 0.9 * len(inner):
            return self._ok(check, found)
        remedy = "take out sensor_tick, and sensors that slow a tick"
        return self._failed(check, found, remedy)

    # --- what the simulator is told ------------------------------------------------------------

    def _listening(self, topic: Topic) -> Finding:
        name = self._graph.name(topic)
        listeners = self._graph.others_subscribing(topic)
        if not listeners:
            if not self._role_seen and _is_of_the_car(topic):
                return self._skipped(COMMANDING, name, "not without the car")
            return Finding(
                COMMANDING, name, Verdict.FAILED, "nobody listens to it", self._source(topic)
            )
        problem = self._ends_problem(topic, listeners, Direction.TO_SIMULATOR)
        return problem or Finding(
            COMMANDING, name, Verdict.OK, f"heard by {node_names(listeners)}"
        )

    def _override(self) -> Finding:
        check = "manual override"
        message = self._graph.records[OVERRIDE].message
        if message is None or not message.data:
            return Finding(COMMANDING, check, Verdict.OK, "off" if message else "not switched on")
        publishers = node_names(self._graph.others_publishing(OVERRIDE))
        return Finding(
            COMMANDING,
            check,
            Verdict.FAILED,
            f"on, by {publishers or 'a node that has ended'}: commands are ignored",
            f"switch it off: publish false on {self._graph.name(OVERRIDE)}, latched, or end "
            "carla_manual_control",
        )

    def _commander(self) -> Finding:
        check = "who commands"
        commanders = self._graph.others_publishing(topics.VEHICLE_CONTROL)
        if len(commanders) > 1:
            remedy = "leave one: two fight over the car (driver.publish_vehicle_control=false)"
            found = f"{len(commanders)}: {node_names(commanders)}"
            return Finding(COMMANDING, check, Verdict.WARNING, found, remedy)
        return Finding(COMMANDING, check, Verdict.OK, node_names(commanders) or "nobody now")

    def _not_moved(self) -> Finding:
        found = "not tried; --move drives it a few metres"
        return self._skipped(COMMANDING, "the car moves", found)

    def _moves(self) -> Finding:
        """Drive the car a little, and leave it standing."""
        check = "the car moves"
        commanders = self._graph.others_publishing(topics.VEHICLE_CONTROL)
        if commanders:
            return Finding(
                COMMANDING,
                check,
                Verdict.FAILED,
                f"not tried: {node_names(commanders)} commands it",
                "end it first",
            )
        if not self._ticking or not self._graph.records[topics.SPEEDOMETER].count:
            remedy = "mend what is said above"
            return Finding(COMMANDING, check, Verdict.FAILED, "not tried: no speed comes", remedy)
        self._say("driving the car a few metres ...")
        throttle = VehicleControl(throttle=DRIVE_THROTTLE)
        try:
            moved = self._command_until(throttle, lambda: self._speed() > MOVING_MPS, DRIVE_S)
            fastest, executed = self._speed(), self._executed()
        finally:
            stands = self._command_until(
                FULL_BRAKE, lambda: abs(self._speed()) < STANDING_MPS, BRAKE_S
            )
            runtime.insist(
                lambda: self._command(FULL_BRAKE), [self._graph.publisher(topics.VEHICLE_CONTROL)]
            )
        if not moved:
            return Finding(COMMANDING, check, Verdict.FAILED, *_why_not_moved(throttle, executed))
        if not stands:
            found = f"it drove at {fastest:.1f} m/s, but does not stop"
            remedy = "look whether something else commands it (autopilot, another client)"
            return Finding(COMMANDING, check, Verdict.FAILED, found, remedy)
        found = f"to {fastest:.1f} m/s, and stopped"
        return Finding(COMMANDING, check, Verdict.OK, found)

    def _play_if_paused(self) -> bool:
        """Let a paused simulator run; return whether it was told to."""
        graph = self._graph
        graph.forget()
        if graph.spin_until(lambda: graph.records[topics.CLOCK].count > 1, SETTLE_S):
            return False
        if not graph.others_subscribing(topics.CONTROL):
            return False
        self._say("letting the paused simulator run ...")
        for _ in range(PLAY_TRIES):  # the first may come before the other end is ready
            graph.publish(topics.CONTROL, _run_command(RunCommand.PLAY))
            if graph.spin_until(lambda: graph.records[topics.CLOCK].count > 1, SETTLE_S):
                break
        return True

    def _command_until(
        self, control: VehicleControl, condition: Callable[[], bool], timeout_s: float
    ) -> bool:
        """Repeat a command until something holds; return whether it does."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            self._command(control)
            self._graph.spin(COMMAND_INTERVAL_S)
        return True

    def _command(self, control: VehicleControl) -> None:
        self._graph.publish(topics.VEHICLE_CONTROL, control_to_message(control))

    def _speed(self) -> float:
        return float(self._graph.records[topics.SPEEDOMETER].message.data)

    def _executed(self) -> VehicleControl | None:
        status = self._graph.records[topics.VEHICLE_STATUS].message
        return None if status is None else control_from_message(status.control)

    # --- findings ------------------------------------------------------------------------------

    @staticmethod
    def _ok(check: str, found: str) -> Finding:
        return Finding(SENSING, check, Verdict.OK, found)

    @staticmethod
    def _failed(check: str, found: str, remedy: str) -> Finding:
        return Finding(SENSING, check, Verdict.FAILED, found, remedy)

    @staticmethod
    def _skipped(group: str, check: str, found: str) -> Finding:
        return Finding(group, check, Verdict.SKIPPED, found)


def _qos_apart(offered: QoSProfile, requested: QoSProfile) -> str:
    """Say what keeps a publisher and a subscription apart; empty where nothing does."""
    if (
        offered.reliability == ReliabilityPolicy.BEST_EFFORT
        and requested.reliability == ReliabilityPolicy.RELIABLE
    ):
        return "best effort is offered, and reliable is asked for"
    if (
        offered.durability == DurabilityPolicy.VOLATILE
        and requested.durability == DurabilityPolicy.TRANSIENT_LOCAL
    ):
        return "volatile is offered, and transient local is asked for"
    return ""


OVERRIDE = topics.MANUAL_OVERRIDE


def _is_of_the_car(topic: Topic) -> bool:
    return "{role}" in topic.template


def _run_command(command: RunCommand) -> Any:
    return topics.CONTROL.message_type(command=int(command))


def _why_not_moved(given: VehicleControl, executed: VehicleControl | None) -> tuple[str, str]:
    """Return what was found, and a remedy, for a car that a command did not move."""
    if executed is not None and same_control(given, executed):
        return (
            "it has the command, and stands",
            "look what stands in its way, or whether it is held (hand brake, gear); respawn it",
        )
    return (
        "it was told to, but the command is not in force",
        "switch the manual override and the autopilot off; nothing else may command the car",
    )
