# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The lock-step against a simulator that misbehaves as carla-ros-bridge is known to."""

import functools
import itertools
import math
import os
import re
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from carla_graph import (
    MAP,
    Observer,
    make_start,
    own_domain,
    ros_node,
    simulator_node,
    simulator_process,
)
from rcl_interfaces.srv import GetParameters
from rclpy.parameter import Parameter
from standstill import measured
from std_msgs.msg import Bool

from td3_driver.bridge import conversion, topics
from td3_driver.config import CarlaConfig, ConfigError, DrivingConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.world import VehicleControl, WorldError
from td3_driver.lockstep.counters import Counters
from td3_driver.lockstep.world import CarlaWorld
from td3_driver.nodes.simulator.bridge_faults import KINDS, Agenda, Faults
from td3_driver.roads.starts import StartSampler

CONFIG = CarlaConfig(startup_timeout_s=10.0, step_timeout_s=2.0, outage_timeout_s=20.0)
SENSORS = ("image", "odometry", "speedometer", "vehicle_status", "clock")


def struck(faults, ticks=12):
    """Return the ticks in which "hang" strikes, asked twice in each."""
    found = []
    for tick in range(1, ticks + 1):
        faults.begin_tick()
        found += [tick for _ in range(2) if faults.now("hang")]
    return found


@pytest.mark.parametrize(
    "text, ticks",
    [
        ("hang=1@3", [3]),
        ("hang=1@3x2", [3, 4]),
        ("hang=1@3/4", [3, 7, 11]),
        ("hang=1@2x2/5", [2, 3, 7, 8, 12]),
        ("hang=1@2, hang=0.5@9", [2, 9]),
        ("", []),
    ],
)
def test_a_fault_strikes_once_in_each_of_its_ticks(text, ticks):
    assert struck(Faults(text)) == ticks


def test_a_fault_of_a_topic_strikes_that_topic_only():
    faults = Faults("missing:image@1")
    faults.begin_tick()
    assert faults.now("missing", topics.ODOMETRY) is None
    assert faults.now("missing", topics.IMAGE).seconds is None


@pytest.mark.parametrize(
    "text, words",
    [
        ("lost_step", "'lost_step' is not of the form KIND"),
        ("lost_stp@3", "'lost_stp' is not one of lost_step"),
        ("missing@3", "take a topic"),
        ("missing:radar@3", "one of .*image"),
        ("lost_step:image@3", "only late and missing take a topic"),
        ("late:image@3", "needs a duration"),
    ],
)
def test_a_wrong_fault_is_named(text, words):
    with pytest.raises(ConfigError, match=words):
        Faults(text)


def test_things_for_one_topic_keep_their_order():
    now_s, done = [100.0], []
    agenda = Agenda(clock=lambda: now_s[0])
    agenda.in_order(topics.IMAGE, 0.05, lambda: done.append("late image"))
    agenda.in_order(topics.IMAGE, 0.0, lambda: done.append("next image"))
    agenda.in_order(topics.ODOMETRY, 0.0, lambda: done.append("odometry"))
    agenda.do_what_is_due()
    assert done == ["odometry"] and agenda.idle_s == pytest.approx(0.05)
    now_s[0] += 0.06
    agenda.do_what_is_due()
    assert done == ["odometry", "late image", "next image"] and math.isinf(agenda.idle_s)


@pytest.fixture(scope="module")
def bridge():
    return CONFIG


class Truth:
    """What the simulator really did in each tick, noted where it does it."""

    def __init__(self, simulator, monkeypatch):
        self.ticks = {}
        tick = simulator.world.tick

        def noted():
            frame = tick()
            self.ticks[frame.frame] = frame
            return frame

        monkeypatch.setattr(simulator.world, "tick", noted)

    def assert_clean(self, frame, before, control):
        """Check that a frame that says it is clean is one tick of the command after `before`."""
        true = self.ticks[frame.frame]
        if before.clean:  # else the episode has ended there, and nothing is learnt of this step
            assert frame.frame == before.frame + 1
            assert frame.stamp_ns == before.stamp_ns + 50_000_000
        assert frame.stamp_ns == true.stamp_ns
        assert frame.speed == np.float32(true.speed)
        assert (frame.pose.x, frame.pose.y) == (true.pose.x, true.pose.y)
        assert true.control.throttle == pytest.approx(control.throttle, abs=1e-6)
        assert true.control.steer == pytest.approx(control.steer, abs=1e-6)
        np.testing.assert_array_equal(frame.image, true.image)


