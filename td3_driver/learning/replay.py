# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Replay buffer for dict observations that stores every camera image only once.

A slot holds one observation's newest image and its vector, and the action, reward and end that
followed. Stacks, next observations and n-step returns are put together when sampling. An
episode's last observation has a slot but starts no transition.

Several worlds may fill one buffer: each has a ring of its own, in which its slots follow one
another, and a batch is drawn from all rings as if they were one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from td3_driver.config import LearningConfig
from td3_driver.learning import saved_rings
from td3_driver.learning.augmentation import gather_pixels, shift_images
from td3_driver.learning.batch import Batch, ReplaySpec, replay_spec
from td3_driver.learning.fading import faded
from td3_driver.learning.mirror import Mirror
from td3_driver.learning.networks import IMAGE, VECTOR, NetworkSpec, Observations
from td3_driver.learning.normalization import Returns
from td3_driver.learning.self_prediction import decisions_ahead

BELOW_ONE = 1.0 - 2.0**-50
"""Keeps a uniform draw times a total below that total, however it is rounded."""


class ReplayBuffer:
    """Rings of slots, `capacity` in all, exact at episode starts and ends and where a ring wraps.

    Each of the `rings` has an equal share of the capacity. In a ring slot numbers keep growing;
    slot i is stored in the ring's row i modulo its share. A batch names slot i of ring k as
    i * rings + k, which is i where there is one ring. Adding in one thread and sampling in another
    is safe. `n_step` and `discount` define the returns; with `prioritized`, transitions are drawn
    by the priorities from `set_priorities`, which fade with a `half_life` in slots, not uniformly.
    With `look_ahead`, batches also tell of so many decisions one by one.
    """

    def __init__(
        self,
        spec: ReplaySpec,
        capacity: int,
        device: torch.device | str = "cpu",
        *,
        n_step: int = 1,
        discount: float = 0.99,
        prioritized: bool = False,
        half_life: int = 0,
        look_ahead: int = 0,
        rings: int = 1,
    ) -> None:
        least = spec.stack + n_step + 1
        if capacity // rings < least:
            shared = f" for {rings} rings" if rings > 1 else ""
            raise ValueError(
                f"capacity {capacity}{shared} is less than the {rings * least} that stacks of "
                f"{spec.stack} and {n_step}-step returns need"
            )
        self.spec = spec
        self.rings = rings
        self.ring_capacity = capacity // rings
        """Slots of each ring."""
        capacity = self.capacity = rings * self.ring_capacity
        self.device = torch.device(device)
        self.n_step = n_step
        self.discount = discount
        self.prioritized = prioritized
        self.half_life = half_life
        self.look_ahead = look_ahead

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
        self._queue = np.zeros((2, rings), dtype=np.int64)
        self.stacked = torch.from_numpy(self._stacked).to(self.device)
        """How many slots back a slot's stack reaches."""
        self.transitions = torch.from_numpy(self._transitions).to(self.device)
        """For each ring a ring queue of its slots, oldest first; `queue` holds its ends."""
        self.queue = torch.from_numpy(self._queue).to(self.device)
        """int64 (2, rings): where each ring's queue begins and ends, which keep growing."""
        self._each_ring = torch.arange(rings, device=self.device)
        self._back = torch.arange(spec.stack - 1, -1, -1, device=self.device)
        # On a CPU, copying whole images and then shifting them is faster than single pixels.
        self.gathers_pixels = self.device.type != "cpu"
        self.greatest_priority = torch.ones((), device=self.device)
        self.returns = Returns()
        """Of all clean transitions, those included that have been overwritten since."""
        self._return = [0.0] * rings  # of each ring's episode, so far
        self._added = [0] * rings
        self._in_episode = [False] * rings
        self._mirrors = [Mirror(images) for images in self.images.split(self.ring_capacity)]
        self.lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of transitions that can be sampled."""
        return int((self._queue[1] - self._queue[0]).sum())

    def sizes(self) -> list[int]:
        """Return the number of transitions that can be sampled, of each ring."""
        return [int(size) for size in self._queue[1] - self._queue[0]]

    @property
    def size_bytes(self) -> int:
        """Memory of all slots in bytes."""
        return self.capacity * self.spec.bytes_per_slot

    def reward_range(self) -> tuple[float, float]:
        """Return the range of the stored rewards, extended to include 0."""
        with self.lock:
            ranges = [torch.aminmax(self._used(self.rewards, ring)) for ring in self._begun()]
        least, greatest = zip(*ranges, strict=True)
        return min(*map(float, least), 0.0), max(*map(float, greatest), 0.0)

    def _begun(self) -> list[int]:
        """Return the rings with anything in them; the first, if there is none."""
        return [ring for ring, added in enumerate(self._added) if added] or [0]

    def _used(self, tensor: Tensor, ring: int) -> Tensor:
        """Return the rows of a ring that have been written."""
        first = ring * self.ring_capacity
        return tensor[first : first + min(self._added[ring], self.ring_capacity)]

    def _row(self, ring: int, slot: int) -> int:
        return ring * self.ring_capacity + slot % self.ring_capacity

    def begin(self, observation: Mapping[str, np.ndarray], ring: int = 0) -> None:
        """Start an episode with its first observation, a stack of one repeated image."""
        with self.lock:
            self._append(ring, observation, stacked=0)
            self._in_episode[ring] = True
            self._return[ring] = 0.0

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: Mapping[str, np.ndarray],
        *,
        terminated: bool,
        truncated: bool = False,
        clean: bool = True,
        ring: int = 0,
    ) -> None:
        """Store the step from the latest observation, and the observation it led to.

        With `clean=False` the observation continues the episode's stack, but the transition is
        never sampled, and no n-step return extends across it. Raises ValueError if no episode has
        begun in this ring.
        """
        if not self._in_episode[ring]:
            raise ValueError("begin() an episode before adding to it")
        with self.lock:
            slot = self._added[ring] - 1
            row = self._row(ring, slot)
            self.actions[row] = torch.as_tensor(action)
            self.rewards[row] = reward
            self.terminated[row] = terminated
            stacked = min(int(self._stacked[row]) + 1, self.spec.stack - 1)
            self._append(ring, observation, stacked)
            if clean:
                self.priorities[row] = self.greatest_priority
                self._enqueue(ring, slot)
                self._return[ring] = self.discount * self._return[ring] + reward
                self.returns = self.returns.and_one(self._return[ring])
            else:
                self._return[ring] = 0.0
            self._in_episode[ring] = not (terminated or truncated)

    def _enqueue(self, ring: int, slot: int) -> None:
        """Note that a transition starts in a slot."""
        self._set("transitions", self._row(ring, int(self._queue[1, ring])), slot)
        self._set("queue", (1, ring), self._queue[1, ring] + 1)

    def _append(self, ring: int, observation: Mapping[str, np.ndarray], stacked: int) -> None:
        """Write an observation to a ring's next slot, and what its stack reaches back to."""
        row = self._next_row(ring)
        if self.spec.image:
            self.images[row] = torch.as_tensor(observation[IMAGE][-1])
        if self.spec.vector:
            self.vectors[row] = torch.as_tensor(observation[VECTOR])
        self._set("stacked", row, stacked)

    def _next_row(self, ring: int) -> int:
        """Return the row of a ring's next slot; drop the transitions that lose an image by it."""
        row = self._row(ring, self._added[ring])
        self.priorities[row] = 0.0
        self._added[ring] += 1
        oldest_kept = self._added[ring] - self.ring_capacity
        first, end = self._queue[:, ring].tolist()
        before = first
        while first < end:
            slot = int(self._transitions[self._row(ring, first)])
            if slot - int(self._stacked[self._row(ring, slot)]) >= oldest_kept:
                break
            self.priorities[self._row(ring, slot)] = 0.0
            first += 1
        if first != before:
            self._set("queue", (0, ring), first)
        return row

    def _set(self, name: str, place: int | tuple[int, int], value: int) -> None:
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
            newest = self._transition(self._each_ring, end - 1)
            weights = self.priorities
            if self.half_life:
                weights = faded(weights, newest, self.half_life)
            cumulated = weights.cumsum(0, dtype=torch.float64)
            # The first row whose sum exceeds the draw has a weight above 0.
            rows = torch.searchsorted(cumulated, uniform * cumulated[-1], right=True)
            rings = rows // self.ring_capacity
            slots = newest[rings] - (newest[rings] - rows) % self.ring_capacity
        else:
            until = (end - first).cumsum(0)
            picks = (uniform * until[-1]).long()
            # The first ring whose transitions and those of the rings before exceed the pick.
            rings = torch.searchsorted(until, picks, right=True)
            slots = self._transition(rings, end[rings] - until[rings] + picks)
        return self.gather(slots * self.rings + rings, shifts)

    def _transition(self, rings: Tensor, places: Tensor) -> Tensor:
        """Return the slots at places of the rings' queues, all int64 (n,)."""
        return self.transitions.take(self._rows(rings, places))

    def _rows(self, rings: Tensor, slots: Tensor) -> Tensor:
        return rings * self.ring_capacity + slots % self.ring_capacity

    def gather(self, slots: Tensor, shifts: Tensor | None = None) -> Batch:
        """Return the transitions that start at these slots, int64 (B,), named as in a batch."""
        rings, starts = slots % self.rings, slots // self.rings
        rows = self._rows(rings, starts)
        rewards = self.rewards[rows]
        steps = torch.ones_like(rows)
        # The return continues in the same episode exactly when the next slot starts a transition.
        going = torch.ones_like(rows, dtype=torch.bool)
        for step in range(1, self.n_step):
            row = self._rows(rings, starts + step)
            going = going & (self.priorities[row] > 0.0)
            rewards = rewards + going * self.discount**step * self.rewards[row]
            steps = steps + going
        shift, next_shift = (None, None) if shifts is None else shifts
        return Batch(
            observations=self._observations(rings, starts, shift),
            actions=self.actions[rows],
            rewards=rewards,
            next_observations=self._observations(rings, starts + steps, next_shift),
            terminated=self.terminated[self._rows(rings, starts + steps - 1)].float(),
            steps=steps.float(),
            slots=slots,
            ahead=self._ahead(rings, starts, next_shift) if self.look_ahead else None,
        )

    def _ahead(self, rings: Tensor, starts: Tensor, shifts: Tensor | None) -> dict[str, Tensor]:
        """Return the decisions from these slots on, and the images they led to; see `Batch`."""
        many = self.look_ahead
        slots = starts[:, None] + torch.arange(many, device=self.device)
        rows = self._rows(rings[:, None], slots)
        shifts = None if shifts is None else shifts.repeat_interleave(many, dim=1)
        led_to = self._observations(rings.repeat_interleave(many), (slots + 1).flatten(), shifts)
        return {
            "actions": self.actions[rows],
            "rewards": self.rewards[rows],
            "going": (self.priorities[rows] > 0.0).cumprod(dim=1).float(),
            IMAGE: led_to[IMAGE].unflatten(0, (-1, many)),
        }

    def _observations(self, rings: Tensor, slots: Tensor, shifts: Tensor | None) -> Observations:
        observations = {}
        rows = self._rows(rings, slots)
        if self.spec.image:
            back = torch.minimum(self._back, self.stacked[rows][:, None])
            observations[IMAGE] = self._images(
                self._rows(rings[:, None], slots[:, None] - back), shifts
            )
        if self.spec.vector:
            observations[VECTOR] = self.vectors[rows]
        return observations

    def _images(self, rows: Tensor, shifts: Tensor | None) -> Tensor:
        """Return the images of rows (B, stack), shifted if asked for."""
        if shifts is None or not self.gathers_pixels:
            images = self.images.index_select(0, rows.flatten())
            images = images.view(*rows.shape, *self.images.shape[1:])
            return images if shifts is None else shift_images(images, shifts)
        return gather_pixels(self.images, rows, shifts)

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
        rings, starts = slots % self.rings, slots // self.rings
        rows = self._rows(rings, starts)
        first, end = self.queue
        oldest = self._transition(self._each_ring, first)
        alive = (starts >= oldest[rings]) & (first < end)[rings]
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
            state = {
                f"{saved_rings.prefix(ring, self.rings)}{name}": tensor
                for ring in range(self.rings)
                for name, tensor in self._ring_state(ring).items()
            }
            return state | {
                "greatest_priority": self.greatest_priority.to("cpu", copy=True),
                saved_rings.RETURNS: self.returns.tensor(),
            }

    def _ring_state(self, ring: int) -> dict[str, Tensor]:
        used = min(self._added[ring], self.ring_capacity)
        tensors = {
            name: self._used(getattr(self, name), ring).to("cpu", copy=True)
            for name in saved_rings.STORED
            if name != "images"
        }
        return tensors | {
            "images": self._mirrors[ring].after(self._added[ring])[:used],
            "counters": torch.tensor([self._added[ring], *self._queue[:, ring]]),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state()` returned; raises ValueError if it does not fit.

        An episode that was in progress ends there. Where there were more or fewer rings, the
        episodes are spread over those that there are now; if they no longer all fit, the oldest
        of a ring are left out.
        """
        saved = saved_rings.split(state)
        same = len(saved) == self.rings
        for ring_state in saved:
            limit = self.ring_capacity if same else None
            saved_rings.check(ring_state, self._shapes(), self.spec.stack, limit)
        greatest = state["greatest_priority"]
        if greatest.shape != () or not greatest.isfinite():
            raise ValueError("the saved replay's counters are damaged")
        returns = saved_rings.returns(state, self.discount)
        if not same:
            saved = saved_rings.spread(saved, self.rings, self.ring_capacity)
        with self.lock:
            self.priorities.zero_()
            self.greatest_priority.copy_(greatest)
            self.returns = returns
            for ring, ring_state in enumerate(saved):
                self._restore_ring(ring, ring_state)
                self._in_episode[ring] = False
                self._mirrors[ring].forget()
                self._mirrors[ring].after(self._added[ring])  # now, not at the next checkpoint

    def _shapes(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in saved_rings.STORED}

    def _restore_ring(self, ring: int, state: Mapping[str, Tensor]) -> None:
        added, first, end = state["counters"].tolist()
        self._added[ring] = added
        for name in saved_rings.STORED:
            self._used(getattr(self, name), ring).copy_(state[name])
        self._used(torch.from_numpy(self._stacked), ring).copy_(state["stacked"])
        self._used(torch.from_numpy(self._transitions), ring).copy_(state["transitions"])
        self._queue[:, ring] = first, end
        self.queue.copy_(torch.from_numpy(self._queue))


def make_replay(
    spec: NetworkSpec,
    config: LearningConfig,
    device: torch.device | str,
    capacity: int | None = None,
    rings: int = 1,
    fading: bool = True,
) -> ReplayBuffer:
    """Return an empty replay buffer for these networks; by default with the settings' capacity.

    Without `fading`, no priority fades, whatever the settings say.
    """
    return ReplayBuffer(
        replay_spec(spec),
        config.replay_capacity if capacity is None else capacity,
        device,
        n_step=config.n_step,
        discount=config.discount,
        prioritized=config.replay_sampling == "lap",
        half_life=config.priority_half_life_steps if fading else 0,
        look_ahead=decisions_ahead(config),
        rings=rings,
    )
