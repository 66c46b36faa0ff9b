# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The stops of a bag: as the driver's watchdog told of them, or inferred from its commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from bag_drives import CARLA, EPOCH_NS, Drive, Recorded, drive, write
from carla_graph import ros_node
from diagnostic_msgs.msg import DiagnosticArray

from td3_driver.bridge import conversion, topics
from td3_driver.driving.world import VehicleControl
from td3_driver.faults import Fault
from td3_driver.nodes.driver.diagnostics import DriverDiagnostics
from td3_driver.nodes.driver.live_frames import Counts
from td3_driver.offline.bag import Bag
from td3_driver.offline.events import Event, EventDetector
from td3_driver.offline.frames import BagFrames
from td3_driver.offline.recorded_stops import RecordedStops
from td3_driver.safety.watchdog import Stop

TICKS = 60
TICK_NS = 50_000_000
SILENT_FROM = 30
"""The tick after which the simulator hangs."""
HANG_NS = 4_000_000_000


@pytest.fixture(scope="module")
def driven() -> Drive:
    """A drive whose simulator hangs for some seconds: recorded time goes on without it."""
    driven = drive(TICKS)
    begin_ns = EPOCH_NS + 1_000_000 + SILENT_FROM * TICK_NS
    late = [
        replace(message, log_ns=message.log_ns + HANG_NS)
        if message.log_ns >= begin_ns
        else message
        for message in driven.messages
    ]
    return replace(driven, messages=late)


STOPPED_NS = EPOCH_NS + SILENT_FROM * TICK_NS + 300_000_000
"""Between the last image before the hang and the first one after it."""


class Sayings:
    """Makes what a real driver says on /diagnostics."""

    def __init__(self, diagnostics: DriverDiagnostics) -> None:
        self._diagnostics = diagnostics

    def say(self, log_ns: int, standing: Stop | None, **counts: int) -> Recorded:
        said: list[DiagnosticArray] = []
        self._diagnostics.send = lambda statuses: said.append(DiagnosticArray(status=statuses))
        self._diagnostics.publish(
            standing=standing,
            fault_counts={fault: counts.get(fault.value, 0) for fault in Fault},
            standstills=(0, 0.0),
            counts=Counts(),
            camera_rate_hz=20.0,
            ages_s=[0.01],
            inferences_s=[0.005],
            policy="a policy",
            saturated_share=0.0,
            commands_limited=0,
            sensors="",
            commanders="",
            failures=(),
        )
        return Recorded(topics.DIAGNOSTICS, log_ns, said[0])


@pytest.fixture(scope="module")
def sayings(domain: int) -> Iterator[Sayings]:
    with ros_node("driver", domain) as node:
        yield Sayings(DriverDiagnostics(node))


def own_stop(log_ns: int) -> Recorded:
    """What a driver commands when it stops the car, without an image to answer."""
    full_brake = conversion.control_to_message(VehicleControl(brake=1.0), 0)
    return Recorded(topics.VEHICLE_CONTROL, log_ns, full_brake)


def stops_of(folder: Path, driven: Drive, more: Sequence[Recorded]) -> list[Event]:
    messages = sorted([*driven.messages, *more], key=lambda message: message.log_ns)
    with Bag(write(folder / "bag", messages)) as bag:
        watch = EventDetector(BagFrames(bag, CARLA))
        for _ in watch.frames(SimpleNamespace(n=0, update=lambda count: None)):
            pass
        return [event for event in watch.events() if event.kind in ("stop", "watchdog_stop")]


SILENT = Stop("no camera image for 0.25 s", Fault.CAMERA_SILENT)


def test_a_stop_that_was_told_of_has_its_reason_and_its_place(
    driven: Drive, sayings: Sayings, tmp_path: Path
) -> None:
    told = [
        sayings.say(EPOCH_NS + 500_000_000, None),
        sayings.say(STOPPED_NS, SILENT, camera_silent=1),
        sayings.say(STOPPED_NS + 1_000_000_000, SILENT, camera_silent=1),  # as every second
        sayings.say(STOPPED_NS + HANG_NS, None, camera_silent=1),
    ]
    commanded = [own_stop(STOPPED_NS + 1_000_000 + 50_000_000 * place) for place in range(10)]
    (stop,) = stops_of(tmp_path, driven, [*told, *commanded])
    assert stop.kind == "watchdog_stop"
    assert stop.text == "camera_silent: no camera image for 0.25 s"
    # Simulation time stood still from one image, at 1.45 s, to the next.
    assert 1.45 <= stop.time_s <= 1.5


def test_stops_are_inferred_where_none_could_be_told_of(driven: Drive, tmp_path: Path) -> None:
    commanded = [own_stop(STOPPED_NS + 100_000_000 * place) for place in range(10)]
    (stop,) = stops_of(tmp_path, driven, commanded)
    assert stop.kind == "watchdog_stop" and "no image for 0.3" in stop.text
    assert 1.45 <= stop.time_s <= 1.5


def test_a_watchdog_that_told_of_no_stop_made_none(
    driven: Drive, sayings: Sayings, tmp_path: Path
) -> None:
    told = sayings.say(EPOCH_NS + 500_000_000, None)
    (stop,) = stops_of(tmp_path, driven, [told, own_stop(STOPPED_NS)])
    assert (stop.kind, stop.text) == ("stop", "the driver's own")


def test_every_count_is_a_stop_and_an_old_one_none(sayings: Sayings) -> None:
    told = RecordedStops()
    not_finite = Stop("NaN in the speed", Fault.NOT_FINITE, needs_resume=True)
    for log_ns, standing, counts in (
        (0, None, {"camera_silent": 7}),  # before the recording
        (1, None, {"camera_silent": 8}),  # over again before the next message
        (2, not_finite, {"camera_silent": 8, "not_finite": 1}),
        (3, None, {}),  # a new driver
        (4, SILENT, {"camera_silent": 1}),
    ):
        told.hear(log_ns, sayings.say(log_ns, standing, **counts).message)
    assert [(stop.log_ns, stop.text) for stop in told.stops] == [
        (1, "camera_silent"),
        (2, "not_finite: NaN in the speed"),
        (4, "camera_silent: no camera image for 0.25 s"),
    ]


def test_a_stop_in_force_when_the_recording_begins_is_one(sayings: Sayings) -> None:
    told = RecordedStops()
    told.hear(5, sayings.say(5, SILENT, camera_silent=3).message)
    assert [stop.log_ns for stop in told.stops] == [5]


def test_other_nodes_statuses_are_none_of_the_watchdogs() -> None:
    told = RecordedStops()
    told.hear(0, DiagnosticArray())
    assert not told.heard and not told.stops


def test_counts_that_are_none_are_noted_as_unreadable(
    driven: Drive, sayings: Sayings, tmp_path: Path
) -> None:
    broken = sayings.say(STOPPED_NS, None)
    broken.message.status[0].values[-1].value = "many"
    messages = sorted([*driven.messages, broken], key=lambda message: message.log_ns)
    with Bag(write(tmp_path / "bag", messages)) as bag:
        frames = BagFrames(bag, CARLA)
        assert len(list(frames)) == TICKS
    assert frames.findings.unreadable == {"/diagnostics": 1}
