# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Frames and decisions of a bag: the ones a driver has live."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_drives import CARLA, EPOCH_NS, MAP, Drive, Recorded, drive, write
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Float32

from td3_driver.bridge import topics
from td3_driver.config import CarlaConfig, DrivingConfig, SimulatorConfig
from td3_driver.driving.control import AckermannCommand, CommandLimiter, PedalController
from td3_driver.driving.observation import Observation
from td3_driver.driving.pilot import Pilot
from td3_driver.driving.task import DrivingTask
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.bag_names import bag_names
from td3_driver.offline.decisions import decisions
from td3_driver.offline.frames import HOLD_S, BagFrame, BagFrames
from td3_driver.offline.writer import BagWriter

CONFIG = DrivingConfig(action_repeat=2)


@pytest.fixture(scope="module")
def driven() -> Drive:
    # Straight on, into the grass: with lane invasions on the way.
    return drive(ticks=80, config=CONFIG, act=lambda _: np.array([0.35, 0.2], np.float32))


def frames_of(path: Path, config: CarlaConfig = CARLA) -> list[BagFrame]:
    with Bag(path) as bag:
        return list(BagFrames(bag, config))


def assert_same(found: list[BagFrame], driven: Drive) -> None:
    assert [item.frame.stamp_ns for item in found] == [item.stamp_ns for item in driven.frames]
    for item, frame, command in zip(found, driven.frames, driven.commands, strict=True):
        mine = item.frame
        assert np.array_equal(mine.image, frame.image)
        assert (mine.pose.x, mine.pose.y) == (frame.pose.x, frame.pose.y)
        assert mine.pose.yaw == pytest.approx(frame.pose.yaw, abs=1e-9)
        assert mine.speed == pytest.approx(frame.speed, abs=1e-6)
        assert mine.yaw_rate == frame.yaw_rate
        assert mine.collisions == frame.collisions
        assert mine.lane_invasions == frame.lane_invasions
        assert mine.control.steer == pytest.approx(frame.control.steer, abs=1e-6)
        assert mine.route is found[0].frame.route
        assert item.ackermann is not None and item.command is not None
        assert item.ackermann.speed == pytest.approx(command.ackermann.speed, abs=1e-6)
        assert item.command.steer == pytest.approx(command.control.steer, abs=1e-6)
        assert item.status_known


def test_the_frames_are_those_of_the_world(driven: Drive, tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "bag", driven.messages))
    assert any(frame.lane_invasions for frame in driven.frames)
    assert_same(found, driven)
    assert np.allclose(found[0].frame.route, driven.frames[0].route)