@pytest.fixture
def world(connected, simulator, monkeypatch):
    """A world at a start, with counters at zero and short waits."""
    monkeypatch.setattr("td3_driver.lockstep.lock_step.LATE_SPEED_S", 2.0)
    monkeypatch.setattr("td3_driver.lockstep.lock_step.STEP_ANSWER_S", 0.3)
    monkeypatch.setattr("td3_driver.lockstep.lock_step.SENSOR_GRACE_S", 0.4)
    monkeypatch.setattr("td3_driver.lockstep.lock_step.PAUSE_ANSWER_S", 0.3)
    monkeypatch.setattr("td3_driver.lockstep.lock_step.ATTEMPT_S", 1.0)
    renew(connected, simulator)
    yield connected
    set_faults(simulator, "")


@pytest.fixture
def truth(world, simulator, monkeypatch):
    return Truth(simulator, monkeypatch)


def renew(world, simulator):
    """Bring a world to a start, with counters at zero."""
    set_faults(simulator, "")
    world.reset(make_start())
    world.lock_step.counters = Counters()


def where_nothing_stands_still(test):
    """Take a test again where it failed and the machine stood still: what is late is a fault."""

    @functools.wraps(test)
    def taken(world, simulator, **others):
        begun = itertools.count()

        def prepare():
            if next(begun):
                renew(world, simulator)

        measured(lambda: test(world=world, simulator=simulator, **others), prepare)

    return taken


def set_faults(simulator, text):
    result = simulator.set_parameters([Parameter("simulator.faults", value=text)])[0]
    assert result.successful, result.reason


def commands(count):
    """Return commands of which no two that follow each other are the same."""
    return [VehicleControl(throttle=0.75, steer=0.1 * math.sin(n)) for n in range(count)]


def drive(world, truth, count=8):
    """Step; check every step that calls itself clean; return the reasons of the others."""
    before, reasons, unclean = world.frame, [], world.counters.unclean_steps
    for control in commands(count):
        frame = world.step(control)
        if frame.clean:
            truth.assert_clean(frame, before, control)
        else:
            reasons.append(frame.reason)
        before = frame
    assert world.counters.unclean_steps - unclean == len(reasons)
    return reasons


# Fault, words of the reason of each unclean step, and what is counted.
CASES = [
    ("lost_step@3", [], {"steps_resent": 1}),
    ("lost_command@3", ["in force instead of"], {"action_misses": 1}),
    ("late_command@3", ["in force instead of"], {"action_misses": 1}),
    ("extra_tick@3", ["somebody else steps"], {"frame_jumps": 1}),
    ("foreign_step@3", ["somebody else steps"], {"frame_jumps": 1}),
    ("foreign_play@3", ["somebody else steps or plays"], {"frame_jumps": 1}),
    ("map_load@3", ["simulation time is .* should be"], {"clock_jumps": 1}),
    ("hang=0.6@3", [], {}),
    ("late:status=0.5@3", [], {}),
    ("late:image=0.2@3", [], {}),
    ("late:clock=0.2@3", [], {}),
    ("late:odometry=0.2@3, late:clock=0.2@5, late:speedometer=0.1@6", [], {}),
    *(
        (f"missing:{sensor}=0.1@3", [f"without .*{sensor}"], {"incomplete_ticks": 1})
        for sensor in SENSORS
    ),
    *(
        (f"late:{sensor}=0.7@3", [f"without .*{sensor}"], {"incomplete_ticks": 1})
        for sensor in SENSORS
        if sensor != "clock"
    ),
]


@pytest.mark.parametrize("faults, reasons, counts", CASES, ids=[case[0] for case in CASES])
@where_nothing_stands_still
def test_what_is_no_clean_step_says_why(world, truth, simulator, faults, reasons, counts):
    set_faults(simulator, faults)
    found = drive(world, truth)
    assert len(found) == len(reasons), found
    assert all(re.search(words, reason) for words, reason in zip(reasons, found, strict=True))
    counted = {name: value for name, value in world.counters.as_dict().items() if value}
    counted = {name: value for name, value in counted.items() if not name.startswith("missing ")}
    assert counted.pop("ticks") in (8, 9)
    assert counted == {**counts, **({"unclean_steps": 1} if reasons else {})}
    assert world.reset(make_start()).clean


