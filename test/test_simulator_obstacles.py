# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Obstacles on the route: where they are, what they do, how they are seen and hit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from td3_driver.config import Config, ConfigError, ObstacleKind, SimulatorConfig, load, override
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import PRIVILEGED, Observation, grey_image
from td3_driver.driving.route import RouteTracker
from td3_driver.driving.world import FULL_BRAKE, Pose, Start, VehicleControl
from td3_driver.evaluation.rollout import drive_episode
from td3_driver.evaluation.suite_drives import ObservedWorld
from td3_driver.roads import trial
from td3_driver.roads.road_map import RoadMap
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.obstacles import FIRST_ACTOR_ID
from td3_driver.simulator.shapes import Rectangle, overlap
from td3_driver.simulator.traffic import Traffic
from td3_driver.simulator.world import SimulatedWorld

MAP = "ring_meadow"
ROAD = RoadMap.load(MAP)
COASTING = VehicleControl(throttle=0.1)


def start(seed: int, length_m: float = 250.0) -> Start:
    """Return the start on the ring that a seed draws."""
    pose, goal = ROAD.random_start(np.random.default_rng(seed), length_m)
    return Start(MAP, pose, goal, seed)


STRAIGHT = (
    '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="straight"/>'
    '<road name="" length="300" id="1" junction="-1"><planView>'
    '<geometry s="0" x="0" y="0" hdg="0" length="300"><line/></geometry></planView>'
    '<lanes><laneSection s="0"><center><lane id="0" type="none"/></center><right>'
    '<lane id="-1" type="driving"><width sOffset="0" a="3.5" b="0" c="0" d="0"/></lane></right>'
    "</laneSection></lanes></road></OpenDRIVE>"
)
LANE_Y = -1.75
BEGIN_X = 20.0
"""The straight route begins here and leads along x."""


