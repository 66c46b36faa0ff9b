# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How updates run: in which precision, and eagerly or as captured CUDA graphs.

The eager path defines an update; a captured one is the same arithmetic, recorded once and
replayed with one call.
"""

from __future__ import annotations

import torch
from torch import Tensor

from td3_driver.config import LearningConfig
from td3_driver.learning.batch import Batch, Replay
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.td3 import TD3, UpdateKind

CAPTURE_AFTER_UPDATES = 3
"""Eager updates of a kind before it is captured: libraries initialise during the first ones."""
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


class GraphedUpdates(Updates):
    """Replays captured updates: one graph per kind, which also draws the batch.

    Measured updates run eagerly, with the same weights and random streams.
    """

    mode = "CUDA graphs"

    def __init__(self, learner: TD3, replay: Replay, sampling: torch.Generator) -> None:
        super().__init__(learner, replay, sampling)
        self.graphs: dict[UpdateKind, torch.cuda.CUDAGraph] = {}
        self._batches: dict[UpdateKind, Batch] = {}
        self._eager: dict[UpdateKind, int] = {}

    def __call__(self, measure: bool = False) -> dict[str, Tensor]:
        """Do one update; with `measure`, return its figures as tensors."""
        with self.replay.lock:
            if not len(self.replay):
                raise ValueError("the replay buffer holds no transition yet")
            kind = self.learner.begin_update()
            if measure or self._eager.get(kind, 0) < CAPTURE_AFTER_UPDATES:
                self._eager[kind] = self._eager.get(kind, 0) + 1
                return self.update_eagerly(kind, measure)
            if kind not in self.graphs:
                self._capture(kind)
            self.graphs[kind].replay()
            self.batch = self._batches[kind]
            return {}

    def update_eagerly(self, kind: UpdateKind, measure: bool = False) -> dict[str, Tensor]:
        """Do an update of a kind, one operation after the other."""
        learner, replay = self.learner, self.replay
        self.batch = replay.draw(learner.settings.batch_size, self._sampling, self._shifts())
        figures = learner.move(self.batch, kind, measure)
        if replay.prioritized:
            assert self.batch.slots is not None
            replay.put_priorities(self.batch.slots, learner.priorities())
        return figures

    def _capture(self, kind: UpdateKind) -> None:
        """Record an update of this kind without running it."""
        learner = self.learner
        # The recorded step must not read gradients left over from the eager updates.
        for optimizer in (learner.actor_optimizer, learner.critic_optimizer):
            optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        for generator in {self._sampling, learner.generator}:
            graph.register_generator_state(generator)
        try:
            # Other threads may use the device meanwhile; only this one must not wait for it.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.update_eagerly(kind)
        except RuntimeError as error:
            raise RuntimeError(
                f"an update could not be captured as a CUDA graph ({error}): "
                "set learning.cuda_graphs to false"
            ) from error
        assert self.batch is not None
        self.graphs[kind], self._batches[kind] = graph, self.batch


def make_updates(learner: TD3, replay: Replay, sampling: torch.Generator) -> Updates:
    """Return the fastest kind of updates that the learner's settings and devices allow."""
    # A tensor's device says which GPU "cuda" is.
    device = learner.finite.device
    on_gpu = device.type == "cuda" and replay.queue.device == device
    kind = GraphedUpdates if on_gpu and learner.settings.cuda_graphs else Updates
    return kind(learner, replay, sampling)


def describe(updates: Updates) -> str:
    """Return a line that says where and how the updates run."""
    learner = updates.learner
    precision = str(learner.precision).removeprefix("torch.")
    return (
        f"learning on {learner.device}, {precision}, {updates.mode}; "
        f"batches of {learner.settings.batch_size} from {updates.replay.device}"
    )
