# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The driver's process over real topics, in front of the embedded simulator."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from carla_graph import Observer, own_domain, ros_node, simulator_node
from diagnostic_msgs.msg import DiagnosticArray
from driver_runs import make_run, small_config
from node_process import NodeProcess, node_process
from rclpy.context import Context
from rclpy.parameter import Parameter
from standstill import measured, measurement

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import ns_from_stamp, pose_to_message
from td3_driver.bridge.run_state import RunCommand
from td3_driver.config import ConfigError, DrivingConfig
from td3_driver.deployment.export import export_run
from td3_driver.nodes.driver.node import DriverNode
from td3_driver.nodes.simulator.node import SimulatorNode
from td3_driver.roads.goals import goal_ahead
from td3_driver.roads.road_map import RoadMap

ROOT = Path(__file__).resolve().parent.parent
LIMITS = DrivingConfig()
TICK_S = 0.05
MESSAGES = "td3_driver_msgs"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", small_config()).path


class Drive:
    """The simulator, a driver, and somebody who watches both."""

    def __init__(self, simulator: SimulatorNode, driver: NodeProcess, watcher: Observer) -> None:
        self.simulator = simulator
        self.driver = driver
        self.watcher = watcher
        watcher.listen(
            topics.IMAGE,
            topics.ACKERMANN,
            topics.VEHICLE_CONTROL,
            topics.SPEEDOMETER,
            topics.GOAL,
            topics.WAYPOINTS,
        )

    def received(self, topic: topics.Topic) -> list[object]:
        return self.watcher.received[topic]

    def speed_commanded(self) -> float:
        commands = self.received(topics.ACKERMANN)
        return commands[-1].speed if commands else 0.0  # type: ignore[attr-defined]

    def wait_until_driving(self) -> None:
        self.watcher.wait(
            lambda: self.speed_commanded() > 1.0 and bool(self.received(topics.VEHICLE_CONTROL)),
            60.0,
        )


@contextmanager
def a_drive(run: Path, *parameters: str) -> Iterator[Drive]:
    with (
        simulator_node(own_domain()) as simulator,
        ros_node("watcher", own_domain()) as node,
        node_process("driver", f'run:="{run}"', *parameters) as driver,
    ):
        yield Drive(simulator, driver, Observer(node))


def test_one_command_within_limits_for_every_image(run: Path) -> None:
    def attempt() -> None:
        with a_drive(run, "random_goal:=false") as drive:
            drive.wait_until_driving()
            watch_commands(drive)

    measured(attempt)


def watch_commands(drive: Drive) -> None:
    drive.watcher.forget()
    drive.watcher.spin(2.0)
    images = [ns_from_stamp(image.header.stamp) for image in drive.received(topics.IMAGE)]
    pedals = drive.received(topics.VEHICLE_CONTROL)
    commands = drive.received(topics.ACKERMANN)
    answered = [ns_from_stamp(message.header.stamp) for message in pedals]
    assert len(images) > 30
    assert answered == sorted(set(answered))
    # What came at the beginning and at the end may be answered outside the two seconds; an image
    # may be lost where the machine stalls for two ticks, as its topic is best effort.
    assert len(set(images[3:-3]) - set(answered)) <= 2
    assert abs(len(commands) - len(pedals)) <= 3
    angles = np.array([command.steering_angle for command in commands])
    speeds = np.array([command.speed for command in commands])
    margin = 1e-6
    assert np.all(np.abs(angles) <= LIMITS.max_steering_angle_rad + margin)
    assert np.all(np.abs(np.diff(angles)) <= LIMITS.max_steering_rate_rps * TICK_S + margin)
    assert np.all((speeds >= 0.0) & (speeds <= LIMITS.max_speed_mps))
    assert np.all(np.diff(speeds) <= LIMITS.max_acceleration_mps2 * TICK_S + margin)
    assert all(0.0 <= message.throttle <= 1.0 for message in pedals)


