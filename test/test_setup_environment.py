# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Set-up: what it asks of a machine, what it does again and what it does not."""

import os
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tools import setup_environment
from tools.setup_environment import (
    Distribution,
    Environment,
    SetupError,
    Step,
    check_machine,
    clean_environ,
    constraints_beside,
    fingerprint,
    interfaces_to_build,
    interpreter_version,
    passed_over,
    pins_of,
    run_steps,
    sourced_distribution,
    without_distribution,
)


class Recorder:
    """Fake steps that say when they run, and fail on demand."""

    def __init__(self, stamps: Path) -> None:
        self.stamps = stamps
        self.ran: list[str] = []
        self.lines: list[str] = []
        self.failing = ""

    def run(self, inputs: dict[str, str]) -> int:
        self.ran.clear()
        steps = [Step(name, value, lambda n=name: self.do(n)) for name, value in inputs.items()]
        return run_steps(steps, self.stamps, self.lines.append)

    def do(self, name: str) -> None:
        if name == self.failing:
            raise KeyboardInterrupt
        self.ran.append(name)


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path / "stamps")


INPUTS = {"first": "a", "second": "b", "third step": "c"}


def test_every_step_runs_once_and_says_so(recorder):
    assert recorder.run(INPUTS) == 3
    assert recorder.ran == list(INPUTS)
    assert recorder.lines[0] == "[1/3] first ..."
    assert recorder.lines[1].endswith("0 s, 0 s in all")


def test_nothing_is_done_again(recorder):
    recorder.run(INPUTS)
    recorder.lines.clear()
    assert recorder.run(INPUTS) == 0
    assert recorder.ran == recorder.lines == []


def test_a_changed_input_redoes_its_step_and_all_that_follow(recorder):
    recorder.run(INPUTS)
    recorder.run({**INPUTS, "second": "changed"})
    assert recorder.ran == ["second", "third step"]


def test_an_interrupted_step_is_taken_up_again(recorder):
    recorder.failing = "second"
    with pytest.raises(KeyboardInterrupt):
        recorder.run(INPUTS)
    recorder.failing = ""
    recorder.run(INPUTS)
    assert recorder.ran == ["second", "third step"]


def test_a_step_interrupted_while_redone_is_not_taken_for_finished(recorder):
    recorder.run(INPUTS)
    recorder.failing = "second"
    with pytest.raises(KeyboardInterrupt):
        recorder.run({**INPUTS, "second": "changed"})
    recorder.failing = ""
    recorder.run(INPUTS)
    assert recorder.ran == ["second", "third step"]


def test_a_further_step_leaves_those_before_it_alone(recorder):
    recorder.run(INPUTS)
    recorder.run({**INPUTS, "test tools": "d"})
    assert recorder.ran == ["test tools"]


def test_a_fingerprint_tells_contents_and_names_apart(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("x")
    two.write_text("x")
    assert fingerprint(files=[one]) != fingerprint(files=[two])
    before = fingerprint(files=[one])
    one.write_text("y")
    assert fingerprint(files=[one]) != before


# ------------------------------------------------------------------ what a machine may lack


def run_script(
    environ: dict[str, str], *, before: str = "pass"
) -> subprocess.CompletedProcess[str]:
    """Run main() in a process of its own, after lines that change what it finds."""
    root = Path(setup_environment.__file__).parent.parent
    lines = f"import sys; from tools import setup_environment as s; {before}; sys.exit(s.main([]))"
    return subprocess.run(
        [sys.executable, "-c", lines],
        cwd=root,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )


def only_error_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    return done.stderr


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 13, 0)])
def test_an_unsupported_python_gets_one_line(version, tmp_path):
    done = run_script({"PATH": str(tmp_path)}, before=f"sys.version_info = {version}")
    line = only_error_line(done)
    assert "Python {}.{} is not supported".format(*version) in line
    assert "apt install python3.12" in line


def fake_interpreter(path: Path, answer: str) -> None:
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_another_python_on_the_path_takes_over(tmp_path):
    fake_interpreter(
        tmp_path / "python3.11", 'if [ "$1" = -c ]; then echo 3 11; else echo took over; fi'
    )
    done = run_script({"PATH": str(tmp_path)}, before="sys.version_info = (3, 13, 0)")
    assert (done.returncode, done.stdout) == (0, "took over\n")