@where_nothing_stands_still
def test_a_late_clock_puts_no_later_frame_out_of_step(world, truth, simulator):
    set_faults(simulator, "late:clock=0.7@3")
    found = drive(world, truth)
    assert 1 <= len(found) <= 2 and "/clock" in found[0]


@pytest.mark.parametrize("steps_meanwhile", [4, 200])
@where_nothing_stands_still
def test_a_step_that_was_late_and_not_lost_is_no_second_action(
    world, truth, simulator, steps_meanwhile
):
    # Sent again after 0.3 s; the late one comes 0.1 s after that, between two steps or in one.
    set_faults(simulator, "late_step=0.4@3")
    drive(world, truth, steps_meanwhile)
    time.sleep(0.2)
    drive(world, truth)
    assert world.counters.steps_resent == 1
    assert world.counters.unclean_steps == world.counters.frame_jumps <= 1


@where_nothing_stands_still
def test_messages_that_are_late_after_a_frame_jump_put_nothing_out_of_step(
    world, truth, simulator
):
    """The whole next tick is late, and agrees with itself when it comes in the tick after it."""
    late = ", ".join(f"late:{sensor}=0.5@4" for sensor in SENSORS)
    set_faults(simulator, f"extra_tick@3, {late}")
    found = drive(world, truth, 12)
    assert 1 <= len(found) <= 4


@where_nothing_stands_still
def test_the_missing_topic_is_counted_by_its_name(world, truth, simulator):
    set_faults(simulator, "missing:image=0.1@3, missing:odometry=0.1@5, missing:image=0.1@7")
    drive(world, truth)
    image, odometry = (topic.name(CONFIG) for topic in (topics.IMAGE, topics.ODOMETRY))
    assert world.counters.missing == {image: 2, odometry: 1}
    words = world.counters.in_words()
    assert "unclean steps: 3" in words and f"without {image}: 2" in words


@where_nothing_stands_still
def test_collisions_of_before_a_clock_that_went_back_are_forgotten(world, truth, simulator):
    for control in commands(5):
        world.step(control)
    set_faults(simulator, "map_load@2, collision@5")
    frames = [world.step(control) for control in commands(6)]
    assert [len(frame.collisions) for frame in frames] == [0, 0, 0, 0, 1, 0]


@where_nothing_stands_still
def test_a_phantom_collision_of_the_reset_does_not_end_the_episode(world, simulator):
    # Ticks of the reset: 1 with the teleport, then 3 to settle.
    set_faults(simulator, "collision@1, late:collision=0.3@4, collision@4")
    frame = world.reset(make_start())
    assert frame.collisions == ()
    time.sleep(0.4)
    assert [world.step(control).collisions for control in commands(4)] == [()] * 4


@where_nothing_stands_still
def test_a_simulator_that_hangs_is_waited_for(world, truth, simulator):
    said = []
    world.on_outage = said.append
    set_faults(simulator, "hang=3.5@3")
    found = drive(world, truth)
    assert len(found) == 1 and "hangs in its tick or has died" in found[0]
    assert world.counters.outages == 1 and world.counters.outage_s > 0.5
    assert "Waiting for the simulator to come back, 0 s of at most 20 s" in said[0]
    assert said[-1] == ""


def test_time_in_which_both_stand_still_is_no_outage(world, truth, simulator, monkeypatch):
    spinner = world.lock_step._spinner
    spin_once, begin_s = spinner._executor.spin_once, time.monotonic()
    standstills_s = iter([1.4 * CONFIG.step_timeout_s])

    def stand_still_once(timeout_sec):
        if time.monotonic() - begin_s > 0.6:
            time.sleep(next(standstills_s, 0.0))
        spin_once(timeout_sec)

    monkeypatch.setattr(spinner, "_executor", SimpleNamespace(spin_once=stand_still_once))
    set_faults(simulator, "hang=3.7@3")
    assert drive(world, truth) == []
    assert next(standstills_s, None) is None
    assert world.counters.outages == world.counters.steps_resent == 0


