# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Where episodes start in a town: at random, as listed, along the published route."""

import math
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from carla_graph import (
    CONFIG,
    MAP,
    OTHER_MAP,
    Observer,
    close_to,
    own_domain,
    ros_node,
    simulator_process,
)
from nav_msgs.msg import Odometry
from trainer_process import Trainer

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import pose_to_message
from td3_driver.config import ConfigError, DrivingConfig, TrainingConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import FULL_BRAKE, Pose, WorldError
from td3_driver.lockstep.lock_step import SimulatorLostError
from td3_driver.lockstep.starts import (
    STARTS_FOLDER,
    ListedStarts,
    TownStarts,
    find_starts,
    make_sampler,
    read_starts,
    town_of,
)
from td3_driver.lockstep.world import CarlaWorld
from td3_driver.roads.map_files import MAPS_FOLDER
from td3_driver.roads.road_map import RoadMap

FILE = """
ring_meadow:
  - start: {x_m: -72.9, y_m: -30.6, yaw_deg: 48.6}
    goal: {x_m: -30.8, y_m: 51.2, yaw_deg: 25.8}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "starts.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
def town():
    """A world of which only the map is there."""
    return SimpleNamespace(map_name=f"Carla/Maps/{MAP}", road_map=RoadMap.load(MAP))


def draw(sampler, count=20, seed=0):
    rng = np.random.default_rng(seed)
    return [sampler(rng) for _ in range(count)]


def test_random_starts_are_on_the_reported_towns_roads(town):
    starts = draw(TownStarts(town, 80.0))
    assert starts == draw(TownStarts(town, 80.0)) != draw(TownStarts(town, 80.0), seed=1)
    for start in starts:
        assert start.map_name == "Carla/Maps/ring_meadow"
        assert close_to(start.pose, town.road_map.on_lane(start.pose), 0.01)
        assert len(town.road_map.route(start.pose, start.goal)) == pytest.approx(81, abs=2)


def test_listed_starts_are_the_files(town, file):
    start = draw(ListedStarts(town, str(file), 80.0), 1)[0]
    assert (start.pose.x, start.pose.y) == (-72.9, -30.6)
    assert start.pose.yaw == pytest.approx(math.radians(48.6))
    assert (start.goal.x, start.goal.y) == (-30.8, 51.2)


def test_a_start_without_a_goal_gets_one_ahead(town, file):
    file.write_text("ring_meadow: [{start: {x_m: -72.9, y_m: -30.6, yaw_deg: 48.6}}]")
    starts = draw(ListedStarts(town, str(file), 60.0), 5)
    for start in starts:
        assert len(town.road_map.route(start.pose, start.goal)) == pytest.approx(61, abs=2)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[", "is not YAML"),
        ("[1, 2]", "the file: .*dictionary"),
        ("ring_meadow: []", "no starts for ring_meadow"),
        ("{}", "no starts for any town"),
        ("ring_meadow: [{start: {x_m: 1, y_m: 2}}]", "ring_meadow, entry 1, start, yaw_deg"),
        ("ring_meadow: [{start: {x: 1, y_m: 2, yaw_deg: 0}}]", "entry 1, start, x: Extra"),
        ("Town05: [{start: {x_m: 1, y_m: 2, yaw_deg: 0}}]", "no starts in ring_meadow.*Town05"),
        (
            "ring_meadow: [{start: {x_m: 900, y_m: 2, yaw_deg: 0}}]",
            r"entry 1, start is 8\d\d.* m from the nearest lane.*opposite sign of CARLA",
        ),
        (
            "ring_meadow: [{start: {x_m: -72.9, y_m: -30.6, yaw_deg: -131.4}}]",
            "entry 1, start faces against its lane, which leads to 4",
        ),
        (
            "ring_meadow: [{start: {x_m: -72.9, y_m: -30.6, yaw_deg: 48.6}, "
            "goal: {x_m: -75.5, y_m: -28.3, yaw_deg: 228.6}}]",
            "ring_meadow, entry 1: .*no",
        ),
    ],
)
def test_a_wrong_file_is_an_error_that_says_where(town, file, text, words):
    file.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        ListedStarts(town, str(file), 80.0)
    assert str(file) in str(caught.value)


def test_the_shipped_files_can_be_read():
    for path in STARTS_FOLDER.glob("*.yaml"):
        assert find_starts(path.stem) == path and read_starts(path)
    assert "Town01" in read_starts(find_starts("carla_towns"))
    with pytest.raises(ConfigError, match=r"no file 'nowhere', nor one of .*carla_towns"):
        find_starts("nowhere")


def test_layered_maps_are_the_town():
    names = ("Town01", "Carla/Maps/Town01", "Carla/Maps/Town01_Opt", "/maps/Town01.xodr")
    assert {town_of(name) for name in names} == {"Town01"}
    assert town_of("maps/town.v3.xodr") == town_of("town.v3") == "town.v3"


def test_places_have_the_height_of_the_road():
    text = (MAPS_FOLDER / f"{MAP}.xodr").read_text()
    raised = re.sub(
        r"<elevationProfile\s*/>|<elevationProfile>.*?</elevationProfile>",
        '<elevationProfile><elevation s="0" a="7.5" b="0" c="0" d="0"/></elevationProfile>',
        text,
        flags=re.DOTALL,
    )
    if raised == text:
        raised = text.replace(
            "</planView>",
            '</planView><elevationProfile><elevation s="0" a="7.5" b="0" c="0" d="0"/>'
            "</elevationProfile>",
        )
    road_map = RoadMap.from_opendrive("raised", raised)
    start, goal = road_map.random_start(np.random.default_rng(0), 60.0)
    assert start.z == goal.z == pytest.approx(7.5)
    assert road_map.on_lane(Pose(start.x, start.y, start.yaw)).z == pytest.approx(7.5)
    assert RoadMap.load(MAP).on_lane(start).z == 0.0


@pytest.fixture(scope="module")
def agent(domain):
    with ros_node("agent", domain) as node:
        yield node


@pytest.fixture(scope="module")
def world(simulator, agent):
    world = CarlaWorld(agent, CONFIG)
    yield world
    world.close()


def reset(world, config, seed=0):
    env = DrivingEnv(world, make_sampler(config, world), DrivingConfig())
    _, info = env.reset(seed=seed)
    return info["start"], env.frame


@pytest.mark.parametrize("starts", ["town", "listed"])
def test_episodes_start_there_with_a_route_to_the_goal(world, starts):
    config = TrainingConfig(starts=starts, route_length_m=60.0)
    for seed in range(3):
        start, frame = reset(world, config, seed)
        assert frame.clean and close_to(frame.pose, start.pose)
        assert math.hypot(*(frame.route[-1, :2] - (start.goal.x, start.goal.y))) < 1.5


def test_along_the_published_route_no_goal_is_asked_for(world, simulator):
    reset(world, TrainingConfig(starts="town", route_length_m=150.0), 3)
    goal, whole = simulator.world.goal, simulator.world.route
    sampler = make_sampler(TrainingConfig(starts="route", route_length_m=60.0), world)
    starts = draw(sampler)
    assert len({(start.pose.x, start.pose.y) for start in starts}) > 10
    for start in starts[:4]:
        frame = world.reset(start)
        assert frame.clean and close_to(frame.pose, start.pose)
        assert frame.route is world.step(FULL_BRAKE).route
        assert len(frame.route) == pytest.approx(61, abs=2)
        gaps = np.hypot(*(whole[:, None, :2] - frame.route[None, :, :2]).transpose(2, 0, 1))
        assert gaps.min(axis=0).max() < 1e-6
    assert simulator.world.goal == goal


def test_routes_can_be_planned_here(world, simulator, agent, monkeypatch):
    monkeypatch.setattr(world, "config", CONFIG.model_copy(update={"route_planner": "own"}))
    goal = simulator.world.goal
    start, frame = reset(world, TrainingConfig(starts="town", route_length_m=60.0), 5)
    route = RoadMap.load(MAP).route(start.pose, start.goal)
    np.testing.assert_allclose(frame.route, route, atol=1e-9)
    assert simulator.world.goal == goal


def test_nobody_who_plans_routes_is_an_error(world, monkeypatch):
    config = CONFIG.model_copy(update={"startup_timeout_s": 0.1})
    monkeypatch.setattr(world, "config", config)
    silent = SimpleNamespace(get_subscription_count=lambda: 0)
    monkeypatch.setattr(world, "goals", silent)
    with pytest.raises(WorldError, match=r"no subscriber\).*No node plans.*planner to own"):
        reset(world, TrainingConfig(starts="town"))


def test_a_car_on_its_side_is_no_start(world):
    message = Odometry()
    message.pose.pose.orientation = pose_to_message(Pose(0.0, 0.0, 1.0)).orientation
    world.inbox.messages[topics.ODOMETRY] = message
    assert world.placement.tilt() == ""
    turned = message.pose.pose.orientation
    turned.x, turned.y, turned.z, turned.w = math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)
    assert world.placement.tilt() == "it is tilted by 1.57 rad"


def test_a_town_that_changes_while_the_simulator_is_away_is_another_start(
    world, simulator, monkeypatch
):
    """As when CARLA's bridge is started again with another town."""
    monkeypatch.setattr("td3_driver.lockstep.town.SIMULATOR_NODE", "/carla_ros_bridge")
    monkeypatch.setattr("td3_driver.lockstep.town.SERVICE_DISCOVERY_S", 0.1)
    teleport, lost = world.placement.teleport, []

    def lose_once(pose):
        if not lost:
            lost.append(pose)
            simulator.world.load_map(OTHER_MAP)
            simulator.announce_map()
            raise SimulatorLostError("it is gone.")
        return teleport(pose)

    monkeypatch.setattr(world.placement, "teleport", lose_once)
    monkeypatch.setattr(
        world.lock_step, "config", CONFIG.model_copy(update={"outage_timeout_s": 20.0})
    )
    start, frame = reset(world, TrainingConfig(starts="town", route_length_m=60.0))
    assert start.map_name == world.map_name == OTHER_MAP and close_to(frame.pose, start.pose)
    assert world.counters.starts_refused == 1


@pytest.mark.timeout(180)
def test_the_trainer_learns_in_the_town_it_finds(tmp_path):
    """A town of which this package ships no map, as CARLA's are."""
    town = shutil.copy(MAPS_FOLDER / f"{MAP}.xodr", tmp_path / "Town99.xodr")
    simulator = simulator_process(own_domain(), f"simulator.map:={town}")
    parameters = {
        "training__starts": "town",
        "training__total_steps": "60",
        "training__route_length_m": "60.0",
    }
    trainer = Trainer(tmp_path / "run", **parameters)
    try:
        with ros_node("monitor", own_domain()) as node:
            observer = Observer(node)
            observer.listen(topics.WORLD_INFO)
            trainer.wait_for("60 steps")
            assert trainer.wait() == 0
            observer.wait(lambda: topics.WORLD_INFO in observer.latest)
            assert observer.latest[topics.WORLD_INFO].map_name == "Town99"
    finally:
        trainer.kill()
        simulator.kill()
        simulator.communicate()
