# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A driver's states, live reload, shadow mode and what it tells, in front of a scripted car."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from carla_graph import CONFIG, Observer, own_domain, ros_node, simulator_node
from diagnostic_msgs.msg import DiagnosticArray
from driver_runs import add_checkpoint, make_run, small_config
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from node_process import NodeProcess, parameters
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from safetensors.torch import load_file, save_file
from scripted_car import HEARD, ScriptedCar
from standstill import measured, measurement
from std_srvs.srv import Trigger
from td3_driver_msgs.msg import PolicyInfo, PolicyOutput, ShadowDisagreement

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import control_to_message, ns_from_stamp
from td3_driver.driving.world import VehicleControl
from td3_driver.learning.manifest import seal
from td3_driver.learning.policy import WEIGHTS
from td3_driver.runs import RunFolder

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def driver_process(
    run: RunFolder,
    log: Path,
    *assignments: str,
    entry: str = "td3_driver.nodes.driver.node:main",
    first: str = "",
    patience_s: float = 0.2,
) -> Iterator[NodeProcess]:
    """Run a driver that waits for so long for its car to stand: a scripted one never does."""
    patience = f"driver.standstill_timeout_s:={patience_s}"
    arguments = parameters(f'run:="{run.path}"', "random_goal:=false", patience, *assignments)
    if first:
        arguments.insert(0, first)
    with log.open("wb") as stderr:
        process = NodeProcess(entry, arguments, stderr=stderr)
    try:
        yield process
    finally:
        process.end()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", small_config(), critic=True)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def node() -> Iterator[Node]:
    with ros_node("car", own_domain()) as node:
        yield node


@pytest.fixture
def car(node: Node) -> Iterator[ScriptedCar]:
    car = ScriptedCar(node)
    car.start()
    yield car
    car.end()


def hear(node: Node, kind: Any, name: str, latched: bool = False) -> list[Any]:
    heard: list[Any] = []
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    node.create_subscription(kind, name, heard.append, QoSProfile(depth=10, durability=durability))
    return heard


# States


class Manager:
    """Takes a driver through its states, as lifecycle managers do."""

    def __init__(self, watcher: Observer) -> None:
        self._watcher = watcher
        self._change = watcher.node.create_client(ChangeState, "/driver/change_state")
        self._get = watcher.node.create_client(GetState, "/driver/get_state")
        self._meet()

    def _meet(self) -> None:
        """Have the driver find the clients: answers sent before that are lost.

        It finds them in the order in which they were made, so the last one's answer is enough.
        """
        self._watcher.wait(self._get.service_is_ready, 100.0)
        asked = [self._get.call_async(GetState.Request())]

        def answered() -> bool:
            if time.monotonic() > asked_s[-1] + 2.0:
                asked.append(self._get.call_async(GetState.Request()))
                asked_s.append(time.monotonic())
            return any(future.done() for future in asked)

        asked_s = [time.monotonic()]
        self._watcher.wait(answered, 100.0)

    def _call(self, client: Any, request: Any) -> Any:
        self._watcher.wait(client.service_is_ready, 100.0)
        future = client.call_async(request)
        self._watcher.wait(future.done, 100.0)
        return future.result()

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self._call(self._change, request).success)

    @property
    def state(self) -> int:
        return int(self._call(self._get, GetState.Request()).current_state.id)