def test_disorder_within_half_a_second_is_put_right(driven: Drive, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    # What has no stamp keeps its time: nothing else tells when it was.
    stampless = (topics.SPEEDOMETER, topics.ACKERMANN, topics.WAYPOINTS, topics.WORLD_INFO)
    late = (topics.ODOMETRY, topics.VEHICLE_STATUS)
    moved = [
        replace(item, log_ns=item.log_ns + int(rng.integers(0, 8_000_000)))
        if item.topic in late and item.topic not in stampless
        else item
        for item in driven.messages
    ]
    # Images in pairs the wrong way round.
    images = [place for place, item in enumerate(moved) if item.topic is topics.IMAGE]
    for first, second in zip(images[::2], images[1::2], strict=True):
        a, b = moved[first], moved[second]
        moved[first] = replace(b, log_ns=a.log_ns)
        moved[second] = replace(a, log_ns=b.log_ns)
    found = frames_of(write(tmp_path / "bag", sorted(moved, key=lambda item: item.log_ns)))
    assert [item.frame.stamp_ns for item in found] == [item.stamp_ns for item in driven.frames]
    for item, frame in zip(found, driven.frames, strict=True):
        assert np.array_equal(item.frame.image, frame.image)
        assert (item.frame.pose.x, item.frame.pose.y) == (frame.pose.x, frame.pose.y)


def test_a_recording_faster_than_real_time_is_read_alike(tmp_path: Path) -> None:
    fast = drive(ticks=60, config=CONFIG, tick_log_ns=1_500_000)
    assert_same(frames_of(write(tmp_path / "bag", fast.messages)), fast)


def test_a_loop_is_a_jump_back_and_not_disorder(driven: Drive, tmp_path: Path) -> None:
    length_ns = driven.messages[-1].log_ns - EPOCH_NS + 50_000_000
    again = [replace(item, log_ns=item.log_ns + length_ns) for item in driven.messages]
    path = write(tmp_path / "bag", [*driven.messages, *again])
    with Bag(path) as bag:
        source = BagFrames(bag, CARLA)
        found = list(source)
        assert source.findings.jumps_back == 1
        stretches = {item.stretch for item in decisions(found, CONFIG, 0.05)}
    assert len(found) == 2 * len(driven.frames)
    assert stretches == {0, 1}


def test_images_that_come_twice_are_taken_once(driven: Drive, tmp_path: Path) -> None:
    doubled = [
        copy
        for item in driven.messages
        for copy in ((item, item) if item.topic is topics.IMAGE else (item,))
    ]
    with Bag(write(tmp_path / "bag", doubled)) as bag:
        source = BagFrames(bag, CARLA)
        assert len(list(source)) == len(driven.frames)
        assert source.findings.repeated_images == len(driven.frames)


def test_the_only_car_and_camera_are_found_whatever_they_are_called(
    driven: Drive, tmp_path: Path
) -> None:
    names = CarlaConfig(role_name="hero", camera="front/left")
    path = write(tmp_path / "bag", driven.messages, names)
    with Bag(path) as bag:
        source = BagFrames(bag, CARLA)
        assert (source.names.role_name, source.names.camera) == ("hero", "front/left")
        assert len(list(source)) == len(driven.frames)


def test_of_several_cameras_one_must_be_chosen(driven: Drive, tmp_path: Path) -> None:
    path = tmp_path / "bag"
    image = next(item for item in driven.messages if item.topic is topics.IMAGE)
    with BagWriter(path) as writer:
        for camera in ("left", "right"):
            name = f"/carla/hero/{camera}/image"
            writer.add_topic(name, topics.IMAGE.type_name)
            writer.write(name, image.log_ns, image.data)
    with Bag(path) as bag:
        with pytest.raises(BagError, match="hero/left, hero/right"):
            bag_names(bag, CARLA)
        chosen = CarlaConfig(role_name="hero", camera="right")
        assert bag_names(bag, chosen) == chosen


@pytest.mark.parametrize("topic", [topics.ODOMETRY, topics.WAYPOINTS, topics.IMAGE])
def test_what_nothing_can_be_observed_without_is_named(
    topic: topics.Topic, driven: Drive, tmp_path: Path
) -> None:
    path = write(tmp_path / "bag", driven.messages, leave_out=[topic])
    with Bag(path) as bag, pytest.raises(BagError, match=topic.name(CARLA)):
        BagFrames(bag, CARLA)


def test_what_can_be_done_without_is_done_without(driven: Drive, tmp_path: Path) -> None:
    absent = [
        topics.SPEEDOMETER,
        topics.VEHICLE_STATUS,
        topics.STATUS,
        topics.ACKERMANN,
        topics.VEHICLE_CONTROL,
        topics.WORLD_INFO,
        topics.CLOCK,
    ]
    with Bag(write(tmp_path / "bag", driven.messages, leave_out=absent)) as bag:
        source = BagFrames(bag, CARLA)
        found = list(source)
        assert source.findings.speed_from_odometry == len(found) == len(driven.frames)
        assert {topic.name(CARLA) for topic in absent} <= set(source.missing)
        assert source.world_info() is None
    for item, frame in zip(found, driven.frames, strict=True):
        assert item.frame.speed == pytest.approx(frame.speed)
        assert item.ackermann is None and item.command is None and not item.status_known
    assert all(item.action is None for item in decisions(found, CONFIG, 0.05))


@pytest.mark.parametrize("size", [(64, 48), (400, 100)])
def test_any_resolution_is_observed(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    simulator = SimulatorConfig(map=MAP, image_width_px=width, image_height_px=height)
    other = drive(ticks=8, config=CONFIG, simulator=simulator)
    found = frames_of(write(tmp_path / "bag", other.messages))
    assert found[0].frame.image.shape == (height, width, 4)
    assert_same(found, other)
    made = list(decisions(found, CONFIG, 0.05))
    assert made[0].observation["image"].shape == (4, 84, 84)


def test_a_status_of_another_type_is_done_without(driven: Drive, tmp_path: Path) -> None:
    foreign = replace(topics.STATUS, type_name="std_msgs/msg/Float32")
    messages = [
        Recorded(foreign, item.log_ns, Float32(data=1.0)) if item.topic is topics.STATUS else item
        for item in driven.messages
    ]
    with Bag(write(tmp_path / "bag", messages)) as bag:
        source = BagFrames(bag, CARLA)
        assert source.fixed_delta_s == 0.05
        assert len(list(source)) == len(driven.frames)


def reencoded(driven: Drive, encoding: str) -> list[Recorded]:
    """Return the messages with their images in another encoding."""
    orders = {"rgb8": [2, 1, 0], "bgr8": [0, 1, 2], "rgba8": [2, 1, 0, 3]}
    messages = []
    for item in driven.messages:
        if item.topic is not topics.IMAGE:
            messages.append(item)
            continue
        bgra = np.frombuffer(item.message.data, np.uint8).reshape(120, 160, 4)
        order = orders.get(encoding, [0, 1, 2])
        pixels = bgra[:, :, order] if encoding != "mono8" else bgra[:, :, :1]
        message = topics.IMAGE.message_type(
            header=item.message.header,
            height=120,
            width=160,
            encoding=encoding,
            step=160 * pixels.shape[2],
            data=np.ascontiguousarray(pixels).tobytes(),
        )
        messages.append(replace(item, message=message))
    return messages


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "rgba8"])
def test_other_encodings_show_the_same(encoding: str, driven: Drive, tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "bag", reencoded(driven, encoding)))
    for item, frame in zip(found, driven.frames, strict=True):
        assert np.array_equal(item.frame.image[:, :, :3], frame.image[:, :, :3])


