# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""All processes of a launch interrupted at once, as Ctrl-C in its terminal does, over DDS."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from carla_graph import CONFIG, Observer, own_domain, ros_node
from node_process import NodeProcess, parameters, start_node
from standstill import measured
from trainer_process import PARAMETERS

from td3_driver.bridge import topics
from td3_driver.config import CarlaConfig
from td3_driver.launching import fastdds
from td3_driver.launching.answers import in_order_of_stopping
from td3_driver.launching.parts import Process
from td3_driver.learning import checkpoint
from td3_driver.nodes import trainer
from td3_driver.offline.bag import Bag

ROOT = Path(__file__).resolve().parent.parent
START_S = 90.0
END_S = 40.0


@contextmanager
def nodes(started: dict[str, Sequence[str]]) -> Iterator[dict[str, NodeProcess]]:
    """Start nodes, by name and with their parameters, each to outlast the later ones."""
    processes: dict[str, NodeProcess] = {}
    names = list(started)
    try:
        for number, name in enumerate(names):
            later = " ".join(names[number + 1 :])
            outlasts = [f'outlasts:="{later}"', "outlasts_timeout_s:=30.0"] if later else []
            processes[name] = start_node(name, *started[name], *outlasts, stderr=subprocess.PIPE)
        yield processes
    finally:
        for process in processes.values():
            process.end()


def interrupt_all(processes: dict[str, NodeProcess], times: int = 1) -> dict[str, float]:
    """Send SIGINT to all at once; return when each has ended, s after the signal."""
    begin_s = time.monotonic()
    for _ in range(times):
        for process in processes.values():
            process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    ended: dict[str, float] = {}
    while len(ended) < len(processes):
        now_s = time.monotonic() - begin_s
        assert now_s < END_S, f"only {list(ended)} have ended"
        for name, process in processes.items():
            if name not in ended and process.poll() is not None:
                ended[name] = now_s
        time.sleep(0.005)
    return ended


@pytest.mark.timeout(240)
@pytest.mark.parametrize("times", [1, 2])
def test_the_car_stands_and_is_recorded_before_simulator_and_recorder_end(
    tmp_path: Path, times: int
) -> None:
    tries = count()
    measured(lambda: interrupt_a_drive(tmp_path / f"bag of try {next(tries)}", times))


def interrupt_a_drive(bag: Path, times: int) -> None:
    with (
        ros_node("watcher", own_domain()) as node,
        nodes(
            {
                "recorder": [f'bag:="{bag}"'],
                "simulator": [],
                "ackermann_controller": [],
                "driver": ["baseline:=true", "driver.publish_vehicle_control:=false"],
            }
        ) as processes,
    ):
        watcher = Observer(node, CONFIG)
        watcher.listen(topics.SPEEDOMETER)
        watcher.wait(
            lambda: any(m.data > 4.0 for m in watcher.received[topics.SPEEDOMETER]), START_S
        )
        ended = interrupt_all(processes, times)
        said = {name: process.communicate(10.0)[1] for name, process in processes.items()}
    assert {name: process.returncode for name, process in processes.items()} == dict.fromkeys(
        processes, 0
    ), said
    # A process can outlive its node, which is what the next one waits for, by a moment.
    assert ended["driver"] < ended["simulator"], ended
    assert ended["ackermann_controller"] < ended["recorder"], ended
    # None waited for its bound.
    assert ended["recorder"] < 15.0
    assert re.search("goes on until .*/simulator has ended", said["recorder"])
    with Bag(bag) as read:
        recorded = {
            topic: [(m.log_ns, read.decode(m)) for m in read.messages([topic.name(CarlaConfig())])]
            for topic in (topics.ACKERMANN, topics.VEHICLE_CONTROL, topics.SPEEDOMETER)
        }
    assert recorded[topics.ACKERMANN][-1][1].speed == 0.0
    assert recorded[topics.VEHICLE_CONTROL][-1][1].brake == 1.0
    assert abs(recorded[topics.SPEEDOMETER][-1][1].data) < 0.15
    # The simulator went on for longer than the driver's last command.
    assert recorded[topics.SPEEDOMETER][-1][0] > recorded[topics.ACKERMANN][-1][0]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("times", [1, 2])
def test_a_training_is_saved_and_its_simulator_ends_after_it(tmp_path: Path, times: int) -> None:
    tries = count()
    measured(lambda: interrupt_a_training(tmp_path / f"try {next(tries)}", times))


