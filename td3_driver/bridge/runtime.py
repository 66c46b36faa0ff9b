# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How this package's nodes run: the loop they spin in, what signals do, how processes end.

KeyboardInterrupt in the middle of an executor leaves a callback half done, and now and then comes
out of rclpy's C++ code as a RuntimeError. So the processes of `run` only note a signal;
KeyboardInterrupt is raised between two rounds of the executor.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions

from td3_driver.bridge.outlasting import Outlasted
from td3_driver.config import ConfigError, shown
from td3_driver.driving.world import WorldError
from td3_driver.roads.errors import RoadMapError

# A signal is noticed when a wait ends; no wait may be longer.
SIGNAL_CHECK_S = 0.25

# Who does not count the time in which its process stood still must not wait for longer at once.
BEAT_S = 0.05
LATE_S = 0.05
"""A round of the executor that takes so much longer than it may has stood still."""

# A stop must arrive: nothing replaces it, and the simulator keeps applying its last command.
STOP_REPEATS = 3
STOP_INTERVAL_S = 0.05
STOP_DELIVERY_S = 0.2

EXIT_WORLD_ERROR = 1
EXIT_CONFIG_ERROR = 2

DOMAIN = "ROS_DOMAIN_ID"
# Beyond it there are no ports, and Fast DDS ends the process.
LARGEST_DOMAIN = 232
NO_LOG_REMEDY = "set ROS_LOG_DIR to a folder that can be written"
NO_ROS_REMEDY = (
    "correct RMW_IMPLEMENTATION, the profile that the environment names, or the arguments"
)

RCLError = rclpy_implementation.RCLError


class NoRosError(ConfigError):
    """ROS cannot start here."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}: {remedy}")
        self.reason = reason
        self.remedy = remedy


class _Signals:
    """SIGINT and SIGTERM of a process, each noted until checked, or raised at once."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._noted: int | None = None
        self._latest: int | None = None
        self._ignored: int | None = None
        self._at_once = False

    def listen(self) -> None:
        for number in self.NUMBERS:
            signal.signal(number, self._on_signal)

    def ignore(self) -> None:
        for number in self.NUMBERS:
            signal.signal(number, signal.SIG_IGN)

    def check(self) -> None:
        if self._noted is not None:
            self._latest, self._noted = self._noted, None
            raise KeyboardInterrupt

    @property
    def interrupted(self) -> bool:
        """Whether the latest signal that was raised is SIGINT."""
        return self._latest == signal.SIGINT

    @contextmanager
    def ignoring_further_interrupts(self) -> Iterator[None]:
        self._ignored = signal.SIGINT
        if self._noted == signal.SIGINT:
            self._noted = None
        try:
            yield
        finally:
            self._ignored = None

    @contextmanager
    def raised_at_once(self, at_once: bool) -> Iterator[None]:
        before, self._at_once = self._at_once, at_once
        try:
            yield
        finally:
            self._at_once = before

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == self._ignored:
            return
        self._noted = number
        if self._at_once:
            self.check()


_signals = _Signals()


def check_signals() -> None:
    """Raise KeyboardInterrupt if a signal has been noted since the last time."""
    _signals.check()


