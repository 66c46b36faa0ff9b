# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How updates run: in which precision, and eagerly or as captured CUDA graphs.

The eager path defines an update; a captured one is the same arithmetic, recorded once and
replayed with one call. The first replays of each kind are checked against eager updates, and
where they differ, or nothing can be captured, eager updates go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from td3_driver.config import LearningConfig
from td3_driver.documents import in_short
from td3_driver.learning.batch import Batch, Replay
from td3_driver.learning.captured_check import StateBefore, difference
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.td3 import TD3, UpdateKind

CAPTURE_AFTER_UPDATES = 3
"""Eager updates of a kind before it is captured: libraries initialise during the first ones."""
CHECKED_REPLAYS = 3
"""Captured updates of a kind that are compared with eager ones."""
BFLOAT16_CPU_BATCH = 32
"""For smaller batches, nobody has measured whether bfloat16 is faster on CPUs that have it."""


def has_bfloat16(device: torch.device) -> bool:
    """Return whether a device computes in bfloat16 natively."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # PyTorch has no public function for this, and older versions have none at all.
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def choose_precision(
    settings: LearningConfig, spec: NetworkSpec, device: torch.device
) -> torch.dtype:
    """Return the precision of encoders and hidden layers."""
    if settings.precision != "auto":
        return getattr(torch, settings.precision)
    if not (spec.image and has_bfloat16(device)):
        return torch.float32
    large = settings.batch_size >= BFLOAT16_CPU_BATCH
    return torch.bfloat16 if device.type == "cuda" or large else torch.float32


class Updates:
    """Draws a batch and does an update on it, one operation after the other."""

    mode = "eager"

    def __init__(self, learner: TD3, replay: Replay, sampling: torch.Generator) -> None:
        self.learner = learner
        self.replay = replay
        self.batch: Batch | None = None
        """The latest batch; the next captured update of the same kind overwrites it."""
        self._sampling = sampling

    def __call__(self, measure: bool = False) -> dict[str, Tensor]:
        """Do one update; with `measure`, return its figures as tensors."""
        batch_size = self.learner.settings.batch_size
        self.batch = self.replay.sample(batch_size, self._sampling, self._shifts())
        figures = self.learner.update(self.batch, measure)
        if self.replay.prioritized:
            assert self.batch.slots is not None
            priorities = self.learner.priorities().to(self.replay.device)
            self.replay.set_priorities(self.batch.slots, priorities)
        return figures

    def _shifts(self) -> Tensor | None:
        shifts = self.learner.draw_shifts(self.learner.settings.batch_size)
        return None if shifts is None else shifts.to(self.replay.device)


class Graph(Protocol):
    """A captured update."""

    def replay(self) -> None:
        """Do it."""


class GraphedUpdates(Updates):
    """Replays captured updates: one graph per kind, which also draws the batch.

    Measured updates run eagerly, with the same weights and random streams. So do all, after a
    warning, where an update cannot be captured, or does something else than an eager one.
    """

    def __init__(
        self,
        learner: TD3,
        replay: Replay,
        sampling: torch.Generator,
        warn: Callable[[str], object] = print,
    ) -> None:
        """Take what updates need; `warn` hears why they go on eagerly, if they do."""
        super().__init__(learner, replay, sampling)
        self.mode = "CUDA graphs"
        self.graphs: dict[UpdateKind, Graph] = {}
        self.checked: dict[UpdateKind, int] = {}
        """Captured updates of each kind that were found equal to eager ones."""
        self.given_up = ""
        """Why no more updates are captured; empty while they are."""
        self._warn = warn
        self._batches: dict[UpdateKind, Batch] = {}
        self._eager: dict[UpdateKind, int] = {}

    def __call__(self, measure: bool = False) -> dict[str, Tensor]:
        """Do one update; with `measure`, return its figures as tensors."""
        with self.replay.lock:
            if not len(self.replay):
                raise ValueError("the replay buffer holds no transition yet")
            kind = self.learner.begin_update()
            begun = self._eager.get(kind, 0)
            if measure or self.given_up or begun < CAPTURE_AFTER_UPDATES:
                self._eager[kind] = begun + 1
                return self.update_eagerly(kind, measure)
            if self.checked.get(kind, 0) < CHECKED_REPLAYS:
                self._update_and_check(kind)
            else:
                self._replay(kind)
            return {}

    def _replay(self, kind: UpdateKind) -> None:
        self.graphs[kind].replay()
        self.batch = self._batches[kind]

    def _update_and_check(self, kind: UpdateKind) -> None:
        """Do an update as captured if that is what an eager one does, or else eagerly."""
        before = StateBefore(self.learner, self.replay, (self._sampling, self.learner.generator))
        try:
            if kind not in self.graphs:
                self.graphs[kind] = self._capture(kind)
                assert self.batch is not None
                self._batches[kind] = self.batch
                before.restore()  # capturing counts random numbers, and draws none
            self.update_eagerly(kind)
            eager = before.changes()
            before.restore()
            self._replay(kind)
            wrong = difference(eager, before.changes(), self.learner.precision)
        except RuntimeError as error:
            wrong = f"it failed ({in_short(error)})"
        if not wrong:
            self.checked[kind] = self.checked.get(kind, 0) + 1
            return
        self.graphs.clear()
        self._batches.clear()
        self.given_up, self.mode = wrong, "eager, as CUDA graphs cannot be used"
        self._warn(
            f"warning: a captured update is not what it should be: {wrong}. Updates go on "
            "eagerly, which is slower but right (as with learning.cuda_graphs: false)"
        )
        before.restore()
        self.update_eagerly(kind)

    def update_eagerly(self, kind: UpdateKind, measure: bool = False) -> dict[str, Tensor]:
        """Do an update of a kind, one operation after the other."""
        learner, replay = self.learner, self.replay
        self.batch = replay.draw(learner.settings.batch_size, self._sampling, self._shifts())
        figures = learner.move(self.batch, kind, measure)
        if replay.prioritized:
            assert self.batch.slots is not None
            replay.put_priorities(self.batch.slots, learner.priorities())
        return figures

    def _capture(self, kind: UpdateKind) -> Graph:
        """Record an update of this kind without running it; raises RuntimeError."""
        learner = self.learner
        # The recorded step must not read gradients left over from the eager updates.
        for optimizer in learner.optimizers:
            optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        for generator in {self._sampling, learner.generator}:
            graph.register_generator_state(generator)
        # Other threads may use the device meanwhile; only this one must not wait for it.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.update_eagerly(kind)
        return graph


def make_updates(
    learner: TD3,
    replay: Replay,
    sampling: torch.Generator,
    warn: Callable[[str], object] = print,
) -> Updates:
    """Return the fastest kind of updates that the learner's settings and devices allow.

    `warn` hears if they turn out not to allow it.
    """
    # A tensor's device says which GPU "cuda" is.
    device = learner.finite.device
    on_gpu = device.type == "cuda" and replay.queue.device == device
    if on_gpu and learner.settings.cuda_graphs:
        return GraphedUpdates(learner, replay, sampling, warn)
    return Updates(learner, replay, sampling)


def describe(updates: Updates) -> str:
    """Return a line that says where and how the updates run."""
    learner = updates.learner
    precision = str(learner.precision).removeprefix("torch.")
    return (
        f"learning on {learner.device}, {precision}, {updates.mode}; "
        f"batches of {learner.settings.batch_size} from {updates.replay.device}"
    )
