# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Finds the Python that has this package's packages, from one that need not.

`ros2 launch`, and what colcon installs, run on the system's Python; PyTorch is in a virtual
environment. So this module needs the standard library alone.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from td3_driver import startup

VARIABLE = "TD3_DRIVER_PYTHON"
"""Environment variable that names the interpreter, before all others."""

# pip installs them into the environment; a distribution's Python does not have them all.
PACKAGES = ("gymnasium", "pydantic", "torch")
BUILD_RECORD = Path(__file__).with_name("build.json")
"""What setup.py leaves in a workspace: the checkout, and the environment that was active."""


class NoEnvironmentError(RuntimeError):
    """No interpreter has the packages; the message is one line that says what to type."""


def lacking() -> list[str]:
    """Return what this interpreter lacks, empty where nodes can run on it."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    rclpy = importlib.util.find_spec("rclpy")  # The doctor reports that it is not there at all.
    if rclpy is not None and rclpy.origin is not None:
        library = Path(rclpy.origin).with_name("_rclpy_pybind11")
        if not any(library.with_suffix(suffix).is_file() for suffix in EXTENSION_SUFFIXES):
            missing.append("rclpy for Python {}.{}".format(*sys.version_info))
    return missing


@functools.cache
def find() -> str:
    """Return the path of an interpreter that has the packages; raises NoEnvironmentError."""
    refused = []
    for python in _candidates():
        fault = _fault(python)
        if not fault:
            return python
        refused.append(f"{python} {fault}")
    raise NoEnvironmentError(
        f"no Python has PyTorch and the rest: {'; '.join(refused)}. {_remedy()}"
    )


def run_node(name: str) -> None:
    """Run one of `td3_driver.nodes` with this process's arguments; see `_run`."""
    _run(name)


def command_line() -> None:
    """Run `td3-driver`; see `_run`."""
    _run(startup.COMMAND_LINE)


def _run(name: str) -> None:
    """Run what `startup.run` knows by a name, on an interpreter that has the packages.

    Ends the process with a line that says what to type if there is none.
    """
    startup.end_at_once_on_ctrl_c()
    try:
        python = find()
    except NoEnvironmentError as error:
        sys.exit(f"td3_driver: {error}")
    if python == sys.executable:
        startup.run(name)
    else:
        os.execv(python, [python, "-m", startup.__name__, name, *sys.argv[1:]])


def _candidates() -> list[str]:
    """Return the interpreters to ask, in their order."""
    if os.environ.get(VARIABLE):
        return [os.environ[VARIABLE]]
    record = json.loads(BUILD_RECORD.read_text()) if BUILD_RECORD.is_file() else {}
    active, built = os.environ.get("VIRTUAL_ENV"), record.get("environment")
    environments = [active, built, str(_checkout() / ".venv")]
    found = [str(Path(folder, "bin", "python")) for folder in environments if folder]
    # Someone who starts an environment's Python means it; the system's gives way to an active one.
    in_environment = sys.prefix != sys.base_prefix
    found.insert(0 if in_environment or not active else 1, sys.executable)
    return list(dict.fromkeys(found))


def _checkout() -> Path:
    """Return the folder of the sources that this package was built from, or runs in."""
    if BUILD_RECORD.is_file():
        return Path(json.loads(BUILD_RECORD.read_text())["checkout"])
    return Path(__file__).resolve().parent.parent


def _remedy() -> str:
    if os.environ.get(VARIABLE):
        return f"Correct {VARIABLE}, or type: unset {VARIABLE}"
    return (
        f"Type: make -C {_checkout()} setup (or name the Python of another environment: "
        f"export {VARIABLE}=/path/to/bin/python)"
    )


def _fault(python: str) -> str:
    """Return why an interpreter will not do, empty if it will."""
    if python == sys.executable:
        missing = lacking()
    elif not Path(python).is_file():
        return "is not there"
    else:
        try:
            ask = [python, "-m", __name__]
            answer = subprocess.run(ask, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return "does not run"
        missing = answer.stdout.splitlines()
    return f"lacks {', '.join(missing)}" if missing else ""


if __name__ == "__main__":
    for name in lacking():
        print(name)
