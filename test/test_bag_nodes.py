# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The recorder's and the player's processes over real topics."""

from __future__ import annotations

import itertools
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bag_drives import CARLA, Drive, Recorded, drive, write
from bag_kinds import BY_NAME, Recording, recording_of, write_kind
from carla_graph import Observer, own_domain, ros_node, simulator_node
from driver_runs import make_run, small_config
from node_process import NodeProcess, node_process, parameters
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import JointState
from standstill import measured
from std_msgs.msg import String
from td3_driver_msgs.msg import PolicyInfo, PolicyOutput, ShadowDisagreement

from td3_driver.bridge import driver_topics, topics
from td3_driver.bridge.driver_messages import (
    disagreement_from_message,
    policy_info_from_message,
    policy_output_from_message,
)
from td3_driver.bridge.messages import ns_from_stamp
from td3_driver.bridge.topics import Topic
from td3_driver.driving.task import DrivingTask
from td3_driver.learning.policy import Policy
from td3_driver.nodes import recorder
from td3_driver.nodes.player import PlayerNode
from td3_driver.nodes.recorder import BagThread, LostMessages, suitable_qos
from td3_driver.offline.bag import Bag
from td3_driver.offline.frames import BagFrames

ROOT = Path(__file__).resolve().parent.parent
IMAGE = topics.IMAGE.name(CARLA)


