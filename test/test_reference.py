# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The generated pages: current, and saying what the nodes really do."""

from __future__ import annotations

import re
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from carla_graph import own_domain
from rclpy.context import Context

from td3_driver.bridge import outlasting
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import Config
from td3_driver.nodes.ackermann_controller import AckermannControllerNode
from td3_driver.nodes.simulator.node import SimulatorNode

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "make_reference.py"
PARAMETERS = (ROOT / "docs" / "parameters.md").read_text()
TOPICS = (ROOT / "docs" / "topics.md").read_text()
NODES = {"simulator": SimulatorNode, "ackermann_controller": AckermannControllerNode}
# What rclpy makes for every node.
ROS_TOPICS = ("/rosout", "/parameter_events")
ROS_PARAMETERS = ("use_sim_time", "start_type_description_service")


def test_the_pages_are_current(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_reference.py", "--check"])
    code = runpy.run_path(str(TOOL))["main"]()
    assert code == 0, f"run python tools/make_reference.py\n{capsys.readouterr()}"


def test_a_page_that_is_not_current_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = runpy.run_path(str(TOOL))
    monkeypatch.setitem(tool["pages"].__globals__, "DOCS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_reference.py", "--check"])
    (tmp_path / "topics.md").write_text("old")
    assert tool["main"]() == 1 and (tmp_path / "topics.md").read_text() == "old"
    monkeypatch.setattr(sys, "argv", ["make_reference.py"])
    assert tool["main"]() == 0
    assert (tmp_path / "topics.md").read_text() == TOPICS
    assert (tmp_path / "parameters.md").read_text() == PARAMETERS


def test_every_setting_is_on_the_page() -> None:
    for section, settings in Config().model_dump().items():
        for setting in settings:
            assert PARAMETERS.count(f"| `{section}.{setting}` |") == 1


@contextmanager
def running(name: str) -> Iterator[ConfiguredNode]:
    context = Context()
    context.init(args=[], domain_id=own_domain())
    node = NODES[name](context=context)
    try:
        yield node
    finally:
        node.destroy_node()
        context.try_shutdown()


@pytest.mark.parametrize("name", NODES)
def test_the_pages_say_what_a_node_declares(name: str) -> None:
    with running(name) as node:
        declared = set(node.get_parameters_by_prefix("")) - set(ROS_PARAMETERS)
        descriptors = {name: node.describe_parameter(name) for name in declared}
        ends = {topic for topic, _ in node.get_topic_names_and_types()} - set(ROS_TOPICS)
        config = node.config.carla
    users = {
        section
        for section, nodes in re.findall(r"## `(\w+)`\n\n.*Declared by: (.*)\.\n", PARAMETERS)
        if f"`{name}`" in nodes
    }
    on_page = {setting for setting in declared if setting.partition(".")[0] in users}
    own = declared - on_page
    assert own == {"config", *outlasting.OWN_PARAMETERS}
    described = PARAMETERS.partition(f"### `{name}`\n")[2].partition("\n### ")[0]
    assert all(f"| `{parameter}` |" in described for parameter in own)
    settable = {setting for setting, found in descriptors.items() if not found.read_only}
    for setting in on_page:
        (line,) = re.findall(rf"\| `{re.escape(setting)}` \|.*", PARAMETERS)
        assert (f"*At run time* on `{name}`" in line) == (setting in settable)
    names = TOPICS.replace("<role_name>", config.role_name)
    names = names.replace("<camera>", config.camera).replace("<control>", config.control)
    for topic in ends:
        assert f"| `{topic}` |" in names, f"{topic} is in no table of topics"


@pytest.mark.parametrize("name", NODES)
def test_every_parameter_of_a_node_is_described(name: str) -> None:
    with running(name) as node:
        for parameter in node.get_parameters_by_prefix(""):
            if parameter not in ROS_PARAMETERS:
                assert node.describe_parameter(parameter).description, parameter
