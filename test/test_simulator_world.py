# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The embedded world: ticks, resets, events, repeatability, and a drive on every map."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import (
    FULL_BRAKE,
    Frame,
    Pose,
    Start,
    VehicleControl,
    WorldError,
)
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.map_files import MAPS_FOLDER, shipped_maps
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.traffic import FIRST_ACTOR_ID
from td3_driver.simulator.world import SimulatedWorld

WHEELBASE_M, MAX_STEERING_RAD = 2.87, math.radians(70.0)


@pytest.fixture(scope="module")
def world() -> SimulatedWorld:
    """One world on `ring_meadow` without traffic; every test resets it. Few look at its images."""
    return SimulatedWorld(SimulatorConfig(image_width_px=32, image_height_px=24))


road_map = cache(RoadMap.load)


def start_on(name: str, seed: int, length: float) -> Start:
    """Return the start that a seed draws."""
    return drawn_start(road_map(name), seed, length)


def drawn_start(place: RoadMap, seed: int, length: float) -> Start:
    """Return the start that a seed draws on a map that has been loaded."""
    pose, goal = place.random_start(np.random.default_rng(seed), length)
    return Start(place.name, pose, goal, seed)


def moved(pose: Pose, forward: float, left: float = 0.0, turned: float = 0.0) -> Pose:
    """Return a pose moved in its own axes and turned."""
    cosine, sine = math.cos(pose.yaw), math.sin(pose.yaw)
    return Pose(
        pose.x + forward * cosine - left * sine,
        pose.y + forward * sine + left * cosine,
        pose.yaw + turned,
    )


def deviation(frame: Frame) -> tuple[float, int]:
    """Return the distance from the route (metres, + = left) and the nearest point's index."""
    away = frame.route[:, :2] - (frame.pose.x, frame.pose.y)
    nearest = int(np.argmin(np.hypot(*away.T)))
    yaw = frame.route[nearest, 2]
    return float(away[nearest] @ (math.sin(yaw), -math.cos(yaw))), nearest


def pursuit(frame: Frame, speed: float = 5.0, ahead: int = 4) -> VehicleControl:
    """Drive towards a point of the route `ahead` metres on (pure pursuit)."""
    _, nearest = deviation(frame)
    x, y, _ = frame.route[min(nearest + ahead, len(frame.route) - 1)]
    rear = moved(frame.pose, -WHEELBASE_M / 2.0)
    bearing = math.atan2(y - rear.y, x - rear.x) - frame.pose.yaw
    distance = max(math.hypot(x - rear.x, y - rear.y), 1.0)
    angle = math.atan2(2.0 * WHEELBASE_M * math.sin(bearing), distance)
    error = speed - frame.speed
    return VehicleControl(
        throttle=float(np.clip(0.5 * error + 0.1, 0.0, 1.0)),
        brake=float(np.clip(-0.3 * error, 0.0, 1.0)),
        steer=float(np.clip(-angle / MAX_STEERING_RAD, -1.0, 1.0)),
    )


def test_frame_shows_the_state_after_the_command(world: SimulatedWorld) -> None:
    before = world.reset(start_on("ring_meadow", 0, 100.0))
    after = world.step(VehicleControl(throttle=1.0))
    assert before.speed == 0.0
    assert after.speed > 0.15
    assert after.frame == before.frame + 1
    assert after.stamp_ns - before.stamp_ns == 50_000_000
    assert after.control == VehicleControl(throttle=1.0)
    assert after.route is before.route
    # The command stays in force.
    assert world.tick().speed > after.speed


def test_reset_is_at_rest_on_the_route(world: SimulatedWorld) -> None:
    world.reset(start_on("ring_meadow", 1, 100.0))
    for _ in range(40):
        world.step(VehicleControl(throttle=1.0, steer=1.0))
    start = start_on("ring_meadow", 2, 100.0)
    frame = world.reset(start)
    assert frame.pose == start.pose
    assert (frame.speed, frame.yaw_rate) == (0.0, 0.0)
    assert frame.control == FULL_BRAKE
    assert len(frame.route) == 101
    assert deviation(frame) == (pytest.approx(0.0, abs=0.01), 0)
    assert frame.collisions == frame.lane_invasions == ()


def test_stamps_are_whole_ticks() -> None:
    world = SimulatedWorld(SimulatorConfig(fixed_delta_s=1.0 / 30.0))
    assert [world.tick().stamp_ns for _ in range(3)] == [33333333, 66666667, 100000000]