def interrupt_a_training(tmp_path: Path, times: int) -> None:
    settings = [f"{name}:={value}" for name, value in PARAMETERS.items()]
    with nodes(
        {"simulator": [], "trainer": [*settings, f'run:="{tmp_path / "run"}"']}
    ) as processes:
        metrics = tmp_path / "run" / "metrics.csv"
        wait_for(lambda: metrics.is_file() and len(metrics.read_text().splitlines()) > 1)
        ended = interrupt_all(processes, times)
        said: dict[str, Any] = {
            name: process.communicate(10.0)[1] for name, process in processes.items()
        }
    assert [process.returncode for process in processes.values()] == [0, 0], said
    assert ended["simulator"] < ended["trainer"] + 10.0
    assert checkpoint.latest(tmp_path / "run" / "checkpoints", pytest.fail)
    # The simulator answered to the end, unless it stood still: the training ended after its step.
    assert re.search(r"\d+ steps, \d+ episodes; saved ", said["trainer"]), said["trainer"]
    assert "Waiting for the simulator" not in said["trainer"]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + START_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


@pytest.mark.timeout(120)
def test_sigterm_ends_at_once_and_so_does_an_interrupt_without_others() -> None:
    with (
        ros_node("driver", own_domain()),
        nodes({"simulator": ['outlasts:="driver"', "outlasts_timeout_s:=60.0"]}) as processes,
    ):
        process = processes["simulator"]
        assert process.stderr is not None
        assert "map ring_meadow" in process.stderr.readline()
        time.sleep(1.0)  # for the driver to be found
        process.send_signal(signal.SIGINT)
        assert "goes on until /driver has ended" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
        process.terminate()
        assert process.wait(10.0) == 0


@pytest.mark.timeout(120)
def test_what_does_not_end_is_waited_for_no_longer_than_its_bound() -> None:
    with (
        ros_node("driver", own_domain()),
        nodes({"simulator": ['outlasts:="driver"', "outlasts_timeout_s:=1.0"]}) as processes,
    ):
        process = processes["simulator"]
        assert process.stderr is not None and process.stderr.readline()
        time.sleep(1.0)
        ended = interrupt_all(processes)
        assert 1.0 <= ended["simulator"] < 10.0
        assert process.returncode == 0


TOOL = """
import signal, sys, time
def stop(number, frame):
    print("interrupted", flush=True)
    sys.exit(int(sys.argv[1]))
signal.signal(signal.SIGINT, stop)
print("records", flush=True)
time.sleep(60)
"""


@pytest.mark.timeout(120)
def test_a_program_that_records_hears_of_ctrl_c_after_the_driver_has_ended(tmp_path: Path) -> None:
    script = tmp_path / "a tool.py"
    script.write_text(TOOL)
    command = json.dumps(shlex.join([sys.executable, str(script), "0"]))
    assignments = [f"command:={command}", 'outlasts:="driver"', "outlasts_timeout_s:=60.0"]
    with ros_node("watcher", own_domain()) as watcher, ros_node("driver", own_domain()) as driver:
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "td3_driver.startup",
                "recording_tool",
                *parameters(*assignments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            assert process.stdout is not None and process.stderr is not None
            assert process.stdout.readline() == "records\n"
            wait_for(lambda: "recording_tool" in watcher.get_node_names())
            time.sleep(1.0)  # for the driver to be found by it
            os.killpg(process.pid, signal.SIGINT)
            assert "goes on until /driver has ended" in process.stderr.readline()
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.0)
            driver.destroy_node()
            out, said = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, out, said) == (0, "interrupted\n", "")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "command, words",
    [
        ("", "name the program that records"),
        ("/no/such/program -x", "/no/such/program cannot be run (No such file or directory)"),
        ("false", "false has ended by itself (exit code 1)"),
    ],
)
def test_a_program_that_cannot_record_is_reported(command: str, words: str) -> None:
    process = start_node("recording_tool", f'command:="{command}"', stderr=subprocess.PIPE)
    _, said = process.communicate(60.0)
    assert process.returncode != 0 and words in said


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "tool, why",
    [
        ("false", "false has ended by itself (exit code 1)"),
        ("true", "true has ended by itself (exit code 0)"),
        ("/no/such/tool", "/no/such/tool cannot be run (No such file or directory)"),
    ],
)
def test_where_a_program_cannot_record_the_own_recorder_does(
    tool: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "bag").mkdir()  # what the program left
    process = Process("recorder", {"bag": str(tmp_path / "bag")}, essential=False, tool=(tool,))
    (reaching,) = in_order_of_stopping([process])
    with ros_node("watcher", own_domain()) as watcher:
        recording = subprocess.Popen(
            reaching.command_line(), stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            assert recording.stderr is not None
            line = recording.stderr.readline()
            assert f"{why}; the package's own recorder goes on, into {tmp_path}/bag_2" in line
            wait_for(lambda: "recorder" in watcher.get_node_names())
            os.killpg(recording.pid, signal.SIGINT)
            recording.communicate(timeout=60)
        finally:
            recording.kill()
    assert recording.returncode == 0
    assert list((tmp_path / "bag_2").glob("*.mcap")) and not any((tmp_path / "bag").iterdir())


def test_a_later_ctrl_c_does_not_wait_for_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(trainer, "time", SimpleNamespace(monotonic=lambda: now_s))
    told: list[str] = []
    training = SimpleNamespace(stop=lambda: told.append("stop"))
    world = SimpleNamespace(interrupt=lambda: told.append("interrupt"))
    before = signal.getsignal(signal.SIGINT)
    with trainer.ending_gracefully(training, world.interrupt):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert told == ["stop", "interrupt"] * 2
        now_s += 1.5 * trainer.SAME_SIGNAL_S
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_again_does_not_end_what_closes_after_the_training() -> None:
    training = SimpleNamespace(stop=lambda: None)
    world = SimpleNamespace(interrupt=lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with trainer.ending_gracefully(training, world.interrupt):
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGTERM) is before[signal.SIGTERM]
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before[signal.SIGINT])


