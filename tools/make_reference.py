# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Write docs/topics.md and docs/parameters.md from the tables and settings that the code uses.

Every `Topic` of td3_driver.bridge and td3_driver.nodes, every section of td3_driver.config and
every node module with a `main` is found automatically. A node module describes its own parameters
with `SECTIONS` (default: all), `SETTABLE` and `OWN_PARAMETERS`. Run this after changing any of it:

    python tools/make_reference.py
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from td3_driver import config
from td3_driver.bridge.parameters import CONFIG, Own
from td3_driver.bridge.topics import Direction, Topic
from td3_driver.config import WIDEST, Config, Section, Width

DOCS = Path(__file__).resolve().parent.parent / "docs"
PACKAGES_WITH_TOPICS = ("td3_driver.bridge", "td3_driver.nodes")
NODES = "td3_driver.nodes"
NOTICE = "<!-- Made by tools/make_reference.py from the code: change the code, then run it. -->"

TOPICS_HEAD = f"""{NOTICE}

# Topics

The topics that carla-ros-bridge, or the embedded simulator, exchanges with this package's nodes.
Names depend on the settings `carla.role_name`, `carla.camera` and `carla.control`; `~` is the name
of the node. The history is always keep last.
"""

PARAMETERS_HEAD = f"""{NOTICE}

# Parameters

Every setting is a ROS parameter `section.setting` of the nodes that use it, with the description
and range given here (`ros2 param describe`). The file named by the parameter `config` overrides
the defaults, and what the process is started with overrides both: `-p learning.batch_size:=64`, or
`td3-driver train --set learning.batch_size=64`. An unknown name or a value out of range ends the
process with a line that names it.

Numbers are finite; one without an upper limit here is at most 1e9. A name that is given twice in a
file is refused, and so is a file beyond the bounds of [security.md](security.md).

Only the settings marked *at run time* can be changed while a node runs. Any other change, or a bad
value, is refused with the reason.
"""


def modules(package_name: str) -> Iterator[ModuleType]:
    """Import and yield the modules of a package and of its sub-packages."""
    package = importlib.import_module(package_name)
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda info: info.name):
        name = f"{package_name}.{info.name}"
        if info.ispkg:
            yield from modules(name)
        elif info.name != "__main__":
            yield importlib.import_module(name)


def all_topics() -> list[Topic]:
    """Return every topic that a module defines, once each, in the order of the modules."""
    found: dict[Topic, None] = {}
    for package in PACKAGES_WITH_TOPICS:
        for module in modules(package):
            found |= dict.fromkeys(
                value for value in vars(module).values() if isinstance(value, Topic)
            )
    return list(found)


@dataclass(frozen=True)
class NodeParameters:
    """The parameters of one executable node."""

    name: str
    summary: str
    sections: tuple[str, ...]
    settable: frozenset[str]
    own: dict[str, Own]


def all_nodes() -> list[NodeParameters]:
    """Return the parameters of every node that can be run."""
    return [
        NodeParameters(
            name=module.__name__.removeprefix(f"{NODES}.").removesuffix(".node"),
            summary=(module.__doc__ or "").partition("\n")[0],
            sections=tuple(getattr(module, "SECTIONS", Config.model_fields)),
            settable=frozenset(getattr(module, "SETTABLE", ())),
            own={
                "config": CONFIG,
                **{
                    name: Own(*fields)
                    for name, fields in getattr(module, "OWN_PARAMETERS", {}).items()
                },
            },
        )
        for module in modules(NODES)
        if hasattr(module, "main")
    ]


def prose(text: str) -> str:
    """Escape text so that Markdown does not take it for HTML."""
    return text.replace("<", "&lt;")


def row(cells: Iterable[str]) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return "\n".join([row(head), "|" + "---|" * len(head), *map(row, rows)])


def topics_page() -> str:
    """Return docs/topics.md."""
    parts = [TOPICS_HEAD.rstrip()]
    topics = all_topics()
    for direction in Direction:
        rows = [topic_row(topic) for topic in topics if topic.direction is direction]
        if rows:
            head = ("topic", "type", "the bridge's end", "our end", "")
            parts.append(f"## {direction.value[0].upper()}{direction.value[1:]}")
            parts.append(table(head, rows))
    return "\n\n".join(parts) + "\n"


