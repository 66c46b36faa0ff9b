# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a driver published about its policy is read from bags, new and old ones."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_drives import CARLA, EPOCH_NS, Drive, Recorded, drive, write
from driver_runs import make_run, small_config
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from td3_driver_msgs.msg import PolicyInfo, PolicyOutput, ShadowDisagreement

from td3_driver.bridge.conversion import make_header
from td3_driver.bridge.driver_messages import (
    ComparedWith,
    PolicyKind,
    disagreement_from_message,
    policy_info_from_message,
    policy_output_from_message,
)
from td3_driver.bridge.driver_topics import (
    POLICY,
    POLICY_OUTPUT,
    SHADOW_DISAGREEMENT,
    full_name,
)
from td3_driver.bridge.messages import ConversionError
from td3_driver.bridge.topics import Topic
from td3_driver.driving.world import Frame
from td3_driver.offline.bag import Bag
from td3_driver.offline.definitions import typestore
from td3_driver.offline.frames import BagFrames
from td3_driver.offline.inspection import Inspector

STAMP_NS = 7_050_000_000
OLD_POLICY = {
    "checkpoint": "runs/old/checkpoints/000000300",
    "step": "000000300",
    "actor_sha256": "abcdef0123456789",
    "critic": True,
    "loaded_at": "2026-01-02T03:04:05+0000",
    "refused": "",
}


def by_name(stamp_ns: int, **values: float) -> JointState:
    """Make a message of the older form."""
    return JointState(
        header=make_header(stamp_ns, ""), name=list(values), position=list(values.values())
    )


class AsPublished(Recorded):
    """A message of the older form as it was published.

    `serialize_message` leaves room behind the two empty sequences of a JointState, which a
    publisher does not.
    """

    @cached_property
    def data(self) -> bytes:
        kind = self.topic.type_name
        store = typestore(kind)
        stamp = self.message.header.stamp
        time = store.types["builtin_interfaces/msg/Time"](stamp.sec, stamp.nanosec)
        nothing = np.zeros(0)
        message = store.types[kind](
            store.types["std_msgs/msg/Header"](time, ""),
            list(self.message.name),
            np.array(self.message.position),
            nothing,
            nothing,
        )
        return bytes(store.serialize_cdr(message, kind))


def old_policy(**changed: object) -> String:
    return String(data=json.dumps({**OLD_POLICY, **changed}))


def old_output(stamp_ns: int = STAMP_NS, **values: float) -> JointState:
    decision = {"steering": 0.25, "speed": -0.5, "steering_angle_rad": 0.125, "speed_mps": 2.5}
    return by_name(stamp_ns, **decision, image_to_command_s=0.02, inference_s=0.005, **values)


def new_policy(**values: Any) -> PolicyInfo:
    return PolicyInfo(
        **{
            "kind": PolicyInfo.CHECKPOINT,
            "run": "runs/old",
            "path": OLD_POLICY["checkpoint"],
            "step": 300,
            "actor_sha256": OLD_POLICY["actor_sha256"],
            "has_critic": True,
            **values,
        }
    )


def new_output(stamp_ns: int = STAMP_NS, **values: float) -> PolicyOutput:
    return PolicyOutput(
        header=make_header(stamp_ns, ""),
        steering=0.25,
        speed=-0.5,
        steering_angle_rad=0.125,
        speed_mps=2.5,
        image_to_command_s=0.02,
        inference_s=0.005,
        **{"q1": math.nan, "q2": math.nan, **values},
    )


# Both forms


@pytest.mark.parametrize("message", [new_policy(), old_policy()], ids=["new", "old"])
def test_a_policy_is_read_in_either_form(message: Any) -> None:
    info = policy_info_from_message(message)
    assert info.kind is PolicyKind.CHECKPOINT
    assert (info.path, info.step) == (OLD_POLICY["checkpoint"], 300)
    assert (info.actor_sha256, info.has_critic) == (OLD_POLICY["actor_sha256"], True)
    assert info.refused_reason == ""


def test_the_older_form_tells_the_baseline_and_policy_files_apart() -> None:
    baseline = policy_info_from_message(old_policy(checkpoint="baseline", step="baseline"))
    assert (baseline.kind, baseline.path, baseline.step) == (PolicyKind.BASELINE, "", 0)
    exported = policy_info_from_message(old_policy(checkpoint="a/p.onnx", step="p.onnx"))
    assert (exported.kind, exported.path) == (PolicyKind.POLICY_FILE, "a/p.onnx")
    assert exported.step is None  # it was not recorded


