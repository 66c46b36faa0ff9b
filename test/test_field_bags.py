# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Bags from the field: what is odd about each costs that much and no more, and is told."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from bag_drives import CARLA, Drive, Recorded, drive, write
from bag_kinds import (
    BY_NAME,
    KINDS,
    Kind,
    Message,
    Recording,
    edit_description,
    recording_of,
    write_kind,
    write_mcap,
)
from rosbags.rosbag2 import Reader as Ros2Reader
from sensor_msgs.msg import CompressedImage

from td3_driver import cli
from td3_driver.bridge import messages, topics
from td3_driver.bridge.messages import LARGEST_IMAGE_PX, ConversionError
from td3_driver.config import SimulatorConfig
from td3_driver.offline import bag as bag_module
from td3_driver.offline.bag import METADATA, Bag, BagError
from td3_driver.offline.definitions import DefinitionError
from td3_driver.offline.events import EventDetector
from td3_driver.offline.frames import BagFrames
from td3_driver.offline.output import writing
from td3_driver.offline.writer import BagWriter, repair

TICKS = 30
IMAGE = topics.IMAGE.name(CARLA)
SMALL = SimulatorConfig(map="ring_meadow", image_width_px=32, image_height_px=24)
UNDESCRIBED = f"there is no {METADATA}: nothing says whether the bag is complete"
ODD = Message(0, 0, b"\0\1\0\0\0\0\0\0")


@pytest.fixture(scope="module")
def driven() -> Drive:
    return drive(ticks=TICKS, simulator=SMALL)


@pytest.fixture(scope="module")
def recording(driven: Drive) -> Recording:
    return recording_of(driven.messages)


def contents(path: Path) -> list[tuple[str, int, bytes]]:
    with Bag(path) as bag:
        return [(item.topic, item.log_ns, item.data) for item in bag.messages()]


def whole(recording: Recording) -> list[tuple[str, int, bytes]]:
    return [
        (recording.topics[item.topic].name, item.log_ns, item.data) for item in recording.messages
    ]


def notes_after_reading(path: Path) -> list[str]:
    with Bag(path) as bag:
        for _ in bag.messages():
            pass
        return bag.notes


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_every_kind_of_bag_is_read_whole_in_order_of_time(
    kind: Kind, recording: Recording, tmp_path: Path
) -> None:
    path = write_kind(tmp_path / "bag", recording, kind)
    assert contents(path) == whole(recording)
    with Bag(path) as bag:
        frames = list(BagFrames(bag, CARLA))
        assert len(frames) == TICKS and frames[0].status_known
        assert bag.notes == ([] if kind.described else [UNDESCRIBED])
        assert bag.topics[IMAGE].count == TICKS


@pytest.mark.parametrize("name", ["split_undescribed", "split"])
def test_split_files_are_read_in_the_order_of_time_whatever_their_names(
    name: str, recording: Recording, tmp_path: Path
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME[name])
    described = path / METADATA
    if described.exists():  # cut off in the middle
        described.write_bytes(described.read_bytes()[:200])
    assert sorted(path.glob("*.mcap"))[2].name == "bag_10.mcap"
    assert contents(path) == whole(recording)


def with_times_changed(recording: Recording, change: Callable[[int, int], int]) -> Recording:
    """Change the times of messages, given with their numbers."""
    messages = [
        replace(message, log_ns=change(number, message.log_ns))
        for number, message in enumerate(recording.messages)
    ]
    return replace(recording, messages=messages)


