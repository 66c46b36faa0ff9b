# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""JSON and YAML of any origin: what is refused, in which words, and that it costs little."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from document_spoiler import ALIAS_BOMB

from td3_driver import config as configuration
from td3_driver.config import ConfigError
from td3_driver.documents import (
    MOST_BYTES,
    MOST_LEVELS,
    SHORT,
    DocumentError,
    DocumentMissingError,
    in_short,
    load_json,
    load_yaml,
    parse_json,
    parse_yaml,
)

MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 200))


@pytest.mark.parametrize(
    "text, said",
    [
        ("[" * 100_000, "nested more than 32 levels"),
        ('{"a":' * 100_000, "nested more than 32 levels"),
        ("[" + "1," * 300_000 + "1]", "more than 100,000 values"),
        ("9" * 5000, "a whole number of more than 40 digits"),
        ("1e999", "1e999 is not a finite number"),
        ("NaN", "NaN is not a number of JSON"),
        ("-Infinity", "-Infinity is not a number of JSON"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        (r'{"a": "\ud83d"}', "half a surrogate pair"),
        ("[1, 2", "Expecting ',' delimiter: line 1"),
        (" " * (MOST_BYTES + 1), "longer than 1,048,576"),
    ],
)
def test_json_in_excess_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentError) as refusal:
        parse_json(text, "file.json")
    assert str(refusal.value).startswith("file.json is not JSON: ")
    assert said in str(refusal.value) and len(str(refusal.value)) < 2 * SHORT


@pytest.mark.parametrize(
    "text, said",
    [
        ("[" * 100_000, "nested more than 32 levels"),
        ("- " * 100_000, "nested more than 32 levels"),
        ("- a\n" * 150_000, "more than 100,000 values"),
        (ALIAS_BOMB, "more than 100,000 values, with what aliases repeat (line "),
        (MERGE_BOMB, "more than 100,000 values, with what aliases repeat (line "),
        (CHAIN, "nested more than 32 levels deep, with what aliases repeat (line 32"),
        ("&a [*a]", "an alias stands within what it repeats"),
        ("a: " + "9" * 5000, "a whole number of more than 40 digits (line 1, column 4)"),
        ("a: 0x" + "f" * 5000, "a whole number of more than 40 digits"),
        ("a: 0x" + "f" * 100, "a whole number of more than 40 digits"),
        ("a: 1\nb: 2\na: 3", "'a' is given twice (line 3, column 1)"),
        ("a: {b: 1, b: 2}", "'b' is given twice"),
        ("!!int ''", "a value is not what its tag says"),
        ("!!timestamp x", "a value is not what its tag says"),
        ("2026-13-45", "month must be in 1..12"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("--- 1\n--- 2\n", "another document"),
        ("a: \x00", "character"),
        (r'"\ud83d"', "invalid Unicode" if yaml.__with_libyaml__ else "half a surrogate pair"),
    ],
)
def test_yaml_in_excess_is_refused(text: str, said: str) -> None:
    with pytest.raises(DocumentError) as refusal:
        parse_yaml(text, "file.yaml")
    assert str(refusal.value).startswith("file.yaml is not YAML: ")
    assert said in str(refusal.value) and len(str(refusal.value).splitlines()) == 1
    assert len(str(refusal.value)) < 2 * SHORT


def test_what_is_within_the_bounds_is_read() -> None:
    deep = "[" * MOST_LEVELS + "]" * MOST_LEVELS
    assert parse_json(deep, "it") == parse_yaml(deep, "it") == json.loads(deep)
    values = {"a": [1, -2.5, True, None, "é\U0001f697", "[{"], "b": {"c": 2**128 - 1}}
    assert parse_json(json.dumps(values), "it") == values
    assert parse_yaml("a: &a {x: 1}\nb: *a\nc: {<<: *a, y: 2}\n", "it")["c"] == {"x": 1, "y": 2}
    assert parse_yaml("", "it") is None


@pytest.mark.parametrize("load", [load_json, load_yaml])
def test_only_a_regular_file_is_read(load: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(DocumentMissingError, match="nonesuch is missing"):
        load(tmp_path / "nonesuch")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(DocumentError, match="cannot be read: it is not a regular file"):
            load(path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(DocumentError, match="loop cannot be read: Too many levels"):
        load(tmp_path / "loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DocumentError, match="huge is larger than 1,048,576 bytes"):
        load(tmp_path / "huge")
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff")
    with pytest.raises(DocumentError, match=r"picture is not (JSON|YAML): invalid start byte"):
        load(tmp_path / "picture")


def test_a_message_is_one_short_line_that_any_terminal_can_show() -> None:
    assert in_short("two\n  lines") == "two lines"
    assert len(in_short("x" * 10**7)) == SHORT
    in_short("\ud800").encode()
    assert in_short(KeyError()) == "KeyError"


def settings_in(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(f"/**:\n  ros__parameters:\n{text}")
    return path


@pytest.mark.parametrize(
    "text, said",
    [
        ("    learning: {hidden: [40000, 40000]}\n", "learning.hidden.0: .*4096 .it is 40000"),
        (f"    learning: {{hidden: [{'8,' * 200}]}}\n", "learning.hidden: .*at most 16 items"),
        ("    driving: {time_limit_s: .inf}\n", "driving.time_limit_s: .*finite"),
        ("    training: {total_steps: 10000000000}\n", "total_steps: .*it is beyond 1e.09"),
        (f"    carla: {{role_name: {'a' * 5000}}}\n", "role_name: .*longer than 4096"),
        ("    learning: {tau: 1, tau: 2}\n", "'tau' is given twice"),
        ("    learning.tau: 1\n    learning: {tau: 2}\n", r"learning.tau of /\*\* is given twice"),
        (f"    {'a.' * 400}b: 1\n", "there is no such parameter: a.a.a.a"),
    ],
)
def test_settings_in_excess_are_refused_by_name(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said) as refusal:
        configuration.load(settings_in(tmp_path, text))
    assert len(str(refusal.value)) < 4 * SHORT


def test_of_many_wrong_settings_the_first_are_named(tmp_path: Path) -> None:
    names = "".join(f"    setting_{number}: {number}\n" for number in range(3000))
    with pytest.raises(ConfigError) as refusal:
        configuration.load(settings_in(tmp_path, names))
    assert str(refusal.value).endswith(f"and {3000 - configuration.TOLD} more")
    assert len(str(refusal.value).splitlines()) == configuration.TOLD + 2
