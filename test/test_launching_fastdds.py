# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The shared memory that large images go through."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from td3_driver.config import SimulatorConfig
from td3_driver.launching import fastdds
from td3_driver.launching.parts import Process
from td3_driver.launching.supervision import run

NAMESPACE = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"


def test_nothing_chosen_gets_the_shipped_profile(tmp_path: Path) -> None:
    assert fastdds.PROFILE.is_file()
    new = {"FASTDDS_DEFAULT_PROFILES_FILE": str(fastdds.PROFILE)}
    assert fastdds.environment({"ROS_DISTRO": "kilted"}, tmp_path) == new
    old = {"FASTRTPS_DEFAULT_PROFILES_FILE": str(fastdds.PROFILE)}
    assert fastdds.environment({"ROS_DISTRO": "humble"}, tmp_path) == new | old


@pytest.mark.parametrize(
    "name",
    [
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        "FASTDDS_BUILTIN_TRANSPORTS",
    ],
)
def test_the_users_choice_in_the_environment_stands(name: str, tmp_path: Path) -> None:
    assert fastdds.environment({name: "mine"}, tmp_path) == {}


def test_the_users_profile_in_the_folder_stands(tmp_path: Path) -> None:
    (tmp_path / "DEFAULT_FASTDDS_PROFILES.xml").touch()
    assert fastdds.environment({}, tmp_path) == {}


def test_the_segment_holds_the_largest_image_of_the_settings() -> None:
    root = ElementTree.parse(fastdds.PROFILE).getroot()
    (size,) = root.iter(f"{NAMESPACE}segment_size")
    largest = {
        name: next(item.le for item in field.metadata if hasattr(item, "le"))
        for name, field in SimulatorConfig.model_fields.items()
        if name in ("image_width_px", "image_height_px")
    }
    assert int(size.text or 0) > 4 * largest["image_width_px"] * largest["image_height_px"]


def shared_memory_bytes(environ: dict[str, str]) -> int:
    """Return the size of the shared memory that a node's process makes."""
    code = (
        "import pathlib, rclpy\n"
        "folder = pathlib.Path('/dev/shm')\n"
        "before = set(folder.glob('fastdds_*')) | set(folder.glob('fastrtps_*'))\n"
        "rclpy.init(); node = rclpy.create_node('tested')\n"
        "after = set(folder.glob('fastdds_*')) | set(folder.glob('fastrtps_*'))\n"
        "mine = [f for f in after - before if not f.name.endswith('_el')]\n"
        "print(max((f.stat().st_size for f in mine if f.exists()), default=0))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr, done.stderr  # Fast DDS complains of a profile it cannot read.
    return int(done.stdout)


@pytest.mark.ros
def test_fast_dds_reads_the_profile() -> None:
    rmw = pytest.importorskip("rclpy").get_rmw_implementation_identifier()
    if not rmw.startswith("rmw_fastrtps"):
        pytest.skip(f"{rmw} reads no Fast DDS profile")
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm to look at")
    assert shared_memory_bytes(fastdds.environment({})) > 16_000_000


class Printing(Process):
    """A process that writes its profile variable into a file."""

    def command_line(self) -> list[str]:
        code = (
            f"import os; open({self.parameters['to']!r}, 'w')"
            ".write(os.environ.get('FASTDDS_DEFAULT_PROFILES_FILE', ''))"
        )
        return [sys.executable, "-c", code]


@pytest.mark.parametrize("chosen", ["", "/mine.xml"])
def test_td3_driver_hands_the_profile_to_its_processes(
    chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in fastdds.CHOICES:
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", chosen)
    assert run([Printing("printing", {"to": str(tmp_path / "out")})]) == 0
    assert (tmp_path / "out").read_text() == (chosen or str(fastdds.PROFILE))