@pytest.mark.parametrize("output", [new_output, old_output], ids=["new", "old"])
def test_a_decision_is_read_in_either_form(output: Callable[..., Any]) -> None:
    read = policy_output_from_message(output(q1=1.5, q2=-1.5))
    assert read.stamp_ns == STAMP_NS
    assert (read.steering, read.speed) == (0.25, -0.5)
    assert (read.steering_angle_rad, read.speed_mps) == (0.125, 2.5)
    assert (read.q1, read.q2) == (1.5, -1.5)
    assert (read.inference_s, read.image_to_command_s) == (0.005, 0.02)
    without_critic = policy_output_from_message(output())
    assert math.isnan(without_critic.q1) and math.isnan(without_critic.q2)


@pytest.mark.parametrize(
    "message",
    [
        ShadowDisagreement(steering_angle_rad=0.5, speed_mps=-1.0, pedal=math.nan),
        by_name(STAMP_NS, steering_angle_rad=0.5, speed_mps=-1.0),
    ],
    ids=["new", "old"],
)
def test_a_disagreement_with_a_command_is_read_in_either_form(message: Any) -> None:
    read = disagreement_from_message(message)
    assert read.compared_with is ComparedWith.ACKERMANN_COMMAND
    assert (read.steering_angle_rad, read.speed_mps) == (0.5, -1.0)
    assert math.isnan(read.pedal)


@pytest.mark.parametrize(
    "message",
    [
        ShadowDisagreement(
            compared_with=ShadowDisagreement.VEHICLE_STATUS,
            steering_angle_rad=0.5,
            speed_mps=math.nan,
            pedal=-1.5,
        ),
        by_name(STAMP_NS, steering_angle_rad=0.5, pedal=-1.5),
    ],
    ids=["new", "old"],
)
def test_a_disagreement_with_the_pedals_is_read_in_either_form(message: Any) -> None:
    read = disagreement_from_message(message)
    assert read.compared_with is ComparedWith.VEHICLE_STATUS
    assert (read.steering_angle_rad, read.pedal) == (0.5, -1.5)
    assert math.isnan(read.speed_mps)


@pytest.mark.parametrize(
    "read, message",
    [
        (policy_info_from_message, String(data="not JSON")),
        (policy_info_from_message, String(data="[]")),
        (policy_info_from_message, String(data='{"checkpoint": "a"}')),
        (policy_info_from_message, PolicyInfo(kind=99)),
        (policy_output_from_message, by_name(STAMP_NS, steering=0.5)),
        (disagreement_from_message, by_name(STAMP_NS, pedal=0.5)),
        (disagreement_from_message, ShadowDisagreement(compared_with=99)),
    ],
)
def test_what_means_nothing_is_refused(read: Callable[[Any], Any], message: Any) -> None:
    with pytest.raises(ConversionError):
        read(message)


# Bags


@pytest.fixture(scope="module")
def driven() -> Drive:
    return drive(ticks=40)


def of_type(topic: Topic, message: Any) -> Topic:
    """Return a topic as a bag has it: under its full name, with the message's type."""
    package = type(message).__module__.split(".")[0]
    type_name = f"{package}/msg/{type(message).__name__}"
    return replace(topic, template=full_name(topic, CARLA), type_name=type_name)


def published_by_a_driver(
    frames: Iterable[Frame],
    policies: Iterable[Any],
    output: Callable[..., Any],
    disagreement: Callable[[float], Any],
) -> list[Recorded]:
    """Return what a driver publishes about itself during a drive."""
    published = [Recorded(of_type(POLICY, message), EPOCH_NS, message) for message in policies]
    for tick, frame in enumerate(frames):
        log_ns = EPOCH_NS + 20_000_000 + tick * 50_000_000
        for topic, message in (
            (POLICY_OUTPUT, output(frame.stamp_ns)),
            (SHADOW_DISAGREEMENT, disagreement(math.radians(tick))),
        ):
            kind = AsPublished if isinstance(message, JointState) else Recorded
            published.append(kind(of_type(topic, message), log_ns, message))
    return published


