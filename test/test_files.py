# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What replaces a file, or creates one, does so whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from td3_driver.files import create, point_link, replacing


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_at_the_end_and_others_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text("old")
    with replacing(path) as new:
        new.write_text("new")
        assert path.read_text() == "old" and new.suffix == ".json"
    assert path.read_text() == "new" and mode_of(path) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_what_was_there_stays_if_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(OSError, match="No space"), replacing(path) as new:
        new.write_text("half of i")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(new))
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_the_file_is_replaced_not_written_through(tmp_path: Path) -> None:
    precious, path = tmp_path / "precious", tmp_path / "policy.onnx"
    precious.write_text("precious")
    path.symlink_to(precious)
    with replacing(path) as new:
        new.write_text("policy")
    assert precious.read_text() == "precious"
    assert path.read_text() == "policy" and not path.is_symlink()


def test_a_new_file_never_takes_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    create(path, "mine")
    with pytest.raises(FileExistsError):
        create(path, "theirs")
    assert path.read_text() == "mine" and mode_of(path) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_points_to_its_new_target_in_one_step(tmp_path: Path) -> None:
    link = tmp_path / "latest"
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_link(link, tmp_path / name)
        assert link.resolve() == (tmp_path / name).resolve()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


@pytest.mark.parametrize("target", ["latest", "nothing", "one"])
def test_a_link_takes_the_place_of_any_link_and_of_nothing_else(
    tmp_path: Path, target: str
) -> None:
    (tmp_path / "one").mkdir()
    link = tmp_path / "latest"
    link.symlink_to(target)
    point_link(link, tmp_path / "one")
    assert os.readlink(link) == "one"
    link.unlink()
    link.mkdir()
    with pytest.raises(FileExistsError, match="it is not a link"):
        point_link(link, tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one"]
