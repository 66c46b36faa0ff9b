# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Maps: what is shipped, routes along them, and what is said of maps that cannot be used."""

from __future__ import annotations

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pytest

from td3_driver.driving.world import Pose
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.map_files import MAPS_FOLDER, shipped_maps
from td3_driver.roads.road_map import RoadMap

TRAINING = [
    "grid_market_town",
    "grid_old_town",
    "ring_harbour",
    "ring_meadow",
    "ring_orchard",
    "ring_quarry",
]
HELD_OUT = ["grid_new_town", "ring_lakeside", "ring_vineyard"]
VALIDATION = ["grid_mill_town", "ring_hillside", "ring_riverside"]
LANE_WIDTH_M = 3.5


@pytest.fixture(scope="module", params=TRAINING + HELD_OUT + VALIDATION)
def road_map(request: pytest.FixtureRequest) -> RoadMap:
    """Each shipped map in turn."""
    return RoadMap.load(request.param)


def meadow_text() -> str:
    """Return the text of a small map to be spoilt."""
    return (MAPS_FOLDER / "ring_meadow.xodr").read_text()


def straight_road(marking: str = "broken", length: float = 100.0) -> str:
    """Return a map of one straight two-lane road from (0, 0) along x, both lanes ending."""
    lane = (
        '<lane id="{id}" type="driving"><width sOffset="0" a="3.5" b="0" c="0" d="0"/>'
        '<roadMark sOffset="0" type="solid" weight="standard" color="white" width="0.15"/></lane>'
    )
    return (
        '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="straight"/>'
        f'<road name="" length="{length}" id="7" junction="-1"><planView>'
        f'<geometry s="0" x="0" y="0" hdg="0" length="{length}"><line/></geometry></planView>'
        f'<lanes><laneSection s="0"><left>{lane.format(id=1)}</left><center>'
        f'<lane id="0" type="none"><roadMark sOffset="0" type="{marking}" weight="standard" '
        f'color="yellow" width="0.15"/></lane></center><right>{lane.format(id=-1)}</right>'
        "</laneSection></lanes></road></OpenDRIVE>"
    )


def test_the_maps_of_the_settings_are_shipped() -> None:
    assert shipped_maps() == sorted(TRAINING + HELD_OUT + VALIDATION)


def test_generator_writes_the_shipped_bytes() -> None:
    tool = Path(__file__).resolve().parent.parent / "tools" / "make_maps.py"
    if not tool.is_file():
        pytest.skip("the generator is not installed with the package")
    spec = importlib.util.spec_from_file_location("make_maps", tool)
    make_maps = importlib.util.module_from_spec(spec)
    # Its dataclasses look up their annotations in sys.modules.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(__import__("sys").modules, "make_maps", make_maps)
        spec.loader.exec_module(make_maps)
        written = dict(make_maps.documents())
    assert sorted(written) == shipped_maps()
    for name, text in written.items():
        assert (MAPS_FOLDER / f"{name}.xodr").read_text() == text, name


def test_lanes_join_without_gaps_or_dead_ends(road_map: RoadMap) -> None:
    graph = road_map.graph
    for key, lane in graph.lanes.items():
        assert np.isfinite(lane.points).all()
        assert graph.successors(key)
        for other in map(graph.lanes.get, graph.successors(key)):
            assert math.dist(lane.points[-1, :2], other.points[0, :2]) < 0.1
            turned = lane.points[-1, 2] - other.points[0, 2]
            assert abs(math.remainder(turned, math.tau)) < 0.01


def test_every_lane_leads_to_every_other(road_map: RoadMap) -> None:
    """As far as one can: a ring's two directions are two separate loops."""
    graph = road_map.graph
    reached, open_ends = set(), [next(iter(graph.lanes))]
    while open_ends:
        key = open_ends.pop()
        if key not in reached:
            reached.add(key)
            open_ends += graph.successors(key)
    loops = 2 if road_map.name.startswith("ring") else 1
    assert len(reached) * loops == len(graph.lanes)


def test_rings_bend_tightly_to_both_sides() -> None:
    for name in (name for name in shipped_maps() if name.startswith("ring")):
        graph = RoadMap.load(name).graph
        forward = [lane for key, lane in graph.lanes.items() if key[2] == -1]
        assert 350.0 <= sum(lane.length for lane in forward) <= 710.0
        curvature = np.concatenate(
            [np.gradient(lane.points[:, 2], lane.along) for lane in forward]
        )
        assert 1.0 / 14.0 < curvature.max() < 1.0 / 9.0
        assert 1.0 / 14.0 < -curvature.min() < 1.0 / 9.0