@measurement
def test_a_simulator_that_runs_faster_than_real_time_is_no_clock_jump(run: Path) -> None:
    with (
        node_process("simulator", "simulator.realtime_factor:=5.0", domain=own_domain()),
        ros_node("watcher", own_domain()) as node,
        node_process("driver", f'run:="{run}"', "random_goal:=false"),
    ):
        watcher = Observer(node)
        faults: list[str] = []

        def on_diagnostics(message: DiagnosticArray) -> None:
            status = next(one for one in message.status if one.name == "driver: watchdog")
            faults.append({pair.key: pair.value for pair in status.values}["stops_clock_jump"])

        node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10)
        watcher.listen(topics.VEHICLE_CONTROL)
        pedals = watcher.received[topics.VEHICLE_CONTROL]
        watcher.wait(lambda: any(message.throttle > 0.0 for message in pedals), 60.0)
        reports = len(faults)
        watcher.wait(lambda: len(faults) >= reports + 3, 60.0)
    assert set(faults) == {"0"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@measurement
def test_the_last_command_is_a_stop(run: Path, number: signal.Signals) -> None:
    with a_drive(run, "random_goal:=false") as drive:
        drive.wait_until_driving()
        drive.driver.send_signal(number)
        drive.watcher.wait(lambda: drive.driver.poll() is not None, 60.0)
        assert drive.driver.returncode == 0
        drive.watcher.spin(0.2)
        assert drive.speed_commanded() == 0.0
        last = drive.received(topics.VEHICLE_CONTROL)[-1]
        assert (last.brake, last.throttle) == (1.0, 0.0)
        # The simulator keeps to it, with nobody there to repeat it.
        drive.watcher.wait(lambda: abs(drive.received(topics.SPEEDOMETER)[-1].data) < 0.05, 30.0)


def test_a_blind_car_is_stopped_and_drives_on_when_it_sees_again(run: Path) -> None:
    def attempt() -> None:
        with a_drive(run, "random_goal:=false") as drive:
            drive.wait_until_driving()
            blind(drive)
            drive.watcher.publish(topics.CONTROL, command=int(RunCommand.PLAY))
            drive.watcher.wait(lambda: drive.speed_commanded() > 1.0)

    measured(attempt)


def blind(drive: Drive) -> None:
    drive.watcher.publish(topics.CONTROL, command=int(RunCommand.PAUSE))
    images = drive.received(topics.IMAGE)

    def silence_s() -> float:
        nonlocal seen, last_s
        if len(images) != seen:
            seen, last_s = len(images), time.monotonic()
        return time.monotonic() - last_s

    seen, last_s = len(images), time.monotonic()
    drive.watcher.wait(lambda: silence_s() >= 0.0 and drive.speed_commanded() == 0.0)
    assert silence_s() < 0.5 + 0.25


@measurement
def test_a_new_goal_follows_at_the_end_of_the_route(run: Path) -> None:
    with a_drive(run, "random_goal:=true", "seed:=3") as drive:
        drive.wait_until_driving()
        near_end = drive.received(topics.WAYPOINTS)[-1].poses[-6].pose
        routes = len(drive.received(topics.WAYPOINTS))
        drive.watcher.publish(
            topics.SET_TRANSFORM, position=near_end.position, orientation=near_end.orientation
        )
        drive.watcher.wait(lambda: bool(drive.received(topics.GOAL)), 30.0)
        drive.watcher.wait(lambda: len(drive.received(topics.WAYPOINTS)) > routes + 1, 30.0)
        # A route of its own, which begins where the car is.
        begin = drive.received(topics.WAYPOINTS)[-1].poses[0].pose.position
        assert np.hypot(begin.x - near_end.position.x, begin.y - near_end.position.y) < 10.0
        drive.wait_until_driving()


def test_it_drives_with_an_exported_policy(run: Path) -> None:
    file = export_run(run, say=lambda line: None).path

    @measurement
    def drive_with_it() -> None:
        with a_drive(run, f'policy:="{file}"', "random_goal:=false") as drive:
            drive.wait_until_driving()

    drive_with_it()


@measurement
def test_the_baseline_drives_without_a_run() -> None:
    with (
        simulator_node(own_domain()) as simulator,
        ros_node("watcher", own_domain()) as node,
        node_process("driver", "baseline:=true", "random_goal:=false") as driver,
    ):
        drive = Drive(simulator, driver, Observer(node))
        drive.wait_until_driving()
        drive.watcher.wait(lambda: drive.speed_commanded() > 4.0, 20.0)


def test_a_driver_without_a_run_ends_with_the_reason_alone() -> None:
    # As users start it; the other tests fork.
    driver = subprocess.run(
        [sys.executable, "-m", "td3_driver.nodes.driver", "--ros-args", "-p", "run:=nonesuch"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert driver.returncode == 2
    assert "error: no run 'nonesuch'" in driver.stderr
    assert "Traceback" not in driver.stderr


def run_without_messages() -> None:
    """Run the driver as where nobody has built its messages; nothing of it is imported yet."""
    for name in [name for name in sys.modules if name.split(".")[0] == "td3_driver"]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys([n for n in sys.modules if n.startswith(MESSAGES)]))
    sys.modules[MESSAGES] = None  # type: ignore[assignment]
    importlib.import_module("td3_driver.nodes.driver.node").main()


def test_without_its_messages_it_ends_with_what_to_build() -> None:
    driver = NodeProcess("test_driver_node:run_without_messages", stderr=subprocess.PIPE)
    _, told = driver.communicate(timeout=60.0)
    assert driver.returncode == 2 and told is not None
    (line,) = told.splitlines()
    assert line.startswith("error: td3_driver_msgs/msg/PolicyInfo is not installed")
    assert "build interfaces/td3_driver_msgs" in line


@pytest.mark.parametrize(
    "parameters, reason",
    [
        ({"run": ""}, "name the run"),
        ({"driving.image_stack": 2}, "expects images"),
        ({"policy": "nonesuch.onnx"}, r"cannot read the policy: nonesuch\.onnx"),
        ({"driving.max_sped_mps": 2.0}, "there is no such setting"),
        ({"seed": "three"}, "seed"),
    ],
)
def test_a_driver_that_cannot_drive_says_why(
    parameters: dict[str, object], reason: str, run: Path
) -> None:
    overrides = [
        Parameter(name, value=value) for name, value in {"run": str(run), **parameters}.items()
    ]
    context = Context()
    context.init(args=[])
    try:
        with pytest.raises(ConfigError, match=reason):
            DriverNode(context, overrides).start()
    finally:
        context.try_shutdown()


@pytest.mark.parametrize("name", ["ring_meadow", "grid_old_town"])
def test_a_goal_lies_ahead_of_the_car(name: str) -> None:
    road_map = RoadMap.load(name)
    rng = np.random.default_rng(0)
    pose, _ = road_map.random_start(rng, 50.0)
    for _ in range(5):
        goal = goal_ahead(road_map, rng, pose, 120.0)
        assert 100.0 < len(road_map.route(pose, goal)) < 125.0
        assert pose_to_message(goal)
        pose = goal
