# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Good documents with one thing wrong at a time: values, text, bytes; and what becomes of them."""

from __future__ import annotations

import copy
import datetime
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from td3_driver.config import TOLD

COUNT = int(os.environ.get("TD3_DRIVER_SPOILT_DOCUMENTS", "30"))
"""How many of each kind are tried."""
LONG = COUNT > 100

ALIAS_BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP: list[Any] = []
for _ in range(60):
    DEEP = [DEEP]

VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2,
        3,
        7,
        2**31,
        2**63,
        -(2**70),
        10**39,
        0.5,
        -0.5,
        1e308,
        1e-300,
    ),
    *(float("nan"), float("inf"), -float("inf"), "", "word", "1", "1e400", "nan", "é\U0001f697"),
    *("x" * 100_000, "../../etc/passwd", "/dev/zero", "a\nb", "\x1b[31m", "${HOME}", "0" * 64),
    *(
        [],
        {},
        [1],
        [None],
        ["a", 2],
        {"a": 1},
        [[1, 2], [3]],
        DEEP,
        [1] * 20_000,
        [40_000, 40_000],
    ),
    *({str(number): number for number in range(200)}, datetime.date(2026, 11, 26)),
)
TEXTS = (
    *(
        "\x00",
        "\t",
        "\ufeff",
        "\\ud800",
        "{",
        "}",
        "[",
        "]",
        ":",
        ": ",
        "- ",
        '"',
        "'",
        "#",
        "|\n",
    ),
    *("&a ", "*a ", "!!python/object/apply:os.system [ls]", "!!int ", "!!float x", "!!binary x"),
    *("%YAML 9.9\n", "\n---\n", "\n...\n", "<<: ", "? ", "NaN", "Infinity", "1e999", ".inf", "0x"),
    *("9" * 5000, "0x" + "f" * 5000, "[" * 100_000, '{"a":' * 100_000, "- " * 5000, ALIAS_BOMB),
    *("2026-13-45", "1:99:99999", "\n", "  ", "\r", "\x85", "\u2028"),
)


@dataclass(frozen=True)
class Spoilt:
    """A document, and what was done to it."""

    what: str
    data: bytes


def spoil_values(good: Any, dump: Callable[[Any], str], count: int, seed: int) -> Iterator[Spoilt]:
    """Yield documents of other values, or of the same text with something else in it."""
    rng = np.random.default_rng(seed)
    ways = [_other_value] * 5 + [_removed, _renamed, _wrapped, _moved]
    for _ in range(count):
        if rng.random() < 0.6:
            values = copy.deepcopy(good)
            what = ways[int(rng.integers(len(ways)))](values, rng)
            text = dump(values)
        else:
            text = dump(good)
            what, text = _other_text(text, rng)
        yield Spoilt(what, text.encode("utf-8", "surrogatepass"))


def as_json(values: Any) -> str:
    """Return values as JSON, with what JSON cannot hold as text."""
    return json.dumps(values, indent=1, default=str)


def as_yaml(values: Any) -> str:
    """Return values as YAML."""
    return str(yaml.safe_dump(values, sort_keys=False))


def _places(values: Any) -> list[tuple[Any, Any]]:
    """Return every place in nested values: a container, and the key or index in it."""
    found: list[tuple[Any, Any]] = []
    left = [values]
    while left:
        inner = left.pop()
        keys = inner if isinstance(inner, dict) else range(len(inner))
        for key in keys:
            found.append((inner, key))
            if isinstance(inner[key], dict | list):
                left.append(inner[key])
    return found