def test_routes_run_along_the_right_hand_lane(road_map: RoadMap) -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        start, goal = road_map.random_start(rng, 150.0)
        route = road_map.route(start, goal)
        assert route.dtype == np.float64
        assert len(route) == 151
        assert route[0] == pytest.approx((start.x, start.y, start.yaw), abs=0.01)
        assert math.dist(route[-1, :2], (goal.x, goal.y)) < 0.05
        steps = np.diff(route[:, :2], axis=0)
        assert np.hypot(*steps.T) == pytest.approx(1.0, abs=0.02)
        ahead = np.arctan2(steps[:, 1], steps[:, 0])
        turned = (ahead - route[:-1, 2] + np.pi) % (2.0 * np.pi) - np.pi
        assert np.abs(turned).max() < 0.15
        for x, y, yaw in route[::10]:
            here = road_map.lane_at(x, y)
            assert here.type == "Driving"
            assert here.width == pytest.approx(LANE_WIDTH_M, abs=0.01)
            if here.in_junction:
                continue
            # Oncoming traffic is a lane's width to the left, the shoulder to the right.
            left = road_map.lane_at(
                x - LANE_WIDTH_M * math.sin(yaw), y + LANE_WIDTH_M * math.cos(yaw)
            )
            right = road_map.lane_at(x + 2.2 * math.sin(yaw), y - 2.2 * math.cos(yaw))
            assert (left.type, right.type) == ("Driving", "Shoulder")
            assert left.key[2] == -here.key[2]


def test_the_lane_that_covers_a_point(road_map: RoadMap) -> None:
    """Across the road: the lane up to its line, the shoulder, nothing."""
    for pose in road_map.spawn_poses(7.0):
        normal = math.sin(pose.yaw), -math.cos(pose.yaw)
        for right, kind in (
            (-1.7, "Driving"),
            (0.0, "Driving"),
            (1.7, "Driving"),
            (1.8, "Shoulder"),
            (2.7, "Shoulder"),
            (2.9, None),
        ):
            here = road_map.lane_at(pose.x + right * normal[0], pose.y + right * normal[1])
            assert (here.type if here else None) == kind


def test_spawn_poses_are_lane_centres_in_a_fixed_order(road_map: RoadMap) -> None:
    poses = road_map.spawn_poses(25.0)
    assert poses == road_map.spawn_poses(25.0)
    assert len(poses) > 20
    for pose in poses:
        here = road_map.graph.project(pose)
        centre = road_map.graph.lanes[here.key].pose(here.offset)
        assert math.dist((pose.x, pose.y), (centre.x, centre.y)) < 1e-3
        assert pose.yaw == pytest.approx(centre.yaw, abs=1e-3)
        assert not road_map.graph.lanes[here.key].in_junction


def test_random_start_is_repeatable_and_varies() -> None:
    road_map = RoadMap.load("grid_new_town")
    one, again = (road_map.random_start(np.random.default_rng(5), 100.0) for _ in range(2))
    assert one == again
    assert one != road_map.random_start(np.random.default_rng(6), 100.0)


def test_random_start_shortens_what_no_ring_can_hold() -> None:
    road_map = RoadMap.load("ring_meadow")
    start, goal = road_map.random_start(np.random.default_rng(0), 2000.0)
    lap = sum(lane.length for key, lane in road_map.graph.lanes.items() if key[2] == -1)
    assert 0.6 * lap < len(road_map.route(start, goal)) < lap + 10.0


def test_route_to_a_goal_just_behind_goes_round() -> None:
    road_map = RoadMap.load("ring_meadow")
    start = road_map.spawn_poses(10.0)[2]
    goal = Pose(
        start.x - 2.0 * math.cos(start.yaw), start.y - 2.0 * math.sin(start.yaw), start.yaw
    )
    assert len(road_map.route(start, goal)) > 400
    assert len(road_map.route(start, start)) == 1


def test_heading_chooses_between_lanes_beside_the_centre_line() -> None:
    road_map = RoadMap.from_opendrive("straight", straight_road())
    for yaw, lane in ((0.0, -1), (math.pi, 1)):
        assert road_map.graph.project(Pose(50.0, 0.0, yaw)).key == (7, 0, lane)


def test_ros_frame_is_right_handed() -> None:
    """OpenDRIVE's y points left as in ROS; carla.Map flips it, and it is flipped back."""
    text = straight_road().replace('hdg="0"', f'hdg="{math.pi / 2}"')
    route = RoadMap.from_opendrive("north", text).route(Pose(2, 10, 1.57), Pose(2, 60, 1.57))
    assert route[0] == pytest.approx((1.75, 10.0, math.pi / 2), abs=0.01)
    assert route[-1] == pytest.approx((1.75, 60.0, math.pi / 2), abs=0.01)