def record_on_a_small_disk() -> None:
    """Run a recorder that soon cannot write any more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    recorder.main()


@contextmanager
def recorder_process(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run the recorder as users do."""
    process = subprocess.Popen(
        [sys.executable, "-m", "td3_driver.nodes.recorder", *parameters(f"bag:={path}")],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def end(process: NodeProcess | subprocess.Popen[str], number: int = signal.SIGINT) -> str:
    """Send a signal and return what was told until the end."""
    process.send_signal(number)
    _, told = process.communicate(timeout=60.0)
    assert told is not None
    return told


def image_stamps(path: Path) -> np.ndarray:
    with Bag(path) as bag:
        found = [ns_from_stamp(bag.decode(item).header.stamp) for item in bag.messages([IMAGE])]
    return np.array(found)


def wait_until_it_records(path: Path, timeout_s: float = 60.0) -> None:
    """Wait for more than the first half-second of a drive, in which topics may be missing."""
    deadline = time.monotonic() + timeout_s
    while sum(file.stat().st_size for file in path.glob("*.mcap")) < 40_000:
        assert time.monotonic() < deadline, "nothing is recorded"
        time.sleep(0.05)


def test_every_image_of_a_drive_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with recorder_process(path) as recorder:
        with simulator_node(own_domain()), ros_node("watcher", own_domain()) as node:
            watcher = Observer(node)
            watcher.listen_and_hear(topics.STATUS)
            wait_until_it_records(path)
            watcher.forget()
            watcher.wait(lambda: len(watcher.received[topics.STATUS]) > 30, 60.0)
            ticks = watcher.received[topics.STATUS]
        told = end(recorder)
    assert recorder.returncode == 0, told
    assert "none lost" in told
    stamps = image_stamps(path)
    assert len(stamps) >= ticks[-1].frame - ticks[0].frame
    assert np.all(np.diff(stamps) == 50_000_000)
    with Bag(path) as bag:
        recorded = {name for name, topic in bag.topics.items() if topic.count}
        expected = {
            topic.name(CARLA)
            for topic in topics.TOPICS
            if topic.direction is topics.Direction.FROM_SIMULATOR
            and topic not in (topics.COLLISION, topics.LANE_INVASION)
        }
        assert expected <= recorded  # the latched ones as well
        assert bag.topics[topics.WAYPOINTS.name(CARLA)].latched
        frames = list(BagFrames(bag, CARLA))
    assert len(frames) >= len(stamps) - 1
    with Reader(path) as reader:  # ordinary rosbag2, for others as well
        assert reader.message_count > 7 * len(stamps)


def test_a_killed_recorder_leaves_all_but_the_last_second(tmp_path: Path) -> None:
    tries = itertools.count(1)
    measured(lambda: kill_a_recorder(tmp_path / f"bag {next(tries)}"))


def kill_a_recorder(path: Path) -> None:
    """Kill a recorder, and look at what it leaves."""
    with (
        simulator_node(own_domain()) as simulator,
        node_process("recorder", f'bag:="{path}"', stderr=subprocess.PIPE) as recorder,
    ):
        wait_until_it_records(path)
        time.sleep(1.0)
        latest_ns = simulator.world.stamp_ns
        recorder.kill()
        recorder.wait()
    stamps = image_stamps(path)
    assert np.all(np.diff(stamps) == 50_000_000)
    assert latest_ns - stamps[-1] < 1.2e9
    with Bag(path) as bag:
        assert "the recording was cut off" in bag.notes[0]


def test_a_full_disk_leaves_a_readable_bag_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "bag"

    with simulator_node(own_domain()):
        recording = NodeProcess(
            "test_bag_nodes:record_on_a_small_disk",
            parameters(f"bag:={path}"),
            stderr=subprocess.PIPE,
        )
        _, told = recording.communicate(timeout=60.0)
    assert recording.returncode == 1 and told is not None
    assert "recording has ended" in told and "td3-driver repair" in told
    assert "Traceback" not in told
    assert len(image_stamps(path)) > 5


def test_a_nearly_full_disk_ends_a_complete_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimpleNamespace(free=1_000_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    writing = BagThread(tmp_path / "bag")
    writing.add_topic("/s", "std_msgs/msg/String")
    for number in range(3):
        writing.put("/s", number, serialize_message(String(data="x")), None)
    deadline = time.monotonic() + 60.0
    while writing.bag.messages < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    disk.free = 1_000_000
    writing.thread.join(60.0)
    assert "the disk has only 1 MB left" in writing.failure
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 3


NAN = float("nan")
PUBLISHED = {
    driver_topics.POLICY: PolicyInfo(kind=PolicyInfo.CHECKPOINT, path="a/000000007", step=7),
    driver_topics.POLICY_OUTPUT: PolicyOutput(steering=0.5, q1=NAN, q2=NAN, inference_s=0.25),
    driver_topics.SHADOW_DISAGREEMENT: ShadowDisagreement(speed_mps=-1.5, pedal=NAN),
}
PUBLISHED_BY_OLDER_DRIVERS = {
    driver_topics.POLICY: String(
        data=json.dumps(
            {
                "checkpoint": "a/000000007",
                "step": "000000007",
                "actor_sha256": "",
                "critic": False,
                "refused": "",
            }
        )
    ),
    driver_topics.POLICY_OUTPUT: JointState(
        name=[
            *("steering", "speed", "steering_angle_rad", "speed_mps"),
            *("image_to_command_s", "inference_s"),
        ],
        position=[0.5, 0.0, 0.0, 0.0, 0.0, 0.25],
    ),
    driver_topics.SHADOW_DISAGREEMENT: JointState(
        name=["steering_angle_rad", "speed_mps"], position=[0.0, -1.5]
    ),
}


@pytest.mark.parametrize("messages", [PUBLISHED, PUBLISHED_BY_OLDER_DRIVERS], ids=["new", "old"])
def test_what_a_driver_publishes_about_itself_is_recorded(
    messages: dict[Topic, Any], tmp_path: Path
) -> None:
    path = tmp_path / "bag"
    with (
        ros_node("driver", own_domain()) as node,
        node_process("recorder", f"bag:={path}", stderr=subprocess.PIPE) as recorder,
    ):
        publishers = {
            topic: node.create_publisher(
                type(message), topic.name(CARLA), topic.client_qos.profile()
            )
            for topic, message in messages.items()
        }
        deadline = time.monotonic() + 60.0
        while not all(publisher.get_subscription_count() for publisher in publishers.values()):
            assert time.monotonic() < deadline, "the recorder does not subscribe"
            time.sleep(0.05)
        for topic, publisher in publishers.items():
            publisher.publish(messages[topic])
            assert publisher.wait_for_all_acked()
        told = end(recorder)
    assert recorder.returncode == 0 and "none lost" in told
    with Bag(path) as bag:
        assert bag.topics["/driver/policy"].latched
        latest = {item.topic: bag.decode(item) for item in bag.messages()}
    info = policy_info_from_message(latest["/driver/policy"])
    assert (info.path, info.step) == ("a/000000007", 7)
    output = policy_output_from_message(latest["/driver/policy_output"])
    assert (output.steering, output.inference_s) == (0.5, 0.25) and np.isnan(output.q1)
    difference = disagreement_from_message(latest["/driver/shadow/disagreement"])
    assert difference.speed_mps == -1.5 and np.isnan(difference.pedal)


def test_no_bag_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with node_process("recorder", f"bag:={tmp_path / 'bag'}", stderr=subprocess.PIPE) as recorder:
        _, told = recorder.communicate(timeout=60.0)
    assert recorder.returncode == 2
    assert "exists, and no bag is overwritten" in told and "Traceback" not in told


def test_the_most_that_all_publishers_offer_is_asked_for() -> None:
    def offers(reliable: bool, latched: bool) -> QoSProfile:
        return topics.Qos(reliable, latched, 1).profile()

    every = suitable_qos([offers(True, True)])
    assert every.reliability == ReliabilityPolicy.RELIABLE
    assert every.durability == DurabilityPolicy.TRANSIENT_LOCAL
    mixed = suitable_qos([offers(True, True), offers(False, False)])
    assert mixed.reliability == ReliabilityPolicy.BEST_EFFORT
    assert mixed.durability == DurabilityPolicy.VOLATILE


def test_lost_messages_are_counted_by_their_numbers() -> None:
    losses = LostMessages()
    for number in (7, 8, 11, 12):  # begins in the middle, and loses two
        losses.note("/a", {"publication_sequence_number": number, "publisher_gid": {"data": 1}})
    losses.note("/a", {"publication_sequence_number": 1, "publisher_gid": {"data": 2}})
    losses.note("/b", {})  # a middleware that does not number them
    assert losses.total == 2 and losses.by_topic["/a"] == 2


# --- player ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def driven() -> Drive:
    return drive(ticks=40)


class Listener(Observer):
    """Collects what is played, on the topics of a driver."""

    WANTED = (topics.IMAGE, topics.ODOMETRY, topics.SPEEDOMETER, topics.WAYPOINTS, topics.CLOCK)

    def stamps(self, topic: Topic) -> list[int]:
        return [ns_from_stamp(item.header.stamp) for item in self.received[topic]]


def listen_to(path: Path) -> Listener:
    """Play a bag at twice its pace, and return who has heard it all."""
    with ros_node("listener", own_domain()) as node:
        listener = Listener(node)
        listener.listen(*Listener.WANTED)
        with node_process("player", f"bag:={path}", "rate:=2.0", stderr=subprocess.PIPE) as player:
            listener.wait(lambda: bool(listener.received[topics.IMAGE]), 60.0)
            begin = time.monotonic()
            listener.wait(lambda: len(listener.received[topics.ODOMETRY]) == 40, 20.0)
            duration_s = time.monotonic() - begin
            _, told = player.communicate(timeout=60.0)
        assert player.returncode == 0, told
    assert duration_s == pytest.approx(39 * 0.05 / 2.0, abs=0.5)
    assert len(listener.received[topics.IMAGE]) >= 38  # best effort
    return listener


def test_a_bag_is_played_as_it_was_recorded(driven: Drive, tmp_path: Path) -> None:
    path = write(tmp_path / "bag", driven.messages)
    listener = measured(lambda: listen_to(path))
    odometries = [item.message for item in driven.messages if item.topic is topics.ODOMETRY]
    assert listener.received[topics.ODOMETRY] == odometries
    images = [item.message for item in driven.messages if item.topic is topics.IMAGE]
    assert listener.received[topics.IMAGE][-1].data == images[-1].data


def test_a_loop_jumps_back_in_time_and_the_route_is_there_for_who_comes_late(
    driven: Drive, tmp_path: Path
) -> None:
    path = write(tmp_path / "bag", driven.messages, leave_out=[topics.CLOCK])
    measured(lambda: listen_to_a_loop(path))


def listen_to_a_loop(path: Path) -> None:
    """Play a bag without a clock over and over, and listen to two of its ends."""
    with (
        node_process(
            "player", f"bag:={path}", "rate:=2.0", "loop:=true", stderr=subprocess.PIPE
        ) as player,
        ros_node("listener", own_domain()) as node,
    ):
        early = Listener(node)
        early.listen(topics.IMAGE, topics.ODOMETRY)
        early.wait(lambda: len(early.received[topics.ODOMETRY]) > 20, 60.0)
        early.listen(topics.WAYPOINTS, topics.CLOCK)
        early.wait(lambda: bool(early.received[topics.WAYPOINTS]), 60.0)

        def clock() -> list[int]:
            return [ns_from_stamp(item.clock) for item in early.received[topics.CLOCK]]

        def steps() -> np.ndarray:
            return np.diff(early.stamps(topics.ODOMETRY))

        early.wait(lambda: np.sum(steps() < 0) >= 2 and np.any(np.diff(clock()) < 0), 60.0)
        end(player)
    assert player.returncode == 0
    assert set(steps()[steps() > 0]) == {50_000_000}
    # The bag has no clock: it is made of the stamps, and jumps with them.
    assert set(clock()) <= set(early.stamps(topics.ODOMETRY))


def test_what_the_package_s_own_nodes_told_stays_silent(driven: Drive, tmp_path: Path) -> None:
    told = Topic(
        "/driver/policy_output",
        "std_msgs/msg/String",
        topics.Direction.TO_SIMULATOR,
        topics.RELIABLE,
        topics.RELIABLE,
        "",
    )
    extra = Recorded(told, driven.messages[-1].log_ns, String(data="old"))
    path = write(tmp_path / "bag", [*driven.messages, extra])
    with ros_node("listener", own_domain()) as node:
        listener = Observer(node)
        listener.listen(topics.IMAGE, topics.ODOMETRY, told)
        with node_process("player", f"bag:={path}", "rate:=5.0", stderr=subprocess.PIPE) as player:
            last = driven.frames[-1].stamp_ns
            listener.wait(
                lambda: (
                    topics.ODOMETRY in listener.latest
                    and ns_from_stamp(listener.latest[topics.ODOMETRY].header.stamp) == last
                ),
                60.0,
            )
            player.communicate(timeout=60.0)
        listener.spin(0.3)
    assert not listener.received[told]


ODD_TYPES = {"short": "x", "relative": "/msg/x", "unknown": "odd_msgs/msg/Odd", "long": "a/b/c/d"}


def test_what_cannot_be_played_costs_itself(driven: Drive, tmp_path: Path) -> None:
    recording = recording_of(driven.messages)
    clock = recording.topics[recording.messages[4].topic]
    odd = [replace(clock, name=f"/{name}", type_name=odd) for name, odd in ODD_TYPES.items()]
    odd.append(replace(clock, name="/a b"))
    last = recording.messages[-1]
    added = [
        replace(last, topic=len(recording.topics) + place, log_ns=last.log_ns + 1)
        for place in range(len(odd))
    ]
    path = write_kind(
        tmp_path / "bag",
        Recording([*recording.topics, *odd], [*recording.messages, *added]),
        BY_NAME["chunks"],
    )
    context = Context()
    context.init(args=[], domain_id=own_domain())
    player = PlayerNode(context, [Parameter("bag", value=str(path))])
    try:
        played = {publisher.topic_name for publisher in player.publishers}
        assert topics.IMAGE.name(CARLA) in played
        assert not played & {topic.name for topic in odd}
    finally:
        player.close()
        player.destroy_node()
        context.try_shutdown()


def by_lap(outputs: Sequence[PolicyOutput]) -> list[list[PolicyOutput]]:
    """Split decisions where their stamps jump back."""
    stamps = [ns_from_stamp(output.header.stamp) for output in outputs]
    begins = [0, *(np.flatnonzero(np.diff(stamps) < 0) + 1), len(outputs)]
    return [list(outputs[begin:end]) for begin, end in pairwise(begins)]


@contextmanager
def replay(log: Path, *arguments: str) -> Iterator[None]:
    """Run `td3-driver replay` as users do."""
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "td3_driver.cli", "replay", *arguments],
            cwd=ROOT,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30.0)


