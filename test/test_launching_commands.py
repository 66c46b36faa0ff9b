# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The description of what runs with what, and its supervision."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import yaml
from bag_drives import drive, write

from td3_driver.config import CarlaConfig, Config, ConfigError
from td3_driver.faults import Fault
from td3_driver.launching.commands import COMMANDS, LAUNCHES
from td3_driver.launching.parts import Process
from td3_driver.launching.settings import setting_overrides
from td3_driver.runs import RunFolder


def values_of(command: str, **given: object) -> dict[str, object]:
    """Every option's default, with the given values over it."""
    defaults = {option.name: option.default for option in COMMANDS[command].options}
    assert set(given) <= set(defaults)
    return {**defaults, **given}


def processes_of(command: str, **given: object) -> dict[str, Process]:
    processes = COMMANDS[command].processes(values_of(command, **given))
    return {process.name: process for process in processes}


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(RunFolder.create(str(tmp_path / "run"), Config()).path)


def test_the_simulator_is_started_first_so_that_it_is_stopped_last(run: str) -> None:
    assert list(processes_of("train")) == ["simulator", "trainer"]
    assert list(processes_of("drive", run=run)) == ["simulator", "driver"]
    assert list(processes_of("simulate")) == ["simulator"]


def test_a_shadow_is_a_driver_that_is_told_so(run: str) -> None:
    assert processes_of("drive", run=run, shadow=True)["driver"].parameters["driver.shadow"]
    assert "driver.shadow" not in processes_of("drive", run=run)["driver"].parameters


def test_going_on_from_a_run_takes_its_settings_and_no_random_steps(run: str) -> None:
    simulator, trainer = COMMANDS["train"].processes(values_of("train", **{"from": run}))
    assert trainer.parameters["from"] == run
    assert trainer.parameters["training.random_steps"] == 0
    assert trainer.parameters["config"] == str(Path(run) / "config.yaml")
    assert simulator.parameters["config"] == trainer.parameters["config"]
    asked = processes_of("train", **{"from": run, "set": ("training.random_steps=7",)})
    assert asked["trainer"].parameters["training.random_steps"] == 7
    assert "training.random_steps" not in processes_of("train")["trainer"].parameters
    with pytest.raises(ConfigError, match="give one"):
        processes_of("train", **{"from": run, "resume": run})


def test_the_baseline_drives_without_a_run(run: str) -> None:
    driver = processes_of("drive", baseline=True, config="first_drive")["driver"]
    assert driver.parameters["baseline"] is True and "run" not in driver.parameters
    assert driver.parameters["config"] == "first_drive"
    in_carla = processes_of("drive", baseline=True, world="carla")["driver"]
    assert in_carla.parameters["config"] == "carla"
    with pytest.raises(ConfigError, match="not with baseline"):
        processes_of("drive", baseline=True, policy=str(Path(run) / "config.yaml"))
    for wrong in ({}, {"run": run, "baseline": True}):
        with pytest.raises(ConfigError, match="one of the two"):
            processes_of("drive", **wrong)


@pytest.mark.parametrize("command, served", [("train", "trainer"), ("drive", "driver")])
def test_carla_replaces_the_embedded_simulator(command: str, served: str, run: str) -> None:
    assert list(processes_of(command, run=run, world="carla")) == [served]


def test_the_pedals_can_be_left_to_a_node_of_their_own(run: str) -> None:
    settings = ("carla.camera=eye",)
    processes = processes_of("drive", run=run, ackermann_controller=True, set=settings)
    assert list(processes) == ["simulator", "ackermann_controller", "driver"]
    assert processes["driver"].parameters["driver.publish_vehicle_control"] is False
    assert processes["ackermann_controller"].parameters == processes["simulator"].parameters


def test_a_training_in_carla_has_its_configuration_unless_another_is_given(run: str) -> None:
    assert processes_of("train", world="carla")["trainer"].parameters["config"] == "carla"
    given = processes_of("train", world="carla", config="first_drive")
    assert given["trainer"].parameters["config"] == "first_drive"
    resumed = processes_of("train", world="carla", resume=run)
    assert resumed["trainer"].parameters["config"] == f"{run}/config.yaml"


