"""How this package's nodes run: the executor they use, and how their processes end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions

from td3_driver.config import ConfigError
from td3_driver.driving.world import WorldError
from td3_driver.roads.errors import RoadMapError

# A signal is noticed when a wait ends; no wait is to be longer.
SIGNAL_CHECK_S = 0.25

# A stop must arrive: nothing replaces it, and the simulator keeps to the command it has.
STOP_REPEATS = 3
STOP_INTERVAL_S = 0.05
STOP_DELIVERY_S = 0.2

EXIT_WORLD_ERROR = 1
EXIT_CONFIG_ERROR = 2

_signalled = threading.Event()


def create_executor(context: Context | None = None) -> Executor:
    """Return the fastest single-threaded executor that this rclpy has.

    The events executor, new in Kilted, spares rebuilding a wait set for every message.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor(context=context)
    return EventsExecutor(context=context)


def take_waiting(subscription: Any) -> None:
    """Call the rclpy subscription's callback with every message that has arrived already."""
    while True:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            return
        subscription.callback(taken[0])


def insist(publish: Callable[[], None], publishers: Iterable[Publisher]) -> None:
    """Publish a stop several times and wait until it has been delivered."""
    for _ in range(STOP_REPEATS):
        publish()
        time.sleep(STOP_INTERVAL_S)
    for publisher in publishers:
        publisher.wait_for_all_acked(Duration(seconds=STOP_DELIVERY_S))


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM from now on: a second one must not cut a stop short."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _on_signal(number: int, frame: FrameType | None) -> None:
    _signalled.set()
    raise KeyboardInterrupt


def check_signals() -> None:
    """Raise KeyboardInterrupt once more after a signal: one raised in a callback can be lost."""
    if _signalled.is_set():
        _signalled.clear()
        raise KeyboardInterrupt


def run(body: Callable[[], Any], args: list[str] | None = None) -> int:
    """Run a node's process and return its exit code.

    0 when it ends or is told to by SIGINT or SIGTERM; a wrong setting or a world that cannot go
    on ends it with the message alone. Both signals raise KeyboardInterrupt in `body`, with ROS
    still there for stopping a car.
    """
    # rclpy's own handlers would take the topics away first.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    try:
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
        rclpy.try_shutdown()
    return 0
