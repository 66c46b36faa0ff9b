# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The bridge's play, pause and single-step states, with its command queue's exact behaviour."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable


class RunCommand(enum.IntEnum):
    """The commands of `carla_msgs/CarlaControl`."""

    PLAY = 0
    PAUSE = 1
    STEP_ONCE = 2


class RunState:
    """Decides whether the next tick may go ahead; starts in PLAY, as the bridge does.

    Commands wait in a queue. A running simulator looks only at the last one, so several STEP_ONCE
    sent during a tick collapse into one; a paused simulator takes them one at a time. STEP_ONCE
    queues a PAUSE behind it, which a later command can overtake.
    """

    def __init__(self, on_running_changed: Callable[[bool], None]) -> None:
        """`on_running_changed` is called at every change between running and paused."""
        self._commands: deque[RunCommand] = deque()
        self._paused = False
        self._running = True
        self._on_running_changed = on_running_changed

    @property
    def waiting(self) -> bool:
        """Whether there is nothing to do until a command arrives."""
        return self._paused and not self._commands

    @property
    def commanded(self) -> bool:
        """Whether commands are waiting to be taken."""
        return bool(self._commands)

    @property
    def running(self) -> bool:
        """The value of `synchronous_mode_running` on `/carla/status`."""
        return self._running

    def command(self, command: RunCommand) -> None:
        """Queue a command."""
        self._commands.append(command)

    def may_tick(self) -> bool:
        """Process the queue, and return whether to run one tick now."""
        if self._commands and not self._paused:
            last = self._commands[-1]
            self._commands.clear()
            self._commands.append(last)
        while self._commands:
            command = self._commands.popleft()
            self._paused = command is RunCommand.PAUSE
            self._set_running(not self._paused)
            if command is RunCommand.STEP_ONCE:
                self._commands.append(RunCommand.PAUSE)
            if not self._paused:
                break
        return not self._paused

    def _set_running(self, running: bool) -> None:
        if running != self._running:
            self._running = running
            self._on_running_changed(running)
