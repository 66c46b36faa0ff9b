# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of this machine's environment, regardless of what is running."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Callable
from importlib import metadata, util
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet

from td3_driver.bridge import topics
from td3_driver.bridge.driver_topics import DRIVER_TOPICS
from td3_driver.bridge.interfaces import SHIPPED, build_remedy
from td3_driver.doctor.findings import Finding, Group, Verdict
from td3_driver.launching import carla_bridge, fastdds
from td3_driver.launching.parts import PACKAGE

GROUP = Group("environment")
SETUP = "run `make setup`, or `pip install -c constraints.txt .[onnx]`"
GPU_REMEDY = "install the CUDA build of PyTorch that fits the driver (`nvidia-smi` shows it)"
SETUP_ROS = "source a ROS 2 distribution, or run `make setup` for the ROS wheels"
# Packages that are imported under a different name.
IMPORT_NAMES = {"pillow": "PIL", "pyyaml": "yaml"}
SHARED_MEMORY = Path("/dev/shm")
# A segment each for the simulator, the trainer, the driver and a tool, and some to spare.
SHARED_MEMORY_NEEDED_BYTES = 80 << 20


def examine(world: str) -> list[Finding]:
    """Return the findings; `world` is "embedded", "carla" or "auto"."""
    checks: list[Callable[[], list[Finding]]] = [
        _python,
        _python_packages,
        _ros,
        _message_packages,
        _gpu,
        _shared_memory,
    ]
    if world == "carla":
        checks += [_bridge]
    return [finding for check in checks for finding in check()]


def _python() -> list[Finding]:
    version = platform.python_version()
    try:
        wanted = metadata.metadata(PACKAGE)["Requires-Python"]
    except metadata.PackageNotFoundError:
        return [GROUP.failed("td3_driver", "not installed", SETUP)]
    if wanted is not None and version not in SpecifierSet(wanted):
        remedy = f"make the environment with Python {wanted}"
        return [GROUP.failed("Python", f"{version}, not {wanted}", remedy)]
    return [GROUP.ok("Python", version)]


def _python_packages() -> list[Finding]:
    """Return a finding for each package that td3_driver requires."""
    findings = []
    for line in metadata.requires(PACKAGE) or []:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            findings.append(_python_package(requirement))
    return [*findings, _importable("OpenCV", "cv2", "install opencv-python-headless, or cv2")]


def _python_package(requirement: Requirement) -> Finding:
    name = requirement.name
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return GROUP.failed(name, "not installed", SETUP)
    if not requirement.specifier.contains(version, prereleases=True):
        return GROUP.failed(name, f"{version}, not {requirement.specifier}", SETUP)
    finding = _importable(name, IMPORT_NAMES.get(name.lower(), name), SETUP)
    return finding if finding.verdict is Verdict.FAILED else GROUP.ok(name, version)


def _importable(check: str, module: str, remedy: str) -> Finding:
    try:
        imported = importlib.import_module(module)
    except Exception as error:  # a broken installation can raise anything
        return GROUP.failed(check, f"cannot be imported: {_first_line(error)}", remedy)
    return GROUP.ok(check, str(getattr(imported, "__version__", "installed")))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _ros() -> list[Finding]:
    try:
        rclpy = importlib.import_module("rclpy")
        middleware = rclpy.get_rmw_implementation_identifier()
    except Exception as error:
        return [GROUP.failed("rclpy", f"cannot be used: {_first_line(error)}", SETUP_ROS)]
    origin = os.environ.get("ROS_DISTRO") or "from wheels"
    domain = os.environ.get("ROS_DOMAIN_ID") or "0"
    return [GROUP.ok("rclpy", f"{origin}, {middleware}, ROS_DOMAIN_ID {domain}")]


def _message_packages() -> list[Finding]:
    """Return a finding for each message package that the topics need."""
    problems: dict[str, str] = {}
    for topic in (*topics.TOPICS, *DRIVER_TOPICS):
        package = topic.type_name.split("/")[0]
        problems.setdefault(package, "")
        try:
            _ = topic.message_type
        except Exception as error:
            problems[package] = problems[package] or _first_line(error)
    return [
        GROUP.failed(name, f"cannot be used: {problem}", _message_remedy(name))
        if problem
        else GROUP.ok(name, "installed")
        for name, problem in problems.items()
    ]


