# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Drivers with something odd about them, each run in a process of its own.

Their first argument says what sets it off; the driver gets the others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any

from rclpy.executors import SingleThreadedExecutor

from td3_driver.bridge import runtime
from td3_driver.learning.policy import Policy
from td3_driver.nodes.driver import node

SOUND = Policy.act


def failing() -> None:
    """Fail, once a file is there, in a way that nobody has thought of."""

    def fail() -> None:
        raise KeyError("what nobody has thought of")

    _drive_and_before_each_decision(fail)


def slow() -> None:
    """Take a second for every decision while a file exists."""
    _drive_and_before_each_decision(lambda: time.sleep(1.0))


def _drive_and_before_each_decision(do: Callable[[], None]) -> None:
    """Run the driver, and `do` something before each decision while a file exists."""
    trigger = sys.argv.pop(1)

    def act(self: Policy, observation: Any) -> Any:
        if os.path.exists(trigger):
            do()
        return SOUND(self, observation)

    Policy.act = act  # type: ignore[method-assign]
    node.main()


def on_executor() -> None:
    """Run on the executor of recent rclpy, or on that of older distributions."""
    if sys.argv.pop(1) == "single-threaded":
        runtime.create_executor = lambda context=None: SingleThreadedExecutor(context=context)
    node.main()
