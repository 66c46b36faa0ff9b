"""How this package's nodes run: the executor they use, and how their processes end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.subscription import Subscription

from td3_driver.config import ConfigError
from td3_driver.driving.world import WorldError

EXIT_WORLD_ERROR = 1
EXIT_CONFIG_ERROR = 2


def create_executor(context: Context | None = None) -> Executor:
    """Return the fastest single-threaded executor that this rclpy has.

    The events executor, new in Kilted, spares rebuilding a wait set for every message.
    """
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor(context=context)
    return EventsExecutor(context=context)


def take_waiting(subscription: Subscription) -> None:
    """Call the subscription's callback with every message that has arrived already."""
    while True:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is None:
            return
        subscription.callback(taken[0])


def run(body: Callable[[], Any], args: list[str] | None = None) -> int:
    """Run a node's process and return its exit code.

    0 when it ends or is told to by SIGINT or SIGTERM; a wrong setting or a world that cannot go
    on ends it with the message alone.
    """
    rclpy.init(args=args)
    try:
        body()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_CONFIG_ERROR
    except WorldError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_WORLD_ERROR
    finally:
        rclpy.try_shutdown()
    return 0
