# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Compares a captured update with an eager one, from the same state, batch and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from td3_driver.learning.batch import Replay
from td3_driver.learning.learner_state import live_tensors
from td3_driver.learning.td3 import TD3

LARGEST_DIFFERENCE = {torch.float32: 0.05, torch.bfloat16: 0.2}
"""By precision: norm of the difference of two changes, over that of the eager change.

Adam divides by the gradient's size, so that rounding shows in the weights whose gradient is almost
0; a graph that does something else differs by 1 and more.
"""


@dataclass(frozen=True)
class Changes:
    """What an update changed, on the device."""

    of: dict[str, Tensor]
    """Differences to before, float32 and flat, by the name of the network or moment."""
    finite: Tensor
    streams: list[Tensor]
    """States of the random streams afterwards."""


class StateBefore:
    """A copy of everything that an update changes; puts it back in place.

    Captured updates read and write fixed memory, so nothing may be replaced.
    """

    def __init__(
        self, learner: TD3, replay: Replay, generators: Sequence[torch.Generator]
    ) -> None:
        """Copy the state as it is now."""
        self._groups = live_tensors(learner)
        self._others = [learner.finite, *replay.priority_tensors()]
        self._learner = learner
        self._generators = list(generators)
        self._copies = {
            name: [tensor.clone() for tensor in group] for name, group in self._groups.items()
        }
        self._copies_of_others = [tensor.clone() for tensor in self._others]
        self._streams = [generator.get_state() for generator in self._generators]

    @torch.no_grad()
    def restore(self) -> None:
        """Put everything back."""
        for name, group in self._groups.items():
            for tensor, copy in zip(group, self._copies[name], strict=True):
                tensor.copy_(copy)
        for tensor, copy in zip(self._others, self._copies_of_others, strict=True):
            tensor.copy_(copy)
        for generator, state in zip(self._generators, self._streams, strict=True):
            generator.set_state(state)

    @torch.no_grad()
    def changes(self) -> Changes:
        """Return what has changed since."""
        return Changes(
            {
                name: torch.cat(
                    [
                        (tensor.float() - copy.float()).flatten()
                        for tensor, copy in zip(group, self._copies[name], strict=True)
                    ]
                )
                for name, group in self._groups.items()
                if group
            },
            self._learner.finite.clone(),
            [generator.get_state() for generator in self._generators],
        )


def difference(eager: Changes, captured: Changes, precision: torch.dtype) -> str:
    """Return in words how a captured update differs from an eager one; empty if it does not."""
    if bool(eager.finite) != bool(captured.finite):
        return f"its losses are {'' if captured.finite else 'not '}finite"
    for one, other in zip(eager.streams, captured.streams, strict=True):
        if not torch.equal(one, other):
            return "it takes other random numbers"
    most = LARGEST_DIFFERENCE[precision]
    for name, change in eager.of.items():
        size, apart = float(change.norm()), float((captured.of[name] - change).norm())
        if not apart <= most * size:
            share = f"{apart / size:.2g} times" if size else "more than"
            return f"of {name}, its change differs by {share} the eager one"
    return ""