def _place(values: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    places = _places(values)
    return places[int(rng.integers(len(places)))]


def _other_value(values: Any, rng: np.random.Generator) -> str:
    inner, key = _place(values, rng)
    inner[key] = copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    return f"{key}={repr(inner[key])[:40]}"


def _removed(values: Any, rng: np.random.Generator) -> str:
    inner, key = _place(values, rng)
    del inner[key]
    return f"{key} removed"


def _renamed(values: Any, rng: np.random.Generator) -> str:
    inner, key = _place(values, rng)
    if isinstance(inner, list):
        return _other_value(values, rng)
    _, other = _place(values, rng)
    name = (other, f"{key}x", f"{key}.{other}", 7, None, "")[int(rng.integers(6))]
    inner[name] = inner.pop(key)
    return f"{key} renamed to {name!r}"


def _wrapped(values: Any, rng: np.random.Generator) -> str:
    inner, key = _place(values, rng)
    inner[key] = [inner[key]] if rng.random() < 0.5 else {str(key): inner[key]}
    return f"{key} wrapped"


def _moved(values: Any, rng: np.random.Generator) -> str:
    inner, key = _place(values, rng)
    other, place = _place(values, rng)
    other[place] = copy.deepcopy(inner[key])
    return f"{key} also at {place}"


def _other_text(text: str, rng: np.random.Generator) -> tuple[str, str]:
    place = int(rng.integers(len(text) + 1))
    lines = text.splitlines(keepends=True)
    line = int(rng.integers(len(lines)))
    way = int(rng.integers(6))
    if way == 0:
        return f"cut at {place}", text[:place]
    if way == 1:
        return f"line {line} twice", "".join(lines[: line + 1] + lines[line:])
    if way == 2:
        return f"without line {line}", "".join(lines[:line] + lines[line + 1 :])
    if way == 3:
        other = chr(int(rng.integers(1, 300)))
        return f"{other!r} at {place}", text[:place] + other + text[place + 1 :]
    piece = TEXTS[int(rng.integers(len(TEXTS)))]
    if way == 4:  # in the place of what stands after a colon
        begin = text.find(":", place)
        end = text.find("\n", begin)
        if 0 <= begin < end:
            return f"{piece[:20]!r} for {text[begin:end]!r}", text[: begin + 1] + piece + text[
                end:
            ]
    return f"{piece[:20]!r} at {place}", text[:place] + piece + text[place:]


def spoil_bytes(good: bytes, count: int, seed: int, header: int = 0) -> Iterator[Spoilt]:
    """Yield files with other bytes, every second time among the first `header`."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        data = bytearray(good)
        end = header if header and index % 2 else len(data)
        place = int(rng.integers(end))
        way = int(rng.integers(6))
        if way == 0:
            data[place] ^= 1 << int(rng.integers(8))
            what = f"bit flipped at {place}"
        elif way == 1:
            data[place : place + 8] = rng.bytes(8)
            what = f"8 random bytes at {place}"
        elif way == 2:
            del data[place:]
            what = f"cut at {place}"
        elif way == 3:
            size = int(rng.integers(1, 64))
            del data[place : place + size]
            what = f"{size} bytes removed at {place}"
        elif way == 4:
            data[place:place] = rng.bytes(int(rng.integers(1, 64)))
            what = f"bytes put in at {place}"
        else:
            data[place : place + 8] = b"\xff" * 8
            what = f"8 times 0xff at {place}"
        yield Spoilt(what, bytes(data))


Load = Callable[[Path], object]


def check(
    kind: str, spoilt: Iterator[Spoilt], path: Path, load: Load, refusal: type[Exception]
) -> None:
    """Load every spoilt file in the place of `path`; only this refusal may come, in few words."""
    outcomes: Counter[str] = Counter()
    wrong = []
    for each in spoilt:
        path.write_bytes(each.data)
        try:
            problem = load(path)
        except refusal as error:
            outcome, problem = "refused", wordy(str(error), path)
        except Exception as error:
            outcome, problem = "WRONG", repr(error)[:300]
        else:
            outcome = "loaded"
        if problem:
            wrong.append(f"{each.what}: {problem}")
        outcomes["WRONG" if problem else outcome] += 1
    print(f"\n{kind}: " + ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
    assert not wrong, "\n".join(wrong[:20])
    assert outcomes["refused"] > 0


def wordy(message: str, path: Path) -> str:
    """Return what is wrong with a refusal; "" if it is short, plain and names the file."""
    lines = message.splitlines()
    if path.name not in message and path.parent.name not in message:
        return f"no name in {message[:200]!r}"
    if len(lines) > TOLD + 2 or max(map(len, lines)) > 900 or "Error(" in message:
        return f"a refusal of {len(message)} characters: {message[:200]!r}"
    return ""
