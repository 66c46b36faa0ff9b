# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Several worlds and cars in one graph, as the commands start them, over DDS."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from carla_graph import Observer, own_domain, ros_node
from diagnostic_msgs.msg import DiagnosticArray
from node_process import NodeProcess
from rclpy.context import Context
from std_srvs.srv import Trigger
from trainer_process import PARAMETERS

from td3_driver.bridge import topics
from td3_driver.bridge.driver_topics import (
    DRIVER_TOPICS,
    POLICY,
    POLICY_OUTPUT,
    drivers_among,
    full_name,
)
from td3_driver.config import CarlaConfig
from td3_driver.launching.commands import COMMANDS
from td3_driver.launching.parts import Process
from td3_driver.nodes.driver.node import DriverNode
from td3_driver.offline.bag import Bag
from td3_driver.offline.frames import BagFrames

ROLES = ("left", "right")
# What a bridge publishes and hears for all of its cars. Two embedded simulators are two worlds.
OWN_WORLD = "carla.topic_names=" + ", ".join(
    f"{topic}=/{{role}}/{topic}" for topic in ("clock", "status", "world_info", "control", "tf")
)
SMALL = ("simulator.image_width_px=64", "simulator.image_height_px=48")
START_S = 90.0


def processes_of(command: str, **given: Any) -> list[Process]:
    defaults = {option.name: option.default for option in COMMANDS[command].options}
    return COMMANDS[command].processes({**defaults, **given})


@contextmanager
def started(processes: Sequence[Process]) -> Iterator[list[NodeProcess]]:
    """Start processes with the command lines that they would have; end the last one first."""
    with ExitStack() as ends:
        children = []
        for process in processes:
            _, *start, name = (command := process.command_line())[:4]
            assert (start, name) == (["-m", "td3_driver.startup"], process.name)
            module = f"{name}.node" if name in ("driver", "simulator") else name
            entry = f"td3_driver.nodes.{module}:main"
            child = NodeProcess(entry, command[4:], stderr=subprocess.PIPE)
            ends.callback(end, child)
            children.append(child)
        yield children


def end(child: NodeProcess) -> None:
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(60.0)
    assert child.returncode == 0, said


@pytest.mark.timeout(300)
def test_two_cars_are_driven_at_once_in_one_graph(tmp_path: Path) -> None:
    names = {role: CarlaConfig(role_name=role, topic_names=_value(OWN_WORLD)) for role in ROLES}
    with ExitStack() as stack:
        node = stack.enter_context(ros_node("watcher", own_domain()))
        for role, town in zip(ROLES, ("ring_meadow", "ring_quarry"), strict=True):
            processes = processes_of(
                "drive",
                baseline=True,
                role_name=role,
                map=town,
                record=str(tmp_path / role),
                set=(OWN_WORLD, *SMALL),
            )
            assert {process.namespace for process in processes} == {f"/{role}"}
            stack.enter_context(started(processes))
        cars = {
            role: Observer(stack.enter_context(ros_node(role, own_domain())), names[role])
            for role in ROLES
        }
        observer = Observer(node)
        policies: dict[str, list[Any]] = {role: [] for role in ROLES}
        statuses: set[str] = set()
        for role, car in cars.items():
            car.listen(topics.SPEEDOMETER, topics.VEHICLE_CONTROL, topics.STATUS)
            node.create_subscription(
                POLICY.message_type,
                full_name(POLICY, names[role], f"/{role}/driver"),
                policies[role].append,
                POLICY.client_qos.profile(),
            )
        node.create_subscription(
            DiagnosticArray,
            "/diagnostics",
            lambda array: statuses.update(status.name for status in array.status),
            10,
        )
        for car in cars.values():
            car.wait(
                lambda car=car: any(m.data > 3.0 for m in car.received[topics.SPEEDOMETER]),
                START_S,
            )
        observer.wait(lambda: {f"{role}/driver: watchdog" for role in ROLES} <= statuses)
        assert not any(name.startswith("driver:") for name in statuses)
        # Each has its own policy, its own services, and its own life.
        assert all(len(messages) == 1 for messages in policies.values())
        assert _call(observer, Trigger, "/left/driver/resume").message == "the car drives on"
        assert (
            sorted(
                f"{namespace}/{name}" for name, namespace in node.get_node_names_and_namespaces()
            ).count("/left/driver")
            == 1
        )
        for role, car in cars.items():
            publishers = node.get_publishers_info_by_topic(
                topics.VEHICLE_CONTROL.name(names[role])
            )
            assert [end.node_namespace for end in publishers] == [f"/{role}"]
            assert len(node.get_publishers_info_by_topic(topics.STATUS.name(names[role]))) == 1
            assert car.received[topics.VEHICLE_CONTROL]
    for role in ROLES:
        with Bag(tmp_path / role) as bag:
            own = {full_name(topic, names[role], f"/{role}/driver") for topic in DRIVER_TOPICS}
            told = {name for name in bag.topics if "/driver/" in name}
            assert told and told <= own
            frames = BagFrames(bag, CarlaConfig(topic_names=_value(OWN_WORLD)))
            assert (frames.driver, frames.names.role_name) == (f"/{role}/driver", role)
            assert len(list(frames)) > 20
            assert frames.findings.policy_record.driven_by() == "the baseline"
            assert len(frames.findings.policy_record.inferences_s()) > 20
            assert frames.findings.recorded_stops.heard


