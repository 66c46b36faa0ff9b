# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The simulator's node as an independent client of the bridge's topics sees it."""

import itertools
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from carla_graph import (
    CONFIG,
    MAP,
    OTHER_MAP,
    Observer,
    own_domain,
    ros_node,
    simulator_node,
    simulator_process,
)
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.parameter import Parameter
from standstill import measured, time_to_end_s

from td3_driver.bridge import conversion, topics
from td3_driver.bridge.run_state import RunCommand
from td3_driver.driving.world import Pose, VehicleControl
from td3_driver.looks import Weather
from td3_driver.roads.road_map import RoadMap

STEP_NS = 50_000_000
STATUSES_OF_A_STEP = 3


@pytest.fixture(scope="module")
def graph(domain):
    with simulator_node(domain), ros_node("client", domain) as node:
        yield Observer(node)


@pytest.fixture
def client(graph):
    """A client of a simulator that plays, with the car at rest on its first map."""
    graph.publish(topics.CONTROL, command=int(RunCommand.PLAY))
    if current_map(graph) != MAP:
        assert set_map(graph, MAP).successful
    graph.publish(topics.MANUAL_OVERRIDE, data=False)
    drive(graph, brake=1.0, hand_brake=True)
    graph.publish(topics.SET_TARGET_VELOCITY)
    graph.listen_and_hear(topics.STATUS, topics.ODOMETRY)
    graph.wait(lambda: graph.received[topics.ODOMETRY][-1].twist.twist.linear.x == 0.0)
    graph.spin(0.1)
    graph.forget()
    return graph


def current_map(client):
    service = client.node.create_client(GetParameters, "/simulator/get_parameters")
    client.wait(service.service_is_ready)
    future = service.call_async(GetParameters.Request(names=["simulator.map"]))
    client.wait(future.done)
    return future.result().values[0].string_value


def states(client):
    """Return the statuses so far as (frame, running)."""
    return [
        (message.frame, message.synchronous_mode_running)
        for message in client.received[topics.STATUS]
    ]


def command(client, run_command):
    client.publish(topics.CONTROL, command=int(run_command))


def pause(client):
    """Pause a simulator that plays, and forget what came before."""
    client.listen_and_hear(topics.STATUS, topics.ODOMETRY)
    command(client, RunCommand.PAUSE)
    client.wait(lambda: bool(states(client)) and not states(client)[-1][1])
    client.spin(0.05)
    client.forget()


def step(client, count=1):
    """Step and return the odometry of each tick."""
    ticks = []
    for _ in range(count):
        client.forget()
        command(client, RunCommand.STEP_ONCE)
        client.wait(
            lambda: (
                len(states(client)) == STATUSES_OF_A_STEP
                and bool(client.received[topics.ODOMETRY])
            )
        )
        ticks.append(client.received[topics.ODOMETRY][-1])
    return ticks


def drive(client, topic=topics.VEHICLE_CONTROL, **control):
    """Publish a vehicle command and give it time to be there before the next step."""
    message = conversion.control_to_message(VehicleControl(**control))
    fields = message.get_fields_and_field_types()
    client.publish(topic, **{name: getattr(message, name) for name in fields})


def set_map(client, name):
    service = client.node.create_client(SetParameters, "/simulator/set_parameters")
    client.wait(service.service_is_ready)
    parameter = Parameter("simulator.map", value=name).to_parameter_msg()
    future = service.call_async(SetParameters.Request(parameters=[parameter]))
    client.wait(future.done)
    return future.result().results[0]


def test_topics_have_the_bridges_types_and_qos(client):
    for topic in topics.TOPICS:
        if topic in (topics.ENABLE_AUTOPILOT, topics.ACKERMANN):
            continue
        if topic.direction is topics.Direction.FROM_NODES:
            continue
        name = topic.name(CONFIG)
        if topic.direction is topics.Direction.FROM_SIMULATOR:
            look = client.node.get_publishers_info_by_topic
        else:
            look = client.node.get_subscriptions_info_by_topic
        client.wait(lambda look=look, name=name: len(look(name)) == 1)
        client.wait(lambda look=look, name=name: look(name)[0].node_name == "simulator")
        info = look(name)[0]
        profile = topic.bridge_qos.profile()
        assert info.topic_type == topic.type_name
        assert info.qos_profile.reliability == profile.reliability, name
        assert info.qos_profile.durability == profile.durability, name


def test_latched_topics_reach_who_comes_late(graph, domain):
    with ros_node("latecomer", domain) as node:
        _check_latched(Observer(node))


