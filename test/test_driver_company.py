# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Another simulator on the driver's sensors, another driver on its car: named, and got over."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from carla_graph import own_domain, ros_node
from diagnostic_msgs.msg import DiagnosticArray
from node_process import node_process
from scripted_car import ScriptedCar

from td3_driver.bridge import topics
from td3_driver.bridge.endpoints import UNKNOWN_NAME
from td3_driver.bridge.topics import Topic
from td3_driver.config import Config, DriverConfig
from td3_driver.nodes.driver.company import Company

IMAGE = "/carla/ego_vehicle/rgb_front/image"
ACKERMANN = "/carla/ego_vehicle/ackermann_cmd"


class Graph:
    """Stands for a node, a guard and the frames, and keeps what they are told."""

    def __init__(self, driver: DriverConfig | None = None, name: str = "/driver") -> None:
        self.ends: dict[str, list[Any]] = {}
        self.said: list[str] = []
        self.several: list[str | None] = []
        self.sizes_forgotten = 0
        self.config = Config(driver=driver or DriverConfig())
        self._name = name
        logger = SimpleNamespace(warning=self.said.append, info=self.said.append)
        self.get_logger = lambda: logger
        self.get_fully_qualified_name = lambda: name
        self.get_publishers_info_by_topic = lambda topic: self.ends.get(topic, [])
        self.create_timer = lambda period_s, look, clock: None
        self.note_publishers = self.several.append
        for topic in (topics.ACKERMANN, topics.VEHICLE_CONTROL):
            self.publish(topic, name)

    def expect_another_size(self) -> None:
        self.sizes_forgotten += 1

    def publish(self, topic: Topic, node: str) -> None:
        """Have a node publish a topic."""
        namespace, _, plain = node.rpartition("/")
        ends = self.ends.setdefault(topic.name(self.config.carla), [])
        gid = [len(ends)] * 16
        end = SimpleNamespace(node_name=plain, node_namespace=namespace or "/", endpoint_gid=gid)
        ends.append(end)

    def company(self) -> Company:
        return Company(self, self, self)  # type: ignore[arg-type]


def test_alone_it_says_nothing() -> None:
    graph = Graph()
    graph.publish(topics.IMAGE, "/simulator")
    found = graph.company()
    found.look()
    assert (found.sensors, found.commanders, graph.said, graph.several) == ("", "", [], [])


def test_several_publishers_of_a_sensor_are_named_while_there_are() -> None:
    graph = Graph()
    graph.publish(topics.IMAGE, "/simulator")
    found = graph.company()
    graph.publish(topics.IMAGE, "/left/simulator")
    found.look()
    line = f"left/simulator, simulator publish {IMAGE}"
    assert found.sensors == line and graph.said == [f"{line}: keep only one"]
    graph.publish(topics.IMAGE, "/simulator")
    found.look()
    assert found.sensors == f"left/simulator, simulator (2 of this name) publish {IMAGE}"
    del graph.ends[IMAGE][1:]
    found.look()
    found.look()
    assert found.sensors == "" and graph.said[2:] == ["the sensors have one publisher each again"]
    assert graph.several == [line, graph.said[1].removesuffix(": keep only one"), None]


def test_another_camera_may_have_images_of_another_size_once_it_is_alone() -> None:
    graph = Graph()
    graph.publish(topics.IMAGE, "/simulator")
    found = graph.company()
    before = graph.sizes_forgotten
    graph.publish(topics.IMAGE, "/other")
    found.look()
    assert graph.sizes_forgotten == before
    del graph.ends[IMAGE][0]
    found.look()
    found.look()
    assert graph.sizes_forgotten == before + 1


def test_others_who_command_the_car_are_named_also_those_of_the_same_name() -> None:
    graph = Graph(name="/left/driver")
    found = graph.company()
    graph.publish(topics.ACKERMANN, "/left/driver")
    found.look()
    assert found.commanders == f"left/driver publishes {ACKERMANN}"
    graph.publish(topics.ACKERMANN, "/driver")
    graph.publish(topics.ACKERMANN, f"/{UNKNOWN_NAME}")
    found.look()
    assert found.commanders == f"{UNKNOWN_NAME}, driver, left/driver publish {ACKERMANN}"
    del graph.ends[ACKERMANN][1:]
    found.look()
    assert graph.said[-1] == "alone with the car again" and found.commanders == ""


@pytest.mark.parametrize(
    "driver, told",
    [
        (DriverConfig(), True),
        (DriverConfig(publish_vehicle_control=False), False),
        (DriverConfig(shadow=True), False),
    ],
)
def test_pedals_may_be_anothers_where_the_driver_leaves_them(
    driver: DriverConfig, told: bool
) -> None:
    graph = Graph(driver)
    graph.publish(topics.VEHICLE_CONTROL, "/ackermann_controller")
    assert bool(graph.company().commanders) is told


def test_a_driver_stops_between_two_simulators_and_drives_on_with_the_one_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It meets the wrong one first, whose images are of another size."""
    statuses: dict[str, Any] = {}

    def hear(message: DiagnosticArray) -> None:
        statuses.update({status.name: status for status in message.status})

    def told(name: str, words: str) -> bool:
        return f"driver: {name}" in statuses and words in statuses[f"driver: {name}"].message

    options = ("baseline:=true", "random_goal:=false", "driver.standstill_timeout_s:=0.2")
    with ros_node("right", own_domain()) as node:
        node.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
        with ros_node("wrong", own_domain()) as other:
            wrong = ScriptedCar(other, 80, 60)
            wrong.start()
            with node_process("driver", *options, stderr=subprocess.PIPE) as driver:
                assert wrong.wait(wrong.told_to_drive, 100.0)
                right = ScriptedCar(node)
                right.start()
                assert right.wait(lambda: told("watchdog", f"right, wrong publish {IMAGE}"), 30.0)
                values = {pair.key: pair.value for pair in statuses["driver: watchdog"].values}
                assert values["fault"] == "several_publishers"
                assert values["needs_resume"] == "False"
                assert told("company", f"right, wrong publish {IMAGE}")
                wrong.end()
                other.destroy_node()
                since_s = right.clock()
                assert right.wait(lambda: right.told_to_drive(since_s), 30.0)
                assert right.wait(lambda: told("company", "alone"), 10.0)
                node.create_publisher(topics.ACKERMANN.message_type, ACKERMANN, 1)
                assert right.wait(lambda: told("company", f"right publishes {ACKERMANN}"), 10.0)
                right.end()
            assert driver.stderr is not None
            log = driver.stderr.read()
    assert f"right, wrong publish {IMAGE}: keep only one" in log
    assert f"not alone: right publishes {ACKERMANN}: keep only one" in log
