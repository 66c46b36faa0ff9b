# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The house is as docs/architecture.md draws it: who imports whom, read from the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "td3_driver"
# Rooms of their own inside another.
INNER = ("nodes.driver", "nodes.simulator")
EVERYTHING = "everything"


def module_of(path: Path) -> str:
    """Return a module's name within the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix("__init__").removesuffix(".")


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    """Return the room that a module is in."""
    for room in INNER:
        if module == room or module.startswith(f"{room}."):
            return room
    return module.split(".")[0]


@cache
def nodes_of(path: Path) -> list[ast.AST]:
    """Return all nodes of a file's syntax."""
    return list(ast.walk(ast.parse(path.read_text())))


def imports_of(path: Path) -> set[str]:
    """Return the package's modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in nodes_of(path):
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        top, _, module = node.module.partition(".")
        if top == "td3_driver":
            for name in node.names:
                inner = f"{module}.{name.name}".removeprefix(".")
                found.add(inner if inner in MODULES else module)
    return found - {""}


@cache
def imports() -> dict[str, set[str]]:
    """Return what each module imports of the package; read by a test, not by whoever collects."""
    return {module: imports_of(path) for module, path in MODULES.items()}


def table() -> dict[str, set[str]]:
    """Return what each room may import, by the document's table and in its order."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `td3_driver/([\w/.]+)` \|[^|]*\|([^|]*)\|$", page, re.MULTILINE)
    allowed: dict[str, set[str]] = {}
    for path, may in rows:
        room = path.removesuffix("/").removesuffix(".py").replace("/", ".")
        named = set(re.findall(r"`([\w.]+)`", may))
        allowed[room] = set(allowed) if may.strip() == EVERYTHING else named & {*allowed}
    return allowed


def test_every_room_is_in_the_table() -> None:
    assert set(table()) == {room_of(module) for module in MODULES} - {""}


@pytest.mark.parametrize("room", sorted(table()))
def test_a_room_imports_what_the_table_allows_and_nothing_below_it(room: str) -> None:
    allowed = table()[room]
    wrong = [
        f"{module} imports {imported}"
        for module, names in imports().items()
        if room_of(module) == room
        for imported in sorted(names)
        if room_of(imported) not in (room, *allowed)
    ]
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter(imports()).prepare()


WALL_CLOCK = {"time", "time_ns", "now", "utcnow", "today", "strftime", "localtime", "gmtime"}
TOLD_THE_TIME = {
    "runs": "the name of a run",
    "launching.commands": "the name of a bag",
    "nodes.driver.policy": "when a policy was loaded, for people",
    "nodes.recorder": "when a message was received, as rosbag2 has it",
    "nodes.diagnostics": "the stamp of /diagnostics",
}
"""Who asks what time it is, and what for. A clock that is set back must not stop anything else."""


def calls_in(path: Path) -> list[ast.Call]:
    return [node for node in nodes_of(path) if isinstance(node, ast.Call)]


def test_what_waits_or_decides_lives_by_the_steady_clock() -> None:
    asking = {
        module
        for module, path in MODULES.items()
        for call in calls_in(path)
        if (
            isinstance(call.func, ast.Attribute)
            and call.func.attr in WALL_CLOCK
            and ast.unparse(call.func.value) in ("time", "datetime", "date", "datetime.datetime")
        )
        or (isinstance(call.func, ast.Attribute) and call.func.attr == "get_clock")
    }
    assert asking == set(TOLD_THE_TIME)


def test_every_timer_of_a_node_lives_by_the_steady_clock() -> None:
    """ROS's own clock is the system's, or stops with the simulator."""
    timers = [
        call
        for path in MODULES.values()
        for call in calls_in(path)
        if isinstance(call.func, ast.Attribute) and call.func.attr == "create_timer"
    ]
    assert len(timers) > 4
    for call in timers:
        clocks = [ast.unparse(word.value) for word in call.keywords if word.arg == "clock"]
        assert clocks in (["steady"], ["Clock(clock_type=ClockType.STEADY_TIME)"])