def test_load_map_restarts_time_but_not_the_frame_counter(world: SimulatedWorld) -> None:
    last = world.tick()
    world.load_map("ring_orchard")
    frame = world.tick()
    assert frame.frame == last.frame + 1
    assert frame.stamp_ns == 50_000_000
    assert world.road_map.name == "ring_orchard"
    assert len(frame.route) > 50
    place = world.road_map
    world.load_map("ring_meadow")
    world.load_map("ring_orchard")
    assert world.road_map is place


def test_map_can_be_a_path() -> None:
    world = SimulatedWorld(SimulatorConfig(map=str(MAPS_FOLDER / "ring_quarry.xodr")))
    assert world.road_map.name == "ring_quarry"


def test_teleport_keeps_velocity_and_plans_again(world: SimulatedWorld) -> None:
    frame = world.reset(start_on("ring_meadow", 0, 200.0))
    for _ in range(40):
        frame = world.step(pursuit(frame))
    world.teleport(Pose(*frame.route[100]))
    world.apply(VehicleControl())
    after = world.tick()
    assert after.speed == pytest.approx(frame.speed, abs=0.05)
    assert after.route is not frame.route
    assert len(after.route) == 101
    assert after.lane_invasions == ()


def test_set_velocity(world: SimulatedWorld) -> None:
    world.reset(start_on("ring_meadow", 0, 200.0))
    world.apply(VehicleControl())
    world.set_velocity(4.0, 0.5)
    frame = world.tick()
    assert frame.speed == pytest.approx(4.0, abs=0.05)
    assert frame.yaw_rate > 0.1


def test_acceleration_is_in_map_axes(world: SimulatedWorld) -> None:
    frame = world.reset(start_on("ring_meadow", 0, 200.0))
    world.step(VehicleControl(throttle=1.0))
    ax, ay, _ = world.acceleration
    assert math.hypot(ax, ay) == pytest.approx(3.85, abs=0.05)
    assert math.atan2(ay, ax) == pytest.approx(frame.pose.yaw, abs=0.01)


def test_goal_that_cannot_be_reached_keeps_the_route(world: SimulatedWorld) -> None:
    frame = world.reset(start_on("ring_meadow", 0, 200.0))
    oncoming = moved(Pose(*frame.route[50]), 0.0, left=3.5, turned=math.pi)
    goal = world.goal
    with pytest.raises(RoadMapError, match="no route"):
        world.set_goal(oncoming)
    assert world.goal is goal
    assert world.tick().route is frame.route
    world.set_goal(Pose(*frame.route[50]))
    assert len(world.tick().route) == 51


def test_wrong_starts_are_refused_in_words(world: SimulatedWorld) -> None:
    start = start_on("ring_meadow", 0, 100.0)
    with pytest.raises(WorldError, match="no map 'nowhere'"):
        world.reset(Start("nowhere", start.pose, start.goal))
    with pytest.raises(WorldError, match="must be finite"):
        world.teleport(Pose(math.nan, 0.0, 0.0))


@pytest.fixture(scope="module")
def quick_world() -> SimulatedWorld:
    """A world that takes about half as many ticks for a route."""
    return SimulatedWorld(
        SimulatorConfig(image_width_px=32, image_height_px=24, fixed_delta_s=0.09)
    )


@pytest.mark.long
@pytest.mark.parametrize("name", shipped_maps())
def test_a_loaded_map_has_a_route_at_once_and_pure_pursuit_completes_routes_in_its_lanes(
    name: str, quick_world: SimulatedWorld
) -> None:
    world = quick_world
    world.load_map(name)
    assert world.goal == world.road_map.spawn_poses(20.0)[0]
    assert len(world.tick().route) > 20
    for seed in (0, 1):
        frame = world.reset(drawn_start(world.road_map, seed, 150.0))
        worst = 0.0
        for _ in range(500):
            frame = world.step(pursuit(frame))
            away, nearest = deviation(frame)
            worst = max(worst, abs(away))
            if nearest >= len(frame.route) - 2:
                break
        assert nearest >= len(frame.route) - 2
        assert worst < 1.0


def _frames_hash(world: SimulatedWorld, start: Start, ticks: int) -> str:
    digest = hashlib.sha256()
    frame = world.reset(start)
    rng = np.random.default_rng(1)
    for _ in range(ticks):
        control = pursuit(frame)
        steer = float(np.clip(control.steer + rng.normal(0.0, 0.02), -1.0, 1.0))
        frame = world.step(VehicleControl(control.throttle, steer, control.brake))
        digest.update(frame.image.tobytes())
        digest.update(np.array([frame.pose.x, frame.pose.y, frame.pose.yaw, frame.speed]))
    return digest.hexdigest()


REPEATED = SimulatorConfig(map="grid_old_town", seed=5, traffic_vehicles=6)