def test_a_launcher_without_its_python_is_passed_over(tmp_path):
    fake_interpreter(tmp_path / "python3.12", "echo not installed >&2; exit 127")
    assert interpreter_version(str(tmp_path / "python3.12")) is None


def test_a_missing_compiler_gets_one_line(tmp_path):
    line = only_error_line(run_script({"PATH": str(tmp_path), "CC": "", "CXX": ""}))
    assert "apt install g++" in line


def test_missing_headers_get_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SetupError, match=r"apt install python3\.\d+-dev"):
        check_machine()


def test_a_missing_venv_module_gets_one_line(monkeypatch):
    monkeypatch.setattr(setup_environment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SetupError, match=r"apt install python3\.\d+-venv"):
        check_machine()


def test_another_kind_of_machine_gets_one_line(monkeypatch):
    monkeypatch.setattr(setup_environment.platform, "machine", lambda: "aarch64")
    with pytest.raises(SetupError, match="Linux on x86_64 only"):
        check_machine()


def test_a_failing_command_shows_the_end_of_its_log(tmp_path):
    environment = Environment(tmp_path, None)
    environment.work.mkdir()
    command = [sys.executable, "-c", "print('why it failed'); raise SystemExit(3)"]
    with pytest.raises(SetupError, match="why it failed"):
        environment.run(command)


def test_a_command_that_is_not_there_is_named(tmp_path):
    environment = Environment(tmp_path, None)
    environment.work.mkdir()
    with pytest.raises(SetupError, match="'no-such-command' cannot be run"):
        environment.run(["no-such-command"])


# ------------------------------------------------------------------ beside a ROS distribution


def prefix_with(folder: Path, *packages: str) -> Path:
    for package in packages:
        share = folder / "share" / package
        share.mkdir(parents=True)
        (share / "package.xml").write_text("<package/>")
    return folder


def sourced(*prefixes: Path) -> dict[str, str]:
    return {"ROS_DISTRO": "kilted", "AMENT_PREFIX_PATH": os.pathsep.join(map(str, prefixes))}


def test_the_distributions_interfaces_are_preferred(tmp_path):
    overlay = prefix_with(tmp_path / "overlay", "carla_msgs", "td3_driver_msgs")
    base = prefix_with(tmp_path / "base", "ackermann_msgs", "tf2_msgs")
    distribution = sourced_distribution(sourced(overlay, base), lambda: True)
    assert interfaces_to_build(distribution) == []


def test_only_the_missing_interfaces_are_built(tmp_path):
    base = prefix_with(tmp_path / "base", "ackermann_msgs", "tf2_msgs")
    distribution = sourced_distribution(sourced(base), lambda: True)
    assert interfaces_to_build(distribution) == ["carla_msgs", "td3_driver_msgs"]
    root = Path(setup_environment.__file__).parent.parent
    names = [step.name for step in Environment(root, distribution).steps(development=False)]
    assert "carla_msgs" in names
    assert "ackermann_msgs" not in names


@pytest.mark.parametrize("gone", ["ROS_DISTRO", "AMENT_PREFIX_PATH"])
def test_without_a_sourced_distribution_everything_is_built(gone, tmp_path):
    environ = sourced(prefix_with(tmp_path, "carla_msgs"))
    del environ[gone]
    assert sourced_distribution(environ, lambda: True) is None
    every = ["ackermann_msgs", "carla_msgs", "td3_driver_msgs", "tf2_msgs"]
    assert interfaces_to_build(None) == every


def test_a_distribution_for_another_python_is_left_alone(tmp_path):
    assert sourced_distribution(sourced(tmp_path), lambda: False) is None


def test_the_environment_is_made_again_when_a_distribution_appears(tmp_path):
    root = Path(setup_environment.__file__).parent.parent
    without = Environment(root, None).steps(development=False)[0]
    beside = Environment(root, Distribution("kilted", (tmp_path,))).steps(development=False)[0]
    assert without.inputs != beside.inputs