def test_an_encoding_that_nobody_reads_is_told(driven: Drive, tmp_path: Path) -> None:
    with Bag(write(tmp_path / "bag", reencoded(driven, "32FC1"))) as bag:
        source = BagFrames(bag, CARLA)
        assert not list(source)
        assert source.findings.unreadable[topics.IMAGE.name(CARLA)] == len(driven.frames)
        assert "32FC1" in next(iter(source.findings.reasons.values()))


def test_compressed_images_are_read(driven: Drive, tmp_path: Path) -> None:
    compressed = replace(
        topics.IMAGE,
        template=topics.IMAGE.template + "/compressed",
        type_name="sensor_msgs/msg/CompressedImage",
    )
    messages = []
    for item in driven.messages:
        if item.topic is topics.IMAGE:
            bgra = np.frombuffer(item.message.data, np.uint8).reshape(120, 160, 4)
            _, data = cv2.imencode(".png", bgra[:, :, :3])
            message = CompressedImage(
                header=item.message.header, format="bgra8; png compressed", data=data.tobytes()
            )
            item = Recorded(compressed, item.log_ns, message)
        messages.append(item)
    found = frames_of(write(tmp_path / "bag", messages))
    assert len(found) == len(driven.frames)
    assert np.array_equal(found[5].frame.image[:, :, :3], driven.frames[5].image[:, :, :3])


def test_memory_does_not_grow_with_the_bag(driven: Drive, tmp_path: Path) -> None:
    with Bag(write(tmp_path / "bag", driven.messages)) as bag:
        source = BagFrames(bag, CARLA)
        assert len(list(source)) == len(driven.frames)
        assert 1 <= source.findings.images_held <= HOLD_S / 0.05 + 1 < len(driven.frames)


def test_the_driver_s_own_stops_are_told_from_answers(driven: Drive, tmp_path: Path) -> None:
    end_ns = driven.messages[-1].log_ns
    stop = topics.VEHICLE_CONTROL.message_type(brake=1.0)
    messages = [*driven.messages, Recorded(topics.VEHICLE_CONTROL, end_ns + 450_000_000, stop)]
    with Bag(write(tmp_path / "bag", messages)) as bag:
        source = BagFrames(bag, CARLA)
        list(source)
        ((_, silence_ns),) = source.findings.unstamped_stops
    assert 0.4e9 < silence_ns < 0.5e9


# --- decisions -------------------------------------------------------------------------------


def test_the_observations_are_those_of_the_driver(driven: Drive, tmp_path: Path) -> None:
    seen: list[Observation] = []

    def act(observation: Observation) -> np.ndarray:
        seen.append(observation)
        return np.zeros(2, dtype=np.float32)

    found = frames_of(write(tmp_path / "bag", driven.messages))
    pilot = Pilot(CONFIG, 0.05, act)
    for item in found:
        pilot.drive(item.frame)
    made = list(decisions(found, CONFIG, 0.05))
    assert len(made) == len(seen) == len(driven.frames) // 2
    for decision, observation in zip(made, seen, strict=True):
        assert np.array_equal(decision.observation["image"], observation["image"])
        assert np.array_equal(decision.observation["vector"], observation["vector"])


def test_rewards_and_ends_are_those_of_the_task(driven: Drive, tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "bag", driven.messages))
    made = list(decisions(found, CONFIG, 0.05))
    task = DrivingTask(CONFIG, 0.05)
    task.begin(found[0].frame)
    assert any(decision.end is not None for decision in made)
    for place, decision in enumerate(made[:-1]):
        assert decision.action is not None
        behind = [found[2 * place + 1].frame, found[2 * place + 2].frame]
        outcome = task.judge(
            decision.action,
            behind[1],
            tuple(event for frame in behind for event in frame.collisions),
            tuple(event for frame in behind for event in frame.lane_invasions),
            2,
        )
        assert decision.reward == outcome.reward
        assert decision.end == outcome.end
        assert decision.next_observation is not None
        assert np.array_equal(decision.next_observation["image"], outcome.observation["image"])
    assert made[-1].reward is None and made[-1].next_observation is None


