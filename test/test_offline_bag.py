# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Bags: written as others read them, and read as others write them, whole or not."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from bag_drives import Drive, drive, write
from mcap.reader import make_reader
from rclpy.serialization import deserialize_message
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from td3_driver.bridge import topics
from td3_driver.config import CarlaConfig
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.definitions import (
    DefinitionError,
    embedded_definition,
    installed_definition,
)
from td3_driver.offline.writer import BagWriter, repair

NAMES = CarlaConfig()
IMAGE = topics.IMAGE.name(NAMES)
STATUS = topics.VEHICLE_STATUS.name(NAMES)


@pytest.fixture(scope="module")
def driven() -> Drive:
    return drive(ticks=30)


@pytest.fixture
def bag(driven: Drive, tmp_path: Path) -> Path:
    return write(tmp_path / "bag", driven.messages)


def contents(path: Path) -> list[tuple[str, int, bytes]]:
    with Bag(path) as bag:
        return [(item.topic, item.log_ns, item.data) for item in bag.messages()]


def test_a_bag_is_what_other_tools_expect(bag: Path, driven: Drive) -> None:
    with Ros2Reader(bag) as reader:
        counts = {item.topic: item.msgcount for item in reader.connections}
        assert reader.message_count == len(driven.messages)
        assert counts[IMAGE] == 30
        assert [data for _, _, data in reader.messages()] == [
            item.data for item in driven.messages
        ]
    with next(bag.glob("*.mcap")).open("rb") as stream:
        summary = make_reader(stream).get_summary()
    assert summary is not None and summary.chunk_indexes
    assert {schema.encoding for schema in summary.schemas.values()} == {"ros2msg"}
    described = {schema.name: schema.data.decode() for schema in summary.schemas.values()}
    assert "float32 steering_angle" in described["ackermann_msgs/msg/AckermannDrive"]
    assert "MSG: carla_msgs/CarlaEgoVehicleControl" in described[topics.VEHICLE_STATUS.type_name]
    information = yaml.safe_load((bag / "metadata.yaml").read_text())[
        "rosbag2_bagfile_information"
    ]
    assert information["storage_identifier"] == "mcap"
    assert information["message_count"] == len(driven.messages)
    assert "&" not in (bag / "metadata.yaml").read_text()  # no aliases for simple parsers


def test_messages_come_back_in_the_order_of_their_recording(driven: Drive, tmp_path: Path) -> None:
    shuffled = [*driven.messages[100:], *driven.messages[:100]]
    found = contents(write(tmp_path / "bag", shuffled))
    assert [log_ns for _, log_ns, _ in found] == sorted(item.log_ns for item in driven.messages)


def test_messages_are_decoded_as_ros_does(bag: Path, driven: Drive) -> None:
    with Bag(bag) as opened:
        (first, *_) = opened.messages([STATUS])
        decoded = opened.decode(first)
        by_ros = deserialize_message(opened.serialised(first), topics.VEHICLE_STATUS.message_type)
    assert decoded.velocity == pytest.approx(by_ros.velocity)
    assert decoded.control.brake == by_ros.control.brake
    assert decoded.header.stamp.nanosec == by_ros.header.stamp.nanosec


def test_no_bag_is_overwritten(bag: Path) -> None:
    with pytest.raises(BagError, match="exists, and no bag is overwritten"):
        BagWriter(bag)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
def test_a_cut_off_bag_is_read_up_to_its_last_whole_part(
    share: float, driven: Drive, tmp_path: Path
) -> None:
    path = tmp_path / "bag"
    writer = BagWriter(path)
    for item in driven.messages:
        name = item.topic.name(NAMES)
        if name not in writer.topics:
            writer.add_topic(name, item.topic.type_name)
        writer.write(name, item.log_ns, item.data)
        if item.topic is topics.VEHICLE_CONTROL:
            writer.flush()
    writer.abandon()
    file = writer.file
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with Bag(path) as bag:
        images = list(bag.messages([IMAGE]))
        assert "was cut off" in bag.notes[0]
    # Each tick was flushed: no more than the last one, of about the share's size, is lost.
    assert share * 30 - 3 <= len(images) <= 30
    with Ros2Reader(repair(path).path) as reader:
        assert sum(item.msgcount for item in reader.connections if item.topic == IMAGE) == len(
            images
        )


def test_a_writer_given_up_never_touches_the_file_that_has_its_number_next(
    driven: Drive, tmp_path: Path
) -> None:
    writer = BagWriter(tmp_path / "bag")
    writer.add_topic(IMAGE, topics.IMAGE.type_name)
    writer.stream.write(b"not written yet")
    number = writer.stream.fileno()
    writer.abandon()
    with (tmp_path / "other").open("wb", buffering=0) as other:
        assert other.fileno() == number  # the lowest that is free
        writer.abandon()
        del writer
        gc.collect()
        other.write(b"whole")
    assert (tmp_path / "other").read_bytes() == b"whole"