def test_a_distributions_python_packages_win_over_the_pins():
    pins = ["numpy==2.2.6", "torch==2.13.0", "types-pyyaml==6.0"]
    numpy_1_pins = ["numpy==1.26.4"]
    installed = {"numpy": "1.26.4", "types-pyyaml": "5.0"}
    expected = ["torch==2.13.0", "numpy==1.26.4"]
    assert constraints_beside(pins, numpy_1_pins, installed) == expected
    newer = constraints_beside(pins, numpy_1_pins, {"numpy": "2.3.5"})
    assert newer == ["torch==2.13.0", "types-pyyaml==6.0", "numpy==2.3.5"]
    assert constraints_beside(pins, numpy_1_pins, {}) == pins


# Ubuntu 22.04, and 24.04 with both of its distributions: Python, glibc and numpy.
DISTRIBUTIONS = {
    "humble": ("3.10", "2_35", "1.21.5"),
    "jazzy and kilted": ("3.12", "2_39", "1.26.4"),
}
UNREACHABLE = ("Failed to fetch", "error sending request", "dns error", "timed out")


@pytest.mark.network
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_pins_beside_a_distribution_resolve(name, tmp_path):
    uv = pytest.importorskip("uv").find_uv_bin()
    python, glibc, numpy = DISTRIBUTIONS[name]
    root = Path(setup_environment.__file__).parent.parent
    files = (root / "constraints.txt", root / "constraints-numpy1.txt")
    pins = constraints_beside(*map(pins_of, files), {"numpy": numpy})
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("\n".join(pins))
    platform = f"x86_64-manylinux_{glibc}"
    command = [uv, "pip", "compile", root / "pyproject.toml", "--extra", "onnx", "-q"]
    command += ["-c", constraints, "--python-version", python, "--python-platform", platform]
    try:
        done = subprocess.run(
            [*command, "--only-binary", ":all:", "--no-annotate"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index does not answer")
    if done.returncode and any(sign in done.stderr for sign in UNREACHABLE):
        pytest.skip("the package index cannot be reached")
    assert done.returncode == 0, done.stderr
    assert "numpy==1.26.4" in done.stdout.splitlines()


def test_anothers_library_path_is_not_inherited():
    environ = {"_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1", "LD_LIBRARY_PATH": "/x", "HOME": "/h"}
    assert clean_environ(environ) == {"HOME": "/h"}
    assert clean_environ({"LD_LIBRARY_PATH": "/x"}) == {"LD_LIBRARY_PATH": "/x"}


def test_wheels_are_not_mixed_with_a_distribution_that_is_passed_over():
    environ = {
        **sourced(Path("/ws/install"), Path("/opt/ros/kilted")),
        "CMAKE_PREFIX_PATH": "/opt/ros/kilted",
        "PYTHONPATH": "/opt/ros/kilted/lib/python3.12/site-packages:/own",
        "LD_LIBRARY_PATH": "/opt/ros/kilted/lib",
        "PATH": "/opt/ros/kilted/bin:/usr/bin",
        "HOME": "/h",
    }
    assert without_distribution(environ) == {
        "PYTHONPATH": "/own",
        "PATH": "/usr/bin",
        "HOME": "/h",
    }
    nothing_sourced = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/x"}
    assert without_distribution(nothing_sourced) == nothing_sourced


def test_the_commands_of_a_set_up_get_the_distribution_only_where_it_is_used(
    monkeypatch, tmp_path
):
    for name, value in sourced(tmp_path).items():
        monkeypatch.setenv(name, value)
    used = Environment(tmp_path, Distribution("kilted", (tmp_path,))).environ()
    assert used["AMENT_PREFIX_PATH"] == str(tmp_path)
    assert "AMENT_PREFIX_PATH" not in Environment(tmp_path, None).environ()


def test_a_distribution_that_is_passed_over_is_named_with_the_way_to_use_it():
    (line,) = passed_over("jazzy").splitlines()
    assert line.startswith("jazzy is sourced")
    assert sys.executable in line and "PYTHON=/usr/bin/python3" in line


def test_what_pip_left_half_installed_is_forgotten(tmp_path):
    environment = Environment(tmp_path, None)
    whole = environment.site_packages() / "whole-1.dist-info"
    half = environment.site_packages() / "half-1.dist-info"
    for folder in (whole, half):
        folder.mkdir(parents=True)
        (folder / "METADATA").touch()
    (whole / "INSTALLER").touch()
    environment.forget_half_installed()
    assert whole.is_dir()
    assert not half.exists()