@measurement
def test_a_lifecycle_manager_takes_it_through_its_states(run: RunFolder, log: Path) -> None:
    with (
        simulator_node(own_domain()) as simulator,
        ros_node("manager", own_domain()) as node,
        driver_process(run, log, "autostart:=false", patience_s=10.0) as driver,
    ):
        watcher = Observer(node, CONFIG)
        watcher.listen(*HEARD)
        manager = Manager(watcher)
        commands = watcher.received[topics.ACKERMANN]
        assert manager.state == State.PRIMARY_STATE_UNCONFIGURED
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        watcher.spin(0.5)
        assert manager.state == State.PRIMARY_STATE_INACTIVE and not commands
        for _ in range(2):
            assert manager.change(Transition.TRANSITION_ACTIVATE)
            watcher.wait(lambda: bool(commands) and commands[-1].speed > 1.0)
            watcher.wait(lambda: simulator.speed > 1.0)
            assert manager.change(Transition.TRANSITION_DEACTIVATE)
            # It stands when the answer comes, and nothing is commanded from then on.
            assert abs(simulator.speed) < 0.15
            watcher.wait(lambda: commands[-1].speed == 0.0)
            watcher.wait(lambda: watcher.latest[topics.VEHICLE_CONTROL].brake == 1.0)
            watcher.spin(0.3)  # what is on its way still comes
            count = len(commands)
            watcher.spin(0.4)
            assert len(commands) == count
        assert manager.change(Transition.TRANSITION_CLEANUP)
        assert manager.state == State.PRIMARY_STATE_UNCONFIGURED
        # Others hear of it some time after the answer.
        watcher.wait(lambda: node.count_publishers(topics.ACKERMANN.name(CONFIG)) == 0)
        assert node.count_publishers(topics.ACKERMANN.name(CONFIG)) == 0
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_ACTIVATE)
        watcher.wait(lambda: commands[-1].speed > 1.0)
        assert manager.change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
        watcher.wait(lambda: driver.poll() is not None)
        assert driver.returncode == 0 and commands[-1].speed == 0.0
        errors = [line for line in log.read_text().splitlines() if "[ERROR]" in line]
        # On a busy machine it stalls, and says so.
        assert not [line for line in errors if "(driver_stalled)" not in line]


def test_it_is_not_configured_with_a_damaged_policy_and_says_why(
    run: RunFolder, log: Path
) -> None:
    weights = run.checkpoints / "000000001" / WEIGHTS
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with ros_node("manager", own_domain()) as node, driver_process(run, log, "autostart:=false"):
        manager = Manager(Observer(node, CONFIG))
        assert not manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.state == State.PRIMARY_STATE_UNCONFIGURED
        assert "is damaged" in log.read_text()
        weights.write_bytes(good)
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.state == State.PRIMARY_STATE_INACTIVE


@measurement
def test_limits_of_time_and_random_goals_change_while_it_drives(
    run: RunFolder, log: Path, car: ScriptedCar, node: Node
) -> None:
    client = node.create_client(SetParameters, "/driver/set_parameters")

    def change(name: str, value: object) -> SetParametersResult:
        parameter = Parameter(name, value=value).to_parameter_msg()
        future = client.call_async(SetParameters.Request(parameters=[parameter]))
        assert car.wait(future.done, 20.0)
        return future.result().results[0]

    with driver_process(run, log):
        assert car.wait(car.told_to_drive, 100.0), log.read_text()
        refused = change("driver.camera_timeout_s", 0.9)
        assert not refused.successful
        # Shorter than from one image to the next: the car stands.
        assert change("driver.camera_timeout_s", 0.01).successful
        commands = car.commands[topics.ACKERMANN]
        assert car.wait(lambda: commands[-1][1].speed == 0.0, 20.0)
        assert car.wait(lambda: "camera_silent" in log.read_text(), 20.0)
        assert change("driver.resume_delay_s", 0.1).successful
        assert change("driver.camera_timeout_s", 0.3).successful
        assert car.wait(lambda: commands[-1][1].speed > 0.0, 20.0)
        goals = topics.GOAL.name(CONFIG)
        assert not node.get_publishers_info_by_topic(goals)
        assert change("random_goal", True).successful
        assert car.wait(lambda: bool(node.get_publishers_info_by_topic(goals)), 20.0)
        assert change("random_goal", False).successful
        assert not change("seed", 3).successful  # read once


# Live reload


def wait_for_policy(
    car: ScriptedCar, policies: list[PolicyInfo], *, refused_reason: str = "", **expected: object
) -> PolicyInfo:
    def as_expected() -> bool:
        if not policies:
            return False
        latest = policies[-1]
        refused = refused_reason in latest.refused_reason
        return refused and all(getattr(latest, name) == value for name, value in expected.items())

    assert car.wait(as_expected, 60.0), policies and policies[-1]
    return policies[-1]