# Files of unknown order cannot be read in it.
@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.described], ids=lambda kind: kind.name
)
def test_a_bag_recorded_while_the_clock_was_set_back_is_read_as_it_was_recorded(
    kind: Kind, recording: Recording, tmp_path: Path
) -> None:
    count = len(recording.messages)
    steps = {count // 3: 3600 * 10**9, 2 * count // 3: 5 * 10**9}
    back = with_times_changed(
        recording,
        lambda number, log_ns: log_ns - sum(by for at, by in steps.items() if number >= at),
    )
    path = write_kind(tmp_path / "bag", back, kind)
    read = contents(path)
    assert [(topic, data) for topic, _, data in read] == [
        (topic, data) for topic, _, data in whole(recording)
    ]
    times = [log_ns for _, log_ns, _ in read]
    assert times == sorted(times)
    # Where it was set back, nothing says how much time passed between two messages.
    assert times[-1] == pytest.approx(recording.messages[-1].log_ns, abs=0.1e9)
    with Bag(path) as bag:
        assert len(list(BagFrames(bag, CARLA))) == TICKS
        assert [note for note in bag.notes if "set back 2 times, by up to 3,600.0 s" in note]


def test_a_clock_set_back_in_the_middle_costs_no_decision(tmp_path: Path, driven: Drive) -> None:
    middle_ns = driven.messages[len(driven.messages) // 2].log_ns
    changed = [
        replace(
            message, log_ns=message.log_ns - (600 * 10**9 if message.log_ns > middle_ns else 0)
        )
        for message in driven.messages
    ]
    with Bag(write(tmp_path / "bag", changed)) as bag:
        frames = BagFrames(bag, CARLA)
        assert all(len(each.frame.route) for each in frames)
        assert frames.findings.jumps_back == frames.findings.unmatched_images == 0


@pytest.mark.parametrize("odd_ns", [0, 2**62], ids=["first", "last"])
@pytest.mark.parametrize("name", ["chunks", "no_chunks", "sqlite"])
def test_one_odd_time_is_no_clock_set_back(
    name: str, odd_ns: int, recording: Recording, tmp_path: Path
) -> None:
    odd = with_times_changed(recording, lambda number, ns: odd_ns if number == 40 else ns)
    path = write_kind(tmp_path / "bag", odd, BY_NAME[name])
    assert sorted(contents(path)) == sorted(whole(odd))
    assert not [note for note in notes_after_reading(path) if "set back" in note]


@pytest.mark.parametrize("name", ["chunks", "no_chunks", "sqlite"])
def test_parts_out_of_order_are_no_clock_set_back(
    name: str, recording: Recording, tmp_path: Path
) -> None:
    stretched = with_times_changed(
        recording, lambda number, ns: ns + number // 80 * 2 * 10**9
    ).messages
    turned = replace(recording, messages=[*stretched[80:160], *stretched[:80], *stretched[160:]])
    path = write_kind(tmp_path / "bag", turned, BY_NAME[name])
    assert contents(path) == whole(replace(recording, messages=stretched))
    assert notes_after_reading(path) == []


def test_neighbours_out_of_order_outside_chunks_are_legal(
    recording: Recording, tmp_path: Path
) -> None:
    swapped = list(recording.messages)
    swapped[20::2], swapped[21::2] = swapped[21::2], swapped[20::2]
    kind = BY_NAME["no_chunks"]
    path = write_kind(tmp_path / "bag", replace(recording, messages=swapped), kind)
    assert contents(path) == whole(recording)
    assert notes_after_reading(path) == []


@pytest.mark.parametrize("qos", ["", [], "durability: [", "- 1", 7, None])
@pytest.mark.parametrize("name", ["chunks", "sqlite"])
def test_other_qos_in_the_description_costs_nothing(
    qos: Any, name: str, recording: Recording, tmp_path: Path
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME[name])

    def change(information: dict[str, Any]) -> None:
        for topic in information["topics_with_message_count"]:
            topic["topic_metadata"]["offered_qos_profiles"] = qos

    edit_description(path, change)
    assert contents(path) == whole(recording)


@pytest.mark.parametrize(
    "qos",
    ["[" * 9999, "- " * 9999, "- 1", "a: {", "x" * 10**5],
    ids=["deep", "deep list", "number", "cut", "long"],
)
@pytest.mark.parametrize("name", ["chunks", "sqlite"])
def test_a_qos_that_cannot_be_read_costs_itself(
    name: str, qos: str, recording: Recording, tmp_path: Path
) -> None:
    odd = [replace(recording.topics[0], qos=qos), *recording.topics[1:]]
    path = write_kind(tmp_path / "bag", replace(recording, topics=odd), BY_NAME[name])
    assert contents(path) == whole(recording)
    (note,) = notes_after_reading(path)
    assert note.startswith(f"the QoS of {odd[0].name} cannot be read") and len(note) < 400


def test_another_profile_is_read(recording: Recording, tmp_path: Path) -> None:
    file = tmp_path / "bag.mcap"
    write_mcap(file, recording.topics, recording.messages)
    data = file.read_bytes()
    assert data.count(b"ros2\x04\0\0\0test") == 1
    file.write_bytes(data.replace(b"ros2\x04\0\0\0test", b"rosx\x04\0\0\0test"))
    assert contents(file) == whole(recording)


@pytest.mark.parametrize("name", ["sqlite", "chunks"])
def test_a_type_without_a_definition_is_named_and_costs_itself(
    name: str, recording: Recording, tmp_path: Path
) -> None:
    odd = replace(
        recording.topics[0],
        name="/odd",
        type_name="odd_msgs/msg/Odd",
        definition="",
        schema_encoding="",
    )
    added = Recording(
        [*recording.topics, odd],
        [*recording.messages, replace(ODD, topic=len(recording.topics), log_ns=2**62)],
    )
    path = write_kind(tmp_path / "bag", added, BY_NAME[name])
    with Bag(path) as bag:
        assert len(list(BagFrames(bag, CARLA))) == TICKS
        assert [note for note in bag.notes if "/odd" in note and "odd_msgs/msg/Odd" in note]
    done = repair(path)
    assert done.messages == len(recording.messages)
    assert any("1 messages on /odd are left out" in note for note in done.notes)
    assert contents(done.path) == whole(recording)


@pytest.mark.parametrize("folder", ["run #2", "what?", "100%25", "a b", "\N{AUTOMOBILE}"])
def test_sqlite_files_are_read_under_any_folder(
    folder: str, recording: Recording, tmp_path: Path
) -> None:
    path = write_kind(tmp_path / folder, recording, BY_NAME["sqlite"])
    assert contents(path) == whole(recording)


def with_compressed_images(driven: Drive, odd: dict[int, bytes]) -> list[Recorded]:
    """Return the messages with PNG images, some of which have other data."""
    compressed = replace(
        topics.IMAGE,
        template=topics.IMAGE.template + "/compressed",
        type_name="sensor_msgs/msg/CompressedImage",
    )
    found, place = [], 0
    for item in driven.messages:
        if item.topic is topics.IMAGE:
            bgra = np.frombuffer(item.message.data, np.uint8).reshape(24, 32, 4)
            data = odd.get(place, encoded(bgra, ".png"))
            message = CompressedImage(header=item.message.header, format="png", data=data)
            item = Recorded(compressed, item.log_ns, message)
            place += 1
        found.append(item)
    return found


def encoded(image: np.ndarray, suffix: str) -> bytes:
    return bytes(cv2.imencode(suffix, np.ascontiguousarray(image[:, :, :3]))[1].tobytes())


def header_of_png(width: int, height: int) -> bytes:
    """Return a PNG whose header says another size."""
    data = bytearray(encoded(np.zeros((8, 8, 4), np.uint8), ".png"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def header_of_jpeg(width: int, height: int) -> bytes:
    """Return a JPEG whose header says another size."""
    data = bytearray(encoded(np.zeros((8, 8, 4), np.uint8), ".jpg"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


NOISE = np.random.default_rng(0).integers(0, 256, (24, 32, 4), np.uint8)
ODD_IMAGES = {
    "empty": (b"", "is empty"),
    "rubbish": (b"rubbish", "neither a JPEG nor a PNG"),
    "cut PNG": (encoded(NOISE, ".png")[:-100], "cut off"),
    "cut JPEG": (encoded(NOISE, ".jpg")[:-100], "cut off"),
    "damaged header": (header_of_png(8, 8)[:20] + bytes(99), "header is damaged"),
    "PNG of 40,000 squared": (header_of_png(40_000, 40_000), "too large: 40000 x 40000 pixels"),
    "PNG of 32,000 squared": (header_of_png(32_000, 32_000), "too large: 32000 x 32000 pixels"),
    "JPEG of 40,000 squared": (header_of_jpeg(40_000, 40_000), "too large: 40000 x 40000"),
    "narrow and long": (header_of_png(8, LARGEST_IMAGE_PX[1] + 1), "too large"),
}


@pytest.mark.parametrize("name", ODD_IMAGES)
def test_an_unreadable_compressed_image_costs_itself(
    name: str, driven: Drive, tmp_path: Path
) -> None:
    data, reason = ODD_IMAGES[name]
    path = write(tmp_path / "bag", with_compressed_images(driven, {7: data}))
    with Bag(path) as bag:
        source = BagFrames(bag, CARLA)
        assert len(list(source)) == TICKS - 1
        topic = f"{IMAGE}/compressed"
        assert source.findings.unreadable == {topic: 1}
        with pytest.raises(ConversionError, match=reason):
            raise ConversionError(source.findings.reasons[topic])
        notes = EventDetector(source).notes()
    assert any("1 messages on" in note and "skipped as invalid" in note for note in notes)


def test_the_largest_image_that_settings_can_mean_is_read() -> None:
    width, height = 64, LARGEST_IMAGE_PX[1]
    for suffix in (".png", ".jpg"):
        data = encoded(np.zeros((height, width, 4), np.uint8), suffix)
        for filled_up in (data, data + bytes(5000)):
            image = messages.image_from_compressed(CompressedImage(data=filled_up))
            assert image.shape == (height, width, 4)


def test_a_raw_image_beyond_that_is_refused_before_anything_is_made_of_it() -> None:
    width = LARGEST_IMAGE_PX[0] + 1
    image = topics.IMAGE.message_type(
        width=width, height=1, step=width, encoding="mono8", data=bytes(width)
    )
    with pytest.raises(ConversionError, match=f"too large: {width} x 1 pixels"):
        messages.image_from_message(image)


@pytest.mark.parametrize("stamp_s", [0, 5])
def test_stamps_that_are_all_the_same_are_told(
    stamp_s: int, driven: Drive, tmp_path: Path
) -> None:
    told = []
    for item in driven.messages:
        if item.topic is topics.IMAGE:
            message = topics.IMAGE.message_type(
                **{name: getattr(item.message, name) for name in ("width", "height", "step")},
                encoding=item.message.encoding,
                data=item.message.data,
            )
            message.header.stamp.sec = stamp_s
            item = Recorded(topics.IMAGE, item.log_ns, message)
        told.append(item)
    with Bag(write(tmp_path / "bag", told)) as bag:
        source = BagFrames(bag, CARLA)
        watch = EventDetector(source)
        for _ in source:
            pass
        wrong = f"all {TICKS} images have the same stamp, {stamp_s} s"
        assert wrong in watch.notes() and wrong in watch.why_nothing()


# --- repair --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_repair_copies_a_bag_of_any_kind_whole(
    kind: Kind, recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_kind(tmp_path / "bag", recording, kind)
    if kind.described:
        edit_description(
            path,
            lambda information: [
                topic["topic_metadata"].update(offered_qos_profiles="")
                for topic in information["topics_with_message_count"]
            ],
        )
    assert cli.main(["repair", str(path)]) == 0
    said = capsys.readouterr().out
    assert f"{len(recording.messages):,} messages" in said and "left out" not in said
    with Ros2Reader(tmp_path / "bag-repaired") as reader:
        assert [(item.topic, log_ns, data) for item, log_ns, data in reader.messages()] == whole(
            recording
        )


def test_repair_refuses_to_write_nothing(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = replace(
        recording.topics[0], type_name="odd_msgs/msg/Odd", definition="", schema_encoding=""
    )
    path = write_kind(tmp_path / "bag", Recording([odd], [ODD]), BY_NAME["chunks"])
    assert cli.main(["repair", str(path)]) == 2
    said = capsys.readouterr().err
    assert "none of its messages can be copied" in said and odd.name in said
    assert said.count("\n") == 1
    assert not (tmp_path / "bag-repaired").exists()


def test_a_full_disk_leaves_nothing_of_a_repair_and_the_bag_as_it_was(
    recording: Recording,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["chunks"])
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    written = BagWriter.write

    def fill(writer: BagWriter, *message: Any) -> None:
        if writer.messages == 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written(writer, *message)

    monkeypatch.setattr(BagWriter, "write", fill)
    assert cli.main(["repair", str(path)]) == 2
    said = capsys.readouterr().err
    assert "No space left on device" in said and "is as it was" in said
    assert said.count("\n") == 1 and "Traceback" not in said
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert not (tmp_path / "bag-repaired").exists()


def test_a_repaired_bag_is_not_overwritten(recording: Recording, tmp_path: Path) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["chunks"])
    done = repair(path)
    before = {file.name: file.read_bytes() for file in done.path.iterdir()}
    with pytest.raises(BagError, match="exists, and no bag is overwritten"):
        repair(path)
    assert {file.name: file.read_bytes() for file in done.path.iterdir()} == before


@pytest.mark.parametrize("name", [".", "..", "a.b"])
def test_a_repaired_bag_stands_beside_the_old_one_whatever_its_name(
    name: str, recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_kind(tmp_path / "v1.2", recording, BY_NAME["chunks"])
    (path / "inner").mkdir()
    monkeypatch.chdir({".": path, "..": path / "inner"}.get(name, tmp_path))
    done = repair("v1.2" if name == "a.b" else name)
    assert done.path == tmp_path / "v1.2-repaired"


def test_a_page_that_cannot_be_written_is_one_plain_line(
    recording: Recording, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["chunks"])
    for out, reason in ((tmp_path / "no" / "page.html", "no folder"), (tmp_path, "a folder")):
        assert cli.main(["inspect", str(path), "--run", "none", "--out", str(out)]) == 2
        said = capsys.readouterr().err
        assert f"{out} cannot be written" in said and reason in said and said.count("\n") == 1
    both = ["--out", str(tmp_path / "x"), "--csv", str(tmp_path / "x")]
    assert cli.main(["inspect", str(path), "--run", "none", *both]) == 2
    assert "would both be" in capsys.readouterr().err


def test_a_full_disk_leaves_the_earlier_page(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("earlier")
    with (
        pytest.raises(BagError, match="what was there before still is") as refusal,
        writing(page) as new,
    ):
        new.write_text("later")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "No space left on device" in str(refusal.value)
    assert page.read_text() == "earlier" and list(tmp_path.iterdir()) == [page]


# --- counts, kinds and files ---------------------------------------------------------------------


def test_counts_that_are_promised_and_not_held_are_told(
    recording: Recording, tmp_path: Path
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["split"])
    (path / "bag_3.mcap").unlink()
    kept = contents(path)
    notes = notes_after_reading(path)
    assert kept == [item for item in whole(recording) if item in kept] and kept
    assert any("missing of the files" in note and "bag_3.mcap" in note for note in notes)
    promised = (
        f"{METADATA} promises {len(recording.messages)} messages, the files hold {len(kept)}"
    )
    assert any(note.startswith(promised) and "on /carla" in note for note in notes)


def test_a_file_that_cannot_be_read_costs_itself(recording: Recording, tmp_path: Path) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["split"])
    (path / "bag_3.mcap").write_bytes(b"rubbish" * 100)
    notes = notes_after_reading(path)
    assert any("bag_3.mcap cannot be read: it is no MCAP file" in note for note in notes)
    assert len(contents(path)) > 0.8 * len(recording.messages)


def test_of_two_types_on_a_topic_the_one_with_more_messages_is_read(
    recording: Recording, tmp_path: Path
) -> None:
    image = next(topic for topic in recording.topics if topic.name == IMAGE)
    other = replace(
        next(topic for topic in recording.topics if topic.name == topics.CLOCK.name(CARLA)),
        name=image.name,
    )
    added = Recording(
        [*recording.topics, other],
        [*recording.messages, replace(ODD, topic=len(recording.topics), log_ns=2**62)],
    )
    path = write_kind(tmp_path / "bag", added, BY_NAME["chunks"])
    assert contents(path) == whole(recording)
    assert any(
        "1 messages on" in note and other.type_name in note for note in notes_after_reading(path)
    )


def test_a_recording_cut_off_with_its_journal_is_read_with_it(
    recording: Recording, tmp_path: Path
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["sqlite"])
    (file,) = path.glob("*.db3")
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA journal_mode = WAL")
    last = recording.messages[-1]
    connection.execute(
        "INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)",
        (last.topic + 1, last.log_ns + 1, last.data),
    )
    connection.commit()
    killed = tmp_path / "killed"
    shutil.copytree(path, killed)  # as a killed recorder leaves it
    connection.close()
    assert list(killed.glob("*.db3-wal"))
    before = {item.name: item.read_bytes() for item in killed.iterdir()}
    assert len(contents(killed)) == len(recording.messages) + 1
    assert {item.name: item.read_bytes() for item in killed.iterdir()} == before


@pytest.mark.parametrize(
    "definition",
    ["string[100000] x", "".join(f"int8 x{i}\n" for i in range(20_000)), "A x", "string x\nB y"],
    ids=["array", "fields", "recursion", "unknown type"],
)
def test_a_definition_that_takes_for_ever_gives_way_to_the_known_one(
    definition: str, recording: Recording, tmp_path: Path
) -> None:
    name = topics.ODOMETRY.name(CARLA)
    odd = [
        replace(topic, definition=definition, type_hash="") if topic.name == name else topic
        for topic in recording.topics
    ]
    path = write_kind(tmp_path / "bag", replace(recording, topics=odd), BY_NAME["chunks"])
    with Bag(path) as bag:
        assert len(list(BagFrames(bag, CARLA))) == TICKS
        assert any(name in note and "the one known here is used" in note for note in bag.notes)


def test_a_definition_that_cannot_be_read_is_tried_once(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    monkeypatch.setattr(bag_module, "verified", lambda *given: tried.append(given) or refuse())

    def refuse() -> None:
        raise DefinitionError("odd")

    with Bag(write_kind(tmp_path / "bag", recording, BY_NAME["chunks"])) as bag:
        for message in bag.messages([IMAGE]):
            with pytest.raises(BagError, match="odd"):
                bag.decode(message)
    assert len(tried) == 1


def test_a_view_in_a_table_s_place_is_refused(recording: Recording, tmp_path: Path) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["sqlite"])
    (file,) = path.glob("*.db3")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript(
            "ALTER TABLE messages RENAME TO other; CREATE VIEW messages AS WITH RECURSIVE "
            "t(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM t) "
            "SELECT id, 1 AS topic_id, id AS timestamp, x'00' AS data FROM t;"
        )
    with pytest.raises(BagError, match="it has no table 'messages'"):
        Bag(path)


def test_damage_in_twenty_thousand_places_is_told_once(
    recording: Recording, tmp_path: Path
) -> None:
    file = tmp_path / "bag.mcap"
    write_mcap(file, recording.topics, recording.messages, use_chunking=False)
    data = file.read_bytes()
    odd = 2 * (b"\x08" + bytes(8)) + b"\xee" * 9  # two records of no length, and no record
    file.write_bytes(data[:2000] + odd * 20_000 + data[2000:-2000])
    with Bag(file) as bag:
        assert len(bag.notes) < 10 and all(len(note) < 800 for note in bag.notes)
        assert "more places" in "".join(bag.notes)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "bag.mcap")
    with pytest.raises(BagError, match="neither a file nor a folder"):
        Bag(tmp_path / "bag.mcap")


def test_what_is_wrong_with_a_bag_is_told_before_learning_from_it(
    recording: Recording,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["split"])
    (path / "bag_3.mcap").unlink()
    assert cli.main(["pretrain", str(path), "--out", str(tmp_path / "run")]) == 2
    assert "missing of the files that metadata.yaml names: bag_3.mcap" in capsys.readouterr().out


@pytest.mark.parametrize("target", [METADATA, "bag_0.mcap", "link"])
@pytest.mark.parametrize("option", ["--out", "--csv"])
def test_nothing_is_written_over_the_bag_s_own_files(
    option: str,
    target: str,
    recording: Recording,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_kind(tmp_path / "bag", recording, BY_NAME["chunks"])
    (path / "link").symlink_to("bag_0.mcap")
    before = (path / target).read_bytes()
    given = ["inspect", str(path), "--run", str(tmp_path), option, str(path / target)]
    assert cli.main(given) == 2
    assert "is a file of the bag" in capsys.readouterr().err
    assert (path / target).read_bytes() == before