def test_every_process_gets_the_role_name_the_map_and_the_settings() -> None:
    processes = processes_of(
        "train", role_name="hero", map="ring_quarry", set=("driving.max_speed_mps=7",)
    )
    for process in processes.values():
        assert process.parameters["carla.role_name"] == "hero"
        assert process.parameters["simulator.map"] == "ring_quarry"
        assert process.parameters["driving.max_speed_mps"] == 7.0
        # ROS refuses an integer for a parameter that is a double.
        assert isinstance(process.parameters["driving.max_speed_mps"], float)
    assert processes["trainer"].parameters["training.maps"] == ["ring_quarry"]


def test_a_setting_overrides_what_an_option_says() -> None:
    processes = processes_of("simulate", map="ring_quarry", set=("simulator.map=ring_meadow",))
    assert processes["simulator"].parameters["simulator.map"] == "ring_meadow"


def test_driver_and_simulator_have_the_run_s_configuration(run: str) -> None:
    for process in processes_of("drive", run=run).values():
        assert process.parameters["config"] == f"{run}/config.yaml"


def test_collectors_bring_their_own_worlds_with_them() -> None:
    (trainer,) = COMMANDS["train"].processes(values_of("train", collectors="8", cluster="auto"))
    assert trainer.name == "trainer"
    assert trainer.parameters["fleet.collectors"] == 8
    assert trainer.parameters["fleet.cluster"] == "auto"
    assert list(processes_of("train", set=("fleet.collectors=2",))) == ["trainer"]
    assert list(processes_of("train", collectors="0")) == ["simulator", "trainer"]
    started = ("fleet.simulator=command", "fleet.simulator_command=carla.sh")
    carla = values_of("train", world="carla", collectors="2", set=started)
    assert [process.name for process in COMMANDS["train"].processes(carla)] == ["trainer"]
    assert COMMANDS["train"].includes(carla) == []
    for wrong, message in (
        ({"collectors": "many"}, "collectors is a whole number from 0 to 4096, not 'many'"),
        ({"collectors": "2", "world": "carla"}, "set fleet.simulator to command"),
        ({"collectors": "2", "record": "true"}, "nothing to record"),
    ):
        with pytest.raises(ConfigError, match=message):
            processes_of("train", **wrong)


def test_a_resumed_training_has_the_run_s_configuration_unless_another_is_given(run: str) -> None:
    for process in processes_of("train", resume=run).values():
        assert process.parameters["config"] == f"{run}/config.yaml"
    for process in processes_of("train", resume=run, config="first_drive").values():
        assert process.parameters["config"] == "first_drive"


def test_overrides_have_the_types_of_their_settings() -> None:
    parameters = setting_overrides(
        ["training.maps=[a, b]", "learning.tau=1", "training.synchronous_updates=true"], Config()
    )
    assert parameters == {
        "training.maps": ["a", "b"],
        "learning.tau": 1.0,
        "training.synchronous_updates": True,
    }


def test_overrides_are_checked_beside_the_configuration_s_settings() -> None:
    few = ("training.total_steps=800",)  # more than first_drive's random steps, less than default
    processes = processes_of("train", config="first_drive", set=few)
    assert processes["trainer"].parameters["training.total_steps"] == 800
    with pytest.raises(ConfigError, match="random_steps must be below total_steps"):
        processes_of("train", set=few)


@pytest.mark.parametrize(
    "assignment, part_of_the_reason",
    [
        ("driving.max_speed_mps", "section.setting=value"),
        ("max_speed_mps=3", "section.setting=value"),
        ("driving.max_sped_mps=3", "driving.max_sped_mps: there is no such setting"),
        ("drive.max_speed_mps=3", "drive: there is no such setting"),
        ("driving.max_speed_mps=1000", "driving.max_speed_mps"),
        ("training.maps=[", "is not a value"),
    ],
)
def test_a_wrong_override_is_named(assignment: str, part_of_the_reason: str) -> None:
    with pytest.raises(ConfigError, match="(?s)" + part_of_the_reason):
        setting_overrides([assignment], Config())


