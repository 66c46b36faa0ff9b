# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Maps from the field: each is read rightly, or refused in one line that names the element."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from td3_driver.driving.world import Pose
from td3_driver.roads import trial
from td3_driver.roads.document import LARGEST_BYTES, geometry_text, parse
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.map_files import MAPS_FOLDER, shipped_maps
from td3_driver.roads.road_map import RoadMap

MAPS = Path(__file__).resolve().parent / "maps"

REFUSED = {
    "arc_of_curvature_zero": ("road 0", "<arc>", "curvature='0'", "write it as a <line>"),
    "elevation_begins_late": ("road 0", "<elevation>", "s='30'", "begin at 0"),
    "georeference_words": ("<geoReference>", "+lat_0=fourty", "write one"),
    "junction_linked_road": ("junction 100", "<connection>", "connectingRoad", "write one"),
    "junction_to_no_road": ("junction 100", "<connection>", "connectingRoad='77'", "correct"),
    "junction_without_connecting_road": ("junction 100", "<connection>", "incomingRoad", "write"),
    "lane_numbers_with_a_hole": ("road 0", "<right>", "-1, -3", "without a hole"),
    "lane_without_width": ("road 0", "lane 1", "<width>", "give it"),
    "lanes_by_border": ("road 0", "lane 1", "<border>", "give it a <width>"),
    "lht_mixed": ("road 3, lane -1", "road 2, lane -1", "120.0 m", "rule"),
    "road_id_beyond_32_bits": ("road 4294967296", "<road>", "id='4294967296'", "number it"),
    "road_id_negative": ("road -5", "<road>", "id='-5'", "number it"),
    "signal_before_the_road": ("road 0", "<signal>", "s='-3'", "correct"),
    "signal_reference_to_nothing": ("road 0", "<signalReference>", "id='99'", "remove"),
    "utm_coordinates": ("road 0", "<geometry>", "x='691608.0'", "subtract an offset"),
    "utm_with_header_offset": ("road 0", "<geometry>", "x='691608.0'", "subtract an offset"),
    "width_a_word": ("road 0", "<width>", "a='wide'", "write one"),
    "width_begins_late": ("road 0", "<width>", "sOffset='20'", "begin at 0"),
    "width_with_comma": ("road 0", "<width>", "a='3,5'", "with a point"),
}
READ = ("good", "default_namespace", "lht_rule")
OTHERS = {"spoilable_junction"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep verdicts in a folder of these tests."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep verdicts in a folder of one test's own, in which there is none yet."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "td3_driver" / "maps"


def good_text() -> str:
    return (MAPS / "good.xodr").read_text()


def test_every_map_is_in_the_tables() -> None:
    assert {path.stem for path in MAPS.glob("*.xodr")} == {*REFUSED, *READ, *OTHERS}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_read_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(RoadMapError) as refusal:
        RoadMap.load(MAPS / f"{name}.xodr")
    message = str(refusal.value)
    assert "\n" not in message
    assert all(part in message for part in (f"map '{MAPS / name}.xodr'", *REFUSED[name])), message


@pytest.mark.parametrize("name", READ)
def test_a_ring_of_four_roads_is_read_with_both_its_directions(name: str) -> None:
    road_map = RoadMap.load(MAPS / f"{name}.xodr")
    assert road_map.remarks == []
    # On the right of a road along x one drives along x, in left-hand traffic against it.
    yaw = math.pi if name == "lht_rule" else 0.0
    for y, heading in ((-1.75, yaw), (1.75, yaw + math.pi)):
        start, goal = Pose(60.0, y, heading), Pose(60.0 - 5.0 * math.cos(heading), y, heading)
        assert abs(math.remainder(road_map.on_lane(start).yaw - heading, math.tau)) < 0.01
        route = road_map.route(start, goal)
        assert len(route) > 380
        steps = np.diff(route[:, :2], axis=0)
        assert np.hypot(*steps.T) == pytest.approx(1.0, abs=0.05)
        ahead = np.arctan2(steps[:, 1], steps[:, 0])
        assert np.abs(np.angle(np.exp(1j * (ahead - route[:-1, 2])))).max() < 0.1


@pytest.mark.parametrize("name", ["good", "lht_rule"])
def test_lines_are_where_they_are_painted_in_either_traffic(name: str) -> None:
    road_map = RoadMap.load(MAPS / f"{name}.xodr")
    assert road_map.markings_between((0, 0, -1), (0, 0, 1), 50.0) == (1,)
    for lane in (-1, 1):
        assert road_map.markings_between((0, 0, lane), (0, 0, 0), 50.0) == (2,)
    for line in road_map.marked_lines:
        on_road_0 = (np.abs(line.points[:, 1]) < 5.0) & (np.abs(line.points[:, 0] - 60.0) < 50.0)
        away = np.abs(line.points[on_road_0, 1])
        assert away == pytest.approx(0.0 if line.type == "Broken" else 3.5, abs=0.02)


@pytest.mark.parametrize(
    "encoding",
    ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252", "gbk", "koi8-r"],
)
def test_declared_encodings_are_read(encoding: str, tmp_path: Path) -> None:
    street = {"gbk": "长安街", "koi8-r": "Невский"}.get(encoding, "Straße")
    text = good_text().replace('name=""', f'name="{street}"')
    text = text.replace("?>", f' encoding="{encoding.removesuffix("-sig")}"?>', 1)
    path = tmp_path / "town.xodr"
    path.write_bytes(text.encode(encoding))
    assert len(RoadMap.load(path).graph.lanes) == 8


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda text: text.replace('id="2" ', 'id=" 2 " '), id="blanks"),
        pytest.param(
            lambda text: re.sub(
                r"<(/?)([A-Za-z])",
                r"<\1o:\2",
                text.replace("<OpenDRIVE", '<OpenDRIVE xmlns:o="http://x"'),
            ),
            id="prefix",
        ),
        pytest.param(
            lambda text: text.replace("<geometry", "<!-- a -->\n<geometry").replace(
                "<line/>", "<!-- b -->\n<userData/><line/>"
            ),
            id="comments",
        ),
        pytest.param(
            lambda text: text.replace(
                '<geometry s="0.0" x="0.0" y="0.0"',
                '<geometry s="0" x="0" y="0" hdg="0" length="0"><line/></geometry>'
                '<geometry s="0.0" x="0.0" y="0.0"',
            ),
            id="piece of length 0",
        ),
        pytest.param(lambda text: "\n \n" + text, id="blank lines before the declaration"),
        pytest.param(
            lambda text: text.replace("?>", '?><!DOCTYPE OpenDRIVE SYSTEM "od.dtd">'), id="doctype"
        ),
        pytest.param(lambda text: text.replace(' b="0" c="0" d="0"', ""), id="zeros left out"),
    ],
)
def test_legal_ways_of_writing_it_are_read(change) -> None:
    changed = change(good_text())
    assert changed != good_text()
    lanes = RoadMap.from_opendrive("changed", changed).graph.lanes
    expected = RoadMap.from_opendrive("good", good_text()).graph.lanes
    assert set(lanes) == set(expected)
    for key, lane in expected.items():
        assert lanes[key].points == pytest.approx(lane.points)


