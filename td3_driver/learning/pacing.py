# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Keeps the ratio of updates to environment steps, with updates in a thread or in turn."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

MOST_STEPS_AHEAD = 16
"""How far collecting may run ahead of learning, in steps, before it waits."""


class _Plan(NamedTuple):
    """By when updates are due: `offset` and `ratio` for each step since the first ones."""

    ratio: float
    offset: int


class UpdatePacer:
    """Calls `update` so that there are `ratio` updates for each step after the first ones.

    If `threaded`, updates run in parallel with the steps: `step_taken` returns at once unless
    collecting is too far ahead. Otherwise, it takes the updates that are due before it returns.
    An exception in an update is raised by the next `step_taken`.

    Where several worlds are ahead by turns, `allows` says whether more steps may be begun.
    """

    def __init__(
        self,
        update: Callable[[], None],
        *,
        ratio: float,
        first_step: int,
        steps_taken: int = 0,
        updates_done: int = 0,
        threaded: bool = True,
    ) -> None:
        self._update = update
        self._first_step = first_step
        self._began = (steps_taken, updates_done)
        self._steps = steps_taken
        self.busy_s = 0.0
        """Time that updates took."""
        # A resumed run continues from here: what an earlier ratio left undone is not caught up on.
        self._plan = _Plan(ratio, updates_done - self._counted(steps_taken, ratio))
        self._done = updates_done
        self._due = updates_done
        self._changed = threading.Condition()
        self._stopped = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name="updates", daemon=True)
            self._thread.start()

    @property
    def ratio(self) -> float:
        """The ratio that is held now."""
        return self._plan.ratio

    def hold(self, ratio: float) -> None:
        """Hold another ratio from here on: what is due by now stays as it is."""
        if ratio != self.ratio:
            steps, due = self._steps, self._due_by(self._steps)
            self._plan = _Plan(ratio, due - self._counted(steps, ratio))

    @property
    def updates(self) -> int:
        """Number of updates done."""
        return self._done

    @property
    def held_ratio(self) -> float:
        """Updates done for each step since the first ones; NaN before there are any."""
        steps, updates = self._began
        counted = self._steps - max(self._first_step, steps)
        return (self._done - updates) / counted if counted > 0 else math.nan

    @property
    def updates_per_busy_s(self) -> float:
        """Updates that are done in a second of nothing else; 0 before there are any."""
        updates = self._done - self._began[1]
        return updates / self.busy_s if self.busy_s else 0.0

    def allows(self, steps: int, ahead: int) -> bool:
        """Return whether `steps` steps in total may be begun, which all bring updates with them.

        They may where the updates still to be done are then at most those of `ahead` steps. So
        where none is left to be done, `ahead` steps may always be begun.
        """
        return self._due_by(steps) - self._done <= math.ceil(ahead * self.ratio)

    def check(self) -> None:
        """Raise the exception of an update, if there was one."""
        self._raise_error()

    def step_taken(self, step: int, wait: bool = True) -> None:
        """Note that `step` steps have been taken in total.

        Without `wait` it returns at once also where collecting is far ahead.
        """
        self._steps = step
        due = self._due_by(step)
        if self._thread is None:
            while self._done < due:
                self._one()
            return
        with self._changed:
            self._due = max(due, self._due)
            self._changed.notify_all()
            behind = max(int(MOST_STEPS_AHEAD * self.ratio), 1)
            self._changed.wait_for(
                lambda: not wait or self._error is not None or self._due - self._done <= behind
            )
        self._raise_error()

    def _due_by(self, step: int) -> int:
        plan = self._plan  # another thread may change it
        return plan.offset + self._counted(step, plan.ratio)

    def _counted(self, step: int, ratio: float) -> int:
        return int(max(step - self._first_step, 0) * ratio)

    def finish(self) -> None:
        """Take the updates that are due, then end the thread."""
        if self._thread is not None:
            with self._changed:
                self._changed.wait_for(lambda: self._error is not None or self._due <= self._done)
        self.stop()
        self._raise_error()

    def stop(self) -> None:
        """End the thread after the current update."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _one(self) -> None:
        began_s = time.monotonic()
        self._update()
        self.busy_s += time.monotonic() - began_s
        self._done += 1

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._due > self._done)
                if self._stopped:
                    return
            try:
                self._one()
            except Exception as error:
                self._error = error
            with self._changed:
                self._changed.notify_all()
            if self._error is not None:
                return
