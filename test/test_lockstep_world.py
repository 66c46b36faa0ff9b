# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The lock-step over topics, against the simulator's node."""

import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from carla_graph import (
    CONFIG,
    MAP,
    OTHER_MAP,
    Observer,
    close_to,
    make_start,
    own_domain,
    ros_node,
    simulator_node,
    simulator_process,
)
from gymnasium.utils.env_checker import check_env
from standstill import measured

from td3_driver.bridge import conversion, topics
from td3_driver.bridge.run_state import RunCommand
from td3_driver.config import CarlaConfig, DrivingConfig, SimulatorConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import FULL_BRAKE, Start, VehicleControl, WorldError
from td3_driver.lockstep.counters import Counters
from td3_driver.lockstep.episode_weather import EpisodeWeather
from td3_driver.lockstep.rivals import Rivals
from td3_driver.lockstep.world import CarlaWorld
from td3_driver.looks import NAMED, episode_look
from td3_driver.roads.map_files import MAPS_FOLDER
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

FORWARD = VehicleControl(throttle=0.5)


@pytest.fixture
def world(connected, monkeypatch):
    """A world whose counters start at zero."""
    monkeypatch.setattr(connected.lock_step, "counters", Counters())
    return connected


@pytest.fixture(scope="module")
def bystander(simulator, domain):
    with ros_node("observer", domain) as node:
        yield Observer(node)


@pytest.fixture
def observer(bystander):
    bystander.forget()
    return bystander


def weaving(steps):
    """Return commands that cross lane markings, all of them exact in float32."""
    return [
        VehicleControl(throttle=0.75, steer=float(np.float32(0.25 * math.sin(n / 8.0))))
        for n in range(steps)
    ]


def as_sent(start):
    """Return the start with its pose as it comes out of a message."""
    pose = conversion.pose_from_message(conversion.pose_to_message(start.pose))
    return Start(start.map_name, pose, start.goal)


def assert_same(frame, other):
    """Compare two frames exactly, as far as messages can carry them."""
    np.testing.assert_array_equal(frame.image, other.image)
    pose = conversion.pose_from_message(conversion.pose_to_message(other.pose))
    assert frame.pose == pose
    assert frame.speed == np.float32(other.speed)
    assert frame.yaw_rate == other.yaw_rate
    assert [event.crossed_lane_markings for event in frame.lane_invasions] == [
        event.crossed_lane_markings for event in other.lane_invasions
    ]


def test_steps_are_those_of_the_same_world_in_process(world):
    start = make_start()
    in_process = SimulatedWorld(SimulatorConfig())
    first, second = world.reset(start), in_process.reset(as_sent(start))
    np.testing.assert_allclose(first.route, second.route, atol=1e-9)
    frames = [(first, second)]
    invasions = 0
    for control in weaving(120):
        frames.append((world.step(control), in_process.step(control)))
        assert frames[-1][0].clean and frames[-1][0].control == control
        invasions += len(frames[-1][0].lane_invasions)
    for frame, other in frames:
        assert_same(frame, other)
    assert invasions > 0
    numbers = [frame.frame for frame, _ in frames]
    assert numbers == list(range(numbers[0], numbers[0] + 121))
    stamps = np.diff([frame.stamp_ns for frame, _ in frames])
    assert (stamps == 50_000_000).all()
    assert all(frame.route is first.route for frame, _ in frames)


def test_gymnasiums_own_check_passes_over_topics(world, monkeypatch):
    # The check closes its environment, which here is shared with the other tests.
    monkeypatch.setattr(world, "close", lambda: None)
    starts = StartSampler([MAP, OTHER_MAP], 60.0)
    env = DrivingEnv(world, starts, DrivingConfig(), render_mode="rgb_array")
    check_env(env)
    assert world.counters.ticks > 20
    assert (world.counters.action_misses, world.counters.incomplete_ticks) == (0, 0)


def test_two_runs_are_the_same(world):
    start = make_start(seed=3)
    runs = []
    for _ in range(2):
        frames = [world.reset(start)] + [world.step(control) for control in weaving(40)]
        runs.append([(f.image.tobytes(), f.pose, f.speed, f.yaw_rate, f.control) for f in frames])
    assert runs[0] == runs[1]


def test_reset_puts_the_car_at_rest_on_a_route_to_the_goal(world):
    for seed in range(3):
        start = make_start(seed=seed)
        world.reset(start)
        for control in weaving(15):
            world.step(control)
        frame = world.reset(start)
        assert frame.clean and close_to(frame.pose, start.pose) and abs(frame.speed) < 0.01
        assert math.hypot(*(frame.route[0, :2] - (start.pose.x, start.pose.y))) < 1.5
        assert math.hypot(*(frame.route[-1, :2] - (start.goal.x, start.goal.y))) < 1.5
        assert frame.lane_invasions == () and frame.collisions == ()
    assert world.counters.action_misses == 0