def test_the_driver_decides_on_a_replayed_bag_anew_in_every_loop(tmp_path: Path) -> None:
    # The driver of the recording has told its own decisions on the topic of the one that listens.
    own = Topic(
        "/driver/policy_output",
        "sensor_msgs/msg/JointState",
        topics.Direction.FROM_NODES,
        topics.RELIABLE,
        topics.RELIABLE,
        "",
    )
    driven = drive(ticks=24)
    images = [item for item in driven.messages if item.topic is topics.IMAGE]
    old = [Recorded(own, item.log_ns + 1, JointState(name=["old"])) for item in images]
    messages = sorted([*driven.messages, *old], key=lambda item: item.log_ns)
    bag = write(tmp_path / "bag", messages)
    config, log = small_config(), tmp_path / "log"
    run = make_run(tmp_path / "run", config, critic=True)
    with ros_node("listener", own_domain()) as node:
        outputs: list[PolicyOutput] = []
        differences: list[ShadowDisagreement] = []
        for topic, heard in (
            (driver_topics.POLICY_OUTPUT, outputs),
            (driver_topics.SHADOW_DISAGREEMENT, differences),
        ):
            name = driver_topics.full_name(topic, CARLA)
            node.create_subscription(topic.message_type, name, heard.append, 10)
        listener = Observer(node)
        listener.listen(topics.ACKERMANN)
        with replay(log, str(bag), str(run.path), "--loop"):
            listener.wait(lambda: len(by_lap(outputs)) > 3, 120.0)
    laps = by_lap(outputs)[1:-1]
    assert "simulation time has jumped" in log.read_text()
    assert all(len(lap) > 5 for lap in laps)
    assert all(np.isfinite([output.q1, output.q2]).all() for output in outputs)
    assert differences[-1].compared_with == ShadowDisagreement.ACKERMANN_COMMAND
    # The commands on the car's topic are those of the bag, and no others.
    recorded = {item.message.speed for item in driven.messages if item.topic is topics.ACKERMANN}
    assert {message.speed for message in listener.received[topics.ACKERMANN]} <= recorded
    # The first decision of a lap knows of nothing before: neither image nor action.
    policy = Policy.load(run.latest_checkpoint())
    frames = {frame.stamp_ns: place for place, frame in enumerate(driven.frames)}
    for first in (lap[0] for lap in laps):
        place = frames[ns_from_stamp(first.header.stamp)]
        # The speed has no stamp: it may be that of the tick before.
        speeds = {driven.frames[near].speed for near in (place, max(place - 1, 0))}
        expected = [
            policy.act(
                DrivingTask(config.driving, 0.05).begin(
                    replace(driven.frames[place], speed=np.float32(speed))
                )
            )
            for speed in speeds
        ]
        decided = (first.steering, first.speed)
        assert any(np.allclose(decided, action, atol=1e-6) for action in expected)


@pytest.mark.parametrize(
    "parameters, reason",
    [
        (["bag:=nonesuch"], "there is no bag nonesuch"),
        (["rate:=0.0", "bag:=nonesuch"], "rate must be above 0"),
        ([], "name the bag"),
    ],
)
def test_a_player_that_cannot_play_says_why(parameters: list[str], reason: str) -> None:
    with node_process("player", *parameters, stderr=subprocess.PIPE) as player:
        _, told = player.communicate(timeout=60.0)
    assert player.returncode == 2
    assert reason in told and "Traceback" not in told