def damage(checkpoint: Path) -> None:
    weights = checkpoint / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-8])


def poison(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / WEIGHTS)
    tensors["head.0.bias"][:] = float("nan")
    save_file(tensors, checkpoint / WEIGHTS)
    seal(checkpoint)


def test_a_newer_checkpoint_is_taken_over_between_two_frames(
    log: Path, car: ScriptedCar, node: Node, tmp_path: Path
) -> None:
    tries = itertools.count(1)
    measured(lambda: exchange_policies(tmp_path / f"try {next(tries)}", log, car, node))


def exchange_policies(folder: Path, log: Path, car: ScriptedCar, node: Node) -> None:
    """Have a driver take over a newer checkpoint and refuse bad ones, without missing an image."""
    run = make_run(folder / "run", small_config(), critic=True)
    elsewhere = make_run(folder / "elsewhere", small_config())
    policies = hear(node, PolicyInfo, "/driver/policy", latched=True)
    with driver_process(run, log, "driver.watch_period_s:=0.1"):
        assert car.wait(car.told_to_drive, 100.0), log.read_text()
        first = wait_for_policy(car, policies, step=1, has_critic=True)
        assert first.refused_reason == first.refused_path == ""
        car.spin(0.5)
        begin_s = time.monotonic()
        add_checkpoint(run, 2, seed=1, critic=True)
        second = wait_for_policy(car, policies, step=2)
        car.spin(0.3)
        assert first.actor_sha256 != second.actor_sha256
        # A bad one is refused, whatever is wrong with it, and the old one drives on.
        for step, spoil, reason in ((3, damage, "damaged"), (4, poison, "not finite")):
            bad = add_checkpoint(elsewhere, step)
            spoil(bad)
            bad.rename(run.checkpoints / bad.name)
            told = wait_for_policy(car, policies, step=2, refused_reason=reason)
            assert told.refused_path == str(run.checkpoints / bad.name)
        car.spin(0.5)
        end_s = time.monotonic()
        # Not one image in all this time is left without its command.
        answered = {
            ns_from_stamp(message.header.stamp)
            for at, message in car.commands[topics.VEHICLE_CONTROL]
            if message.throttle or not message.brake
        }
        asked = {ns for ns, at in car.images_s.items() if begin_s < at < end_s - 0.2}
        assert len(asked) > 10 and len(asked - answered) <= 2
        commands = car.commands[topics.ACKERMANN]
        assert all(message.speed > 0.0 for at, message in commands if at > begin_s)


