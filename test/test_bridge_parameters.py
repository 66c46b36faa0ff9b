# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Settings as ROS parameters."""

import pytest
from carla_graph import own_domain
from rclpy.context import Context
from rclpy.exceptions import ParameterNotDeclaredException
from rclpy.parameter import Parameter

from td3_driver import config
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import ConfigError

FILE = """
/**:
  ros__parameters:
    learning: {batch_size: 32, tau: 0.01}
    carla: {role_name: hero}
"""


@pytest.fixture
def make_node():
    """Make a node as if the process had been started with some parameters."""
    context = Context()
    context.init(args=[], domain_id=own_domain())
    nodes = []

    def make(given=None, node_class=ConfiguredNode, **options):
        overrides = [Parameter(name, value=value) for name, value in (given or {}).items()]
        node = node_class("tested", context=context, parameter_overrides=overrides, **options)
        nodes.append(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(FILE)
    return str(path)


def test_defaults_are_the_settings_own(make_node):
    node = make_node()
    assert node.get_parameter("learning.batch_size").value == 256
    assert list(node.get_parameter("learning.hidden").value) == [256, 256]
    assert node.get_parameter("training.maps").value[0] == "ring_meadow"


def test_file_goes_over_defaults_and_overrides_over_the_file(make_node, file):
    node = make_node({"config": file, "learning.batch_size": 64})
    assert node.config.learning.batch_size == 64
    assert node.config.learning.tau == 0.01
    assert node.config.carla.role_name == "hero"
    assert node.get_parameter("learning.tau").value == 0.01


def test_a_whole_number_will_do_for_a_real_one(make_node):
    node = make_node({"carla.step_timeout_s": 7})
    assert node.get_parameter("carla.step_timeout_s").value == 7.0


def test_description_unit_and_range(make_node):
    node = make_node()
    delta = node.describe_parameter("simulator.fixed_delta_s")
    assert delta.description == "Simulated time of one tick. [s]"
    assert delta.additional_constraints == "Above 0.0, Below 0.1" and delta.read_only
    assert delta.floating_point_range[0].to_value == 0.1
    width = node.describe_parameter("simulator.image_width_px").integer_range[0]
    assert (width.from_value, width.to_value) == (16, 1920)
    assert node.describe_parameter("simulator.seed").integer_range[0].to_value == 2**31 - 1
    assert "auto, cpu, cuda" in node.describe_parameter("learning.device").additional_constraints


@pytest.mark.parametrize(
    "given, words",
    [
        ({"learning.batch_sze": 64}, "learning.batch_sze: there is no such setting"),
        ({"learning.batch_size": 0}, "learning.batch_size: .* greater than or equal to 1"),
        ({"learning.device": "tpu"}, "learning.device"),
        ({"batch": 1}, "no such parameter: batch"),
        ({"config": "no such file"}, "no such file"),
        ({"config": 3.5}, r"config: 3.5 is not a str; for a text, quote it: -p 'config:=\"...\"'"),
    ],
)
def test_wrong_parameters_are_named(make_node, given, words):
    with pytest.raises(ConfigError, match=words):
        make_node(given)


def test_sections_of_other_nodes_are_checked_but_not_declared(make_node):
    node = make_node({"learning.batch_size": 64}, sections=("carla",))
    assert node.config.learning.batch_size == 64
    assert not node.has_parameter("learning.batch_size")
    with pytest.raises(ConfigError, match=r"learning\.tau"):
        make_node({"learning.tau": 5.0}, sections=("carla",))


def test_parameters_of_the_nodes_own(make_node):
    node = make_node({"run": "first"}, own={"run": ("", "Folder."), "fast": (False, "Fast.")})
    assert node.get_parameter("run").value == "first"
    assert node.get_parameter("fast").value is False
    assert node.describe_parameter("run").read_only


class Choosy(ConfiguredNode):
    """Refuses one map."""

    def change_settings(self, new):
        if new.simulator.map == "moon":
            raise ConfigError("no roads there")


def test_only_what_is_settable_changes_while_running(make_node):
    node = make_node(node_class=Choosy, settable=("simulator.map",))
    refused, taken, read_only = (
        node.set_parameters([Parameter(name, value=value)])[0]
        for name, value in (
            ("simulator.map", "moon"),
            ("simulator.map", "town"),
            ("simulator.seed", 4),
        )
    )
    assert not refused.successful and refused.reason == "no roads there"
    assert taken.successful and node.config.simulator.map == "town"
    assert not read_only.successful and node.config.simulator.seed == 0


OWN = {"run": ("", "Its name."), "count": (1, "How many.", 0, 9)}


def test_a_number_may_be_a_name(make_node):
    # As ROS reads `-p run:=20261125`.
    node = make_node({"run": 20261125}, own=OWN)
    assert node.get_parameter("run").value == "20261125"


class Counting(ConfiguredNode):
    counts = ()

    def change_own(self, values):
        if values["count"] == 5:
            raise ConfigError("not five")
        self.counts = (*self.counts, values["count"])


def test_a_node_s_own_parameter_changes_where_it_is_settable(make_node):
    node = make_node(node_class=Counting, own=OWN, settable=("count",))
    taken, refused, beyond, read_only = (
        node.set_parameters([Parameter(name, value=value)])[0]
        for name, value in (("count", 3), ("count", 5), ("count", 10), ("run", "x"))
    )
    assert taken.successful and node.counts == (3,)
    assert not refused.successful and refused.reason == "not five"
    assert not beyond.successful and not read_only.successful
    assert node.get_parameter("count").value == 3


def test_a_settable_value_is_validated(make_node):
    node = make_node(settable=("simulator.realtime_factor",))
    result = node.set_parameters([Parameter("simulator.realtime_factor", value=-1.0)])[0]
    assert not result.successful
    assert node.config.simulator.realtime_factor == 1.0


def refusal(node, name, value):
    """Return why a change is refused."""
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    return result.reason


def test_a_change_that_cannot_be_is_refused_with_its_reason(make_node):
    node = make_node(settable=("simulator.realtime_factor", "simulator.map"))
    assert "read-only" in refusal(node, "learning.batch_size", 64)
    assert "read-only" in refusal(node, "config", "first_drive")
    factor = "simulator.realtime_factor"
    assert "range" in refusal(node, factor, 1000.0)
    # Its limit is open, which a ROS range cannot say.
    assert "greater than 0" in refusal(node, factor, 0.0)
    assert "type" in refusal(node, factor, "fast").lower()
    with pytest.raises(ParameterNotDeclaredException, match="undeclared"):
        node.set_parameters([Parameter("simulator.factor", value=2.0)])


def test_changes_together_are_made_together_or_not_at_all(make_node):
    node = make_node(settable=("simulator.realtime_factor",))
    changes = [
        Parameter("simulator.realtime_factor", value=2.0),
        Parameter("simulator.seed", value=3),
    ]
    result = node.set_parameters_atomically(changes)
    assert not result.successful and "read-only" in result.reason
    assert node.config.simulator.realtime_factor == 1.0
    assert node.get_parameter("simulator.realtime_factor").value == 1.0


def test_lists_say_what_may_be_in_them(make_node):
    node = make_node()
    words = {
        name: node.describe_parameter(name).additional_constraints
        for name in ("learning.channels", "learning.hidden", "training.maps")
    }
    assert words == {
        "learning.channels": "3, each from 1 to 4096.",
        "learning.hidden": "At most 16, each from 1 to 4096.",
        "training.maps": "At least one.",
    }


def test_every_parameter_is_described_and_every_bounded_number_has_its_range(make_node):
    node = make_node()
    for section, settings in type(node.config).model_fields.items():
        for setting, field in settings.annotation.model_fields.items():
            descriptor = node.describe_parameter(f"{section}.{setting}")
            assert descriptor.description.startswith(field.description)
            ranges = (*descriptor.integer_range, *descriptor.floating_point_range)
            bounded = field.annotation in (int, float) and bool(config.limits(field))
            assert len(ranges) == bounded, setting


def test_a_parameter_of_the_nodes_own_has_bounds(make_node):
    own = {"seed": (0, "Seed.", 0, 9)}
    node = make_node({"seed": 9}, own=own)
    limits = node.describe_parameter("seed").integer_range[0]
    assert (limits.from_value, limits.to_value) == (0, 9)
    with pytest.raises(ConfigError, match="seed: 10 is above 9"):
        make_node({"seed": 10}, own=own)
    with pytest.raises(ConfigError, match="seed: -1 is below 0"):
        make_node({"seed": -1}, own=own)
