# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Drivers with something odd about them, each run in a process of its own.

Their first argument says what sets it off; the driver gets the others.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from rclpy.executors import SingleThreadedExecutor

from td3_driver.bridge import runtime
from td3_driver.learning.policy import Policy
from td3_driver.nodes.driver import node

SOUND = Policy.act


def failing() -> None:
    """Fail, once a file is there, in a way that nobody has thought of."""
    trigger = sys.argv.pop(1)

    def act(self: Policy, observation: Any) -> Any:
        if os.path.exists(trigger):
            raise KeyError("what nobody has thought of")
        return SOUND(self, observation)

    Policy.act = act  # type: ignore[method-assign]
    node.main()


def slow() -> None:
    """Take a second for every decision while a file exists."""
    trigger = sys.argv.pop(1)

    def act(self: Policy, observation: Any) -> Any:
        if os.path.exists(trigger):
            time.sleep(1.0)
        return SOUND(self, observation)

    Policy.act = act  # type: ignore[method-assign]
    node.main()


def on_executor() -> None:
    """Run on the executor of recent rclpy, or on that of older distributions."""
    if sys.argv.pop(1) == "single-threaded":
        runtime.create_executor = lambda context=None: SingleThreadedExecutor(context=context)
    node.main()