def weaving(observation: Observation) -> np.ndarray:
    """Ask for what the limits hold back: full steer one way and the other, stop and go."""
    weaving.calls += 1  # type: ignore[attr-defined]
    phase = weaving.calls // 4 % 4  # type: ignore[attr-defined]
    return np.array([(0.3, -0.4, 0.0, 0.1)[phase], (0.9, 0.2, -0.1, 0.6)[phase]], np.float32)


def wandering() -> Drive:
    weaving.calls = 0  # type: ignore[attr-defined]
    return drive(ticks=160, config=CONFIG, act=weaving)


def test_the_actions_of_a_bag_command_the_same_drive_again(tmp_path: Path) -> None:
    driven = wandering()
    made = list(decisions(frames_of(write(tmp_path / "bag", driven.messages)), CONFIG, 0.05))
    limiter = CommandLimiter(CONFIG)
    limiter.reset(driven.frames[0].speed)
    commands = [command.ackermann for command in driven.commands]
    for place, decision in enumerate(made[:-1]):
        assert decision.action is not None and decision.within_reach
        for tick in range(2):
            again = limiter.command(decision.action, 0.05)
            command = commands[2 * place + tick]
            assert again.steering_angle == pytest.approx(command.steering_angle, abs=1e-6)
            assert again.speed == pytest.approx(command.speed, abs=1e-6)


def test_the_status_alone_tells_the_same_actions(tmp_path: Path) -> None:
    driven = wandering()
    found = list(decisions(frames_of(write(tmp_path / "bag", driven.messages)), CONFIG, 0.05))
    absent = [topics.ACKERMANN, topics.VEHICLE_CONTROL]
    bare = write(tmp_path / "bare", driven.messages, leave_out=absent)
    read = list(decisions(frames_of(bare), CONFIG, 0.05))
    actions = np.array([decision.action for decision in found[:-1]])
    again = np.array([decision.action for decision in read[:-1]])
    # Inverting the pedals loses what lies within the brake's dead band, and no more.
    band = 2.0 * PedalController.BRAKE_DEAD_BAND / PedalController.PROPORTIONAL / 8.0
    assert np.abs(again[:, 0] - actions[:, 0]).max() < 1e-6
    assert np.abs(again[:, 1] - actions[:, 1]).max() < band + 1e-6
    assert np.median(np.abs(again[:, 1] - actions[:, 1])) < 1e-3
    assert np.ptp(actions, axis=0).min() > 0.5


@pytest.mark.parametrize(
    "changes",
    [{"steering_angle": 0.7}, {"speed": 9.0}, {"speed": -1.0}],
)
def test_what_no_action_commands_is_out_of_reach(
    driven: Drive, tmp_path: Path, changes: dict[str, float]
) -> None:
    found = frames_of(write(tmp_path / "bag", driven.messages))
    found = [replace(item, ackermann=AckermannCommand(**changes)) for item in found]
    made = list(decisions(found, CONFIG, 0.05))
    assert not any(decision.within_reach for decision in made)
    assert all(np.abs(decision.action).max() <= 1.0 for decision in made)  # type: ignore


def test_a_jump_of_the_car_begins_a_new_stretch(driven: Drive, tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "bag", driven.messages))
    gone = [
        replace(item, frame=replace(item.frame, pose=replace(item.frame.pose, x=9e3)))
        for item in found[20:]
    ]
    left_out: list[str] = []
    made = list(
        decisions(found[:20] + gone, CONFIG, 0.05, lambda item, reason: left_out.append(reason))
    )
    assert made[-1].cut_by == "a jump of the car"
    assert left_out == ["away from the route"] * len(gone)


def test_a_gap_begins_a_new_stretch(driven: Drive, tmp_path: Path) -> None:
    lost = {frame.stamp_ns for frame in driven.frames[20:35]}  # 0.8 s without an image
    kept = [
        item
        for item in driven.messages
        if item.topic is not topics.IMAGE
        or item.message.header.stamp.sec * 10**9 + item.message.header.stamp.nanosec not in lost
    ]
    made = list(decisions(frames_of(write(tmp_path / "bag", kept)), CONFIG, 0.05))
    assert {decision.stretch for decision in made} == {0, 1}
    begin = next(decision for decision in made if decision.stretch == 1)
    stack = begin.observation["image"]
    assert all(np.array_equal(image, stack[0]) for image in stack)
