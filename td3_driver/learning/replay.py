"""Replay buffer for dict observations that keeps every camera image once.

A slot holds one observation's newest image and its vector, and the action, reward and end that
followed it. Stacks and next observations are gathered when sampled. The last observation of an
episode has a slot but starts no transition.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from td3_driver.learning.networks import Observations


class ReplayMemoryError(ValueError):
    """The buffer would take more memory than allowed."""


@dataclass(frozen=True)
class Batch:
    """Transitions: observations before and after, and what lies between."""

    observations: Observations
    actions: Tensor
    """(B, actions), float32."""
    rewards: Tensor
    """(B,), float32."""
    next_observations: Observations
    terminated: Tensor
    """(B,), float32: 1 where nothing follows; a truncated transition has 0 and bootstraps."""


@dataclass(frozen=True)
class ReplaySpec:
    """Shapes of what is stored."""

    image: tuple[int, int, int]
    """(stack, height, width); one (height, width) image is kept for each slot."""
    vector: int
    actions: int

    @property
    def bytes_per_slot(self) -> int:
        """Memory of one slot in bytes."""
        _, height, width = self.image
        floats = 4 * (self.vector + self.actions + 1)
        return height * width + floats + 1 + 8 + 8  # terminated, age, place in the queue


class ReplayBuffer:
    """A ring of `capacity` slots, exact across episode starts, ends and its seam.

    Slots are numbered without end; number i lives in row i modulo the capacity. Adding in one
    thread and sampling in another is safe.
    """

    _STORED = (
        "images",
        "vectors",
        "actions",
        "rewards",
        "terminated",
        "age",
        "transitions",
    )

    def __init__(self, spec: ReplaySpec, capacity: int, device: torch.device | str = "cpu"):
        if capacity < spec.image[0] + 2:
            raise ValueError(f"capacity {capacity} is less than a stack of {spec.image[0]} needs")
        _, height, width = spec.image
        self.spec = spec
        self.capacity = capacity
        self.device = torch.device(device)

        def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((capacity, *shape), dtype=dtype, device=self.device)

        self.images = rows(height, width, dtype=torch.uint8)
        self.vectors = rows(spec.vector)
        self.actions = rows(spec.actions)
        self.rewards = rows()
        self.terminated = rows(dtype=torch.bool)
        # The bookkeeping stays in host memory: every addition reads it.
        self.age = np.zeros(capacity, dtype=np.int64)  # slots since the episode's first
        self.transitions = np.zeros(capacity, dtype=np.int64)  # a queue of slots, oldest first
        self._added = 0
        self._first_transition = 0
        self._end_transition = 0
        self._in_episode = False
        self._mirror: Tensor | None = None  # of the images, in host memory
        self._mirrored = 0  # slots that the mirror has taken over
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""
        return self._end_transition - self._first_transition

    @property
    def size_bytes(self) -> int:
        """Memory of all slots."""
        return self.capacity * self.spec.bytes_per_slot

    def reward_range(self) -> tuple[float, float]:
        """Return the least and the greatest reward stored, or 0 where that lies beyond them."""
        with self._lock:
            rewards = self.rewards[: min(self._added, self.capacity)]
            least, greatest = torch.aminmax(rewards)
        return min(float(least), 0.0), max(float(greatest), 0.0)

    def begin(self, observation: dict[str, np.ndarray]) -> None:
        """Start an episode with its first observation (whose stack is one image, repeated)."""
        with self._lock:
            self._append(observation, age=0)
            self._in_episode = True

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: dict[str, np.ndarray],
        *,
        terminated: bool,
        truncated: bool = False,
        clean: bool = True,
    ) -> None:
        """Store what followed the latest observation, and the observation it led to.

        With `clean=False` the observation continues the episode's stack, but the transition is
        never sampled.
        """
        if not self._in_episode:
            raise ValueError("begin() an episode before adding to it")
        with self._lock:
            slot = self._added - 1
            row = slot % self.capacity
            self.actions[row] = torch.as_tensor(action)
            self.rewards[row] = reward
            self.terminated[row] = terminated
            self._append(observation, age=int(self.age[row]) + 1)
            if clean:
                self.transitions[self._end_transition % self.capacity] = slot
                self._end_transition += 1
            self._in_episode = not (terminated or truncated)

    def _append(self, observation: dict[str, np.ndarray], age: int) -> None:
        """Write an observation into the next slot and drop the transitions that lost an image."""
        row = self._added % self.capacity
        self.images[row] = torch.as_tensor(observation["image"][-1])
        self.vectors[row] = torch.as_tensor(observation["vector"])
        self.age[row] = age
        self._added += 1
        oldest_kept = self._added - self.capacity
        while len(self):
            slot = int(self.transitions[self._first_transition % self.capacity])
            # Its age may be overwritten only together with the slot itself.
            alive = slot >= oldest_kept
            if alive and slot - self._stacked_back(slot) >= oldest_kept:
                break
            self._first_transition += 1

    def _stacked_back(self, slot: int) -> int:
        """Return how many slots before this one its stack reaches."""
        return min(int(self.age[slot % self.capacity]), self.spec.image[0] - 1)

    def sample(self, batch_size: int, generator: torch.Generator) -> Batch:
        """Draw transitions uniformly, with replacement."""
        with self._lock:
            if not len(self):
                raise ValueError("the replay buffer holds no transition yet")
            picks = torch.randint(0, len(self), (batch_size,), generator=generator).numpy()
            return self.gather(self.transitions[(self._first_transition + picks) % self.capacity])

    def gather(self, slots: np.ndarray) -> Batch:
        """Return the transitions that start at these slots, int64 (B,)."""
        stack = self.spec.image[0]
        back = np.minimum(np.arange(stack - 1, -1, -1), self.age[slots % self.capacity][:, None])
        # One gather serves both stacks: the next one is this one's, moved by an image.
        seen = np.concatenate([slots[:, None] - back, slots[:, None] + 1], axis=1)
        image_rows = torch.from_numpy((seen % self.capacity).ravel()).to(self.device)
        rows = torch.from_numpy(slots % self.capacity).to(self.device)
        next_rows = torch.from_numpy((slots + 1) % self.capacity).to(self.device)
        images = self.images.index_select(0, image_rows).view(
            len(slots), stack + 1, *self.spec.image[1:]
        )
        return Batch(
            observations={
                "image": images[:, :stack],
                "vector": self.vectors.index_select(0, rows),
            },
            actions=self.actions.index_select(0, rows),
            rewards=self.rewards.index_select(0, rows),
            next_observations={
                "image": images[:, 1:],
                "vector": self.vectors.index_select(0, next_rows),
            },
            terminated=self.terminated.index_select(0, rows).float(),
        )

    def state(self) -> dict[str, Tensor]:
        """Return a copy of everything stored, as tensors in host memory.

        The next call takes the images over again and copies only those added since: copying all
        would hold training up.
        """
        with self._lock:
            used = min(self._added, self.capacity)
            tensors = {
                name: torch.as_tensor(getattr(self, name))[:used].to("cpu", copy=True)
                for name in self._STORED
                if name != "images"
            }
            counters = [self._added, self._first_transition, self._end_transition]
            return tensors | {
                "images": self._mirror_images()[:used],
                "counters": torch.tensor(counters),
            }

    def _mirror_images(self) -> Tensor:
        if self._mirror is None:
            self._mirror = torch.empty_like(self.images, device="cpu")
        slot = max(self._mirrored, self._added - self.capacity)
        while slot < self._added:  # at most twice: up to the ring's seam, and on from it
            row = slot % self.capacity
            end = min(row + self._added - slot, self.capacity)
            self._mirror[row:end].copy_(self.images[row:end])
            slot += end - row
        self._mirrored = self._added
        return self._mirror

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over what `state()` returned; the episode that was under way ends there.

        Raises ValueError where it does not fit this buffer.
        """
        used = len(state["images"])
        for name in self._STORED:
            mine, saved = torch.as_tensor(getattr(self, name)), state[name]
            fits = saved.shape[1:] == mine.shape[1:] and saved.dtype == mine.dtype
            if not fits or len(saved) != used or used > self.capacity:
                raise ValueError(
                    f"the saved replay's {name} are {tuple(saved.shape)} of {saved.dtype}; "
                    f"this buffer takes up to {tuple(mine.shape)} of {mine.dtype}"
                )
        if state["counters"].shape != (3,):
            raise ValueError("the saved replay's counters are damaged")
        added, first, end = state["counters"].tolist()
        if added > used and used != self.capacity:
            raise ValueError(
                f"the saved replay was full with {used} slots; this buffer has {self.capacity}: "
                "set learning.replay_capacity to the saved value"
            )
        with self._lock:
            for name in self._STORED:
                torch.as_tensor(getattr(self, name))[:used].copy_(state[name])
            self._added, self._first_transition, self._end_transition = (
                added,
                first,
                end,
            )
            self._in_episode = False
            self._mirrored = 0
            self._mirror_images()  # now, rather than when the next checkpoint is due


def check_memory(spec: ReplaySpec, capacity: int, available_bytes: int, fraction: float) -> str:
    """Return a line that says what a buffer takes; raise ReplayMemoryError if that is too much.

    `fraction` is the share of `available_bytes` that it may take.
    """
    needed = capacity * spec.bytes_per_slot
    line = (
        f"replay buffer: {capacity:,} slots of {spec.bytes_per_slot:,} bytes = "
        f"{needed / 1e9:.2f} GB of {available_bytes / 1e9:.1f} GB available"
    )
    if needed > fraction * available_bytes:
        fits = int(fraction * available_bytes // spec.bytes_per_slot)
        raise ReplayMemoryError(
            f"{line}; learning.replay_memory_fraction allows {fraction:.0%} of it: "
            f"set learning.replay_capacity to {fits:,} at most"
        )
    return line
