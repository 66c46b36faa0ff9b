# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Tasks for processes side by side, and a program that has them done: `JOBS WAIT_S`.

They are in a module of their own, which imports little: each process reads it anew.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

from td3_driver.evaluation.side_by_side import side_by_side

TASKS = range(40)


class OddError(ValueError):
    """A task that cannot be done."""


def make_square() -> Callable[[int], int]:
    return lambda number: number**2


def make_refusal() -> Callable[[int], int]:
    def refuse(number: int) -> int:
        if number == 3:
            raise OddError("three is odd")
        return number

    return refuse


def make_suicide() -> Callable[[int], int]:
    def die(number: int) -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return number

    return die


def make_wait(seconds: float) -> Callable[[int], int]:
    def wait(number: int) -> int:
        time.sleep(seconds)
        return os.getpid()

    return wait


def main() -> int:
    jobs, seconds = int(sys.argv[1]), float(sys.argv[2])
    try:
        with closing(side_by_side(partial(make_wait, seconds), TASKS, jobs)) as done:
            for _, process in done:
                print(process, flush=True)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