def test_same_seed_and_commands_give_the_same_frames() -> None:
    start = start_on("grid_old_town", 4, 150.0)
    one, other = SimulatedWorld(REPEATED), SimulatedWorld(REPEATED)
    # Nothing that happened before a reset may matter after it.
    for _ in range(30):
        other.step(VehicleControl(throttle=1.0, steer=0.2))
    assert _frames_hash(one, start, 60) == _frames_hash(other, start, 60)


@pytest.mark.long
def test_fresh_process_gives_the_same_frames() -> None:
    start = start_on("grid_old_town", 4, 150.0)
    expected = _frames_hash(SimulatedWorld(REPEATED), start, 40)
    script = (
        "from test_simulator_world import REPEATED, SimulatedWorld, _frames_hash, start_on\n"
        "start = start_on('grid_old_town', 4, 150.0)\n"
        "print(_frames_hash(SimulatedWorld(REPEATED), start, 40))\n"
    )
    folder = os.path.dirname(__file__)
    path = os.pathsep.join([folder, os.path.dirname(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONHASHSEED": "123", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == expected


def test_seeds_change_the_looks() -> None:
    start = start_on("ring_meadow", 0, 100.0)
    images = [SimulatedWorld(SimulatorConfig(seed=seed)).reset(start).image for seed in (0, 1)]
    assert np.abs(images[0].astype(int) - images[1]).mean() > 2.0


def test_crossing_the_centre_line_is_one_event(world: SimulatedWorld) -> None:
    frame = world.reset(start_on("ring_meadow", 0, 200.0))
    events = []
    # Slowly across the centre line with all four corners, on what is a straight there.
    straight = next(
        index
        for index in range(len(frame.route) - 30)
        if np.ptp(np.unwrap(frame.route[index : index + 30, 2])) < 0.02
    )
    world.teleport(moved(Pose(*frame.route[straight]), 0.0, turned=0.25))
    world.set_velocity(4.0)
    for _ in range(100):
        frame = world.step(VehicleControl(throttle=0.04))
        events += frame.lane_invasions
        if frame.lane_invasions:
            assert frame.lane_invasions[0].stamp_ns == frame.stamp_ns
        if deviation(frame)[0] > 3.5:
            break
    assert [event.crossed_lane_markings for event in events] == [(1,)]


def test_leaving_the_road_crosses_a_solid_line_first(world: SimulatedWorld) -> None:
    world.reset(start_on("ring_meadow", 0, 200.0))
    world.teleport(moved(world.vehicle.pose, 0.0, turned=-0.2))
    world.set_velocity(4.0)
    crossed = []
    for _ in range(60):
        crossed += world.step(VehicleControl(throttle=0.05)).lane_invasions
    assert crossed[0].crossed_lane_markings == (2,)
    # The shoulder's outer edge has no marking: CARLA's type for that is 10.
    assert [event.crossed_lane_markings for event in crossed[1:]] == [(10,)]


def test_collision_stops_the_car_and_tells_the_impulse() -> None:
    world = SimulatedWorld(SimulatorConfig(traffic_vehicles=1))
    world.reset(start_on("ring_meadow", 0, 200.0))
    (other,) = world.traffic.vehicles
    other.stands_for_s = 100.0
    world.vehicle.pose = moved(other.pose, -12.0)
    world.set_velocity(8.0)
    collisions, fastest_after = [], 0.0
    for _ in range(40):
        frame = world.step(VehicleControl())
        collisions += frame.collisions
        if collisions:
            fastest_after = max(fastest_after, frame.speed)
    first = collisions[0]
    assert first.other_actor_id == FIRST_ACTOR_ID
    # (1 + 0.1) times the reduced mass of 1850 and 1500 kg times just under 8 m/s.
    assert first.impulse_ns == pytest.approx(1.1 * 828.0 * 7.8, rel=0.05)
    x, y, _ = first.normal_impulse
    push = (-x * math.cos(frame.pose.yaw) + y * math.sin(frame.pose.yaw)) / first.impulse_ns
    assert push == pytest.approx(1.0, abs=0.05)
    assert fastest_after < 4.5
    gap = math.dist((frame.pose.x, frame.pose.y), (other.pose.x, other.pose.y))
    assert gap >= 4.6
    assert world.reset(start_on("ring_meadow", 1, 200.0)).collisions == ()


def test_teleport_onto_another_vehicle_moves_that_one_away() -> None:
    world = SimulatedWorld(SimulatorConfig(traffic_vehicles=3))
    world.teleport(world.traffic.vehicles[1].pose)
    assert world.tick().collisions == ()
    assert len(world.traffic.vehicles) == 3