def new_form(driven: Drive) -> list[Recorded]:
    second = new_policy(path="runs/old/checkpoints/000000400", step=400, actor_sha256="f" * 64)
    refusal = new_policy(refused_path="c", refused_reason="c is damaged")
    return published_by_a_driver(
        driven.frames,
        [new_policy(), refusal, refusal, second],
        new_output,
        lambda difference: ShadowDisagreement(steering_angle_rad=difference, pedal=math.nan),
    )


def old_form(driven: Drive) -> list[Recorded]:
    second = {"checkpoint": "runs/old/checkpoints/000000400", "step": "000000400"}
    refusal = old_policy(refused="c is damaged")
    return published_by_a_driver(
        driven.frames,
        [old_policy(), refusal, refusal, old_policy(**second, actor_sha256="f" * 64)],
        old_output,
        lambda difference: by_name(STAMP_NS, steering_angle_rad=difference, speed_mps=1.0),
    )


@pytest.mark.parametrize("form", [new_form, old_form])
def test_an_inspection_says_what_drove_in_either_form(
    form: Callable[[Drive], list[Recorded]], driven: Drive, tmp_path: Path
) -> None:
    path = write(tmp_path / "bag", [*driven.messages, *form(driven)])
    run = make_run(tmp_path / "run", small_config())
    with Bag(path) as bag:
        inspection = Inspector(bag, run.path).inspect()
    assert inspection.facts["driven by"] == (
        "runs/old/checkpoints/000000300 (step 300, actor abcdef01), then "
        "runs/old/checkpoints/000000400 (step 400, actor ffffffff)"
    )
    assert inspection.facts["inference"] == "5.0 ms median, 5.0 ms p99"
    assert inspection.facts["shadow's steering"] == "differs by 19.5 deg median, 38.6 deg p99"
    assert inspection.notes.count("the driver refused a checkpoint: c is damaged") == 1
    np.testing.assert_allclose(inspection.columns["inference_ms"], 5.0)


def test_nothing_is_said_of_a_driver_that_published_nothing(driven: Drive, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_config())
    with Bag(write(tmp_path / "bag", driven.messages)) as bag:
        inspection = Inspector(bag, run.path).inspect()
    assert not {"driven by", "inference", "shadow's steering"} & set(inspection.facts)
    assert np.all(np.isnan(inspection.columns["inference_ms"]))


def test_what_means_nothing_is_left_out_and_counted(driven: Drive, tmp_path: Path) -> None:
    message = String(data="not JSON")
    odd = Recorded(of_type(POLICY, message), EPOCH_NS, message)
    with Bag(write(tmp_path / "bag", [*driven.messages, odd])) as bag:
        frames = BagFrames(bag, CARLA)
        assert len(list(frames)) == len(driven.frames)
    assert frames.findings.unreadable["/driver/policy"] == 1
    assert not frames.findings.policy_record.policies


def test_a_bag_without_definitions_is_read_by_the_shipped_ones_and_without_ros(
    driven: Drive, tmp_path: Path
) -> None:
    path = tmp_path / "bag"
    with Ros2Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connections = {}
        for item in new_form(driven):
            name, kind = item.topic.template, item.topic.type_name
            if name not in connections:
                connections[name] = writer.add_connection(
                    name, kind, msgdef=" ", rihs01="RIHS01_0"
                )
            writer.write(connections[name], item.log_ns, item.data)
    script = """
import sys
from td3_driver.bridge import driver_messages as read
from td3_driver.offline.bag import Bag
from td3_driver.offline.definitions import typestore
sys.prefix = ""  # as if nothing of ROS were installed
with Bag(sys.argv[1]) as bag:
    found = {item.topic: bag.decode(item) for item in bag.messages()}
print(read.policy_info_from_message(found["/driver/policy"]).step)
print(read.policy_output_from_message(found["/driver/policy_output"]).speed_mps)
print(read.disagreement_from_message(found["/driver/shadow/disagreement"]).compared_with.name)
print(*{"rclpy", "td3_driver_msgs", "std_msgs"} & set(sys.modules))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "AMENT_PREFIX_PATH": ""},
    )
    assert done.stdout.split() == ["400", "2.5", "ACKERMANN_COMMAND"]