def test_shipped_maps_are_what_they_were_without_what_cars_do_not_need() -> None:
    for name in shipped_maps():
        root = parse(name, (MAPS_FOLDER / f"{name}.xodr").read_text())
        again = parse(name, geometry_text(root))
        for path in ("road", "road/planView/geometry", ".//lane", ".//width", ".//roadMark"):
            assert [e.attrib for e in again.iterfind(path)] == [
                e.attrib for e in root.iterfind(path)
            ]


def test_a_link_that_does_not_meet_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A road pushed aside by 2 m: its four links go, the others stay."""
    text = good_text().replace('x="120.0" y="60.0"', 'x="120.0" y="62.0"')
    with caplog.at_level(logging.WARNING):
        road_map = RoadMap.from_opendrive("pushed", text)
    assert len(road_map.remarks) == 4
    assert "road 1, lane -1 leads to road 2, lane -1, which begins 2.0 m" in caplog.text
    assert road_map.graph.successors((0, 0, -1)) == [(1, 0, -1)]
    assert road_map.graph.successors((1, 0, -1)) == []


def test_a_driving_lane_without_room_is_left_out_and_named() -> None:
    text = good_text().replace('a="3.5"', 'a="0.4"', 1)
    road_map = RoadMap.from_opendrive("narrow", text)
    assert road_map.remarks == [
        "road 0, lane 1 is 0.40 m wide at most; correct its <width>",
    ]
    assert (0, 0, 1) not in road_map.graph.lanes


def test_a_document_cannot_cost_more_than_it_may(tmp_path: Path) -> None:
    bomb = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
    text = good_text().replace("?>", f'?><!DOCTYPE O [<!ENTITY a0 "x">{bomb}]>')
    with pytest.raises(RoadMapError, match=r"entity of its own, <!ENTITY a0>"):
        RoadMap.from_opendrive("bomb", text)
    with pytest.raises(RoadMapError, match="nested more than 64 deep"):
        RoadMap.from_opendrive("deep", "<OpenDRIVE>" + "<a>" * 100_000)
    with pytest.raises(RoadMapError, match=r"km of lanes.*check each road's length"):
        RoadMap.from_opendrive("long", good_text().replace('length="120.0"', 'length="1e12"'))
    with pytest.raises(RoadMapError, match=r"road 0 has length='1e6' in <road>.*ends at 120 m"):
        longer = good_text().replace('length="120.0" id', 'length="1e6" id')
        RoadMap.from_opendrive("longer", longer)
    path = tmp_path / "large.xodr"
    with path.open("wb") as file:
        file.truncate(LARGEST_BYTES + 1)
    with pytest.raises(RoadMapError, match="more than the 64"):
        RoadMap.load(path)


def reader(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str) -> None:
    """Let another program try maps."""
    module = tmp_path / "odd_reader.py"
    module.write_text(body)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setattr(trial, "_READER", "odd_reader")


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "body, words",
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("import time; time.sleep(60)", "within 2 s"),
        ("import sys; sys.exit(3)", "does not start"),
        ("""print('{"refusal": "{map} is odd"}', end="")""", "map 'x' is odd"),
    ],
)
def test_what_ends_the_trial_does_not_end_this_process(
    body: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    reader(monkeypatch, tmp_path, body)
    monkeypatch.setattr(trial, "_LONGEST_S", 2.0)
    with pytest.raises(RoadMapError, match=words):
        RoadMap.from_opendrive("x", good_text())


@pytest.mark.usefixtures("own_cache")
def test_ctrl_c_ends_the_trial_and_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    body = (
        "import os, signal; from td3_driver.trial_process import limit_this_process\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "limit_this_process(1 << 33); os.kill(os.getpid(), signal.SIGINT)"
    )
    reader(monkeypatch, tmp_path, body)
    with pytest.raises(KeyboardInterrupt):
        RoadMap.from_opendrive("x", good_text())


def test_a_map_is_tried_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own_cache: Path
) -> None:
    RoadMap.from_opendrive("one", good_text())
    (kept,) = own_cache.glob("*.json")
    assert json.loads(kept.read_text()) == {"refusal": ""}
    assert own_cache.stat().st_mode & 0o077 == 0
    reader(monkeypatch, tmp_path, "import sys; sys.exit(3)")
    RoadMap.from_opendrive("another name", good_text())
    # What is no verdict, or no file of ours, is not believed.
    for spoil in (lambda: kept.write_text("{"), lambda: (kept.unlink(), kept.symlink_to("/x"))):
        spoil()
        with pytest.raises(RoadMapError, match="does not start"):
            RoadMap.from_opendrive("one", good_text())


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "", ".", "/dev/zero", "\udcff.xodr"])
def test_names_of_no_file_are_refused(name: str) -> None:
    with pytest.raises(RoadMapError, match="not a file, nor one of grid_market_town"):
        RoadMap.load(name)


def test_maps_are_read_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    assert len(RoadMap.from_opendrive("good", good_text()).graph.lanes) == 8


@pytest.mark.usefixtures("own_cache")
def test_shipped_maps_need_no_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reader(monkeypatch, tmp_path, "import sys; sys.exit(3)")
    RoadMap.load("ring_meadow")
    RoadMap.from_opendrive("Town", (MAPS_FOLDER / "ring_meadow.xodr").read_text())


def doctor(map_file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "td3_driver.cli", "doctor", "--map", map_file],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
        check=False,
    )


def test_the_doctor_says_what_is_wrong_with_a_map(tmp_path: Path) -> None:
    done = doctor(MAPS / "width_a_word.xodr", tmp_path)
    assert done.returncode == 1
    assert "FAILED" in done.stdout and "a='wide' in <width>" in done.stdout
    assert "-> write one" in done.stdout
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_lists_a_maps_checks_and_draws_it(tmp_path: Path) -> None:
    pushed = tmp_path / "pushed.xodr"
    pushed.write_text(good_text().replace('x="120.0" y="60.0"', 'x="120.0" y="62.0"'))
    done = doctor(pushed, tmp_path)
    assert done.returncode == 0
    for words in ("8 driving lanes, 0.86 km", "4 links, 0.0", "3.50 to 3.50", "on the right"):
        assert words in done.stdout
    assert done.stdout.count("left out") == 4 and "4 lanes lead to no other" in done.stdout
    assert (tmp_path / "pushed.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"pushed.xodr", "pushed.png"}
