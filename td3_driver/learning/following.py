# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Keeps a policy that acts on the CPU close to an actor that learns on a GPU, without waiting."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from td3_driver.learning.networks import Actor
from td3_driver.learning.policy import Policy

LEAST_PERIOD_S = 0.02
"""Time between two copies: acting is not made better by newer weights than these."""


class Follower:
    """Copies an actor's weights to a policy: at once on a CPU, on the way on a GPU.

    A GPU copies when it has done what it was given before. The copy is taken over by a later call,
    so that no call waits.
    """

    def __init__(
        self, policy: Policy, actor: Actor, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the policy and the actor; the policy starts with the actor's weights."""
        self._policy = policy
        self._actor = actor
        self._clock = clock
        device = next(actor.parameters()).device
        self._on_gpu = device.type == "cuda"
        self._staged = {
            name: torch.empty(value.shape, dtype=value.dtype, pin_memory=self._on_gpu)
            for name, value in actor.state_dict().items()
        }
        self._copied: torch.cuda.Event | None = None
        self._started_s = -float("inf")
        policy.follow(actor)

    def follow(self, *, at_once: bool) -> None:
        """Take over the latest weights that have arrived, and ask for newer ones.

        With `at_once`, and on a CPU, the actor's weights are taken over in this call.
        """
        if at_once or not self._on_gpu:
            self._policy.follow(self._actor)
            return
        if not self._arrived():
            return
        self._ask()

    def _arrived(self) -> bool:
        """Take over a copy that is complete; return False while one is on its way."""
        if self._copied is None:
            return True
        if not self._copied.query():
            return False
        self._policy.take(self._staged)
        self._copied = None
        return True

    def _ask(self) -> None:
        now_s = self._clock()
        if now_s - self._started_s < LEAST_PERIOD_S:
            return
        self._started_s = now_s
        with torch.no_grad():
            for name, value in self._actor.state_dict().items():
                self._staged[name].copy_(value, non_blocking=True)
        self._copied = self._mark()

    def _mark(self) -> torch.cuda.Event:
        """Return an event that is over when the device has done all that it was given."""
        event = torch.cuda.Event()
        event.record()
        return event