def create_executor(context: Context | None = None) -> Executor:
    """Return the fastest single-threaded executor that this rclpy has.

    The events executor, new in Kilted, does not rebuild a wait set for every message.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor(context=context)
    return EventsExecutor(context=context)


class Spinner:
    """Spins a node, one round of its executor at a time."""

    def __init__(self, node: Node, executor: Executor | None = None) -> None:
        """Add the node to `executor`, by default one from `create_executor`."""
        self.stood_still_s = 0.0
        """For how long this process stood still in all rounds so far: they took that much longer
        than they were to. Messages that came meanwhile are there, unread."""
        self._node = node
        self._executor = create_executor(node.context) if executor is None else executor
        self._executor.add_node(node)

    def once(self, timeout_s: float) -> None:
        """Run whatever is ready first, or wait at most `timeout_s`, and at most `SIGNAL_CHECK_S`.

        Raises KeyboardInterrupt after a signal, ExternalShutdownException once the context has
        ended.
        """
        _signals.check()
        timeout_s = min(max(timeout_s, 0.0), SIGNAL_CHECK_S)
        begin_s = time.monotonic()
        with _signals.raised_at_once(False):
            try:
                self._executor.spin_once(timeout_sec=timeout_s)
            except RCLError as error:
                # Some middleware reports an unreadable message this way, and a wait-set
                # executor the end of its context.
                if self._node.context.ok():
                    self._node.get_logger().warning(f"a message could not be read: {error}")
        late_s = time.monotonic() - begin_s - timeout_s
        if late_s > LATE_S:
            self.stood_still_s += late_s
        _signals.check()
        if not self._node.context.ok():
            raise ExternalShutdownException()

    def now_s(self) -> float:
        """Return the time on a steady clock that stops while this process stands still here."""
        return time.monotonic() - self.stood_still_s

    def close(self) -> None:
        """End the executor; the node still belongs to its owner."""
        with _signals.raised_at_once(False):
            self._executor.remove_node(self._node)
            self._executor.shutdown()


def spin(
    node: Node,
    *,
    until: Callable[[], bool] = lambda: False,
    idle_s: Callable[[], float] = lambda: SIGNAL_CHECK_S,
    work: Callable[[], object] = lambda: None,
    executor: Executor | None = None,
    outlasted: Outlasted | None = None,
) -> None:
    """Serve a node until `until` holds or its context ends; raises KeyboardInterrupt for a signal.

    `work` runs after every round of the executor, and no round waits longer than `idle_s`. After
    SIGINT the node is served until what is `outlasted` has ended; SIGTERM ends that at once.
    """
    spinner = Spinner(node, executor)

    def serve(until: Callable[[], bool]) -> None:
        while node.context.ok() and not until():
            spinner.once(idle_s())
            work()

    try:
        try:
            serve(until)
        except KeyboardInterrupt:
            if outlasted is None or not _signals.interrupted:
                raise
            # Some send it twice: a terminal to the whole group, and a launch to each process.
            with _signals.ignoring_further_interrupts():
                outlasted.begin()
                serve(lambda: until() or outlasted.have_ended())
    except ExternalShutdownException:
        pass
    finally:
        spinner.close()


class Finishing(Protocol):
    """A node that has something to complete when it ends."""

    def run(self) -> None:
        """Serve until the end."""

    def finish(self) -> None:
        """Complete what the node was doing."""


def run_and_finish(make_node: Callable[[], Finishing]) -> None:
    """Run a node, and have it complete its work however it ends."""
    node = make_node()
    try:
        node.run()
    finally:
        node.finish()


def take_waiting(subscription: Any) -> None:
    """Call the rclpy subscription's callback with every message that has already arrived."""
    while True:
        try:
            with subscription.handle:
                taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        except RCLError as error:
            get_logger("td3_driver").warning(f"a message could not be read: {error}")
            return
        if taken is None:
            return
        subscription.callback(taken[0])


def insist(publish: Callable[[], None], publishers: Iterable[Publisher]) -> None:
    """Publish a stop several times and wait until it has been delivered."""
    for _ in range(STOP_REPEATS):
        publish()
        time.sleep(STOP_INTERVAL_S)
    await_delivery(publishers)


def await_delivery(publishers: Iterable[Publisher]) -> None:
    """Wait until the last published stop has been delivered, or nobody answers."""
    for publisher in publishers:
        publisher.wait_for_all_acked(Duration(seconds=STOP_DELIVERY_S))


def begin_ros(begin: Callable[[], object]) -> None:
    """Call what starts ROS; raises NoRosError where the environment or the arguments are wrong."""
    _check_domain(os.environ)
    try:
        begin()
    except UnicodeEncodeError as error:
        reason = f"ROS takes no argument that is not UTF-8: {shown(error.object)}"
        raise NoRosError(reason, "rename the folder or file") from None
    except RuntimeError as error:  # rclpy's own errors
        raise no_ros(error) from None


def no_ros(error: RuntimeError) -> NoRosError:
    """Return one of rclpy's errors, while a process starts, in one line with its remedy."""
    # The place in ROS's source helps nobody who has to set this right.
    reason = (str(error).splitlines() or ["no reason given"])[0].partition(", at /")[0]
    remedy = NO_LOG_REMEDY if "log directory" in reason else NO_ROS_REMEDY
    return NoRosError(f"ROS cannot start: {reason}", remedy)


def _check_domain(environ: Mapping[str, str]) -> None:
    """Raise NoRosError if the environment names a domain that DDS has no ports for."""
    text = environ.get(DOMAIN, "").strip()
    if "zenoh" in environ.get("RMW_IMPLEMENTATION", "") or not text:
        return
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > LARGEST_DOMAIN:
        reason = f"{DOMAIN} is {shown(text)}, not a number from 0 to {LARGEST_DOMAIN}"
        raise NoRosError(reason, f"correct it, or type: unset {DOMAIN}")


def run(body: Callable[[], Any], args: list[str] | None = None, *, at_once: bool = False) -> int:
    """Run a node's process and return its exit code.

    0 when it ends by itself or by SIGINT or SIGTERM. After a wrong setting or a WorldError
    it ends with just the message. A signal raises KeyboardInterrupt where `body` spins or
    calls `check_signals`, so it interrupts neither a callback nor the stopping of a car. With
    `at_once`, it does so anywhere in `body` except in its executor.
    """
    _signals.listen()
    try:
        # rclpy's own handlers would close the topics first.
        begin_ros(lambda: rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO))
        with _signals.raised_at_once(at_once):
            body()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except (ConfigError, RoadMapError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG_ERROR
    except WorldError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WORLD_ERROR
    finally:
        # Python drops its handlers, but not this, before the process has ended.
        _signals.ignore()
        rclpy.try_shutdown()
    return 0
