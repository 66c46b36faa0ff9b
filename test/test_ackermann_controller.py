# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The node that turns Ackermann commands into pedals, over real topics."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from carla_graph import Observer, own_domain, ros_node, simulator_node
from driver_runs import make_run, small_config
from node_process import node_process
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.subscription import Subscription
from standstill import measured

from td3_driver.bridge import topics
from td3_driver.driving.control import AckermannCommand, PedalController
from td3_driver.nodes.ackermann_controller import AckermannControllerNode

MAX_STEER_RAD = math.radians(70.0)
# Above the watchdog's limit, within what safety asks for.
STOPPED_WITHIN_S = 0.5
HEARD = (
    topics.CLOCK,
    topics.STATUS,
    topics.SPEEDOMETER,
    topics.MANUAL_OVERRIDE,
    topics.ACKERMANN,
)
"""What a hand tells the controller."""


@contextmanager
def controller_node(**settings: float) -> Iterator[AckermannControllerNode]:
    context = Context()
    context.init(args=[], domain_id=own_domain())
    overrides = [
        Parameter(f"ackermann_controller.{name}", value=value) for name, value in settings.items()
    ]
    node = AckermannControllerNode(context, overrides)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join()
        node.destroy_node()
        context.try_shutdown()


class Bench:
    """A hand-made simulator and driver around the controller."""

    def __init__(self, hand: Observer, controller: AckermannControllerNode) -> None:
        self.hand = hand
        self.controller = controller
        hand.listen(topics.VEHICLE_CONTROL)
        self.clock_ns = 1_000_000_000

    @property
    def pedals(self) -> list[Any]:
        return self.hand.received[topics.VEHICLE_CONTROL]

    def meet(self) -> Bench:
        """Let every topic's two ends find each other: what is published before can be lost."""
        # Each end finds the other in its own time.
        self.hand.have_publishers(*HEARD)
        heard = [topic.name(self.hand.config) for topic in HEARD]
        ends: list[Subscription] = [
            one for one in self.controller.subscriptions if one.topic_name in heard
        ]
        assert len(ends) == len(HEARD)
        ends += self.hand.node.subscriptions
        self.hand.wait(lambda: all(end.get_publisher_count() for end in ends))
        self.hand.wait(self._is_heard)
        return self

    def _is_heard(self) -> bool:
        name = topics.VEHICLE_CONTROL.name(self.hand.config)
        (publisher,) = (one for one in self.controller.publishers if one.topic_name == name)
        return publisher.get_subscription_count() > 0

    def tick(self, speed: float, elapsed_s: float = 0.05) -> None:
        self.clock_ns += round(elapsed_s * 1e9)
        clock = topics.CLOCK.message_type()
        clock.clock.sec, clock.clock.nanosec = divmod(self.clock_ns, 1_000_000_000)
        self.hand.publish(topics.CLOCK, clock=clock.clock)
        self.hand.publish(topics.SPEEDOMETER, data=speed)
        self.hand.spin(0.03)

    def run_state(self, running: bool) -> None:
        self.hand.publish(topics.STATUS, synchronous_mode=True, synchronous_mode_running=running)
        self.hand.spin(0.03)

    def answers(self, speed: float = 0.0, angle: float = 0.0) -> list[Any]:
        """Return what is published in answer to one command."""
        before = len(self.pedals)
        self.hand.publish(topics.ACKERMANN, speed=speed, steering_angle=angle)
        self.hand.wait(lambda: len(self.pedals) > before)
        self.hand.spin(0.03)
        return self.pedals[before:]

    def answer(self, speed: float = 0.0, angle: float = 0.0) -> Any:
        answers = self.answers(speed, angle)
        assert len(answers) == 1, f"{len(answers)} answers to one command"
        return answers[0]