def _check_latched(client):
    latched = (topics.WORLD_INFO, topics.VEHICLE_INFO, topics.WAYPOINTS)
    client.listen(*latched)
    client.wait(lambda: all(client.received[topic] for topic in latched))
    world_info = client.received[topics.WORLD_INFO][0]
    assert world_info.map_name == MAP
    assert RoadMap.from_opendrive(MAP, world_info.opendrive).spawn_poses(20.0)
    assert len(client.received[topics.VEHICLE_INFO][0].wheels) == 4
    path = client.received[topics.WAYPOINTS][0]
    route = conversion.route_from_path(path)
    spacing = [math.hypot(*step) for step in route[1:, :2] - route[:-1, :2]]
    assert path.header.frame_id == "map" and max(spacing) == pytest.approx(1.0, abs=0.02)


def test_free_running_keeps_real_time(client):
    client.listen_and_hear(topics.CLOCK)

    def keep_time():
        client.spin(0.5)
        client.forget()
        start = time.monotonic()
        client.spin(1.5)
        expected = (time.monotonic() - start) / 0.05
        assert len(client.received[topics.CLOCK]) == pytest.approx(expected, rel=0.2)

    measured(keep_time)


def test_a_step_is_three_statuses_and_one_tick(client):
    pause(client)
    before = step(client)[0]
    frame = states(client)[0][0]
    assert states(client) == [(frame, True), (frame + 1, True), (frame + 1, False)]
    after = step(client)[0]
    assert states(client)[0] == (frame + 1, True)
    stamps = [conversion.ns_from_stamp(message.header.stamp) for message in (before, after)]
    assert stamps[1] - stamps[0] == STEP_NS


def test_pausing_a_paused_simulator_is_silent(client):
    pause(client)
    command(client, RunCommand.PAUSE)
    client.spin(0.3)
    assert states(client) == []


def test_play_goes_on_from_pause(client):
    pause(client)
    command(client, RunCommand.PLAY)
    client.wait(lambda: len(states(client)) >= 5)
    frame, running = states(client)[0]
    assert running and states(client)[1:4] == [(frame + n, True) for n in (1, 2, 3)]


def test_messages_of_a_tick_share_its_stamp(client):
    stamped = (topics.IMAGE, topics.CAMERA_INFO, topics.VEHICLE_STATUS, topics.ODOMETRY)
    client.listen_and_hear(topics.CLOCK, topics.SPEEDOMETER, *stamped[:-1])
    pause(client)
    step(client)
    client.wait(lambda: all(client.received.values()))
    clock = client.received[topics.CLOCK][0].clock
    headers = [client.received[topic][0].header for topic in stamped]
    assert all(header.stamp == clock for header in headers)
    assert headers[0] == headers[1] and headers[0].frame_id == "ego_vehicle/rgb_front"
    assert [header.frame_id for header in headers[2:]] == ["map", "map"]
    assert client.received[topics.ODOMETRY][0].child_frame_id == "ego_vehicle"
    image = client.received[topics.IMAGE][0]
    assert (image.encoding, image.width, image.height, image.step) == ("bgra8", 160, 120, 640)


def test_tf_places_the_car_in_the_map_and_the_camera_on_the_car(client):
    client.listen_and_hear(topics.TF)
    pause(client)
    odometry = step(client)[0]
    client.wait(lambda: bool(client.received[topics.TF]))
    car, camera = client.received[topics.TF][-1].transforms
    assert (car.header.frame_id, car.child_frame_id) == ("map", "ego_vehicle")
    assert car.header.stamp == odometry.header.stamp
    position = odometry.pose.pose.position
    assert (car.transform.translation.x, car.transform.translation.y) == (position.x, position.y)
    assert car.transform.rotation == odometry.pose.pose.orientation
    assert (camera.header.frame_id, camera.child_frame_id) == (
        "ego_vehicle",
        "ego_vehicle/rgb_front",
    )
    # The bridge's camera transform is optical: its z axis is the car's x axis.
    rotation = camera.transform.rotation
    z_axis_x = 2.0 * (rotation.x * rotation.z + rotation.w * rotation.y)
    assert z_axis_x == pytest.approx(1.0)
    assert camera.transform.translation.z == pytest.approx(1.7)


def test_a_command_stays_in_force(client):
    pause(client)
    drive(client, throttle=1.0)
    speeds = [tick.twist.twist.linear.x for tick in step(client, 5)]
    assert all(later > earlier for earlier, later in itertools.pairwise(speeds))


def test_steer_to_the_right_is_a_negative_yaw_rate(client):
    pause(client)
    drive(client, throttle=1.0, steer=0.3)
    last = step(client, 10)[-1]
    assert last.twist.twist.angular.z < -0.01


def test_manual_override_chooses_whose_commands_count(client):
    pause(client)
    client.publish(topics.MANUAL_OVERRIDE, data=True)
    drive(client, throttle=1.0)
    assert step(client, 2)[-1].twist.twist.linear.x == 0.0
    drive(client, topics.VEHICLE_CONTROL_MANUAL, throttle=1.0)
    assert step(client)[-1].twist.twist.linear.x > 0.0
    client.publish(topics.MANUAL_OVERRIDE, data=False)
    drive(client, topics.VEHICLE_CONTROL_MANUAL, brake=1.0)
    before, after = step(client, 2)
    assert after.twist.twist.linear.x > before.twist.twist.linear.x