INCLUDING = """
import sys
from launch import LaunchDescription
from launch.actions import ExecuteProcess, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushROSNamespace

def generate_launch_description():
    return LaunchDescription([
        GroupAction([
            PushROSNamespace("fleet"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource({file!r}), launch_arguments={arguments!r}.items()
            ),
        ]),
        ExecuteProcess(cmd=[sys.executable, "-c", {other!r}]),
    ])
"""
OTHER = "import os; open({file!r}, 'w').write(str(sorted(os.environ)))"
LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

service = LaunchService(noninteractive=True)
service.include_launch_description(LaunchDescription([
    IncludeLaunchDescription(PythonLaunchDescriptionSource(sys.argv[1]))]))
sys.exit(service.run())
"""


@pytest.mark.timeout(240)
def test_ctrl_c_at_a_launch_in_a_pushed_namespace_leaves_the_stop_on_record(
    tmp_path: Path,
) -> None:
    pytest.importorskip("launch_ros")
    prefix = tmp_path / "install"
    (prefix / "lib").mkdir(parents=True)
    (prefix / "lib" / "td3_driver").symlink_to(ROOT / "executables")
    index = prefix / "share" / "ament_index" / "resource_index" / "packages"
    index.mkdir(parents=True)
    (index / "td3_driver").touch()
    others_environment, bag, launch_file = (
        tmp_path / name for name in ("environment", "bag", "including.launch.py")
    )
    launch_file.write_text(
        INCLUDING.format(
            file=str(ROOT / "launch" / "drive.launch.py"),
            arguments={"baseline": "true", "record": str(bag)},
            other=OTHER.format(file=str(others_environment)),
        )
    )
    environment = {
        name: value for name, value in os.environ.items() if name not in fastdds.CHOICES
    }
    for name, first in (
        ("AMENT_PREFIX_PATH", prefix),
        ("PATH", Path(sys.executable).parent),
        ("PYTHONPATH", ROOT),
    ):
        rest = filter(None, [environment.get(name)])
        environment[name] = os.pathsep.join([str(first), *rest])
    launched = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(launch_file)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        with ros_node("watcher", own_domain()) as node:
            watcher = Observer(node, CONFIG)
            watcher.listen(topics.SPEEDOMETER)
            watcher.wait(
                lambda: any(m.data > 4.0 for m in watcher.received[topics.SPEEDOMETER]), START_S
            )
            names = {f"{space}/{name}" for name, space in node.get_node_names_and_namespaces()}
        os.killpg(launched.pid, signal.SIGINT)
        said, _ = launched.communicate(timeout=60.0)
    finally:
        launched.kill()
    assert {f"/fleet/{name}" for name in ("driver", "simulator", "recorder")} <= names
    assert "none lost" in said and "Traceback" not in said
    assert launched.returncode == 0, said
    with Bag(bag) as recorded:
        names_by_role = CarlaConfig()
        ends = {
            topic: [recorded.decode(m) for m in recorded.messages([topic.name(names_by_role)])][-1]
            for topic in (topics.ACKERMANN, topics.SPEEDOMETER)
        }
        assert "/fleet/driver/policy_output" in recorded.topics
    assert ends[topics.ACKERMANN].speed == 0.0
    assert abs(ends[topics.SPEEDOMETER].data) < 0.15
    # The nodes' own environment stays theirs.
    others = others_environment.read_text()
    assert "PATH" in others and fastdds.VARIABLE not in others