def test_lanes_that_end() -> None:
    road_map = RoadMap.from_opendrive("straight", straight_road())
    # The last 20 m of either lane lead to no route worth the name.
    assert {round(pose.x) for pose in road_map.spawn_poses(40.0)} == {0, 40, 60, 100}
    rng = np.random.default_rng(0)
    for _ in range(20):
        start, goal = road_map.random_start(rng, 70.0)
        assert len(road_map.route(start, goal)) == 71
    start, goal = road_map.random_start(rng, 400.0)
    assert 60 < len(road_map.route(start, goal)) <= 101
    with pytest.raises(RoadMapError, match="no route"):
        road_map.route(Pose(50.0, -1.75, 0.0), Pose(20.0, -1.75, 0.0))
    with pytest.raises(RoadMapError, match="too short"):
        RoadMap.from_opendrive("stub", straight_road(length=12.0)).random_start(rng, 50.0)


def test_markings_between_lanes() -> None:
    road_map = RoadMap.from_opendrive("straight", straight_road("broken"))
    assert road_map.markings_between((7, 0, -1), (7, 0, 1), 50.0) == (1,)
    assert road_map.markings_between((7, 0, -1), (7, 0, 0), 50.0) == (2,)
    assert {(line.type, line.colour) for line in road_map.marked_lines} == {
        ("Solid", "White"),
        ("Broken", "Yellow"),
    }
    assert road_map.lane_at(50.0, 5.0) is None


def _constant_spiral(text: str) -> str:
    return re.sub(r'<arc curvature="([^"]*)" />', r'<spiral curvStart="\1" curvEnd="\1" />', text)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda text: "", "not XML"),
        (lambda text: text[: len(text) // 2], "not XML"),
        (lambda text: "<html/>", "root element is <html>"),
        (lambda text: "<OpenDRIVE/>", "no <header>"),
        (lambda text: text.replace('type="driving"', 'type="sidewalk"'), "no driving lane"),
        (_constant_spiral, "write it as an <arc>"),
        (lambda text: text.replace('a="3.500000000"', 'a="nan"'), "NaN on road 0"),
        (lambda text: text.replace("<line />", ""), "road 0 has a <geometry> without any of"),
        (lambda text: text.replace('<laneSection s="0.0">', '<laneSection s="5">'), "in order"),
        (lambda text: text.replace('<successor id="-1" />', '<successor id="-9" />'), "lane -9"),
        (lambda text: text.replace('id="3" junction', 'id="2" junction'), "same id"),
        (lambda text: text.replace('id="3" junction', 'id="x" junction'), "no whole number"),
        (lambda text: re.sub("<center>.*?</center>", "", text, flags=re.DOTALL), "centre lane"),
        (lambda text: re.sub('hdg="[^"]*"', 'hdg="inf"', text), "hdg='inf'"),
    ],
)
def test_unusable_maps_are_refused_in_words(spoil, message: str) -> None:
    with pytest.raises(RoadMapError, match=re.escape(message)):
        RoadMap.from_opendrive("spoilt", spoil(meadow_text()))


def test_missing_map_names_the_shipped_ones() -> None:
    with pytest.raises(RoadMapError, match=r"no map 'Town99'.*grid_new_town, .*ring_vineyard"):
        RoadMap.load("Town99")


def test_map_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "binary.xodr"
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RoadMapError, match="not text"):
        RoadMap.load(path)


def test_places_on_lanes_are_found_as_by_trying_every_point(road_map: RoadMap) -> None:
    graph = road_map.graph
    lanes = list(graph.lanes.values())
    rng = np.random.default_rng(0)
    for _ in range(20):
        lane = lanes[int(rng.integers(len(lanes)))]
        offset = float(rng.uniform(-1.0, lane.length + 1.0))
        place = lane.pose(offset)
        x, y, yaw = lane.at(offset).tolist()
        assert (place.x, place.y) == pytest.approx((x, y), abs=1e-9)
        assert math.remainder(place.yaw - yaw, math.tau) == pytest.approx(0.0, abs=1e-9)
        away = {
            key: np.hypot(other.points[:, 0] - x, other.points[:, 1] - y)
            for key, other in graph.lanes.items()
        }
        near = {key: int(np.argmin(d)) for key, d in away.items() if d.min() <= 2.0}
        found = graph.places_near(x, y, 2.0)
        assert {place.key for place in found} == set(near)
        for place in found:
            # Two points can be equally near.
            index = int(np.argmin(np.abs(graph.lanes[place.key].along - place.offset)))
            assert away[place.key][index] == pytest.approx(away[place.key].min(), abs=1e-9)