@where_nothing_stands_still
def test_a_sensor_that_stays_away_is_waited_for(world, truth, simulator):
    set_faults(simulator, "missing:image=0@3x5")
    found = drive(world, truth)
    assert len(found) == 3 and "does the car have these sensors" in found[-1]
    assert world.counters.outages == 1


@where_nothing_stands_still
def test_a_reset_begins_again_after_an_outage(world, simulator):
    set_faults(simulator, "hang=3.0@2")
    frame = world.reset(make_start())
    assert frame.clean and world.counters.outages == 1
    assert world.counters.unclean_steps == 0


def test_a_reset_leaves_an_autopilot_alone_that_nobody_has_switched_on(world, truth, simulator):
    # Even to switch it off, the bridge builds a traffic manager, and hears nothing meanwhile.
    set_faults(simulator, "autopilot=20@1x100000")
    frame = world.reset(make_start())
    assert frame.clean and world.counters.reset_retries == 0
    assert drive(world, truth) == []


def test_a_reset_switches_an_autopilot_off_that_somebody_has_switched_on(world, simulator):
    with ros_node("somebody", simulator.context.get_domain_id()) as node:
        somebody = Observer(node)
        somebody.listen(topics.ENABLE_AUTOPILOT)

        def is_switched_off():
            somebody.publish(topics.ENABLE_AUTOPILOT, data=True)
            assert world.reset(make_start()).clean
            return not all(message.data for message in somebody.received[topics.ENABLE_AUTOPILOT])

        somebody.wait(is_switched_off)


def test_an_autopilot_from_before_the_client_is_noticed_by_what_is_in_force(world, simulator):
    simulator.on_autopilot(Bool(data=True))
    assert world.reset(make_start()).clean
    assert world.step(VehicleControl(throttle=0.5)).clean


def test_a_car_that_does_not_stay_is_put_elsewhere(world, simulator, monkeypatch):
    refused, putting = [], simulator.world.teleport

    def put(pose):
        # As if something stood at the first place.
        if not refused or refused[0] == (pose.x, pose.y):
            refused[:] = [(pose.x, pose.y)]
        else:
            putting(pose)

    monkeypatch.setattr(simulator.world, "teleport", put)
    env = DrivingEnv(world, StartSampler([MAP], 60.0), DrivingConfig())
    _, info = env.reset(seed=5)
    assert (info["start"].pose.x, info["start"].pose.y) != refused[0]
    assert world.counters.starts_refused == 1 and world.counters.reset_retries == 2


@where_nothing_stands_still
def test_no_unclean_step_passes_for_a_clean_one_in_a_long_drive(world, truth, simulator):
    env = DrivingEnv(world, StartSampler([MAP], 60.0), DrivingConfig())
    env.reset(seed=1)
    set_faults(
        simulator,
        "lost_step@31/97, lost_command@17/53, late_command@44/61, extra_tick@23/71, "
        "foreign_step@37/79, foreign_play@67/89, map_load@59/101, missing:image=0@13/47, "
        "missing:speedometer=0@173/203, late:odometry=0.05@11/41, collision@83/107",
    )
    unclean, rng = 0, np.random.default_rng(0)
    for _ in range(200):
        before = env.frame
        action = rng.uniform(-1.0, 1.0, 2).astype(np.float32)
        _, _, terminated, truncated, info = env.step(action)
        if info["clean"]:
            truth.assert_clean(env.frame, before, env.frame.control)
        unclean += not info["clean"]
        if terminated or truncated:
            env.reset()
    assert unclean == world.counters.unclean_steps >= 10
    assert world.counters.outages == 0


@pytest.mark.parametrize("broken", ["speed_from_message", "odometry_from_message"])
def test_a_message_that_means_nothing_is_no_clean_step(world, truth, monkeypatch, broken):
    read, calls = getattr(conversion, broken), []

    def read_worse(message):
        calls.append(message)
        if len(calls) == 3 or len(calls) > 8:
            field = message if broken.startswith("speed") else message.twist.twist.angular
            setattr(field, "data" if broken.startswith("speed") else "z", math.nan)
        return read(message)

    monkeypatch.setattr(f"td3_driver.lockstep.world.{broken}", read_worse)
    found = drive(world, truth)
    assert len(found) == 1 and "cannot be read" in found[0] and "not finite" in found[0]
    assert world.counters.unreadable_ticks == 1
    with pytest.raises(WorldError, match=r"cannot be read: the .* is not finite: nan"):
        drive(world, truth)


