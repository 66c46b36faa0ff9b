# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Reads the SQLite files of rosbag2, row by row, past damaged pages.

SQLite keeps no checksums: a changed value within a message shows only where it makes no sense.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from td3_driver.offline.bag_file import (
    CDR,
    FALL_NS,
    LATEST_NS,
    BagFile,
    BagFileError,
    Channel,
    Part,
    RawMessage,
)

MAGIC = b"SQLite format 3\0"
_NEEDED = {"topics": {"id", "name", "type"}, "messages": {"topic_id", "timestamp", "data"}}
# A recording that was cut off may have left these: what was not yet moved into the file itself.
_JOURNALS = ("-wal", "-journal")
_ROWS = "SELECT rowid, topic_id, timestamp, typeof(data) FROM messages NOT INDEXED"
_NEXT_ROWS = f"{_ROWS} WHERE rowid > ? ORDER BY rowid"
_LAST_ROW = 2**63 - 1
_MOST_GAPS = 1000


class SqliteFile(BagFile):
    """A file whose rows are known by number and time; their data is read one by one."""

    def __init__(self, path: Path) -> None:
        """Find its channels and messages; raises BagFileError if there are none to be found."""
        super().__init__(path)
        self._closing = ExitStack()
        self._rows: np.ndarray = np.zeros((3, 0), np.int64)
        """Time, number and channel of each row, by number."""
        try:
            self._connection = self._connect()
            self._check_tables()
            self._read_channels()
            self._read_rows()
        except sqlite3.Error as error:
            self.close()
            raise BagFileError(f"it cannot be read as an SQLite file ({error})") from None
        except BaseException:
            self.close()
            raise

    def parts(self, topics: Mapping[int, str]) -> Iterator[Part]:
        """Yield the messages of some channels, given with their topics."""
        times = self._rows[0]
        if times.size:
            yield Part(
                int(times.min()),
                int(times.max()),
                lambda: self._by_time(topics),
                lambda: self._as_they_stand(topics),
                bool((times[:-1] - times[1:] > FALL_NS).any()),
            )

    def close(self) -> None:
        """Close the file."""
        self._closing.close()

    def _connect(self) -> sqlite3.Connection:
        path, mode = self.path, "?immutable=1"
        journals = [self.path.with_name(self.path.name + suffix) for suffix in _JOURNALS]
        journals = [journal for journal in journals if journal.is_file()]
        if journals:
            # SQLite has to write to complete it: to a copy, as a bag is only read.
            folder = Path(self._closing.enter_context(tempfile.TemporaryDirectory()))
            for file in (self.path, *journals):
                shutil.copyfile(file, folder / file.name)
            path, mode = folder / self.path.name, ""
        connection = sqlite3.connect(path.resolve().as_uri() + mode, uri=True)
        self._closing.callback(connection.close)
        # Whatever that sounds like: it has SQLite read a file that was cut off.
        connection.execute("PRAGMA writable_schema = ON")
        connection.text_factory = lambda data: data.decode(errors="replace")
        return connection

    def _check_tables(self) -> None:
        # A view could have rows without end.
        query = "SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0"
        tables = {row[0] for row in self._connection.execute(query)}
        for table, needed in _NEEDED.items():
            columns = self._columns(table)
            if table not in tables:
                raise BagFileError(f"it has no table {table!r}")
            if missing := sorted(needed - columns):
                raise BagFileError(f"its table {table!r} has no column {missing[0]!r}")

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._connection.execute(f"PRAGMA table_info({table})")}

    def _read_channels(self) -> None:
        definitions = self._definitions()
        columns = self._columns("topics")
        names = ("serialization_format", "offered_qos_profiles", "type_description_hash")
        optional = [name if name in columns else "''" for name in names]
        query = f"SELECT id, name, type, {', '.join(optional)} FROM topics"
        for number, name, kind, encoding, qos, digest in self._connection.execute(query):
            if not isinstance(number, int) or not isinstance(name, str):
                self.notes.append(f"{self.path.name} is damaged: a topic has no name or number")
                continue
            kind = kind if isinstance(kind, str) else ""
            channel = Channel(name, kind, definitions.get(kind, ""), str(digest))
            # Empty where the table has no such column.
            encoding = CDR if encoding == "" else encoding
            self.channels[number] = self.describe_channel(channel, encoding, qos)

    def _definitions(self) -> dict[str, str]:
        """Return the definitions of message types, which files of older distributions lack."""
        query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
        try:
            return {
                kind: text
                for kind, encoding, text in self._connection.execute(query)
                if encoding == "ros2msg" and isinstance(text, str)
            }
        except sqlite3.Error as error:
            if self._columns("message_definitions"):
                self.notes.append(
                    f"{self.path.name} is damaged: its definitions of messages cannot be read "
                    f"({error})"
                )
            return {}

    def _read_rows(self) -> None:
        """Find the rows that can be read."""
        times, rows, channels = array("q"), array("q"), array("q")
        odd = gaps = 0
        latest = -_LAST_ROW
        while gaps < _MOST_GAPS:
            try:
                for row, channel, time_ns, kind in self._connection.execute(_NEXT_ROWS, (latest,)):
                    if row <= latest:  # or damaged pages could lead around in a circle
                        raise sqlite3.DatabaseError("rows are not in order")
                    latest = row
                    whole = isinstance(time_ns, int) and 0 <= time_ns < LATEST_NS
                    if kind != "blob" or not whole or not isinstance(channel, int):
                        odd += 1
                        continue
                    times.append(time_ns)
                    rows.append(row)
                    channels.append(channel)
                break
            except sqlite3.DatabaseError as error:
                gaps += 1
                self.note_damage(str(error))
                latest = self._end_of_damage(latest)
        self._rows = np.array([times, rows, channels], np.int64).reshape(3, -1)
        numbers, counts = np.unique(self._rows[2], return_counts=True)
        self.counts = Counter(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
        self.describe_the_rest()
        self._tell(odd, gaps)

    def _end_of_damage(self, latest: int) -> int:
        """Return the number behind which rows can be read again."""
        bad, step = latest, 1
        while not self._can_read_behind(good := min(latest + step, _LAST_ROW)):
            if good == _LAST_ROW:
                return _LAST_ROW
            bad, step = good, 2 * step
        while good - bad > 1:
            middle = (good + bad) // 2
            if self._can_read_behind(middle):
                good = middle
            else:
                bad = middle
        return good

    def _can_read_behind(self, row: int) -> bool:
        try:
            self._connection.execute(f"{_NEXT_ROWS} LIMIT 1", (row,)).fetchall()
        except sqlite3.DatabaseError:
            return False
        return True

    def _tell(self, odd: int, gaps: int) -> None:
        found = self._rows.shape[1]
        if odd or gaps:
            places = f"its table cannot be read in {gaps} places" if gaps else ""
            rows = f"{odd} rows are no messages" if odd else ""
            what = " and ".join(text for text in (places, rows) if text)
            self.notes.append(f"{self.path.name} is damaged: {what}; {found:,} messages are read")
        elif (indexed := self._indexed()) is None:
            self.notes.append(
                f"{self.path.name} is damaged: its index cannot be read; {found:,} messages are"
            )
        elif indexed != found:
            self.notes.append(
                f"{self.path.name} is damaged: it has {found:,} of the {indexed:,} messages that "
                "its index counts"
            )

    def _indexed(self) -> int | None:
        """Return how many messages the file's index of times counts; None if it is damaged."""
        try:
            indexes = [row[1] for row in self._connection.execute("PRAGMA index_list(messages)")]
            if "timestamp_idx" not in indexes:
                return self._rows.shape[1]
            query = "SELECT count(timestamp) FROM messages INDEXED BY timestamp_idx"
            return int(self._connection.execute(query).fetchone()[0])
        except sqlite3.DatabaseError:
            return None

    def _by_time(self, topics: Mapping[int, str]) -> Iterator[RawMessage]:
        rows = self._rows[:, np.isin(self._rows[2], list(topics))]
        for time_ns, row, channel in rows[:, np.argsort(rows[0], kind="stable")].T.tolist():
            if (message := self._message(topics[channel], time_ns, row)) is not None:
                yield message

    def _as_they_stand(self, topics: Mapping[int, str]) -> Iterator[tuple[int, RawMessage | None]]:
        for time_ns, row, channel in self._rows.T.tolist():
            wanted = channel in topics
            yield time_ns, self._message(topics[channel], time_ns, row) if wanted else None

    def _message(self, topic: str, time_ns: int, row: int) -> RawMessage | None:
        query = "SELECT data FROM messages NOT INDEXED WHERE rowid = ?"
        try:
            found = self._connection.execute(query, (row,)).fetchone()
        except sqlite3.DatabaseError as error:
            self.note_damage(str(error))
            return None
        if found is None or not isinstance(found[0], bytes):
            self.note_damage("a message is not where its table says")
            return None
        return RawMessage(topic, time_ns, found[0])