def _value(assignment: str) -> str:
    return assignment.partition("=")[2]


def _call(observer: Observer, service: Any, name: str) -> Any:
    client = observer.node.create_client(service, name)
    observer.wait(client.service_is_ready)
    future = client.call_async(service.Request())
    observer.wait(future.done)
    return future.result()


@pytest.mark.timeout(240)
def test_trainer_and_simulator_work_in_a_namespace_and_change_maps(tmp_path: Path) -> None:
    settings = {
        **PARAMETERS,
        "training.maps": "[ring_quarry]",  # not the one that the simulator begins with
        "training.total_steps": "60",
        "training.log_interval_updates": "10",
    }
    processes = processes_of(
        "train",
        run=str(tmp_path / "run"),
        namespace="fleet/one",
        use_sim_time=True,
        set=(*SMALL, *(f"{name}={value}" for name, value in settings.items())),
    )
    heard: list[DiagnosticArray] = []
    with ros_node("watcher", own_domain()) as node, started(processes) as (_, trainer):
        node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)
        observer = Observer(node)
        observer.listen(topics.WORLD_INFO)
        observer.wait(lambda: bool(heard), START_S)
        assert trainer.wait(START_S) == 0
        assert observer.latest[topics.WORLD_INFO].map_name == "ring_quarry"
    statuses = {status.name.partition(":")[0] for array in heard for status in array.status}
    assert statuses == {"fleet/one/trainer"}
    # Seconds of the simulation, not since 1970.
    assert all(array.header.stamp.sec < 1000 for array in heard)


def test_a_driver_is_found_in_a_bag_by_the_types_of_its_topics() -> None:
    assert drivers_among({}) == ["/driver"]
    assert drivers_among({"/driver/policy": "std_msgs/msg/String"}) == ["/driver"]
    assert drivers_among(
        {
            "/a/pilot/policy": POLICY.type_name,
            "/a/pilot/policy_output": POLICY_OUTPUT.type_name,
            "/driver/policy_output": POLICY_OUTPUT.type_name,
            "/other/policy": "some_msgs/msg/Policy",
        }
    ) == ["/a/pilot", "/driver"]


def test_a_level_and_a_parameter_file_reach_the_nodes(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    carla: {camera: eye}\n"
        "/left/driver:\n  ros__parameters:\n    driver.camera_timeout_s: 0.25\n    seed: 7\n"
    )
    processes = processes_of(
        "drive",
        baseline=True,
        namespace="left",
        log_level="debug",
        params_file=str(file),
        use_sim_time=True,
        ackermann_controller=True,
    )
    by_name = {process.name: process for process in processes}
    assert "use_sim_time" not in by_name["simulator"].parameters
    assert by_name["ackermann_controller"].parameters["use_sim_time"] is True
    arguments = by_name["driver"].command_line()
    for flag, value in (
        ("-r", "__ns:=/left"),
        ("--log-level", "left.driver:=debug"),
        ("--params-file", str(file)),
        ("-p", "use_sim_time:=true"),
    ):
        assert (flag, value) in pairwise(arguments)
    context_arguments = arguments[arguments.index("--ros-args") :]
    with _driver(context_arguments) as node:
        assert node.get_fully_qualified_name() == "/left/driver"
        assert node.config.driver.camera_timeout_s == 0.25
        assert node.config.carla.camera == "eye"
        # What is headed by a name goes before the command's own, as ROS has it.
        assert node.get_parameter("seed").value == 7
        assert node.get_parameter("use_sim_time").value is True
        assert node.get_logger().get_effective_level() == 10


@contextmanager
def _driver(arguments: Sequence[str]) -> Iterator[DriverNode]:
    context = Context()
    context.init(args=["driver", *arguments], domain_id=own_domain())
    node = DriverNode(context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()
