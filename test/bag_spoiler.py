# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Good bags with one thing wrong at a time, and a process that reads many of them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from bag_kinds import Kind, Message, Recording, edit_description, write_kind
from mcap.opcode import Opcode

from td3_driver.offline.bag import METADATA
from td3_driver.offline.mcap_records import HEAD, MAGIC

# Reads bags by their paths, one a line, JSON; answers what it found, and what it was told.
READER = """
import hashlib, json, resource, sys, traceback
from types import SimpleNamespace
from td3_driver.config import CarlaConfig
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.events import EventDetector
from td3_driver.offline.frames import BagFrames
from td3_driver.offline.writer import repair

resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

class Progress:
    n = 0
    def update(self, count):
        self.n += count

def contents(bag):
    return [[m.topic, m.log_ns, hashlib.sha1(m.data).hexdigest()] for m in bag.messages()]

def seen(frame):
    f = frame.frame
    image = hashlib.sha1(f.image.tobytes()).hexdigest()
    return repr([f.stamp_ns, image, f.pose, f.speed, f.yaw_rate, f.control, frame.ackermann,
                 frame.command, hashlib.sha1(f.route.tobytes()).hexdigest()])

def read(path):
    with Bag(path) as bag:
        answer = {"messages": contents(bag), "frames": [], "refused_frames": ""}
        told = []
        try:
            source = BagFrames(bag, CarlaConfig())
            watch = EventDetector(source)
            answer["frames"] = [seen(frame) for frame in watch.frames(Progress())]
            told = watch.notes() if watch.count else [watch.why_nothing()]
        except BagError as error:
            answer["refused_frames"] = str(error)
        return {**answer, "notes": [*bag.notes, *told]}

def again(path):
    done = repair(path)
    with Bag(done.path) as bag:
        return {"messages": contents(bag), "notes": done.notes}

for line in sys.stdin:
    path, with_repair = json.loads(line)
    try:
        answer = read(path)
        if with_repair:
            answer["repaired"] = again(path)
    except BagError as error:
        answer = {"refusal": str(error)}
    except Exception:
        answer = {"traceback": traceback.format_exc()[-1500:]}
    print("\\n=" + json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Spoilt:
    """A bag, and what was done to it."""

    what: str
    path: Path
    recording: Recording
    """What its messages are."""
    same_frames: bool = True
    """Whether what a driver would see is as before, or something has to be told."""


class Spoiler:
    """Makes spoilt bags of one kind."""

    def __init__(self, folder: Path, recording: Recording, kind: Kind, seed: int) -> None:
        self.kind = kind
        self._folder = folder
        self._recording = recording
        self._rng = np.random.default_rng(seed)
        self.good = write_kind(folder / "good" / "bag", recording, kind)
        """The bag as it was."""
        self._ways: list[Callable[[Path], Spoilt]] = [*[self._spoil_bytes] * 5]
        self._ways += [self._spoil_contents] * 4
        if kind.described:
            self._ways += [self._spoil_description] * 2
        if kind.suffix == ".mcap" and kind.compressed != "file":
            self._ways += [self._spoil_records] * 2
        if kind.compressed == "message":
            self._ways.append(self._spoil_compression)
        if kind.files > 1:
            self._ways.append(self._lose_file)
        if kind.suffix == ".db3" and kind.compressed != "file":
            self._ways += [self._spoil_tables] * 3

    def spoil(self, count: int) -> Iterator[Spoilt]:
        """Yield `count` bags, each of which is removed when the next is made."""
        for number in range(count):
            path = self._folder / str(number) / "bag"
            yield self._pick(self._ways)(path)
            shutil.rmtree(path.parent)

    def _pick(self, choices: Any) -> Any:
        return choices[int(self._rng.integers(len(choices)))]

    def _copy(self, path: Path) -> Path:
        shutil.copytree(self.good, path)
        return path

    def _file(self, path: Path) -> Path:
        return self._pick(sorted(file for file in path.iterdir() if file.name != METADATA))

    # --- bytes ---------------------------------------------------------------------------------

    def _spoil_bytes(self, path: Path) -> Spoilt:
        file = self._file(self._copy(path))
        data = bytearray(file.read_bytes())
        ways: dict[str, Callable[[bytearray, int], object]] = {
            "cut off": lambda data, place: data.__delitem__(slice(place, None)),
            "a byte changed": self._flip,
            "a bit changed": self._flip_bit,
            "a byte at the beginning changed": lambda data, _: self._flip(data, self._near(64)),
            "a byte at the end changed": lambda data, _: self._flip(data, -self._near(2000)),
            "50 bytes zeroed": lambda data, place: data.__setitem__(
                slice(place, place + 50), bytes(len(data[place : place + 50]))
            ),
            "8 bytes of 255": lambda data, place: data.__setitem__(
                slice(place, place + 8), b"\xff" * len(data[place : place + 8])
            ),
            "10 bytes inserted": lambda data, place: data.__setitem__(
                slice(place, place), b"0123456789"
            ),
            "10 bytes removed": lambda data, place: data.__delitem__(slice(place, place + 10)),
            "rubbish at the end": lambda data, _: data.extend(b"rubbish" * 20),
            "nothing left": lambda data, _: data.clear(),
        }
        what = self._pick(list(ways))
        place = int(self._rng.integers(len(data)))
        ways[what](data, place)
        file.write_bytes(data)
        return Spoilt(f"{file.name}: {what} ({place})", path, self._recording)

    def _near(self, most: int) -> int:
        return int(self._rng.integers(1, most))

    def _flip(self, data: bytearray, place: int) -> None:
        place = max(min(place, len(data) - 1), -len(data))
        data[place] ^= int(self._rng.integers(1, 256))

    def _flip_bit(self, data: bytearray, place: int) -> None:
        data[place] ^= 1 << int(self._rng.integers(8))

    def _spoil_records(self, path: Path) -> Spoilt:
        """Change the length of a record of an MCAP file, or a checksum."""
        file = self._file(self._copy(path))
        data = bytearray(file.read_bytes())
        places, place = [], len(MAGIC)
        while place + HEAD.size < len(data) - len(MAGIC):
            places.append(place)
            place += HEAD.size + HEAD.unpack_from(data, place)[1]
        place = self._pick(places)
        opcode, length = HEAD.unpack_from(data, place)
        # A chunk's follows three times, the footer's two places; it is all that DataEnd has.
        checksums = {Opcode.CHUNK: 24, Opcode.FOOTER: 16, Opcode.DATA_END: 0}
        if opcode in checksums and self._rng.integers(2):
            self._flip(data, place + HEAD.size + checksums[opcode])
            what = "the checksum"
        else:
            lengths = [0, 1, length + 1, max(length - 1, 0), length + 5000, 2**40, 2**64 - 1]
            longer = self._pick(lengths)
            HEAD.pack_into(data, place, opcode, longer)
            what = f"{longer} as the length"
        file.write_bytes(data)
        return Spoilt(f"{file.name}: {what} of record {opcode} at {place}", path, self._recording)

    def _spoil_compression(self, path: Path) -> Spoilt:
        messages = list(self._recording.messages)
        number = int(self._rng.integers(len(messages)))
        data = bytearray(zstandard.ZstdCompressor().compress(messages[number].data))
        what = self._pick(["cut off", "a large size", "nothing behind the head"])
        if what == "cut off":
            del data[len(data) // 2 :]
        elif what == "a large size":
            data[4:] = b"\xe0" + (2**50).to_bytes(8, "little") + bytes(data[6:])
        else:
            del data[5:]
        messages[number] = replace(messages[number], data=bytes(data), raw=True)
        recording = replace(self._recording, messages=messages)
        write_kind(path, recording, self.kind)
        return Spoilt(f"compression of a message: {what}", path, recording)

    # --- contents ------------------------------------------------------------------------------

    def _spoil_contents(self, path: Path) -> Spoilt:
        topics, messages = list(self._recording.topics), list(self._recording.messages)
        place = int(self._rng.integers(len(topics)))
        topic = topics[place]
        number = int(self._rng.integers(len(messages)))
        message = messages[number]
        texts = {
            "no text": "",
            "nonsense": "nonsense here",
            "another type's": topics[place - 1].definition,
            "cut": topic.definition[: len(topic.definition) // 2],
            "other numbers": topic.definition.replace("float64", "float32"),
            "names swapped": topic.definition.replace(" x\n", " q\n")
            .replace(" y\n", " x\n")
            .replace(" q\n", " y\n"),
            "a recursion": f"{topic.type_name} again\n{topic.definition}",
        }
        datas = {
            "no data": b"",
            "cut data": message.data[: len(message.data) // 2],
            "a head alone": message.data[:4],
            "255s": b"\xff" * len(message.data),
            "a long length": message.data[:4] + b"\xff\xff\xff\x7f" * (len(message.data) // 4),
        }
        times = {"time 0": 0, "time 2**63": 2**63 if self.kind.suffix == ".mcap" else -1}
        kind = self._pick(["text", "schema", "encoding", "qos", "type", "data", "time", "second"])
        same_frames = True
        if kind == "text":
            what = self._pick(list(texts))
            topics[place] = replace(topic, definition=texts[what])
        elif kind == "schema":
            what = self._pick(["", "ros2idl", "jsonschema", "ros2msgs"])
            topics[place] = replace(topic, schema_encoding=what)
        elif kind == "encoding":
            what = self._pick(["json", "cdr2", "ros1"])
            topics[place] = replace(topic, encoding=what)
        elif kind == "qos":
            what = self._pick(["[", "- 1", "{a: *b}", "- {durability: 99}", "\0"])
            topics[place] = replace(topic, qos=what)
        elif kind == "type":
            what = self._pick(["odd_msgs/msg/Odd", "", "../../msg/x", "x" * 1000])
            topics[place] = replace(topic, type_name=what)
        elif kind == "data":
            what = self._pick(list(datas))
            topic = topics[message.topic]
            messages[number] = replace(message, data=datas[what])
            # A number of four bytes is one, whatever they are.
            same_frames = what != "a long length" or topic.type_name != "std_msgs/msg/Float32"
        elif kind == "time":
            what, same_frames = self._pick(list(times)), False
            messages[number] = replace(message, log_ns=times[what])
        else:
            what = "a second type"
            topics.append(replace(topics[place - 1], name=topic.name))
            messages.append(Message(len(topics) - 1, messages[-1].log_ns, message.data))
            same_frames = False
        recording = Recording(topics, messages)
        write_kind(path, recording, self.kind)
        return Spoilt(f"{kind} of {topic.name}: {what!r}", path, recording, same_frames)

    # --- the description -----------------------------------------------------------------------

    def _spoil_description(self, path: Path) -> Spoilt:
        self._copy(path)
        file = path / METADATA
        text = file.read_text()
        raw: dict[str, Callable[[], bytes]] = {
            "absent": lambda: b"",
            "cut off": lambda: text[: int(self._rng.integers(len(text)))].encode(),
            "not UTF-8": lambda: b"\xff" + text.encode(),
            "nested": lambda: b"a: " + b"[" * 2000,
            "an alias": lambda: b"a: &a [*a]\n" + text.encode(),
            "a list": lambda: b"- 1\n",
            "bombs": lambda: (
                "".join(
                    f"{name}: &{name} [{', '.join([f'*{last}'] * 9) if last else 1}]\n"
                    for last, name in zip(("", *"abcdefgh"), "abcdefghi", strict=True)
                ).encode()
                + text.encode()
            ),
        }
        what = self._pick([*raw, *["field"] * 8])
        if what == "absent":
            file.unlink()
        elif what in raw:
            file.write_bytes(raw[what]())
        else:
            what = self._spoil_field(path)
        return Spoilt(f"{METADATA}: {what}", path, self._recording)

    def _spoil_field(self, path: Path) -> str:
        values = [None, "word", -1, 10**9, 10**40, [], {}, 0, [None], "é" * 500, float("nan")]
        value = self._pick(values)
        said = []

        def change(information: dict[str, Any]) -> None:
            inside = information
            topics = information["topics_with_message_count"]
            name = self._pick([*information, "topic", "topic_metadata", "order"])
            if name == "order":
                self._rng.shuffle(information["relative_file_paths"])
                said.append("another order of the files")
                return
            if name == "topic":
                inside = self._pick(topics)
                name = self._pick(list(inside))
            elif name == "topic_metadata":
                inside = self._pick(topics)["topic_metadata"]
                name = self._pick(list(inside))
            if self._rng.integers(3):
                inside[name] = value
                said.append(f"{name} is {str(value)[:20]!r}")
            else:
                del inside[name]
                said.append(f"no {name}")

        edit_description(path, change)
        return said[0]

    def _lose_file(self, path: Path) -> Spoilt:
        file = self._file(self._copy(path))
        if self._rng.integers(2):
            if not self.kind.described:  # nothing tells of one that would have been the last
                file = file.with_name("bag_0" + "".join(file.suffixes))
            file.unlink()
            return Spoilt(f"no {file.name}", path, self._recording)
        file.rename(file.with_name("another name" + "".join(file.suffixes)))
        return Spoilt(f"{file.name} under another name", path, self._recording)

    # --- tables --------------------------------------------------------------------------------

    def _spoil_tables(self, path: Path) -> Spoilt:
        file = self._file(self._copy(path))
        statements = [
            "DROP TABLE topics",
            "DROP TABLE message_definitions",
            "DROP TABLE schema",
            "DROP INDEX timestamp_idx",
            "ALTER TABLE topics DROP COLUMN type",
            "ALTER TABLE topics DROP COLUMN offered_qos_profiles",
            "ALTER TABLE topics DROP COLUMN serialization_format",
            "ALTER TABLE messages RENAME COLUMN data TO content",
            "DELETE FROM topics WHERE id = 3",
            "DELETE FROM messages WHERE id % 7 = 0",
            "UPDATE messages SET data = 'text' WHERE id = 20",
            "UPDATE messages SET timestamp = 'late' WHERE id = 20",
            "UPDATE messages SET timestamp = -5 WHERE id = 20",
            "UPDATE messages SET topic_id = 99 WHERE id = 20",
            "UPDATE messages SET topic_id = 'x' WHERE id = 20",
            "UPDATE topics SET name = x'ff00ff' WHERE id = 2",
            "UPDATE topics SET type = 7 WHERE id = 2",
            "UPDATE message_definitions SET encoding = '' WHERE id = 2",
            "UPDATE message_definitions SET encoded_message_definition = x'ff' WHERE id = 2",
        ]
        what = self._pick(["page", *statements])
        if what == "page":
            data = bytearray(file.read_bytes())
            page = int(self._rng.integers(len(data) // 4096)) * 4096
            data[page : page + 4096] = bytes(4096)
            file.write_bytes(data)
            what = f"page {page // 4096} zeroed"
        else:
            with contextlib.closing(sqlite3.connect(file)) as connection:
                connection.execute(what)
                connection.commit()
        # Whoever changes a row as SQLite does leaves no trace but in the description's counts.
        return Spoilt(f"{file.name}: {what}", path, self._recording, same_frames=True)