def test_steer_is_plus_to_the_right_from_end_to_end(world):
    world.reset(make_start())
    for _ in range(15):
        frame = world.step(VehicleControl(throttle=0.75, steer=0.3))
    assert frame.yaw_rate < -0.01


def test_a_route_elsewhere_is_asked_for_in_plain_words(world, monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.world.ROUTE_TIMEOUT_S", 0.2)
    monkeypatch.setattr("td3_driver.lockstep.world.ROUTE_TICK_S", 0.1)
    start = make_start()
    behind = Start(MAP, start.pose, _reversed(start.pose))
    with pytest.raises(WorldError, match="no route on /carla/ego_vehicle/waypoints"):
        world.reset(behind)


def _reversed(pose):
    """Return a pose in the middle of nowhere."""
    return type(pose)(pose.x + 5000.0, pose.y + 5000.0, pose.yaw)


def test_maps_change_with_the_start(world, simulator):
    assert world.map_name == MAP
    world.reset(make_start())
    start = make_start(OTHER_MAP)
    frame = world.reset(start)
    assert world.map_name == world.road_map.name == OTHER_MAP
    assert close_to(frame.pose, start.pose)
    assert frame.stamp_ns < 1_000_000_000
    assert world.step(FORWARD).clean


def test_maps_of_one_name_are_told_apart_by_what_is_in_them(world, tmp_path):
    """Also of a name with a dot in it."""
    paths = []
    for folder, shipped in (("v1", MAP), ("v2", OTHER_MAP)):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "town.v3.xodr"
        paths.append(str(shutil.copy(MAPS_FOLDER / f"{shipped}.xodr", path)))
    starts = StartSampler(paths, 60.0)
    for path in (*paths, paths[0]):
        start = starts.on_map(path, 0)
        assert close_to(world.reset(start).pose, start.pose)
        assert world.map_name == "town.v3"
        assert world.road_map.opendrive == start.opendrive == Path(path).read_text()
    assert world.counters.starts_refused == 0


def test_a_map_whose_file_has_changed_under_the_simulator_is_an_error_in_words(world):
    start = StartSampler([MAP], 60.0).on_map(MAP, 0)
    world.reset(start)
    edited = replace(start, opendrive=start.opendrive + "\n")
    with pytest.raises(WorldError, match=r"another map 'ring_meadow' .* start the simulator anew"):
        world.reset(edited)


def test_a_map_that_is_none_is_refused(world):
    start = make_start()
    with pytest.raises(WorldError, match=r"cannot load map 'no such place': .*not a file"):
        world.reset(Start("no such place", start.pose, start.goal))


def test_carla_keeps_its_town(world, monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.town.SIMULATOR_NODE", "/carla_ros_bridge")
    monkeypatch.setattr("td3_driver.lockstep.town.SERVICE_DISCOVERY_S", 0.1)
    with pytest.raises(WorldError, match=r"map is 'ring_.*' and the episode's is 'Town05'"):
        world.reset(Start("Town05", make_start().pose, make_start().goal))


def test_somebody_elses_step_is_noticed_and_who_it_is(world, observer, monkeypatch):
    """Such as a second trainer in the same graph."""
    monkeypatch.setattr("td3_driver.lockstep.rivals.LOOK_PERIOD_S", 0.0)
    world.reset(make_start())
    observer.listen(topics.STATUS)
    while not observer.received[topics.STATUS]:
        before = world.step(FORWARD)
        observer.spin(0.1)
    observer.publish(topics.CONTROL, command=int(RunCommand.STEP_ONCE))
    observer.wait(
        lambda: any(
            status.frame > before.frame and not status.synchronous_mode_running
            for status in observer.received[topics.STATUS]
        )
    )
    frame = world.step(FORWARD)
    assert not frame.clean and "somebody else" in frame.reason
    assert "observer publishes /carla/control" in world.rivals.line
    after = world.step(FORWARD)
    assert after.clean and after.frame == frame.frame + 1
    assert world.counters.frame_jumps == 1


def test_another_simulator_and_another_trainer_of_the_same_name_are_named(monkeypatch):
    said, names = [], {"/carla/control": ["trainer"], "/carla/status": ["simulator"]}
    node = SimpleNamespace(
        get_fully_qualified_name=lambda: "/trainer",
        get_logger=lambda: SimpleNamespace(warning=said.append),
        get_publishers_info_by_topic=lambda topic: [
            SimpleNamespace(node_name=name, node_namespace="/") for name in names.get(topic, [])
        ],
    )
    rivals = Rivals(node, CarlaConfig())
    rivals.look()
    assert rivals.line == "" and not said
    for name in names.values():
        name *= 2
    rivals.look()
    assert rivals.line == ""  # It does not look all the time.
    monkeypatch.setattr("td3_driver.lockstep.rivals.LOOK_PERIOD_S", 0.0)
    for _ in range(2):
        rivals.look()
        assert rivals.line == (
            "trainer publishes /carla/control; simulator (2 of this name) publish /carla/status"
        )
    assert len(said) == 1 and rivals.line in said[0]


def test_a_simulator_that_was_played_is_held_again(world, observer):
    world.reset(make_start())
    observer.listen(topics.STATUS)
    observer.publish(topics.CONTROL, command=int(RunCommand.PLAY))
    observer.wait(lambda: len(observer.received[topics.STATUS]) > 2)
    assert not world.step(FORWARD).clean
    frames = [world.step(FORWARD) for _ in range(3)]
    assert all(frame.clean for frame in frames)
    assert frames[-1].frame == frames[0].frame + 2


def test_a_command_that_was_not_in_force_is_noticed(world, observer):
    world.reset(make_start())
    observer.publish(topics.MANUAL_OVERRIDE, data=True)
    observer.publish(
        topics.VEHICLE_CONTROL_MANUAL,
        throttle=0.25,
    )
    observer.spin(0.1)
    frame = world.step(FORWARD)
    assert not frame.clean and "was in force instead of" in frame.reason
    assert frame.control.throttle == 0.25
    assert world.counters.action_misses == 1
    assert world.reset(make_start()).clean and world.step(FORWARD).clean


def test_a_lost_step_is_sent_once_more(world, monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.lock_step.STEP_ANSWER_S", 0.1)
    before = world.reset(make_start())
    send = world.lock_step.send
    sent = []

    def lose_the_first(command):
        sent.append(command)
        if len(sent) > 1:
            send(command)

    monkeypatch.setattr(world.lock_step, "send", lose_the_first)
    frame = world.step(FORWARD)
    assert frame.clean and frame.frame == before.frame + 1
    assert sent == [RunCommand.STEP_ONCE] * 2
    assert world.counters.steps_resent == 1


def test_a_simulator_that_has_not_heard_pause_is_told_again(world, monkeypatch):
    """As one that is started while it is waited for."""
    monkeypatch.setattr("td3_driver.lockstep.lock_step.PAUSE_ANSWER_S", 0.2)
    world.reset(make_start())
    world.lock_step.play()
    send, sent = world.lock_step.send, []

    def lose_the_first(command):
        sent.append(command)
        if len(sent) > 1:
            send(command)

    monkeypatch.setattr(world.lock_step, "send", lose_the_first)
    world.lock_step.pause(20.0)
    assert len(sent) > 1 and set(sent) == {RunCommand.PAUSE}
    assert world.step(FORWARD).clean


def test_a_missing_image_is_flagged_and_then_an_error(world, simulator, monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.lock_step.SENSOR_GRACE_S", 0.1)
    before = world.reset(make_start())
    monkeypatch.setattr(simulator.publications, "camera", lambda frame: None)
    frame = world.step(FORWARD)
    assert not frame.clean and "/carla/ego_vehicle/rgb_front/image" in frame.reason
    assert frame.image is before.image and frame.frame == before.frame + 1
    world.step(FORWARD)
    with pytest.raises(WorldError, match="came without /carla/ego_vehicle/rgb_front/image"):
        world.step(FORWARD)
    monkeypatch.undo()


@pytest.fixture
def own_simulator():
    """The test's domain, with a simulator in it that only this test uses."""
    with simulator_node(own_domain()):
        yield own_domain()


@pytest.fixture
def own_observer(own_simulator):
    with ros_node("observer", own_domain()) as node:
        yield Observer(node)


def test_a_paused_simulator_is_taken_over(own_simulator, own_observer, monkeypatch):
    observer = own_observer
    monkeypatch.setattr("td3_driver.lockstep.lock_step.PAUSE_ANSWER_S", 0.3)
    observer.listen_and_hear(topics.STATUS)
    observer.publish(topics.CONTROL, command=int(RunCommand.PAUSE))
    observer.wait(lambda: not observer.received[topics.STATUS][-1].synchronous_mode_running)
    with ros_node("agent", own_domain()) as node:
        world = CarlaWorld(node, CONFIG)
        assert world.fixed_delta_s == 0.05
        assert world.reset(make_start()).clean
        world.close()


def test_close_brakes_and_plays(own_simulator, own_observer):
    observer = own_observer
    observer.listen_and_hear(topics.STATUS, topics.VEHICLE_STATUS)
    with ros_node("agent", own_domain()) as node:
        world = CarlaWorld(node, CONFIG)
        world.reset(make_start())
        last = [world.step(FORWARD) for _ in range(10)][-1]
        world.close()
        observer.wait(
            lambda: (
                observer.received[topics.STATUS][-1].frame > last.frame + 3
                and observer.received[topics.VEHICLE_STATUS][-1].velocity < 0.01
            )
        )
    status = observer.received[topics.VEHICLE_STATUS][-1]
    assert conversion.control_from_message(status.control) == FULL_BRAKE


def test_the_weather_of_an_episode_goes_out_where_it_begins(own_simulator, own_observer):
    observer = own_observer
    observer.listen(topics.WEATHER)
    with ros_node("agent", own_domain()) as node:
        world = CarlaWorld(node, CONFIG)
        day = world.reset(make_start()).image[..., :3].mean()
        world.close()
        observer.spin(0.2)
        assert not observer.received[topics.WEATHER]
    with ros_node("agent", own_domain()) as node:
        world = CarlaWorld(node, CONFIG, looks=SimulatorConfig(look="dusk"))
        dusk = world.reset(make_start()).image[..., :3].mean()
        # The observer may be found later than the simulator is.
        observer.wait(
            lambda: bool(observer.received[topics.WEATHER]) or not world.reset(make_start())
        )
        world.close()
    # Down to float32, what was sent is what the embedded simulator shows in the first frame.
    message = observer.latest[topics.WEATHER]
    assert conversion.weather_from_message(message) == NAMED["dusk"].weather
    assert dusk < 0.6 * day


def test_the_weather_is_drawn_for_each_episode_and_needs_no_listener(monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.episode_weather.DISCOVERY_S", 0.01)
    looks = SimulatorConfig(looks="strong")
    warned, waited = [], []
    with ros_node("agent", own_domain()) as node:
        lock_step = SimpleNamespace(spin_until=lambda *_: waited.append(1))
        weather = EpisodeWeather(node, CONFIG, lock_step, looks)
        monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(warning=warned.append))
        published = []
        monkeypatch.setattr(weather, "_publisher", SimpleNamespace(publish=published.append))
        for seed in (1, 2, 1):
            weather.begin(replace(make_start(), seed=seed))
    assert published[0] == published[2] != published[1]
    drawn = episode_look(looks, 1, MAP).weather
    assert published[0] == conversion.weather_to_message(drawn)
    assert len(waited) == len(warned) == 1
    assert "nobody listens to /carla/weather_control" in warned[0]


def test_no_simulator_is_said_with_its_topics():
    missing = r"/carla/control.*/carla/status.*ROS_DOMAIN_ID"
    with ros_node("agent", own_domain()) as node, pytest.raises(WorldError, match=missing):
        CarlaWorld(node, CarlaConfig(startup_timeout_s=0.3))


def test_another_role_name_is_said_with_its_topics(simulator, domain):
    config = CarlaConfig(startup_timeout_s=1.0, role_name="hero")
    missing = r"/carla/hero/odometry.*role name is 'hero'"
    with ros_node("hero", domain) as node, pytest.raises(WorldError, match=missing):
        CarlaWorld(node, config)


def test_a_simulator_killed_in_mid_step_is_an_error_in_time():
    measured(kill_in_mid_step)


def kill_in_mid_step():
    domain = own_domain()
    simulator = simulator_process(domain)
    try:
        with ros_node("agent", domain) as node:
            world = CarlaWorld(
                node, CarlaConfig(startup_timeout_s=60.0, step_timeout_s=1.0, outage_timeout_s=0.0)
            )
            world.reset(make_start())
            # Stopped first, so that the step is surely under way when it dies.
            os.kill(simulator.pid, signal.SIGSTOP)
            killer = threading.Timer(0.2, simulator.kill)
            killer.start()
            start_s = world.lock_step.now_s()
            with pytest.raises(WorldError, match=r"/carla/status.*is it still running"):
                world.step(FORWARD)
            assert world.lock_step.now_s() - start_s < 2.0
            world.close()
    finally:
        simulator.kill()
        simulator.communicate()