def topic_row(topic: Topic) -> tuple[str, ...]:
    """Return a topic's row."""
    name = topic.template.format(role="<role_name>", camera="<camera>", control="<control>")
    return (
        f"`{name}`",
        f"`{topic.type_name}`",
        str(topic.bridge_qos),
        str(topic.client_qos),
        prose(topic.description),
    )


def parameters_page() -> str:
    """Return docs/parameters.md."""
    nodes = all_nodes()
    parts = [PARAMETERS_HEAD.rstrip()]
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert isinstance(section, type) and issubclass(section, Section)
        parts.append(f"## `{name}`")
        parts.append(section_summary(name, section, nodes))
        parts.append(
            table(
                ("setting", "default", "unit", "range", ""),
                (
                    setting_row(f"{name}.{setting}", info, nodes)
                    for setting, info in section.model_fields.items()
                ),
            )
        )
    parts += [
        "## Parameters of single nodes",
        "Read once, when the node starts, unless marked *at run time*.",
    ]
    for node in nodes:
        parts.append(f"### `{node.name}`")
        parts.append(node.summary)
        parts.append(
            table(
                ("parameter", "default", "range", ""),
                (own_row(name, own, name in node.settable) for name, own in node.own.items()),
            )
        )
    return "\n\n".join(parts) + "\n"


def section_summary(name: str, section: type[Section], nodes: Sequence[NodeParameters]) -> str:
    """Return a section's summary and the nodes that declare it."""
    users = [f"`{node.name}`" for node in nodes if name in node.sections]
    summary = (section.__doc__ or "").partition("\n")[0]
    return f"{summary} Declared by: {', '.join(users) or 'no node'}."


def setting_row(name: str, field: FieldInfo, nodes: Sequence[NodeParameters]) -> tuple[str, ...]:
    """Return a setting's row."""
    settable = [f"`{node.name}`" for node in nodes if name in node.settable]
    at_run_time = f" *At run time* on {', '.join(settable)}." if settable else ""
    return (
        f"`{name}`",
        f"`{literal(field.default)}`",
        config.unit(field),
        range_of(field),
        f"{prose(str(field.description))}{at_run_time}",
    )


def own_row(name: str, own: Own, settable: bool) -> tuple[str, ...]:
    """Return the row of a parameter that belongs to one node."""
    limits = {"ge": own.low, "le": own.high}
    given = {limit: value for limit, value in limits.items() if value is not None}
    at_run_time = " *At run time*, too." if settable else ""
    default = f"`{literal(own.default)}`" if own.default != "" else "empty"
    return f"`{name}`", default, bounds(given), prose(own.description) + at_run_time


def literal(value: Any) -> str:
    """Return a value as it is written in a YAML file."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    return str(value)


def range_of(field: FieldInfo) -> str:
    """Return the range of a setting in short form."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(field.annotation))
    limits = config.limits(field)
    if get_origin(field.annotation) is tuple:
        items = get_args(field.annotation)
        length = "" if items[-1] is Ellipsis else f"{len(items)} numbers"
        if "max_length" in limits:
            length = f"at most {limits['max_length']} numbers"
        each = f"each 1 to {WIDEST}" if items[0] is Width else ""
        not_empty = "not empty" if "min_length" in limits else ""
        return ", ".join(filter(None, (length, each, not_empty)))
    if field.annotation is bool:
        return "`true`, `false`"
    return "not empty" if "min_length" in limits else bounds(limits)


def bounds(limits: dict[str, Any]) -> str:
    """Return limits in the form "≥ 1, < 10"."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    return ", ".join(
        f"{sign} {number(limits[name])}" for name, sign in signs.items() if name in limits
    )


def number(value: float) -> str:
    """Return a number in its shortest form."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def pages() -> dict[Path, str]:
    """Return the text of every page, by its path."""
    return {DOCS / "topics.md": topics_page(), DOCS / "parameters.md": parameters_page()}


def main() -> int:
    """Write the pages, or list those that are out of date; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if a page is out of date"
    )
    options = parser.parse_args()
    stale = [
        path
        for path, text in pages().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        if not options.check:
            path.write_text(pages()[path], encoding="utf-8")
        print(f"{'out of date' if options.check else 'written'}: {path}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