def _message_remedy(package: str) -> str:
    return build_remedy(package) if package in SHIPPED else SETUP_ROS


def _gpu() -> list[Finding]:
    try:
        torch = importlib.import_module("torch")
        there, wrong = importlib.import_module("td3_driver.learning.devices").find_gpu()
        if there:
            properties = torch.cuda.get_device_properties(0)
            found = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
            if wrong:
                remedy = f"free its memory, or {GPU_REMEDY}"
                return [GROUP.failed("GPU", f"{found}, cannot be used: {wrong}", remedy)]
            return [GROUP.ok("GPU", found)]
    except Exception as error:
        return [GROUP.failed("GPU", f"cannot be checked: {_first_line(error)}", SETUP)]
    if shutil.which("nvidia-smi"):
        found = f"PyTorch {torch.__version__} finds none, although nvidia-smi is installed"
        if wrong:
            found += f": {wrong}"
        return [GROUP.failed("GPU", found, GPU_REMEDY)]
    return [GROUP.warning("GPU", "none", "train with `--config first_drive`, which suits a CPU")]


def _shared_memory() -> list[Finding]:
    check = "shared memory"
    if not SHARED_MEMORY.is_dir():
        return [GROUP.skipped(check, f"no {SHARED_MEMORY} on this system")]
    if not os.access(SHARED_MEMORY, os.W_OK):
        remedy = "have it mounted so that it can be written"
        return [GROUP.warning(check, "cannot be written: images go over UDP, in pieces", remedy)]
    free = shutil.disk_usage(SHARED_MEMORY).free
    profile = "the shipped profile" if fastdds.environment(os.environ) else "your own profile"
    found = f"{free / 2**20:.0f} MiB free; images use {profile}"
    if free >= SHARED_MEMORY_NEEDED_BYTES:
        return [GROUP.ok(check, found)]
    remedy = "if this is a container, start it with --ipc=host or --shm-size=256m"
    return [GROUP.warning(check, found, remedy)]


def _bridge() -> list[Finding]:
    """Check for the bridge's packages, and that the carla wheel is the version that it demands."""
    missing = [name for name in carla_bridge.PACKAGES if not _in_ament_index(name)]
    if missing:
        remedy = "install them so that `ros2 launch` can start the bridge, or join a running one"
        return [
            GROUP.warning("carla-ros-bridge", f"not installed here: {', '.join(missing)}", remedy)
        ]
    return [GROUP.ok("carla-ros-bridge", "installed"), *_carla_version()]


def _in_ament_index(package: str) -> bool:
    try:
        from ament_index_python.packages import PackageNotFoundError, get_package_prefix
    except ImportError:
        return False
    try:
        get_package_prefix(package)
    except (PackageNotFoundError, OSError):  # OSError: no workspace is sourced
        return False
    return True


def _carla_version() -> list[Finding]:
    """Compare the carla wheel with the version without which the bridge exits."""
    spec = util.find_spec("carla_ros_bridge")
    folders = spec.submodule_search_locations if spec else None
    files = [Path(folder) / "CARLA_VERSION" for folder in folders or ()]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        return []
    text = file.read_text()
    # The bridge cuts off the last character, whatever it is.
    wanted, installed = text[:-1], metadata.version("carla")
    if not text.endswith("\n"):
        remedy = f"add one: echo {text} > {file}"
        return [
            GROUP.failed("CARLA_VERSION", f"{text!r} has no newline; the bridge cuts it", remedy)
        ]
    if wanted != installed:
        # PyPI has no wheel of some versions that bridges name, such as 0.9.13.
        remedy = (
            f"use a bridge that names {installed}, and a server of that version "
            "(ika-rwth-aachen/carla-ros-bridge names 0.9.16); or pip install "
            f"carla=={wanted}, if PyPI has it for this Python, and a server of that version"
        )
        return [
            GROUP.failed("CARLA_VERSION", f"{wanted}, but the carla wheel is {installed}", remedy)
        ]
    return [GROUP.ok("CARLA_VERSION", f"{wanted}, same as the carla wheel")]
