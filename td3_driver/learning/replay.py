# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Replay buffer for dict observations that stores every camera image only once.

A slot holds one observation's newest image and its vector, and the action, reward and end that
followed. Stacks, next observations and n-step returns are put together when sampling. An
episode's last observation has a slot but starts no transition.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from td3_driver.config import LearningConfig
from td3_driver.learning.augmentation import shift_images, shifted_pixels
from td3_driver.learning.batch import Batch, ReplaySpec, replay_spec
from td3_driver.learning.networks import IMAGE, VECTOR, NetworkSpec, Observations

BELOW_ONE = 1.0 - 2.0**-50
"""Keeps a uniform draw times a total below that total, however it is rounded."""


class ReplayBuffer:
    """A ring of `capacity` slots, exact at episode starts and ends and where the ring wraps.

    Slot numbers keep growing; slot i is stored in row i modulo the capacity. Adding in one thread
    and sampling in another is safe. `n_step` and `discount` define the returns; with
    `prioritized`, transitions are drawn by the priorities from `set_priorities`, not uniformly.
    """

    _STORED = (
        "images",
        "vectors",
        "actions",
        "rewards",
        "terminated",
        "stacked",
        "priorities",
        "transitions",
    )

    def __init__(
        self,
        spec: ReplaySpec,
        capacity: int,
        device: torch.device | str = "cpu",
        *,
        n_step: int = 1,
        discount: float = 0.99,
        prioritized: bool = False,
    ) -> None:
        least = spec.stack + n_step + 1
        if capacity < least:
            raise ValueError(
                f"capacity {capacity} is less than the {least} that stacks of {spec.stack} and "
                f"{n_step}-step returns need"
            )
        self.spec = spec
        self.capacity = capacity
        self.device = torch.device(device)
        self.n_step = n_step
        self.discount = discount
        self.prioritized = prioritized

        def rows(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros((capacity, *shape), dtype=dtype, device=self.device)

        self.images = rows(*(spec.image or (0, 0))[1:], dtype=torch.uint8)
        self.vectors = rows(spec.vector)
        self.actions = rows(spec.actions)
        self.rewards = rows()
        self.terminated = rows(dtype=torch.bool)
        self.priorities = rows()
        """Above 0 in rows where a transition that can be sampled starts."""
        # Adding reads these on the host and drawing reads them on the device, so both hold a
        # copy; on a CPU the two share memory.
        self._stacked = np.zeros(capacity, dtype=np.uint8)
        self._transitions = np.zeros(capacity, dtype=np.int64)
        self._queue = np.zeros(2, dtype=np.int64)
        self.stacked = torch.from_numpy(self._stacked).to(self.device)
        """How many slots back a slot's stack reaches."""
        self.transitions = torch.from_numpy(self._transitions).to(self.device)
        """A ring queue of slots, oldest first; `queue` holds its ends, which keep growing."""
        self.queue = torch.from_numpy(self._queue).to(self.device)
        self._back = torch.arange(spec.stack - 1, -1, -1, device=self.device)
        # On a CPU, copying whole images and then shifting them is faster than single pixels.
        self.gathers_pixels = self.device.type != "cpu"
        self.greatest_priority = torch.ones((), device=self.device)
        self._added = 0
        self._in_episode = False
        self._mirror: Tensor | None = None  # a copy of the images, in host memory
        self._mirrored = 0  # slots copied to the mirror so far
        self.lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""
        return int(self._queue[1] - self._queue[0])

    @property
    def size_bytes(self) -> int:
        """Memory of all slots in bytes."""
        return self.capacity * self.spec.bytes_per_slot

    def reward_range(self) -> tuple[float, float]:
        """Return the range of the stored rewards, extended to include 0."""
        with self.lock:
            rewards = self.rewards[: min(self._added, self.capacity)]
            least, greatest = torch.aminmax(rewards)
        return min(float(least), 0.0), max(float(greatest), 0.0)

    def begin(self, observation: Mapping[str, np.ndarray]) -> None:
        """Start an episode with its first observation, a stack of one repeated image."""
        with self.lock:
            self._append(observation, stacked=0)
            self._in_episode = True

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: Mapping[str, np.ndarray],
        *,
        terminated: bool,
        truncated: bool = False,
        clean: bool = True,
    ) -> None:
        """Store the step from the latest observation, and the observation it led to.

        With `clean=False` the observation continues the episode's stack, but the transition is
        never sampled, and no n-step return extends across it. Raises ValueError if no episode has
        begun.
        """
        if not self._in_episode:
            raise ValueError("begin() an episode before adding to it")
        with self.lock:
            slot = self._added - 1
            row = slot % self.capacity
            self.actions[row] = torch.as_tensor(action)
            self.rewards[row] = reward
            self.terminated[row] = terminated
            stacked = min(int(self._stacked[row]) + 1, self.spec.stack - 1)
            self._append(observation, stacked)
            if clean:
                self.priorities[row] = self.greatest_priority
                self._set("transitions", int(self._queue[1]) % self.capacity, slot)
                self._set("queue", 1, self._queue[1] + 1)
            self._in_episode = not (terminated or truncated)

    def _append(self, observation: Mapping[str, np.ndarray], stacked: int) -> None:
        """Write an observation to the next slot; drop the transitions that lose an image by it."""
        row = self._added % self.capacity
        if self.spec.image:
            self.images[row] = torch.as_tensor(observation[IMAGE][-1])
        if self.spec.vector:
            self.vectors[row] = torch.as_tensor(observation[VECTOR])
        self.priorities[row] = 0.0
        self._added += 1
        oldest_kept = self._added - self.capacity
        first = int(self._queue[0])
        while first < self._queue[1]:
            slot = int(self._transitions[first % self.capacity])
            if slot - int(self._stacked[slot % self.capacity]) >= oldest_kept:
                break
            self.priorities[slot % self.capacity] = 0.0
            first += 1
        if first != self._queue[0]:
            self._set("queue", 0, first)
        self._set("stacked", row, stacked)

    def _set(self, name: str, place: int, value: int) -> None:
        """Write a bookkeeping entry, in host memory and on the device."""
        getattr(self, f"_{name}")[place] = value
        if self.device.type != "cpu":
            getattr(self, name)[place] = int(value)

    def sample(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw transitions, with replacement; raises ValueError while there are none.

        `generator` is on the buffer's device. `shifts`, int64 (2, 2, B), shifts the images of the
        observations and of the next observations; see `TD3.draw_shifts`.
        """
        with self.lock:
            if not len(self):
                raise ValueError("the replay buffer holds no transition yet")
            return self.draw(batch_size, generator, shifts)

    def draw(
        self, batch_size: int, generator: torch.Generator, shifts: Tensor | None = None
    ) -> Batch:
        """Draw like `sample`, but without checks: entirely on the device, and so capturable."""
        uniform = BELOW_ONE * torch.rand(
            batch_size, generator=generator, dtype=torch.float64, device=self.device
        )
        first, end = self.queue
        if self.prioritized:
            cumulated = self.priorities.cumsum(0, dtype=torch.float64)
            # The first row whose sum exceeds the draw has a priority above 0.
            rows = torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)
            latest = self._transition(end - 1)
            slots = latest - (latest - rows) % self.capacity
        else:
            picks = first + (uniform * (end - first)).long()
            slots = self.transitions[picks % self.capacity]
        return self.gather(slots, shifts)

    def _transition(self, place: Tensor) -> Tensor:
        """Return the slot at a place of the queue, both int64 ()."""
        # Indexing with a 0-d tensor would read it on the host, which a capture must not do.
        return self.transitions.take(place % self.capacity)

    def gather(self, slots: Tensor, shifts: Tensor | None = None) -> Batch:
        """Return the transitions that start at these slots, int64 (B,)."""
        rows = slots % self.capacity
        rewards = self.rewards[rows]
        steps = torch.ones_like(rows)
        # The return continues in the same episode exactly when the next slot starts a transition.
        going = torch.ones_like(rows, dtype=torch.bool)
        for step in range(1, self.n_step):
            row = (rows + step) % self.capacity
            going = going & (self.priorities[row] > 0.0)
            rewards = rewards + going * self.discount**step * self.rewards[row]
            steps = steps + going
        last_rows = (rows + steps - 1) % self.capacity
        return Batch(
            observations=self._observations(rows, shifts[0] if shifts is not None else None),
            actions=self.actions[rows],
            rewards=rewards,
            next_observations=self._observations(
                (rows + steps) % self.capacity, shifts[1] if shifts is not None else None
            ),
            terminated=self.terminated[last_rows].float(),
            steps=steps.float(),
            slots=slots,
        )

    def _observations(self, rows: Tensor, shifts: Tensor | None) -> Observations:
        observations = {}
        if self.spec.image:
            back = torch.minimum(self._back, self.stacked[rows][:, None])
            observations[IMAGE] = self._images((rows[:, None] - back) % self.capacity, shifts)
        if self.spec.vector:
            observations[VECTOR] = self.vectors[rows]
        return observations

    def _images(self, rows: Tensor, shifts: Tensor | None) -> Tensor:
        """Return the images of rows (B, stack), shifted if asked for."""
        if shifts is None or not self.gathers_pixels:
            images = self.images.index_select(0, rows.flatten())
            images = images.view(*rows.shape, *self.images.shape[1:])
            return images if shifts is None else shift_images(images, shifts)
        vertical, horizontal = shifted_pixels(shifts, *self.images.shape[-2:])
        # The stack's axis comes last in memory, the layout that the convolutions want.
        if self.images.ndim == 3:
            images = self.images[
                rows[:, None, None, :], vertical[:, :, None, None], horizontal[:, None, :, None]
            ]
            return images.movedim(-1, 1)
        images = self.images[
            rows[:, None, None, :, None],
            torch.arange(self.images.shape[1], device=self.device),
            vertical[:, :, None, None, None],
            horizontal[:, None, :, None, None],
        ]
        return images.movedim((-2, -1), (1, 2))

    def set_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Give sampled transitions new priorities above 0, float32 (B,).

        Transitions that have been overwritten since are skipped.
        """
        with self.lock:
            self.put_priorities(slots, priorities)

    def priority_tensors(self) -> list[Tensor]:
        """Return what `put_priorities` changes: the tensors themselves."""
        return [self.priorities, self.greatest_priority]

    def put_priorities(self, slots: Tensor, priorities: Tensor) -> None:
        """Do the same without locking: entirely on the device, and so capturable."""
        rows = slots % self.capacity
        first, end = self.queue
        alive = (slots >= self._transition(first)) & (first < end)
        priorities = torch.where(alive, priorities, self.priorities[rows])
        # A transition drawn twice gets the larger one, so the result does not depend on order.
        self.priorities.scatter_reduce_(0, rows, priorities, "amax", include_self=False)
        torch.maximum(self.greatest_priority, priorities.max(), out=self.greatest_priority)

    def state(self) -> dict[str, Tensor]:
        """Return a copy of everything that can change, in host memory.

        The next call reuses the memory of the images and copies only those added since then:
        copying all of them would hold up training.
        """
        with self.lock:
            used = min(self._added, self.capacity)
            tensors = {
                name: getattr(self, name)[:used].to("cpu", copy=True)
                for name in self._STORED
                if name != "images"
            }
            return tensors | {
                "images": self._mirror_images()[:used],
                "counters": torch.tensor([self._added, *self._queue]),
                "greatest_priority": self.greatest_priority.to("cpu", copy=True),
            }

    def _mirror_images(self) -> Tensor:
        if self._mirror is None:
            self._mirror = torch.empty_like(self.images, device="cpu")
        slot = max(self._mirrored, self._added - self.capacity)
        while slot < self._added:  # at most twice: up to the end of the ring, and from its start
            row = slot % self.capacity
            end = min(row + self._added - slot, self.capacity)
            self._mirror[row:end].copy_(self.images[row:end])
            slot += end - row
        self._mirrored = self._added
        return self._mirror

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state()` returned; raises ValueError if it does not fit.

        An episode that was in progress ends there.
        """
        used = len(state["images"])
        for name in self._STORED:
            mine, saved = getattr(self, name), state[name]
            fits = saved.shape[1:] == mine.shape[1:] and saved.dtype == mine.dtype
            if not fits or len(saved) != used or used > self.capacity:
                raise ValueError(
                    f"the saved replay's {name} are {tuple(saved.shape)} of {saved.dtype}; "
                    f"this buffer takes up to {tuple(mine.shape)} of {mine.dtype}"
                )
        if state["counters"].shape != (3,) or state["greatest_priority"].shape != ():
            raise ValueError("the saved replay's counters are damaged")
        added, first, end = state["counters"].tolist()
        if added > used and used != self.capacity:
            raise ValueError(
                f"the saved replay was full with {used} slots; this buffer has {self.capacity}: "
                "set learning.replay_capacity to the saved value"
            )
        if added < used or not self._is_whole(state, added, first, end):
            raise ValueError("the saved replay contradicts itself: it is damaged")
        with self.lock:
            for name in self._STORED:
                getattr(self, name)[:used].copy_(state[name])
            self._stacked[:used] = state["stacked"].numpy()
            self._transitions[:used] = state["transitions"].numpy()
            self._queue[:] = first, end
            self.queue.copy_(torch.from_numpy(self._queue))
            self.greatest_priority.copy_(state["greatest_priority"])
            self._added = added
            self._in_episode = False
            self._mirrored = 0
            self._mirror_images()  # now, not when the next checkpoint is due

    def _is_whole(self, state: dict[str, Tensor], added: int, first: int, end: int) -> bool:
        """Return whether a saved state's transitions lead to what was saved, and to numbers."""
        numbers = ("vectors", "actions", "rewards", "priorities", "greatest_priority")
        if not all(bool(state[name].isfinite().all()) for name in numbers):
            return False
        used, oldest = len(state["images"]), max(added - self.capacity, 0)
        if not (0 <= first <= end <= added and end - first <= used):
            return False
        stacked, priorities = state["stacked"].numpy(), state["priorities"].numpy()
        places = np.arange(first, end) % self.capacity
        if len(places) and places.max() >= used:
            return False
        slots = state["transitions"].numpy()[places]
        if len(slots) and not (oldest <= slots.min() and slots.max() < added - 1):
            return False
        rows = slots % self.capacity
        reached = slots - stacked[rows].astype(np.int64)
        elsewhere = np.delete(priorities, rows)
        return bool(
            stacked.max(initial=0) < self.spec.stack
            and reached.min(initial=oldest) >= oldest
            and (priorities >= 0.0).all()
            and not elsewhere.any()
        )


def make_replay(
    spec: NetworkSpec,
    config: LearningConfig,
    device: torch.device | str,
    capacity: int | None = None,
) -> ReplayBuffer:
    """Return an empty replay buffer for these networks; by default with the settings' capacity."""
    return ReplayBuffer(
        replay_spec(spec),
        config.replay_capacity if capacity is None else capacity,
        device,
        n_step=config.n_step,
        discount=config.discount,
        prioritized=config.replay_sampling == "lap",
    )