def test_a_car_that_falls_on_the_road_is_given_the_time(world, simulator, monkeypatch):
    """CARLA lets it down from above; the embedded simulator does not, so it is told here."""
    velocities = iter([2.0, 1.0, 0.5])
    monkeypatch.setattr(world.placement, "velocity", lambda: next(velocities, 0.0))
    before = world.frame
    frame = world.reset(make_start())
    assert frame.frame == before.frame + 1 + CONFIG.reset_settle_ticks + 3
    assert world.counters.reset_retries == 0


def test_every_kind_of_fault_is_tested():
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if not re.search(rf"\b{kind}[:=@]", text)] == []


def test_a_dead_thread_is_told_from_a_dead_simulator(monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.lock_step.PAUSE_ANSWER_S", 0.3)
    config = CarlaConfig(startup_timeout_s=10.0, step_timeout_s=0.6, outage_timeout_s=2.0)
    with simulator_node(own_domain()) as simulator, ros_node("agent", own_domain()) as node:
        world = CarlaWorld(node, config)
        world.reset(make_start())
        set_faults(simulator, "dead_thread@2")
        first, second = commands(2)
        assert world.step(first).clean
        start = time.monotonic()
        words = (
            r"away for 2 s: .*topics are there, but it does not tick: it hangs, or its .* has died"
        )
        with pytest.raises(WorldError, match=words):
            world.step(second)
        assert 2.0 < time.monotonic() - start < 12.0
        client = node.create_client(GetParameters, "/simulator/get_parameters")
        future = client.call_async(GetParameters.Request(names=["simulator.faults"]))
        assert world.lock_step.spin_until(future.done, 5.0)
        assert future.result().values[0].string_value == "dead_thread@2"
        world.close()


def test_a_restarted_simulator_is_taken_hold_of(monkeypatch):
    monkeypatch.setattr("td3_driver.lockstep.lock_step.ATTEMPT_S", 1.0)
    monkeypatch.setattr("td3_driver.lockstep.lock_step.PAUSE_ANSWER_S", 0.3)
    domain = own_domain()
    config = CarlaConfig(startup_timeout_s=60.0, step_timeout_s=1.0, outage_timeout_s=60.0)
    simulators = [simulator_process(domain)]
    try:
        with ros_node("agent", domain) as node:
            world = CarlaWorld(node, config)
            world.reset(make_start("ring_harbour"))
            first, second, third = commands(3)
            before = world.step(first)
            simulators[0].kill()

            def restart(line):
                if len(simulators) == 1:
                    simulators.append(simulator_process(domain, "simulator.map:=ring_quarry"))

            world.on_outage = restart
            frame = world.step(second)
            assert not frame.clean and frame.image is before.image
            assert world.map_name == "ring_quarry"
            assert world.reset(make_start("ring_harbour")).clean
            assert world.step(third).clean and world.counters.outages == 1
            world.close()
    finally:
        for simulator in simulators:
            simulator.kill()
            simulator.communicate()


def test_a_wait_ends_when_told_to():
    measured(interrupt_a_wait)


def interrupt_a_wait():
    domain = own_domain()
    config = CarlaConfig(startup_timeout_s=60.0, step_timeout_s=0.5, outage_timeout_s=60.0)
    simulator = simulator_process(domain)
    try:
        with ros_node("agent", domain) as node:
            world = CarlaWorld(node, config)
            world.reset(make_start())
            # From now on: an interrupt of the reset would be taken for somebody's Ctrl-C.
            interruption = threading.Timer(0.2, world.interrupt)
            world.on_outage = lambda line: interruption.start()
            os.kill(simulator.pid, signal.SIGKILL)
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                world.step(commands(1)[0])
            assert time.monotonic() - start < 5.0
            world.close()
    finally:
        simulator.kill()
        simulator.communicate()