@pytest.mark.parametrize(
    "command, given, reason",
    [
        ("simulate", {"config": "nonesuch"}, "no configuration 'nonesuch'"),
        ("simulate", {"map": "nonesuch"}, "no map 'nonesuch'"),
        ("drive", {"run": "nonesuch"}, "no run 'nonesuch'"),
        ("replay", {"run": "nonesuch", "bag": "nonesuch"}, "no run 'nonesuch'"),
        ("train", {"resume": "nonesuch"}, "no run 'nonesuch'"),
        ("train", {"world": "carla", "map": "ring_quarry"}, "map is for the embedded simulator"),
    ],
)
def test_wrong_values_are_refused_before_anything_starts(
    command: str, given: dict[str, object], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        processes_of(command, **given)


def test_the_driver_finds_a_policy_file_wherever_it_runs(
    run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "policy.onnx").touch()
    monkeypatch.chdir(tmp_path)
    processes = processes_of("drive", run=run, policy="policy.onnx")
    assert processes["driver"].parameters["policy"] == str(tmp_path / "policy.onnx")
    assert processes_of("drive", run=run)["driver"].parameters["policy"] == ""
    with pytest.raises(ConfigError, match="no policy file 'nonesuch'"):
        processes_of("drive", run=run, policy="nonesuch")


def test_a_recorder_is_started_first_of_all(run: str, tmp_path: Path) -> None:
    recorded = processes_of("drive", run=run, record=str(tmp_path / "bag"), role_name="hero")
    assert list(recorded) == ["recorder", "simulator", "driver"]
    recorder = recorded["recorder"]
    assert recorder.parameters["bag"] == str(tmp_path / "bag")
    assert recorder.parameters["carla.role_name"] == "hero"
    assert not recorder.essential
    assert list(processes_of("train", record="true")) == ["recorder", "simulator", "trainer"]
    assert "recorder" not in processes_of("train", record="false")


def test_an_existing_bag_is_refused_before_anything_starts(run: str, tmp_path: Path) -> None:
    (tmp_path / "bag").mkdir()
    with pytest.raises(ConfigError, match="exists, and no bag is overwritten"):
        processes_of("drive", run=run, record=str(tmp_path / "bag"))


def test_a_replayed_bag_s_own_names_reach_player_and_driver(run: str, tmp_path: Path) -> None:
    names = CarlaConfig(role_name="hero", camera="front")
    bag = write(tmp_path / "bag", drive(ticks=2).messages, names)
    replayed = processes_of("replay", bag=str(bag), run=run, rate="2", loop=True)
    assert list(replayed) == ["driver", "player"]  # whose end is the end of all
    driver, player = replayed["driver"].parameters, replayed["player"].parameters
    assert driver["driver.shadow"] is True and driver["random_goal"] is False
    assert set(driver["driver.resume_after"]) == {fault.value for fault in Fault}
    assert (driver["carla.role_name"], driver["carla.camera"]) == ("hero", "front")
    assert (player["rate"], player["loop"], player["clock"]) == (2.0, True, True)


def test_a_rate_is_a_number(run: str, tmp_path: Path) -> None:
    bag = write(tmp_path / "bag", drive(ticks=2).messages)
    with pytest.raises(ConfigError, match="rate is a number, not 'fast'"):
        processes_of("replay", bag=str(bag), run=run, rate="fast")
    # 0.05 s of simulation from image to image, 0.3 s of silence at most.
    assert "player" in processes_of("replay", bag=str(bag), run=run, rate="0.2")
    for rate in ("0.15", "0", "-1", "nan"):
        with pytest.raises(ConfigError, match=r"rate must be above 0\.17"):
            processes_of("replay", bag=str(bag), run=run, rate=rate)


@pytest.mark.parametrize("seed", ["many", "-1", "2147483648", "1.5"])
def test_a_seed_is_a_whole_number_in_its_range(run: str, seed: str) -> None:
    words = f"seed is a whole number from 0 to 2147483647, not '{seed}'"
    with pytest.raises(ConfigError, match=re.escape(words)):
        processes_of("drive", run=run, seed=seed)


@pytest.mark.parametrize("name, highest", [("port", 65533), ("timeout", 3600)])
@pytest.mark.parametrize("value", ["-5", "0", "65534", "x"])
def test_the_server_s_port_and_timeout_have_their_ranges(
    name: str, highest: int, value: str
) -> None:
    values = {option.name: option.default for option in LAUNCHES["carla"].options}
    assert LAUNCHES["carla"].includes(values)
    words = f"{name} is a whole number from 1 to {highest}, not '{value}'"
    with pytest.raises(ConfigError, match=re.escape(words)):
        LAUNCHES["carla"].includes({**values, name: value})


@pytest.mark.parametrize("standstill_s", [0.0, 2.5, 10.0])
def test_no_driver_is_killed_while_it_still_brakes(run: str, standstill_s: float) -> None:
    settings = (f"driver.standstill_timeout_s={standstill_s}",)
    for separate in (False, True):
        processes = processes_of("drive", run=run, set=settings, ackermann_controller=separate)
        assert processes["driver"].stop_timeout_s >= standstill_s + 2.0
    assert processes_of("drive", run=run)["driver"].stop_timeout_s == 5.0


@pytest.mark.parametrize(
    "value", ["0012", "true", 'a "quoted" name', "ring_meadow", 3, 0.5, False, ["a", "b"], [1, 2]]
)
def test_parameters_keep_their_type_on_the_command_line(value: object) -> None:
    flag, assignment = Process("trainer", {"training.x": value}).ros_arguments()
    name, text = assignment.split(":=", 1)
    assert (flag, name) == ("-p", "training.x")
    read = yaml.safe_load(text)
    assert read == value and type(read) is type(value)


def test_options_survive_being_a_launch_argument() -> None:
    for command in COMMANDS.values():
        for option in command.options:
            text = option.format()
            assert text is None or option.parse(text) == option.default
            assert option.description


def test_several_settings_fit_into_one_launch_argument() -> None:
    option = next(option for option in COMMANDS["train"].options if option.name == "set")
    assert option.parse("a.b=1 'c.d=[x, y]'") == ("a.b=1", "c.d=[x, y]")


# --- supervision -----------------------------------------------------------------------------

SUPERVISOR = """
import sys
from dataclasses import dataclass
from td3_driver.launching import supervision
from td3_driver.launching.parts import Process

supervision.KILL_TIMEOUT_S = 0.5

@dataclass(frozen=True)
class Fake(Process):
    script: str = ""

    def command_line(self):
        return [sys.executable, "-c", self.script]

sys.exit(supervision.run([{processes}]))
"""

CHILD = """
import os, signal, sys, time
def note(what):
    with open({log!r}, "a") as log:
        log.write(f"{name} {{what}} {{os.getpid()}}\\n")
def stop(number, frame):
    note("stopping")
    time.sleep({stopping_s})
    note("stopped")
    sys.exit(0)
if {stubborn}:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
else:
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit({exit_code}))
note("started")
time.sleep(300.0)
"""


class Supervised:
    """A supervisor in a process of its own, over fake children that write a log."""

    def __init__(self, folder: Path, *children: dict[str, object]) -> None:
        self.log = folder / "log"
        self.log.touch()
        self.names = [str(child["name"]) for child in children]
        processes = ", ".join(self._process(**child) for child in children)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR.format(processes=processes)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parent.parent,
            # Started under nohup, the tests would hand on that the hang-up is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )

    def _process(
        self,
        name: str,
        exit_code: int = 0,
        stubborn: bool = False,
        stopping_s: float = 0.0,
        essential: bool = True,
        stop_timeout_s: float = 5.0,
    ) -> str:
        script = CHILD.format(
            log=str(self.log),
            name=name,
            exit_code=exit_code,
            stubborn=stubborn,
            stopping_s=stopping_s,
        )
        return textwrap.dedent(
            f"Fake({name!r}, script={script!r}, essential={essential},"
            f" stop_timeout_s={stop_timeout_s})"
        )

    def events(self) -> list[str]:
        return [line.rsplit(" ", 1)[0] for line in self.log.read_text().splitlines()]

    def pids(self) -> list[int]:
        lines = self.log.read_text().splitlines()
        return [int(line.split()[2]) for line in lines if line.split()[1] == "started"]

    def wait_until_started(self) -> None:
        wait_for(lambda: len(self.pids()) == len(self.names), "the children's start")

    def end(self, name: str) -> None:
        """Let a child end, once all have started."""
        self.wait_until_started()
        lines = [line.split() for line in self.log.read_text().splitlines()]
        (pid,) = [int(pid) for child, event, pid in lines if (child, event) == (name, "started")]
        os.kill(pid, signal.SIGUSR1)

    def wait(self, timeout_s: float = 60.0) -> tuple[int, str]:
        """Return the supervisor's exit code and what it said."""
        _, said = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, said


def wait_for(condition: object, what: str, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.long
def test_the_others_end_when_one_dies_and_its_code_is_returned(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, {"name": "simulator", "exit_code": 7}, {"name": "trainer"})
    supervised.end("simulator")
    code, said = supervised.wait()
    assert code == 7
    assert "simulator has died (exit code 7)" in said
    assert "trainer stopped" in supervised.events()


@pytest.mark.long
def test_the_end_of_the_served_process_is_the_end_of_all(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, {"name": "simulator"}, {"name": "trainer"})
    supervised.end("trainer")
    code, said = supervised.wait()
    assert (code, said) == (0, "")
    assert supervised.events()[-1] == "simulator stopped"


@pytest.mark.long
def test_a_server_that_leaves_before_the_served_one_is_a_failure(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, {"name": "simulator"}, {"name": "trainer"})
    supervised.end("simulator")
    code, _ = supervised.wait()
    assert code == 1


@pytest.mark.long
def test_a_process_that_is_not_essential_may_end(tmp_path: Path) -> None:
    supervised = Supervised(
        tmp_path,
        {"name": "recorder", "exit_code": 3, "essential": False},
        {"name": "trainer"},
    )
    supervised.end("recorder")
    assert supervised.process.stderr is not None
    died = supervised.process.stderr.readline()
    assert "recorder has died (exit code 3); the rest goes on without it" in died
    time.sleep(0.2)  # for it not to be said again
    supervised.end("trainer")
    code, said = supervised.wait()
    assert code == 0
    assert "recorder has died" not in said


@pytest.mark.long
def test_a_killed_process_counts_as_in_a_shell(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, {"name": "simulator"}, {"name": "trainer"})
    supervised.wait_until_started()
    os.kill(supervised.pids()[0], signal.SIGKILL)
    assert supervised.wait()[0] == 128 + signal.SIGKILL


@pytest.mark.long
@pytest.mark.parametrize(
    "number, exit_code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stop_signal_stops_the_last_started_first(
    tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    supervised = Supervised(
        tmp_path, {"name": "simulator"}, {"name": "trainer", "stopping_s": 0.3}
    )
    supervised.wait_until_started()
    supervised.process.send_signal(number)
    assert supervised.wait()[0] == exit_code
    assert supervised.events()[2:] == [
        "trainer stopping",
        "trainer stopped",
        "simulator stopping",
        "simulator stopped",
    ]


@pytest.mark.long
def test_a_stubborn_process_is_killed(tmp_path: Path) -> None:
    supervised = Supervised(
        tmp_path,
        {"name": "simulator"},
        {"name": "trainer", "stubborn": True, "stop_timeout_s": 0.5},
    )
    supervised.wait_until_started()
    supervised.process.send_signal(signal.SIGINT)
    code, said = supervised.wait()
    assert code == 130
    assert "trainer does not end and is killed" in said
    assert not any(is_alive(pid) for pid in supervised.pids())


@pytest.mark.long
def test_further_ctrl_cs_do_not_wait(tmp_path: Path) -> None:
    supervised = Supervised(
        tmp_path, {"name": "trainer", "stubborn": True, "stop_timeout_s": 300.0}
    )
    supervised.wait_until_started()
    for _ in range(2):
        supervised.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert supervised.wait()[0] == 130


@pytest.mark.long
def test_no_child_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, {"name": "simulator"}, {"name": "driver"})
    supervised.wait_until_started()
    supervised.process.kill()
    supervised.process.communicate()
    wait_for(lambda: not any(is_alive(pid) for pid in supervised.pids()), "the children's end")
    # They were asked to end, and so a driver could stop its car.
    assert "driver stopped" in supervised.events()
