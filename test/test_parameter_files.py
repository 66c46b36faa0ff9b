# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Whose the blocks of a ROS parameter file are."""

from __future__ import annotations

from pathlib import Path

import pytest

from td3_driver.config import ConfigError, load
from td3_driver.parameter_files import ParameterFileError, read

BLOCK = "  ros__parameters: {learning: {tau: 0.25}}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "head, node, applies",
    [
        ("/**", "/trainer", True),
        ("/**", "/a/b/trainer", True),
        ("trainer", "/trainer", True),
        ("/trainer", "/trainer", True),
        ("/a/trainer", "/a/trainer", True),
        ("/*", "/trainer", True),
        ("/*", "/a/trainer", False),
        ("/a/*", "/b/trainer", False),
        ("/*/trainer", "/a/trainer", True),
        ("/**/trainer", "/a/b/trainer", True),
        ("/**/trainer", "/trainer", True),
        ("trainer", "/a/trainer", False),
    ],
)
def test_heads_are_matched_as_ros_matches_them(
    head: str, node: str, applies: bool, tmp_path: Path
) -> None:
    path = write(tmp_path, f'"{head}":\n{BLOCK}')
    if applies:
        assert load(path, node).learning.tau == 0.25
    else:
        with pytest.raises(ParameterFileError, match=f"none for {node}: head them"):
            read(path, node)


def test_blocks_are_put_together_in_their_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "/**:\n  ros__parameters:\n    learning: {tau: 0.1, batch_size: 8}\n"
        "a:\n  trainer:\n    ros__parameters:\n      learning.tau: 0.2\n"
        "simulator:\n  ros__parameters:\n    simulator: {seed: 4}\n",
    )
    assert read(path, "/a/trainer") == {"learning": {"tau": 0.2, "batch_size": 8}}
    assert read(path, "/simulator")["simulator"] == {"seed": 4}
    # A command is for all of the nodes.
    settings = load(path)
    assert (settings.learning.tau, settings.simulator.seed) == (0.2, 4)


def test_what_is_for_another_of_the_nodes_leaves_the_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, f"trainer:\n{BLOCK}")
    assert read(path, "/simulator") == {}
    assert load(path).learning.tau == 0.25


@pytest.mark.parametrize("node", ["/left/driver", ""])
def test_a_file_for_nobody_here_is_refused_with_its_heads(node: str, tmp_path: Path) -> None:
    path = write(tmp_path, f"controller_server:\n{BLOCK}/fleet/planner:\n{BLOCK}")
    with pytest.raises(ConfigError) as error:
        load(path, node)
    message = str(error.value)
    assert f"{path} has parameters for /controller_server, /fleet/planner, and none" in message
    assert f"for {node or 'a node of td3_driver'}: head them /**" in message


def test_a_name_in_the_wrong_namespace_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, f"driver:\n{BLOCK}")
    with pytest.raises(ConfigError, match=r"parameters for /driver, and none for /left/driver"):
        load(path, "/left/driver")


def test_a_block_is_a_mapping(tmp_path: Path) -> None:
    path = write(tmp_path, "/**:\n  ros__parameters: [1]\n")
    with pytest.raises(ConfigError, match=r"of /\*\* is not a mapping"):
        load(path)