@contextmanager
def a_bench(**settings: float) -> Iterator[Bench]:
    with controller_node(**settings) as controller, ros_node("hand", own_domain()) as node:
        yield Bench(Observer(node), controller).meet()


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A bench whose hand may be slow: on a busy machine the watchdog is not to answer for it."""
    with a_bench(input_timeout_s=5.0, speed_timeout_s=5.0) as bench:
        yield bench


@pytest.fixture
def watched() -> Iterator[Bench]:
    """A bench with the time limits that users have."""
    with a_bench() as bench:
        yield bench


def test_it_answers_as_the_trainers_controller_does(bench: Bench) -> None:
    reference = PedalController(1.2217)
    speeds = [0.0, 0.3, 0.9, 1.6, 2.1]
    for number, speed in enumerate(speeds):
        bench.tick(speed)
        message = bench.answer(speed=2.0, angle=0.1)
        expected = reference.control(AckermannCommand(0.1, 2.0), speed, 0.05 if number else 0.0)
        assert message.throttle == pytest.approx(expected.throttle, abs=1e-6)
        assert message.brake == pytest.approx(expected.brake, abs=1e-6)
        assert message.steer == pytest.approx(-0.1 / 1.2217, abs=1e-6)


def test_standstill_is_answered_with_the_brake(bench: Bench) -> None:
    bench.tick(0.0)
    for _ in range(3):
        message = bench.answer(speed=0.0)
        assert (message.throttle, message.brake) == (0.0, 1.0)


def test_reverse_is_driven_by_the_signed_speed(bench: Bench) -> None:
    bench.tick(-1.0)
    slower = bench.answer(speed=-2.0)
    assert slower.reverse and slower.throttle > 0.4 and slower.brake == 0.0
    bench.tick(-3.0)
    faster = bench.answer(speed=-2.0)
    assert faster.reverse and faster.throttle == 0.0 and faster.brake > 0.3
    bench.tick(2.0)
    forward = bench.answer(speed=-2.0)
    assert forward.brake == 1.0 and not forward.reverse


def test_a_paused_simulator_is_answered_at_once_and_adds_nothing_up() -> None:
    measured(_pause)


def _pause() -> None:
    with a_bench(input_timeout_s=5.0, speed_timeout_s=0.5) as bench:
        bench.tick(1.0)
        bench.answer(speed=2.0)
        bench.run_state(running=False)
        bench.hand.spin(1.0)  # longer than the silence of the speedometer that is allowed
        paused = [bench.answer(speed=2.0) for _ in range(5)]
        assert {message.throttle for message in paused} == {0.5}
        bench.run_state(running=True)
        bench.tick(1.0)
        assert bench.answer(speed=2.0).throttle == pytest.approx(0.5 + 0.2 * 0.05)


def test_the_cars_own_steering_range_counts_however_late_the_node_starts() -> None:
    with ros_node("hand", own_domain()) as node:
        hand = Observer(node)
        info = topics.VEHICLE_INFO
        publisher = node.create_publisher(
            info.message_type, info.name(hand.config), info.bridge_qos.profile()
        )
        message = info.message_type()
        message.wheels = [_wheel(0.8), _wheel(0.8), _wheel(0.0), _wheel(0.0)]
        publisher.publish(message)
        with controller_node(input_timeout_s=5.0, speed_timeout_s=5.0) as controller:
            bench = Bench(hand, controller).meet()
            bench.tick(0.0)
            hand.wait(lambda: bench.answer(angle=0.4).steer == pytest.approx(-0.5), 5.0)
            publisher.publish(info.message_type())  # no wheels: of no use
            hand.wait(lambda: bench.answer(angle=0.4).steer == pytest.approx(-0.4 / 1.2217), 5.0)


def _wheel(max_steer_angle: float) -> Any:
    from carla_msgs.msg import CarlaEgoVehicleInfoWheel

    return CarlaEgoVehicleInfoWheel(max_steer_angle=max_steer_angle)


def wait_for_the_brake(bench: Bench) -> float:
    """Return the time until the car is told to stop; fail if it never is."""
    begin = time.monotonic()
    bench.hand.wait(lambda: bool(bench.pedals) and bench.pedals[-1].brake == 1.0)
    return time.monotonic() - begin


def test_silent_commands_stop_the_car_and_the_next_one_moves_it_again(watched: Bench) -> None:
    measured(lambda: _fall_silent(watched))


def _fall_silent(watched: Bench) -> None:
    watched.tick(1.0)
    watched.pedals.clear()
    assert watched.answers(speed=3.0, angle=0.2)[0].throttle > 0.0
    assert wait_for_the_brake(watched) < STOPPED_WITHIN_S
    watched.hand.spin(0.4)
    assert len(watched.pedals) <= 6
    stop = watched.pedals[-1]
    assert stop.throttle == 0.0 and stop.steer == pytest.approx(-0.2 / 1.2217)
    watched.hand.spin(0.4)
    repeated = len(watched.pedals)
    watched.hand.spin(0.4)
    assert len(watched.pedals) == repeated  # told several times, then left alone
    watched.tick(1.0)
    assert watched.answers(speed=3.0)[0].throttle > 0.0


def test_a_silent_speedometer_stops_the_car_while_commands_go_on(watched: Bench) -> None:
    measured(lambda: _lose_the_speed(watched))


def _lose_the_speed(watched: Bench) -> None:
    watched.tick(1.0)
    last_speed_s = time.monotonic()
    while watched.answers(speed=3.0)[-1].brake == 0.0:  # the watchdog may speak in between
        assert time.monotonic() - last_speed_s < 10.0
    assert time.monotonic() - last_speed_s < STOPPED_WITHIN_S + 0.1
    assert watched.answers(speed=3.0)[-1].brake == 1.0
    watched.tick(1.0)
    assert watched.answers(speed=3.0)[0].throttle > 0.0


@pytest.mark.parametrize("speed, angle", [(math.nan, 0.0), (1.0, math.inf)])
def test_a_command_that_is_not_finite_is_a_stop(bench: Bench, speed: float, angle: float) -> None:
    bench.tick(1.0)
    bench.answer(speed=2.0, angle=0.1)
    message = bench.answer(speed=speed, angle=angle)
    assert (message.throttle, message.brake) == (0.0, 1.0)
    assert message.steer == pytest.approx(-0.1 / 1.2217)


def test_without_a_speed_the_car_stays_where_it_is() -> None:
    with a_bench(input_timeout_s=5.0) as bench:
        assert bench.answer(speed=3.0).brake == 1.0
        bench.tick(math.nan)
        assert bench.answer(speed=3.0).brake == 1.0


def test_nothing_is_published_before_the_first_command(bench: Bench) -> None:
    bench.tick(1.0)
    bench.hand.spin(0.8)
    assert not bench.pedals


def test_a_new_simulation_and_a_manual_override_begin_anew(bench: Bench) -> None:
    bench.tick(1.0)
    bench.answer(speed=2.0)
    for _ in range(3):
        bench.tick(1.0, elapsed_s=0.2)
        wound_up = bench.answer(speed=2.0)
    assert wound_up.throttle == pytest.approx(0.62)
    bench.hand.publish(topics.MANUAL_OVERRIDE, data=True)
    bench.hand.spin(0.05)
    assert bench.answer(speed=2.0).throttle == pytest.approx(0.5)
    bench.tick(1.0, elapsed_s=0.2)
    assert bench.answer(speed=2.0).throttle > 0.5
    bench.clock_ns = 0
    bench.tick(1.0)
    assert bench.answer(speed=2.0).throttle == pytest.approx(0.5)


def test_time_limits_change_while_it_runs() -> None:
    with controller_node(input_timeout_s=3.0) as controller:
        limit = "ackermann_controller.input_timeout_s"
        refused = controller.set_parameters([Parameter(limit, value=60.0)])[0]
        assert (
            not refused.successful and controller.config.ackermann_controller.input_timeout_s == 3
        )
        assert controller.set_parameters([Parameter(limit, value=0.2)])[0].successful
        with ros_node("hand", own_domain()) as node:
            bench = Bench(Observer(node), controller).meet()

            def fall_silent() -> None:
                bench.tick(1.0)
                bench.pedals.clear()
                bench.answer(speed=2.0)
                assert wait_for_the_brake(bench) < 0.35

            measured(fall_silent)


# --- in front of the embedded simulator --------------------------------------------------------


def test_a_car_is_driven_to_a_speed_backwards_and_left_standing_at_the_end() -> None:
    with (
        simulator_node(own_domain()),
        ros_node("hand", own_domain()) as node,
        node_process(
            "ackermann_controller", "ackermann_controller.input_timeout_s:=3.0"
        ) as controller,
    ):
        hand = Observer(node)
        hand.listen_and_hear(topics.SPEEDOMETER)

        def speed() -> float:
            return float(hand.received[topics.SPEEDOMETER][-1].data)

        def drive_until(wanted: float) -> None:
            deadline = time.monotonic() + 30.0
            while abs(speed() - wanted) > 0.2:
                assert time.monotonic() < deadline, speed()
                hand.publish(topics.ACKERMANN, speed=wanted)
                hand.spin(0.05)

        drive_until(2.0)
        drive_until(-1.5)
        controller.send_signal(signal.SIGINT)
        hand.wait(lambda: controller.poll() is not None, 5.0)
        assert controller.returncode == 0
        hand.wait(lambda: abs(speed()) < 0.05, 5.0)


def test_the_driver_drives_through_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", small_config()).path
    measured(lambda: _drive_through_it(run))


def _drive_through_it(run: Path) -> None:
    with (
        simulator_node(own_domain()),
        ros_node("watcher", own_domain()) as node,
        node_process("ackermann_controller"),
        node_process(
            "driver",
            f'run:="{run}"',
            "random_goal:=false",
            "driver.publish_vehicle_control:=false",
        ) as driver,
    ):
        watcher = Observer(node)
        watcher.listen(topics.ACKERMANN, topics.VEHICLE_CONTROL, topics.SPEEDOMETER)
        commands = watcher.received[topics.ACKERMANN]
        pedals = watcher.received[topics.VEHICLE_CONTROL]
        watcher.wait(lambda: len(commands) > 40 and commands[-1].speed > 1.0, 45.0)
        watcher.wait(lambda: watcher.received[topics.SPEEDOMETER][-1].data > 0.5, 30.0)
        watcher.forget()
        watcher.spin(1.0)
        assert (
            len(node.get_publishers_info_by_topic("/carla/ego_vehicle/vehicle_control_cmd")) == 1
        )
        assert len(commands) > 10 and abs(len(commands) - len(pedals)) <= 2
        driver.send_signal(signal.SIGKILL)
        watcher.wait(lambda: pedals[-1].brake == 1.0, 5.0)
        watcher.wait(lambda: abs(watcher.received[topics.SPEEDOMETER][-1].data) < 0.05, 5.0)
