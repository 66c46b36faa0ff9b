# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What every test shares: a ROS domain of its own, and processes that soon find each other."""

import contextlib
import fcntl
import functools
import gc
import itertools
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from td3_driver.config import CarlaConfig
from td3_driver.launching import fastdds

# Test modules that import one of these have a ROS graph, or start processes that have.
ROS_MODULES = {"rclpy", "carla_graph", "node_process", "trainer_process"}

pytest_plugins = ["crash_traces"]

# Up to domain 100, DDS uses ports below Linux's ephemeral range.
DOMAINS = 100
SHARED_MEMORY = Path("/dev/shm")
PROFILE = Path(__file__).with_name("fastdds_profiles.xml")

# A suite in a shell's background has SIGINT ignored, and so would every process that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_tests = itertools.count()


def _forget_the_killed(domain: int) -> None:
    """Remove what killed processes have left of a domain in Fast DDS's shared memory.

    Whoever comes upon it may crash, or take the ports of the dead for its own.
    """
    first = 7400 + 250 * domain
    for file in SHARED_MEMORY.glob("*fastdds_port*"):
        port = re.search(r"fastdds_port(\d+)", file.name)
        if port and first <= int(port[1]) < first + 250:
            file.unlink(missing_ok=True)


@contextlib.contextmanager
def free_domain() -> Iterator[int]:
    """Hold a ROS domain that no other test on this machine uses, in 1..100."""
    start = os.getpid() * 31 + next(_tests)
    for offset in range(DOMAINS):
        domain = 1 + (start + offset) % DOMAINS
        path = Path(tempfile.gettempdir()) / f"td3_driver-{os.getuid()}-domain-{domain}.lock"
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            _forget_the_killed(domain)
            yield domain
            return
    raise RuntimeError(f"all {DOMAINS} ROS domains are in use by other tests")


@pytest.hookimpl(hookwrapper=True)
def pytest_collection() -> Iterator[None]:
    """Spare the garbage collector all that is imported: it stays, and is looked through often."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave modules that bring a ROS graph unread where their tests are not wanted."""
    unwanted = "not ros" in config.option.markexpr and collection_path.name.startswith("test_")
    return True if unwanted and _imports_of(collection_path) & ROS_MODULES else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of every module that imports something that brings a ROS graph."""
    for item in items:
        if _imports_of(item.path) & ROS_MODULES:
            item.add_marker("ros")


@functools.cache
def _imports_of(path: Path) -> set[str]:
    """Return the top-level modules that a file imports, one to a line, anywhere in it."""
    return set(re.findall(r"^\s*(?:from|import)\s+(\w+)", path.read_text(), re.MULTILINE))


@pytest.fixture(scope="session", autouse=True)
def this_machine_only() -> Iterator[None]:
    """Let nodes find each other on this machine only, and soon."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        monkeypatch.delenv("ROS_LOCALHOST_ONLY", raising=False)
        for name, value in fastdds.naming(PROFILE, os.environ).items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture(autouse=True)
def ros_domain(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[int | None]:
    """Give the test, and processes it starts, a ROS domain of their own.

    A test without the mark `ros` gets one that none can be: nothing of ROS starts there.
    """
    if request.node.get_closest_marker("ros") is None:
        monkeypatch.setenv("ROS_DOMAIN_ID", "none")
        yield None
        return
    with free_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain


@pytest.fixture(scope="module")
def domain() -> Iterator[int]:
    """Give the tests of a module a ROS domain that they share."""
    with free_domain() as number:
        yield number


@pytest.fixture
def forked() -> Callable[..., Any]:
    """Give the class of processes that begin where all is imported; its tests are marked `ros`."""
    from node_process import NodeProcess  # brings ROS, which most tests do without

    return NodeProcess


@pytest.fixture(scope="module")
def simulator(domain: int) -> Iterator[object]:
    """Run the simulator's node in the module's domain."""
    from carla_graph import simulator_node  # brings ROS, which most tests do without

    with simulator_node(domain) as node:
        yield node


@pytest.fixture(scope="module")
def bridge() -> CarlaConfig:
    """Tell how a module's world waits for its simulator; a module may have its own."""
    from carla_graph import CONFIG

    return CONFIG


@pytest.fixture(scope="module")
def connected(simulator: object, domain: int, bridge: CarlaConfig) -> Iterator[object]:
    """Connect a world to the module's simulator."""
    from carla_graph import ros_node

    from td3_driver.lockstep.world import CarlaWorld

    with ros_node("agent", domain) as node:
        world = CarlaWorld(node, bridge)
        yield world
        world.close()