def test_damage_in_the_middle_costs_what_is_damaged_only(driven: Drive, tmp_path: Path) -> None:
    path = tmp_path / "bag"
    writer = BagWriter(path)
    writer.add_topic(IMAGE, topics.IMAGE.type_name)
    images = [item for item in driven.messages if item.topic is topics.IMAGE]
    ends = []
    for item in images:
        writer.write(IMAGE, item.log_ns, item.data)
        writer.flush()
        ends.append(writer.file.stat().st_size)
    writer.abandon()
    data = bytearray(writer.file.read_bytes())
    middle = (ends[9] + ends[10]) // 2
    data[middle : middle + 50] = bytes(50)
    writer.file.write_bytes(data)
    assert len(contents(path)) == len(images) - 1


def test_an_sqlite_bag_without_definitions_is_decoded_by_the_shipped_ones(
    driven: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As if nothing of ROS were installed.
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    monkeypatch.setattr("sys.prefix", str(tmp_path))
    path = tmp_path / "bag"
    with Ros2Writer(path, version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection(
            STATUS, topics.VEHICLE_STATUS.type_name, msgdef=" ", rihs01="RIHS01_0"
        )
        for item in driven.messages:
            if item.topic is topics.VEHICLE_STATUS:
                writer.write(connection, item.log_ns, item.data)
    with Bag(path) as bag:
        speeds = [bag.decode(item).velocity for item in bag.messages()]
    assert speeds == pytest.approx([abs(frame.speed) for frame in driven.frames])


def test_a_ros_1_bag_is_read_and_played_as_ros_2(driven: Drive, tmp_path: Path) -> None:
    store = get_typestore(Stores.ROS1_NOETIC)
    for name in ("CarlaEgoVehicleControl", "CarlaEgoVehicleStatus"):
        text = installed_definition(f"carla_msgs/msg/{name}")
        assert text is not None
        store.register(get_types_from_msg(text, f"carla_msgs/msg/{name}"))
    wanted = [
        item for item in driven.messages if item.topic in (topics.VEHICLE_STATUS, topics.IMAGE)
    ]
    path = tmp_path / "old.bag"
    with Ros1Writer(path) as writer:
        connections = {
            topic: writer.add_connection(topic.name(NAMES), topic.type_name, typestore=store)
            for topic in (topics.VEHICLE_STATUS, topics.IMAGE)
        }
        ros2 = get_typestore(Stores.ROS2_JAZZY)
        ros2.register({k: v for k, v in store.fielddefs.items() if k.startswith("carla_msgs")})
        for item in wanted:
            message = ros2.deserialize_cdr(item.data, item.topic.type_name)
            parts = [message]
            if item.topic is topics.VEHICLE_STATUS:
                parts.append(message.control)  # type: ignore[attr-defined]
            for part in parts:
                header = part.header  # type: ignore[attr-defined]
                part.header = store.types["std_msgs/msg/Header"](  # type: ignore[attr-defined]
                    0, header.stamp, header.frame_id
                )
            data = store.serialize_ros1(message, item.topic.type_name)
            writer.write(connections[item.topic], item.log_ns, bytes(data))
    with Bag(path) as bag:
        for item, found in zip(wanted, bag.messages(), strict=True):
            as_ros2 = deserialize_message(bag.serialised(found), item.topic.message_type)
            assert as_ros2 == deserialize_message(item.data, item.topic.message_type)


@pytest.mark.parametrize(
    "make, reason",
    [
        (lambda path: None, "there is no bag"),
        (lambda path: path.mkdir(), "neither metadata.yaml nor"),
        (lambda path: BagWriter(path).close(), "is empty"),
        (lambda path: path.write_bytes(b"no bag"), "cannot be read as a bag"),
    ],
)
def test_what_is_no_bag_is_refused_with_the_reason(
    make: object, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "thing"
    make(path)  # type: ignore[operator]
    with pytest.raises(BagError, match=reason):
        Bag(path)


@pytest.mark.parametrize("suffix", [".mcap", ".db3", ".bag"])
def test_a_file_of_rubbish_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"thing{suffix}"
    path.write_bytes(b"rubbish" * 100)
    with pytest.raises(BagError):
        Bag(path)


def test_unknown_types_hinder_nobody_who_does_not_ask(driven: Drive, tmp_path: Path) -> None:
    path = tmp_path / "bag"
    with BagWriter(path) as writer:
        writer.add_topic("/odd", "odd_msgs/msg/Odd", definition="nonsense here")
        writer.write("/odd", 1, b"\0\1\0\0\0\0\0\0")
        writer.add_topic(IMAGE, topics.IMAGE.type_name)
        image = next(item for item in driven.messages if item.topic is topics.IMAGE)
        writer.write(IMAGE, 2, image.data)
    with Bag(path) as bag:
        odd, seen = bag.messages()
        assert bag.decode(seen).width == 160
        with pytest.raises(BagError, match="/odd"):
            bag.decode(odd)


def test_a_type_that_nobody_knows_is_named() -> None:
    with pytest.raises(DefinitionError, match="odd_msgs/msg/Odd"):
        embedded_definition("odd_msgs/msg/Odd")


def test_nothing_of_ros_is_needed() -> None:
    code = (
        "import sys, td3_driver.offline.report, td3_driver.offline.writer;"
        "sys.exit(' '.join({'rclpy', 'carla_msgs', 'sensor_msgs'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parent.parent
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert outcome.stderr.strip() == ""