UNSEEN = {"image_width_px": 32, "image_height_px": 24}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of a map with one straight lane; it is not tried in a process of its own."""
    path = tmp_path_factory.mktemp("maps") / "straight.xodr"
    path.write_text(STRAIGHT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trial, "check", lambda name, opendrive: None)
        yield str(path)


def on_straight(
    path: str, *kinds: ObstacleKind, at_m: float = 50.0, seed: int = 3, looked_at: bool = False
) -> SimulatedWorld:
    """Return a world with one obstacle on the straight, `at_m` ahead of the car; or none.

    Its images are the usual ones only where they are `looked_at`.
    """
    config = SimulatorConfig(
        map=path,
        obstacles=len(kinds),
        obstacle_kinds=kinds or ("parked",),
        obstacle_spacing_min_m=at_m,
        obstacle_spacing_max_m=at_m,
        **({} if looked_at else UNSEEN),
    )
    world = SimulatedWorld(config)
    world.reset(Start(path, Pose(BEGIN_X, LANE_Y, 0.0), Pose(280.0, LANE_Y, 0.0), seed))
    return world


def put_at(world: SimulatedWorld, x: float, speed: float = 0.0) -> None:
    """Move the car along the straight lane."""
    world.vehicle.pose = Pose(x, LANE_Y, 0.0)
    world.set_velocity(speed)


@pytest.fixture(scope="module")
def world() -> SimulatedWorld:
    """A world with up to 8 obstacles of the usual kinds, 35 to 60 m apart."""
    return SimulatedWorld(SimulatorConfig(map=MAP, obstacles=8, **UNSEEN))


def along_and_aside(world: SimulatedWorld) -> list[tuple[float, float]]:
    """Return where along the route all obstacles are, and how far to its left, metres."""
    found = []
    for pose in (other.pose for other in world.others):
        place = RouteTracker(world.route).project(pose)
        found.append((place.progress_m, place.lateral_m))
    return sorted(found)


def test_they_stand_on_the_route_at_distances_within_the_range(world: SimulatedWorld) -> None:
    seen = set()
    for seed in range(12):
        world.reset(start(seed))
        places = along_and_aside(world)
        # 250 m hold four of 60 m each, and less than eight of 35 m.
        assert 4 <= len(places) <= 6
        # A point of the route is 1 m from the next, and slow ones have moved for a tick.
        steps = np.diff([0.0, *(along for along, _ in places)])
        assert steps.min() >= 35.0 - 1.2 and steps.max() <= 60.0 + 1.2
        assert places[-1][0] <= 250.0 - 10.0
        for one, other in zip(world.others, world.others[1:], strict=False):
            assert overlap(one.outline, other.outline) is None
        for body in world.obstacles.bodies:
            place = RouteTracker(world.route).project(body.pose)
            assert body.kind == "parked"
            assert 0.99 <= abs(place.lateral_m) <= 1.41
            seen.add(place.lateral_m > 0.0)
    assert seen == {True, False}


def test_the_seed_draws_them_whatever_was_before(world: SimulatedWorld) -> None:
    def drawn(world: SimulatedWorld, seed: int) -> list[tuple[float, ...]]:
        world.reset(replace(start(0), seed=seed))
        return [(each.actor_id, each.pose.x, each.pose.y, *each.colour) for each in world.others]

    first = drawn(world, 5)
    for _ in range(20):
        world.step(VehicleControl(throttle=1.0))
    assert drawn(world, 6) != first
    assert drawn(world, 5) == first
    assert drawn(SimulatedWorld(world.config), 5) == first


def test_there_are_none_by_default_and_everything_else_is_the_same() -> None:
    plain = SimulatedWorld(SimulatorConfig(map=MAP, traffic_vehicles=3))
    frame = plain.reset(start(1))
    assert plain.obstacles.poses == []
    traffic = Traffic(ROAD)
    traffic.populate(3, np.random.default_rng([0, 1]), start(1).pose)
    traffic.step(0.05, Rectangle(frame.pose, 4.8, 1.9), 0.0)
    assert [each.pose for each in plain.others] == [each.pose for each in traffic.vehicles]


def test_the_image_differs_only_where_the_obstacle_is(straight: str) -> None:
    world = on_straight(straight, "parked", at_m=26.0, looked_at=True)
    (parked,) = world.others
    with_it = world.step(FULL_BRAKE).image
    changed = (with_it != on_straight(straight, looked_at=True).step(FULL_BRAKE).image).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    k = world.intrinsics
    # The rear is nearest to the camera, which is 1.5 m ahead of the car's middle and 1.7 m up.
    assert parked.pose.x == pytest.approx(BEGIN_X + 26.0)
    rear_m, left_m = 26.0 - 4.5 / 2.0 - 1.5, parked.pose.y - LANE_Y
    sides = [k.cx - k.focal * (left_m + half) / rear_m for half in (0.925, -0.925)]
    assert columns[0] >= sides[0] - 1.5 and columns[-1] == pytest.approx(sides[1], abs=1.5)
    assert rows[-1] == pytest.approx(k.cy + k.focal * 1.7 / rear_m, abs=2.0)
    assert rows[0] == pytest.approx(k.cy + k.focal * (1.7 - 1.5) / rear_m, abs=2.0)


def test_a_policy_can_see_one_25_m_ahead_in_what_it_observes(straight: str) -> None:
    """In the usual 84 x 84 it is 80 / 25 * 1.85 * 84 / 160 = 3.1 pixels wide, and 3.4 high."""
    size = Config().driving.image_size_px
    for seed in range(6):
        at_m = 25.0 + 1.5 + 4.5 / 2.0
        world = on_straight(straight, "parked", at_m=at_m, seed=seed, looked_at=True)
        images = [
            grey_image(each.step(FULL_BRAKE).image, size).astype(int)
            for each in (world, on_straight(straight, looked_at=True))
        ]
        assert (np.abs(images[0] - images[1]) >= 10).sum() >= 7


def test_who_drives_straight_on_hits_a_parked_one_with_the_right_impulse(straight: str) -> None:
    world = on_straight(straight, "parked")
    put_at(world, BEGIN_X + 30.0, speed=6.0)
    (parked,) = world.others
    frame = world.step(COASTING)
    while not frame.collisions:
        before = frame.speed
        frame = world.step(COASTING)
    (hit,) = frame.collisions
    assert hit.other_actor_id == parked.actor_id == FIRST_ACTOR_ID
    # Met at its rear: (1 + 0.1) times the reduced mass of 1850 and 1500 kg times the speed.
    assert hit.impulse_ns == pytest.approx(1.1 * 828.4 * before, rel=0.02)
    assert parked.speed == pytest.approx(hit.impulse_ns / 1500.0, rel=0.01)
    # 2.25 m and 2.4 m from the middles to the bumpers.
    gap_m = parked.pose.x - frame.pose.x
    assert gap_m == pytest.approx(4.65, abs=0.05)


def test_a_slow_one_keeps_its_speed_until_somebody_has_followed_it(straight: str) -> None:
    world = on_straight(straight, "slow")
    (slow,) = world.others
    hesitation, begin_x = slow.hesitation, slow.pose.x
    assert 1.0 <= hesitation.speed <= 3.0
    for _ in range(100):
        world.step(FULL_BRAKE)
    assert slow.pose.x - begin_x == pytest.approx(5.0 * hesitation.speed, rel=0.02)
    assert not hesitation.noticed
    ticks = 0
    assert 8.0 <= hesitation.left_s <= 15.0
    wait_s = hesitation.left_s
    while slow.hesitation is not None:
        put_at(world, slow.pose.x - 15.0)
        world.step(FULL_BRAKE)
        assert slow.speed == pytest.approx(hesitation.speed, rel=0.02)
        ticks += 1
    assert ticks * 0.05 == pytest.approx(wait_s, abs=0.06)
    for _ in range(60):
        world.step(FULL_BRAKE)
    assert slow.speed > 4.0


def test_a_standing_one_drives_on_some_seconds_after_the_car_has_come(straight: str) -> None:
    world = on_straight(straight, "standing")
    (standing,) = world.others
    for _ in range(100):
        world.step(FULL_BRAKE)
    assert standing.speed == 0.0 and not standing.hesitation.noticed
    assert standing.pose.y == pytest.approx(LANE_Y)
    wait_s = standing.hesitation.left_s
    # Who waits behind it is not stuck.
    assert 2.0 <= wait_s <= 5.0 < Config().driving.stuck_time_s
    put_at(world, standing.pose.x - 12.0)
    ticks = 0
    while standing.speed == 0.0:
        world.step(FULL_BRAKE)
        ticks += 1
    assert ticks * 0.05 == pytest.approx(wait_s, abs=0.11)


@pytest.mark.parametrize("kind, mass_kg", [("crossing", 1500.0), ("pedestrian", 75.0)])
def test_who_crosses_is_hit_by_a_car_that_drives_straight_on(
    kind: ObstacleKind, mass_kg: float, straight: str
) -> None:
    sides = set()
    for seed in range(4):
        world = on_straight(straight, kind, at_m=80.0, seed=seed)
        (body,) = world.others
        sides.add(body.pose.y > LANE_Y)
        assert abs(body.pose.y - LANE_Y) > 3.3
        put_at(world, BEGIN_X + 30.0, speed=6.0)
        frame = world.step(COASTING)
        while not frame.collisions:
            assert frame.pose.x < BEGIN_X + 90.0
            before = frame.speed
            frame = world.step(VehicleControl(throttle=0.1 if frame.speed < 6.0 else 0.0))
        (hit,) = frame.collisions
        assert hit.other_actor_id == body.actor_id
        # It moves across, so the car's speed alone closes the gap between them.
        reduced_kg = 1850.0 * mass_kg / (1850.0 + mass_kg)
        assert hit.impulse_ns == pytest.approx(1.1 * reduced_kg * before, rel=0.05)
    assert sides == {True, False}


@pytest.mark.parametrize("kind, told", [("crossing", "vehicle"), ("pedestrian", "pedestrian")])
def test_an_evaluation_tells_what_was_hit(kind: ObstacleKind, told: str, straight: str) -> None:
    world = on_straight(straight, kind, at_m=80.0)
    observed = ObservedWorld(world, collision_impulse_ns=1.0)
    observed.reset(Start(straight, Pose(BEGIN_X, LANE_Y, 0.0), Pose(280.0, LANE_Y, 0.0), 3))
    put_at(world, BEGIN_X + 30.0, speed=6.0)
    while not observed.step(COASTING).collisions:
        assert world.vehicle.pose.x < BEGIN_X + 90.0
    assert observed.trace.hit == {FIRST_ACTOR_ID: told}


@pytest.mark.parametrize("kind", ["crossing", "pedestrian"])
def test_who_crosses_does_so_before_a_car_that_brakes(kind: ObstacleKind, straight: str) -> None:
    for seed in range(4):
        world = on_straight(straight, kind, at_m=80.0, seed=seed)
        (body,) = world.others
        begin_y, place_x = body.pose.y - LANE_Y, body.pose.x
        put_at(world, BEGIN_X + 30.0, speed=6.0)
        while not body.crossing.begun:
            assert body.pose.y - LANE_Y == begin_y
            world.step(VehicleControl(throttle=0.1 if world.vehicle.speed < 6.0 else 0.0))
        for _ in range(250):
            assert not world.step(FULL_BRAKE).collisions
        # It has gone straight to the other side, and stands.
        assert (body.pose.y - LANE_Y) * begin_y < 0.0 and body.speed == 0.0
        assert body.pose.x == pytest.approx(place_x)
        assert world.vehicle.pose.x < place_x - 3.0


def test_one_that_crosses_stops_for_a_car_in_its_way(straight: str) -> None:
    world = on_straight(straight, "pedestrian", at_m=80.0)
    (walker,) = world.others
    put_at(world, walker.pose.x)
    for _ in range(150):
        assert not world.step(FULL_BRAKE).collisions
    assert walker.speed == 0.0
    # Half of the car's width and half of its own length, and less than 1 m between.
    assert 0.0 < abs(walker.pose.y - LANE_Y) - 0.95 - 0.2 < 1.0


def test_others_steer_round_a_parked_one_and_wait_for_a_standing_one(
    world: SimulatedWorld,
) -> None:
    ego = Rectangle(Pose(1e4, 1e4, 0.0), 4.8, 1.9)  # out of everybody's way
    for seed in range(4):
        world.reset(start(seed))
        traffic, obstacles = world.traffic, world.obstacles
        for tick in range(1000):
            traffic.step(0.05, ego, 0.0, obstacles.in_the_way, obstacles.to_pass)
            if tick % 10 == 0:
                for number, one in enumerate(world.others):
                    for other in world.others[number + 1 :]:
                        assert overlap(one.outline, other.outline) is None


def test_a_route_from_a_topic_brings_its_own_and_none_vanishes_before_a_driver() -> None:
    world = SimulatedWorld(SimulatorConfig(map=MAP, obstacles=8, obstacle_kinds=("parked",)))
    begin = start(2)
    world.teleport(begin.pose)
    world.set_goal(begin.goal)
    first = [body.pose for body in world.obstacles.bodies]
    assert len(first) >= 4
    # The same route has the same ones, whatever has been driven before.
    world.teleport(start(3).pose)
    world.teleport(begin.pose)
    world.set_goal(begin.goal)
    assert [body.pose for body in world.obstacles.bodies] == first
    world.set_velocity(6.0)
    for _ in range(20):
        world.step(COASTING)
    world.set_goal(Pose(*world.route[200]))
    assert first[0] in [body.pose for body in world.obstacles.bodies]
    ids = [body.actor_id for body in world.obstacles.bodies]
    assert len(set(ids)) == len(ids)
    world.load_map("ring_orchard")
    assert all(pose not in first for pose in world.obstacles.poses)


def test_a_wrong_spacing_is_told() -> None:
    with pytest.raises(ConfigError, match="must not be below obstacle_spacing_min_m"):
        override(Config(), {"simulator.obstacle_spacing_max_m": 30.0}, "a test")


def test_the_task_can_be_driven_and_not_without_seeing() -> None:
    # Neither driver looks at an image.
    plain = {"simulator.image_width_px": 32, "simulator.image_height_px": 24}
    # As in the suite: in training they are denser.
    usual = {
        "simulator.obstacle_spacing_min_m": 35.0,
        "simulator.obstacle_spacing_max_m": 60.0,
        "simulator.obstacle_kinds": ["parked", "standing", "slow"],
    }
    settings = {**plain, **usual, "driving.advice": True}
    config = override(load("obstacles"), settings, "the test")
    world = SimulatedWorld(config.simulator)
    maps = ("ring_lakeside", "grid_new_town")
    sampler = StartSampler(maps, 150.0)
    starts = [sampler.on_map(name, seed) for seed in (1, 2) for name in maps]
    env = DrivingEnv(world, lambda _: starts[0], config.driving)

    def as_advised(observation: Observation) -> np.ndarray:
        return observation[PRIVILEGED][-2:]

    told = [drive_episode(env, as_advised, start).summary for start in starts]
    assert [summary.ended_by for summary in told] == ["route_end"] * 4
    follower = RouteFollower(config.driving)
    blind = [drive_episode(env, follower.act, start).summary for start in starts]
    assert [summary.ended_by for summary in blind] == ["collision"] * 4