@measurement
def test_it_can_be_told_to_look_for_a_newer_checkpoint(
    log: Path, car: ScriptedCar, node: Node, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", small_config(), critic=True)
    policies = hear(node, PolicyInfo, "/driver/policy", latched=True)
    reload = node.create_client(Trigger, "/driver/reload")

    def ask() -> Trigger.Response:
        future = reload.call_async(Trigger.Request())
        assert car.wait(future.done, 5.0)
        return future.result()

    with driver_process(run, log, "driver.watch_checkpoints:=false"):
        assert car.wait(car.told_to_drive, 100.0), log.read_text()
        answer = ask()
        assert not answer.success and "nothing newer than 000000001" in answer.message
        add_checkpoint(run, 2, seed=1)
        car.spin(0.5)
        wait_for_policy(car, policies, step=1)
        assert ask().success
        wait_for_policy(car, policies, step=2, has_critic=False)


# Shadow mode


@measurement
def test_a_shadow_commands_nothing_and_says_how_it_differs(
    run: RunFolder, log: Path, car: ScriptedCar, node: Node
) -> None:
    shadow = hear(node, topics.ACKERMANN.message_type, "/driver/shadow/ackermann_cmd")
    pedals = hear(node, topics.VEHICLE_CONTROL.message_type, "/driver/shadow/vehicle_control_cmd")
    disagreements = hear(node, ShadowDisagreement, "/driver/shadow/disagreement")
    status = node.create_publisher(
        topics.VEHICLE_STATUS.message_type, topics.VEHICLE_STATUS.name(CONFIG), 10
    )
    others = node.create_publisher(
        topics.ACKERMANN.message_type, topics.ACKERMANN.name(CONFIG), 10
    )
    with driver_process(run, log, "driver.shadow:=true"):
        # Somebody drives by hand: full throttle, a quarter to the left.
        car.override(True)
        human = VehicleControl(throttle=1.0, steer=-0.25)
        message = topics.VEHICLE_STATUS.message_type(control=control_to_message(human))
        deadline = time.monotonic() + 60.0
        while len(disagreements) < 5 and time.monotonic() < deadline:
            status.publish(message)
            car.spin(0.05)
        assert shadow and pedals and len(disagreements) >= 5, log.read_text()
        latest = disagreements[-1]
        stamp_ns = ns_from_stamp(latest.header.stamp)
        own = next(one for one in pedals if ns_from_stamp(one.header.stamp) == stamp_ns)
        assert latest.compared_with == ShadowDisagreement.VEHICLE_STATUS
        assert np.isnan(latest.speed_mps)
        assert latest.pedal == pytest.approx(own.throttle - own.brake - 1.0)
        # Full steer is 1.2217 rad, + = right; the own angle less the other's, + = left.
        assert latest.steering_angle_rad == pytest.approx((-0.25 - own.steer) * 1.2217)
        # And now another driver.
        before = len(disagreements)
        other = topics.ACKERMANN.message_type(steering_angle=0.3, speed=2.0)
        while len(disagreements) < before + 5 and time.monotonic() < deadline:
            others.publish(other)
            car.spin(0.05)
        latest = disagreements[-1]
        assert latest.compared_with == ShadowDisagreement.ACKERMANN_COMMAND
        assert np.isfinite(latest.steering_angle_rad) and np.isnan(latest.pedal)
        assert latest.speed_mps == pytest.approx(shadow[-1].speed - 2.0, abs=0.5)
        assert all(command.speed == 2.0 for _, command in car.commands[topics.ACKERMANN])
        assert not car.commands[topics.VEHICLE_CONTROL]
        assert node.count_publishers(topics.VEHICLE_CONTROL.name(CONFIG)) == 0


# What it tells


@measurement
def test_the_policys_output_carries_the_images_stamp_and_both_q_values(
    run: RunFolder, log: Path, car: ScriptedCar, node: Node
) -> None:
    outputs = hear(node, PolicyOutput, "/driver/policy_output")
    with driver_process(run, log):
        assert car.wait(lambda: len(outputs) > 20, 100.0), log.read_text()
    assert all(ns_from_stamp(output.header.stamp) in car.images_s for output in outputs)
    pedals = {
        ns_from_stamp(message.header.stamp): at
        for at, message in car.commands[topics.VEHICLE_CONTROL]
    }
    for output in outputs[-15:-5]:  # the commands of the last ones may still be on their way
        commanded = (output.steering_angle_rad, output.speed_mps)
        assert np.all(np.isfinite([output.steering, output.speed, *commanded]))
        assert abs(output.steering) <= 1.0 and abs(output.speed) <= 1.0
        assert np.isfinite(output.q1 - output.q2) and output.q1 != output.q2
        stamp_ns = ns_from_stamp(output.header.stamp)
        seen_s = pedals[stamp_ns] - car.images_s[stamp_ns]
        assert 0.0 < output.inference_s < output.image_to_command_s < seen_s


@measurement
def test_diagnostics_say_how_it_drives_and_what_became_of_the_images(
    run: RunFolder, log: Path, car: ScriptedCar, node: Node
) -> None:
    heard = hear(node, DiagnosticArray, "/diagnostics")

    def figures(name: str) -> dict[str, str]:
        status = next(one for one in heard[-1].status if one.name == f"driver: {name}")
        return {pair.key: pair.value for pair in status.values}

    def counts(*names: str) -> list[int]:
        return [int(figures("camera")[name]) for name in names]

    with driver_process(run, log):
        assert car.wait(car.told_to_drive, 100.0), log.read_text()
        car.spin(2.5)
        # On a busy machine it stalls, and drives on by itself.
        assert car.wait(lambda: heard[-1].status[0].message == "driving", 20.0)
        names = ("dropped", "repeated", "unmatched")
        before = counts(*names)
        assert [status.name.removeprefix("driver: ") for status in heard[-1].status] == [
            *("watchdog", "process", "camera", "policy", "commands", "company")
        ]
        assert heard[-1].status[0].message == "driving"
        assert figures("watchdog")["fault"] == "none"
        assert car.wait(lambda: 10.0 < float(figures("camera")["rate_hz"]) < 21.0, 20.0)
        assert str(run.checkpoints / "000000001") == heard[-1].status[3].message
        inference_ms = float(figures("policy")["inference_p50_ms"])
        age_p50_ms, age_p95_ms = (float(figures("commands")[f"age_p{n}_ms"]) for n in (50, 95))
        assert 0.0 < inference_ms < age_p50_ms <= age_p95_ms
        assert 0.0 <= float(figures("commands")["saturated_share"]) <= 1.0
        # Three images never come; one comes twice; the odometry of two does not come.
        car.stamp_ns += 3 * 50_000_000
        car.spin(0.5)
        again: list[Any] = []

        def repeat(message: Any) -> None:
            again.append(message)
            del car.tamper[topics.IMAGE]
            car.publish(topics.IMAGE, message)

        # Best effort: the second of two may be lost.
        for _ in range(20):
            again.clear()
            car.tamper[topics.IMAGE] = repeat
            if car.wait(lambda: bool(again) and counts("repeated")[0] > before[1], 2.0):
                break
        lost: list[Any] = []

        def lose(message: Any) -> None:
            lost.append(message)
            message.header.stamp.sec -= 1
            if len(lost) == 2:
                del car.tamper[topics.ODOMETRY]

        car.tamper[topics.ODOMETRY] = lose
        assert car.wait(lambda: len(lost) == 2, 20.0)
        # A busy machine may drop more; test_driver_reactions.py counts exactly.
        least = np.array([3, 1, 2])
        assert car.wait(lambda: bool(np.all(counts(*names) - np.array(before) >= least)), 20.0)


@measurement
def test_an_unforeseen_error_ends_the_driver_and_leaves_the_car_standing(
    run: RunFolder, log: Path, car: ScriptedCar, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    with driver_process(run, log, entry="odd_drivers:failing", first=str(broken)) as driver:
        assert car.wait(car.told_to_drive, 100.0), log.read_text()
        begin_s = time.monotonic()
        broken.touch()
        assert car.wait(lambda: car.told_to_stop(begin_s), 10.0)
        assert car.wait(lambda: driver.poll() is not None, 20.0)
        assert driver.returncode == 1 and "what nobody has thought of" in log.read_text()
        assert car.told_to_stop(begin_s)


def test_bad_settings_are_refused_with_their_reason(run: RunFolder, log: Path) -> None:
    with driver_process(run, log, "driver.camera_timeout_s:=3.0") as driver:
        assert driver.wait(timeout=60.0) == 2
    assert "driver.camera_timeout_s: Input should be less than or equal to 0.4" in log.read_text()


# Routes


@measurement
def test_a_policy_that_sees_nothing_of_the_route_drives_without_one(
    log: Path, node: Node, tmp_path: Path
) -> None:
    config = small_config(vector=["speed", "previous_action"], privileged_critic=True)
    run = make_run(tmp_path / "free", config, critic=True)
    car = ScriptedCar(node)
    car.silent.add(topics.WAYPOINTS)
    car.start()
    try:
        with driver_process(run, log, "random_goal:=false"):
            assert car.wait(car.told_to_drive, 100.0), log.read_text()
            assert car.wait(lambda: "without a route" in log.read_text(), 20.0), log.read_text()
            assert car.told_to_drive(time.monotonic() - 1.0)
    finally:
        car.end()