def test_a_teleport_keeps_the_velocity_and_plans_anew(client):
    pause(client)
    drive(client, throttle=1.0)
    route = client.route()
    before = step(client, 10)[-1]
    pose = Pose(*route[50])
    message = conversion.pose_to_message(pose)
    client.forget()
    client.publish(
        topics.SET_TRANSFORM, position=message.position, orientation=message.orientation
    )
    client.wait(lambda: bool(client.received[topics.WAYPOINTS]))
    route = client.route()
    assert math.hypot(route[0, 0] - pose.x, route[0, 1] - pose.y) < 1.0
    after = step(client)[0]
    assert after.twist.twist.linear.x == pytest.approx(before.twist.twist.linear.x, abs=0.3)
    position = after.pose.pose.position
    assert math.hypot(position.x - pose.x, position.y - pose.y) < 1.0


def test_target_velocity_turns_right_for_plus(client):
    pause(client)
    message = conversion.target_velocity_to_message(5.0, yaw_rate_rps=-0.5)
    assert message.angular.z == 0.5
    client.publish(topics.SET_TARGET_VELOCITY, linear=message.linear, angular=message.angular)
    twist = step(client)[0].twist.twist
    assert twist.linear.x == pytest.approx(5.0, abs=0.6)
    assert twist.angular.z < -0.1


def test_a_goal_brings_a_route_to_it(client):
    pause(client)
    route = client.route()
    goal = Pose(*route[len(route) // 2])
    client.forget()
    client.publish(topics.GOAL, pose=conversion.pose_to_message(goal))
    client.wait(lambda: bool(client.received[topics.WAYPOINTS]))
    route = client.route()
    assert math.hypot(route[-1, 0] - goal.x, route[-1, 1] - goal.y) < 1.5


def brightness(client):
    client.listen_and_hear(topics.IMAGE)
    return float(conversion.image_from_message(client.received[topics.IMAGE][-1])[..., :3].mean())


def test_a_weather_acts_until_another_map_is_loaded(client):
    before = brightness(client)
    night = conversion.weather_to_message(Weather(sun_altitude_angle=-50.0))
    fields = night.get_fields_and_field_types()
    client.publish(topics.WEATHER, **{name: getattr(night, name) for name in fields})
    client.wait(lambda: brightness(client) < 0.5 * before)
    # One that cannot be is refused, and the simulator goes on.
    client.publish(topics.WEATHER, cloudiness=math.nan)
    client.spin(0.2)
    assert brightness(client) < 0.5 * before
    assert set_map(client, OTHER_MAP).successful
    client.wait(lambda: brightness(client) > 0.7 * before)


def test_another_map_restarts_the_clock(client):
    pause(client)
    step(client, 3)
    client.listen(topics.WORLD_INFO)
    client.route()
    client.wait(lambda: topics.WORLD_INFO in client.latest)
    client.forget()
    assert set_map(client, OTHER_MAP).successful
    client.wait(
        lambda: bool(client.received[topics.WORLD_INFO] and client.received[topics.WAYPOINTS])
    )
    assert client.received[topics.WORLD_INFO][-1].map_name == OTHER_MAP
    assert conversion.ns_from_stamp(step(client)[0].header.stamp) == STEP_NS


def test_a_map_that_is_none_is_refused_with_its_reason(client):
    result = set_map(client, "no such place")
    assert not result.successful and "no map 'no such place'" in result.reason
    client.listen_and_hear(topics.CLOCK)


@pytest.mark.parametrize(
    "number, paused", [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGINT, True)]
)
def test_signals_end_it_in_good_order(number, paused):
    measured(lambda: end_by(number, paused))


def end_by(number, paused):
    domain = own_domain()
    simulator = simulator_process(domain) if paused else as_users_do()
    try:
        with ros_node("client", domain) as node:
            client = Observer(node)
            client.listen_and_hear(topics.STATUS)
            if paused:
                pause(client)
        simulator.send_signal(number)
        assert time_to_end_s(simulator.pid, 30.0) < 1.0
        _, errors = simulator.communicate(timeout=30.0)
        assert simulator.returncode == 0
        assert "Traceback" not in errors
    finally:
        simulator.kill()


def as_users_do():
    """Start the simulator as users do."""
    return subprocess.Popen(
        [sys.executable, "-m", "td3_driver.nodes.simulator"],
        cwd=Path(__file__).resolve().parent.parent,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_wrong_setting_ends_it_in_plain_words():
    simulator = simulator_process(own_domain(), "simulator.map:=no_such_place")
    _, errors = simulator.communicate(timeout=60.0)
    assert simulator.returncode == 2
    assert "error: no map 'no_such_place'" in errors and "Traceback" not in errors
