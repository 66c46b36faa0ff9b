# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The replay buffer against a list that keeps every transition with its full stacks."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from td3_driver.config import LearningConfig
from td3_driver.learning import warm_start
from td3_driver.learning.augmentation import shift_images
from td3_driver.learning.batch import Batch, ReplaySpec
from td3_driver.learning.devices import ReplayMemoryError, check_memory
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.replay import ReplayBuffer, make_replay

HEIGHT, WIDTH, VECTOR, ACTIONS = 2, 3, 2, 2


def spec_of(stack: int) -> ReplaySpec:
    return ReplaySpec((stack, HEIGHT, WIDTH), VECTOR, ACTIONS)


class Source:
    """Observations that are all different, with stacks made as an environment makes them."""

    def __init__(self, stack: int) -> None:
        self._number = 0
        self._latest: deque[np.ndarray] = deque(maxlen=stack)

    def first(self) -> dict[str, np.ndarray]:
        image = self._image()
        self._latest.extend([image] * (self._latest.maxlen or 0))
        return self._observation()

    def next(self) -> dict[str, np.ndarray]:
        self._latest.append(self._image())
        return self._observation()

    def action_and_reward(self) -> tuple[np.ndarray, float]:
        action = np.array([self._number, -self._number], np.float32) / 1024
        return action, self._number / 8

    def _image(self) -> np.ndarray:
        self._number += 1
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        image[0, 0], image[1, 2] = self._number % 256, self._number // 256
        return image

    def _observation(self) -> dict[str, np.ndarray]:
        vector = np.array([self._number, 0.5 * self._number], np.float32)
        return {"image": np.stack(self._latest), "vector": vector}


@dataclass
class Kept:
    """One transition as the reference keeps it, and the images it is made of."""

    observation: dict[str, np.ndarray]
    action: np.ndarray
    reward: float
    next_observation: dict[str, np.ndarray]
    terminated: bool
    first_image: int
    clean: bool


class Reference:
    """Keeps everything; says what a ring of `capacity` images can still give."""

    def __init__(self, stack: int, capacity: int) -> None:
        self._stack, self._capacity = stack, capacity
        self._images = 0
        self._transitions: dict[int, Kept] = {}
        self.begun: set[int] = set()
        """The slots that an episode begins in."""

    def begin(self, observation: dict[str, np.ndarray]) -> None:
        self._observation, self._episode_first = observation, self._images
        self.begun.add(self._images)
        self._images += 1

    def add(
        self,
        action: np.ndarray,
        reward: float,
        observation: dict[str, np.ndarray],
        terminated: bool,
        clean: bool,
    ) -> None:
        slot = self._images - 1
        first_image = max(slot - self._stack + 1, self._episode_first)
        self._transitions[slot] = Kept(
            self._observation, action, reward, observation, terminated, first_image, clean
        )
        self._observation = observation
        self._images += 1

    def alive(self) -> dict[int, Kept]:
        oldest_image = self._images - self._capacity
        return {
            slot: kept
            for slot, kept in self._transitions.items()
            if kept.clean and kept.first_image >= oldest_image
        }


def sampleable(buffer: ReplayBuffer) -> list[int]:
    first, end = buffer.queue.flatten().tolist()
    slots = buffer.transitions[np.arange(first, end) % buffer.capacity].tolist()
    with_priority = {slot for slot in slots if buffer.priorities[slot % buffer.capacity] > 0}
    assert int((buffer.priorities > 0).sum()) == len(with_priority) == len(slots)
    return slots


def assert_exact(batch: Batch, wanted: list[Kept]) -> None:
    for given_, name in ((batch.observations, ""), (batch.next_observations, "next_")):
        for key in ("image", "vector"):
            expected = np.stack([getattr(kept, f"{name}observation")[key] for kept in wanted])
            assert np.array_equal(given_[key].numpy(), expected)
    assert np.array_equal(batch.actions.numpy(), np.stack([kept.action for kept in wanted]))
    assert np.array_equal(batch.rewards.numpy(), [kept.reward for kept in wanted])
    assert np.array_equal(batch.terminated.numpy(), [kept.terminated for kept in wanted])


def assert_same_as(buffer: ReplayBuffer, reference: Reference) -> None:
    alive = reference.alive()
    assert sampleable(buffer) == sorted(alive)
    assert len(buffer) == len(alive)
    if alive:
        slots = sorted(alive)
        assert_exact(buffer.gather(torch.tensor(slots)), [alive[slot] for slot in slots])


def copied(buffer: ReplayBuffer) -> ReplayBuffer:
    copy = ReplayBuffer(buffer.spec, buffer.capacity)
    copy.restore(buffer.state())
    return copy


episodes = st.lists(
    st.tuples(
        st.lists(st.booleans(), max_size=12),  # a step each: is it clean?
        st.sampled_from(["terminated", "truncated", "abandoned"]),
        st.booleans(),  # saved and restored before the next episode?
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(stack=st.integers(1, 4), spare=st.integers(2, 14), episodes=episodes)
def test_it_holds_exactly_what_the_reference_holds(
    stack: int, spare: int, episodes: list[tuple[list[bool], str, bool]]
) -> None:
    source, reference = Source(stack), Reference(stack, stack + spare)
    buffer = ReplayBuffer(spec_of(stack), stack + spare)
    for steps, end, restored in episodes:
        observation = source.first()
        buffer.begin(observation)
        reference.begin(observation)
        assert_same_as(buffer, reference)
        for index, clean in enumerate(steps):
            action, reward = source.action_and_reward()
            observation = source.next()
            last = index == len(steps) - 1
            terminated, truncated = (last and end == kind for kind in ("terminated", "truncated"))
            buffer.add(
                action,
                reward,
                observation,
                terminated=terminated,
                truncated=truncated,
                clean=clean,
            )
            reference.add(action, reward, observation, terminated, clean)
            assert_same_as(buffer, reference)
        if restored:
            buffer = copied(buffer)
            assert_same_as(buffer, reference)


def fill(
    buffer: ReplayBuffer, episodes: int, length: int, source: Source | None = None
) -> Reference:
    source = source or Source(buffer.spec.image[0])
    reference = Reference(buffer.spec.image[0], buffer.capacity)
    for _ in range(episodes):
        observation = source.first()
        buffer.begin(observation)
        reference.begin(observation)
        for index in range(length):
            action, reward = source.action_and_reward()
            observation = source.next()
            last = index == length - 1
            buffer.add(action, reward, observation, terminated=last)
            reference.add(action, reward, observation, last, True)
    return reference


def test_the_seam_costs_one_stack_at_most() -> None:
    buffer = ReplayBuffer(spec_of(4), 100)
    fill(buffer, 1, 250)
    # 100 images: the newest starts nothing yet, and the oldest 3 only complete later stacks.
    assert len(buffer) == 96


def test_a_whole_short_episode_at_the_seam_stays() -> None:
    buffer = ReplayBuffer(spec_of(4), 12)
    fill(buffer, 10, 2)  # 3 images an episode: 4 whole episodes fit
    assert len(buffer) == 8


def test_samples_are_drawn_uniformly_and_are_exact() -> None:
    buffer = ReplayBuffer(spec_of(3), 50)
    reference = fill(buffer, 12, 9)
    alive = sorted(reference.alive())
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(alive, 0)
    by_reward = {reference.alive()[slot].reward: slot for slot in alive}
    for _ in range(100):
        batch = buffer.sample(200, generator)
        drawn = [by_reward[reward] for reward in batch.rewards.tolist()]
        assert_exact(batch, [reference.alive()[slot] for slot in drawn])
        for slot in drawn:
            counts[slot] += 1
    assert len(alive) > 40
    drawn_often = np.array(list(counts.values()))
    chi_square = float(np.sum((drawn_often - drawn_often.mean()) ** 2) / drawn_often.mean())
    # Its mean is the degrees of freedom, its variance twice that.
    assert abs(chi_square - (len(alive) - 1)) < 3 * np.sqrt(2 * (len(alive) - 1))


def test_a_batch_has_the_promised_types() -> None:
    buffer = ReplayBuffer(spec_of(4), 20)
    fill(buffer, 1, 10)
    batch = buffer.sample(7, torch.Generator().manual_seed(0))
    for observations in (batch.observations, batch.next_observations):
        assert observations["image"].shape == (7, 4, HEIGHT, WIDTH)
        assert observations["image"].dtype == torch.uint8
        assert observations["vector"].shape == (7, VECTOR)
        assert observations["vector"].dtype == torch.float32
    assert batch.actions.shape == (7, ACTIONS)
    assert batch.rewards.shape == batch.terminated.shape == (7,)
    for tensor in (batch.actions, batch.rewards, batch.terminated):
        assert tensor.dtype == torch.float32


def test_sampling_an_empty_buffer_is_refused() -> None:
    buffer = ReplayBuffer(spec_of(4), 20)
    buffer.begin(Source(4).first())
    with pytest.raises(ValueError, match="no transition"):
        buffer.sample(4, torch.Generator())


def test_adding_outside_an_episode_is_refused() -> None:
    buffer, source = ReplayBuffer(spec_of(2), 20), Source(2)

    def add(terminated: bool = False, truncated: bool = False) -> None:
        action, reward = source.action_and_reward()
        buffer.add(action, reward, source.next(), terminated=terminated, truncated=truncated)

    with pytest.raises(ValueError, match="begin"):
        add()
    for end in ({"terminated": True}, {"truncated": True}):
        buffer.begin(source.first())
        add(**end)
        with pytest.raises(ValueError, match="begin"):
            add()
    buffer.begin(source.first())
    buffer = copied(buffer)
    with pytest.raises(ValueError, match="begin"):
        add()


def test_a_capacity_below_a_stack_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity 5"):
        ReplayBuffer(spec_of(4), 5)
    fill(ReplayBuffer(spec_of(4), 6), 2, 20)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_restored_buffer_goes_on_as_the_saved_one_would(count: int) -> None:
    buffer = ReplayBuffer(spec_of(3), 20)
    source = Source(3)
    fill(buffer, count, 6, source)
    copy = copied(buffer)
    one, other = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    number = source._number
    for target in (buffer, copy):
        source._number = number
        fill(target, 2, 4, source)
    batches = [buffer.sample(64, one), copy.sample(64, other)]
    for key in ("image", "vector"):
        assert torch.equal(batches[0].observations[key], batches[1].observations[key])
        assert torch.equal(batches[0].next_observations[key], batches[1].next_observations[key])
    assert torch.equal(batches[0].rewards, batches[1].rewards)
    state, copied_state = buffer.state(), copy.state()
    assert set(state) == set(copied_state)
    assert all(torch.equal(state[name], copied_state[name]) for name in state)


def test_a_saved_state_does_not_change_afterwards() -> None:
    buffer = ReplayBuffer(spec_of(3), 20)
    source = Source(3)
    fill(buffer, 2, 4, source)
    state = buffer.state()
    before = {name: tensor.clone() for name, tensor in state.items()}
    fill(buffer, 5, 4, source)
    assert all(torch.equal(state[name], before[name]) for name in state)


def test_what_was_never_full_may_be_restored_into_a_larger_buffer() -> None:
    small, large = ReplayBuffer(spec_of(3), 20), ReplayBuffer(spec_of(3), 30)
    reference = fill(small, 2, 6)
    large.restore(small.state())
    assert_same_as(large, reference)


@pytest.mark.parametrize(
    "spec, capacity",
    [
        (spec_of(3), 19),
        (spec_of(3), 30),
        (ReplaySpec((3, HEIGHT, WIDTH + 1), VECTOR, ACTIONS), 20),
        (ReplaySpec((3, HEIGHT, WIDTH), VECTOR + 1, ACTIONS), 20),
        (ReplaySpec((3, HEIGHT, WIDTH), VECTOR, ACTIONS + 1), 20),
        (ReplaySpec((3, 1, 1), VECTOR, ACTIONS), 20),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(
    spec: ReplaySpec, capacity: int
) -> None:
    full = ReplayBuffer(spec_of(3), 20)
    fill(full, 5, 6)
    other = ReplayBuffer(spec, capacity)
    with pytest.raises(ValueError, match="the saved replay"):
        other.restore(full.state())
    assert len(other) == 0 and not other.images.any() and not other.rewards.any()


def test_a_smaller_vector_is_not_spread_over_a_larger_one() -> None:
    narrow = ReplayBuffer(ReplaySpec((3, HEIGHT, WIDTH), 1, 1), 20)
    state = ReplayBuffer(spec_of(3), 20).state() | {
        name: narrow.state()[name] for name in ("vectors", "actions")
    }
    with pytest.raises(ValueError, match="vectors"):
        ReplayBuffer(spec_of(3), 20).restore(state)


def test_the_bytes_stated_are_the_bytes_taken() -> None:
    for spec in (spec_of(4), ReplaySpec((4, 84, 84), 23, 2)):
        buffer = ReplayBuffer(spec, 40)
        arrays = {
            (value.data_ptr() if isinstance(value, torch.Tensor) else value.ctypes.data): value
            for value in vars(buffer).values()
            if isinstance(value, torch.Tensor | np.ndarray) and value.shape[:1] == (40,)
        }
        taken = sum(array.nbytes for array in arrays.values())
        assert len(arrays) == 8
        assert taken == 40 * spec.bytes_per_slot == buffer.size_bytes


def test_a_million_transitions_fit_into_the_promised_memory() -> None:
    # 84 * 84 image, 23 + 2 + 1 floats and a priority, the end, the stack and an 8-byte number.
    spec = ReplaySpec((4, 84, 84), 23, 2)
    assert spec.bytes_per_slot == 7056 + 4 * 27 + 1 + 1 + 8
    assert 1_000_000 * spec.bytes_per_slot <= 7.5e9
    line = check_memory(spec, 1_000_000, 16_000_000_000, 0.5)
    assert "1,000,000 slots of 7,174 bytes = 7.17 GB of 16.0 GB" in line


def test_too_much_memory_is_refused_with_what_would_fit() -> None:
    spec = ReplaySpec((4, 84, 84), 23, 2)
    exactly = 7174 * 1000 * 2
    check_memory(spec, 1000, exactly, 0.5)
    with pytest.raises(ReplayMemoryError, match=r"learning.replay_capacity to 1,000 at most"):
        check_memory(spec, 1001, exactly, 0.5)


def test_sampling_beside_adding_never_sees_half_a_transition() -> None:
    buffer = ReplayBuffer(spec_of(3), 16)
    source = Source(3)
    fill(buffer, 1, 8, source)
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set() and source._number < 60_000:
            fill(buffer, 1, 5, source)

    adding = threading.Thread(target=add)
    adding.start()
    generator = torch.Generator().manual_seed(0)
    try:
        for _ in range(500):
            batch = buffer.sample(8, generator)
            number, after = batch.observations["vector"][:, 0], batch.next_observations["vector"]
            # Everything of a transition derives from the number of its observation.
            image = batch.observations["image"][:, -1].int()
            assert torch.equal(image[:, 0, 0] + 256 * image[:, 1, 2], number.int())
            assert torch.equal(batch.rewards, number / 8)
            assert torch.equal(after[:, 0], number + 1)
    finally:
        stop.set()
        adding.join()


# n-step returns.

DISCOUNT = 0.75  # exact in binary, as the rewards are


def walked(
    reference: Reference, alive: dict[int, Kept], slot: int, n_step: int
) -> tuple[float, int, Kept]:
    """Sum an n-step return by walking from transition to transition; return the last one too."""
    total, steps, here = alive[slot].reward, 1, alive[slot]
    while steps < n_step and slot + steps in alive and slot + steps not in reference.begun:
        here = alive[slot + steps]
        total += DISCOUNT**steps * here.reward
        steps += 1
    return total, steps, here


@pytest.mark.long
@settings(max_examples=100, deadline=None)
@given(
    stack=st.integers(1, 4),
    spare=st.integers(7, 20),
    n_step=st.integers(1, 6),
    episodes=episodes,
)
def test_n_step_returns_are_exact_at_every_end_and_at_the_seam(
    stack: int, spare: int, n_step: int, episodes: list[tuple[list[bool], str, bool]]
) -> None:
    source, reference = Source(stack), Reference(stack, stack + spare)
    buffer = ReplayBuffer(spec_of(stack), stack + spare, n_step=n_step, discount=DISCOUNT)
    for steps, end, restored in episodes:
        observation = source.first()
        buffer.begin(observation)
        reference.begin(observation)
        for index, clean in enumerate(steps):
            action, reward = source.action_and_reward()
            observation = source.next()
            last = index == len(steps) - 1
            terminated, truncated = (last and end == kind for kind in ("terminated", "truncated"))
            buffer.add(
                action,
                reward,
                observation,
                terminated=terminated,
                truncated=truncated,
                clean=clean,
            )
            reference.add(action, reward, observation, terminated, clean)
            alive = reference.alive()
            slots = sorted(alive)
            if not slots:
                continue
            batch = buffer.gather(torch.tensor(slots))
            totals, taken, final = zip(
                *(walked(reference, alive, slot, n_step) for slot in slots), strict=True
            )
            firsts = [alive[slot] for slot in slots]
            assert batch.rewards.shape == (len(totals),)
            assert np.abs(batch.rewards.numpy() - totals).max() <= 1e-3
            assert np.array_equal(batch.steps.numpy(), taken)
            assert np.array_equal(batch.terminated.numpy(), [kept.terminated for kept in final])
            assert np.array_equal(
                batch.actions.numpy(), np.stack([kept.action for kept in firsts])
            )
            for key in ("image", "vector"):
                before = np.stack([kept.observation[key] for kept in firsts])
                after = np.stack([kept.next_observation[key] for kept in final])
                assert np.array_equal(batch.observations[key].numpy(), before)
                assert np.array_equal(batch.next_observations[key].numpy(), after)
        if restored:
            state = buffer.state()
            buffer = ReplayBuffer(spec_of(stack), stack + spare, n_step=n_step, discount=DISCOUNT)
            buffer.restore(state)


def test_an_n_step_return_by_hand() -> None:
    buffer, source = ReplayBuffer(spec_of(1), 30, n_step=3, discount=0.5), Source(1)
    buffer.begin(source.first())
    ends = ((2.0, False), (4.0, False), (8.0, False), (16.0, True))
    for reward, terminated in ends:
        buffer.add(np.zeros(2, np.float32), reward, source.next(), terminated=terminated)
    buffer.begin(source.first())
    buffer.add(np.zeros(2, np.float32), 32.0, source.next(), terminated=False, truncated=True)
    batch = buffer.gather(torch.tensor([0, 1, 2, 3, 5]))
    assert batch.rewards.tolist() == [2 + 2 + 2, 4 + 4 + 4, 8 + 8, 16, 32]
    assert batch.steps.tolist() == [3, 3, 2, 1, 1]
    assert batch.terminated.tolist() == [0, 1, 1, 1, 0]
    images = batch.next_observations["image"][:, -1, 0, 0].tolist()
    assert images == [4, 5, 5, 5, 7]


# Prioritised sampling.


def prioritised(capacity: int = 50, stack: int = 2) -> ReplayBuffer:
    return ReplayBuffer(spec_of(stack), capacity, prioritized=True)


def test_transitions_are_drawn_in_proportion_to_their_priorities() -> None:
    buffer = prioritised()
    fill(buffer, 12, 9)
    slots = torch.tensor(sampleable(buffer))
    wanted = torch.arange(1.0, len(slots) + 1.0)
    buffer.set_priorities(slots, wanted)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([buffer.sample(1000, generator).slots for _ in range(100)])
    counts = torch.tensor([(drawn == slot).sum().item() for slot in slots])
    assert counts.sum() == 100_000
    expected = 100_000 * wanted / wanted.sum()
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = len(slots) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_what_is_new_gets_the_greatest_priority_there_has_been() -> None:
    buffer = prioritised()
    fill(buffer, 1, 5)
    buffer.set_priorities(torch.tensor([0, 1]), torch.tensor([7.0, 0.25]))
    assert buffer.priorities[:7].tolist() == [7.0, 0.25, 1.0, 1.0, 1.0, 0.0, 0.0]
    fill(buffer, 1, 2)
    assert buffer.priorities[:10].tolist()[6:] == [7.0, 7.0, 0.0, 0.0]
    assert copied(buffer).greatest_priority.item() == 7.0


def test_a_priority_for_what_has_been_overwritten_is_left_out() -> None:
    buffer = prioritised(capacity=12)
    source = Source(2)
    fill(buffer, 1, 8, source)
    slots = torch.tensor(sampleable(buffer))
    fill(buffer, 1, 8, source)
    alive = sampleable(buffer)
    assert set(alive) & set(slots.tolist()) and set(slots.tolist()) - set(alive)
    buffer.set_priorities(slots, torch.full((len(slots),), 9.0))
    assert sampleable(buffer) == alive
    for slot in alive:
        assert buffer.priorities[slot % 12] == (9.0 if slot in slots else 1.0)


@pytest.mark.parametrize("rings", [1, 2])
def test_old_transitions_are_drawn_less_often(rings: int) -> None:
    """With a half-life of 8, of all rings' slots; the seam lies within what is left of a ring."""
    buffer = ReplayBuffer(spec_of(2), 24 * rings, prioritized=True, half_life=8, rings=rings)
    source = Source(2)
    buffer.begin(source.first())
    for _ in range(40):
        buffer.add(np.zeros(2, np.float32), 0.0, source.next(), terminated=False)
    first, end = buffer.queue[:, 0].tolist()  # ring 0 alone has anything in it
    slots = buffer.transitions[torch.arange(first, end) % buffer.ring_capacity]
    buffer.set_priorities(slots * rings, 1.0 + slots % 3)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([buffer.sample(1000, generator).slots for _ in range(40)])
    counts = torch.tensor([(drawn == slot * rings).sum().item() for slot in slots])
    left = 0.5 ** (rings * (slots.max() - slots) / 8)
    assert (left < 0.1).any() == (rings == 2)  # the oldest count a tenth
    wanted = (1.0 + slots % 3) * left.clamp(min=0.1)
    expected = 40_000 * wanted / wanted.sum()
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    freedom = len(slots) - 1
    assert counts.sum() == 40_000 and abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    assert buffer.priorities.max() == 3.0  # what is stored has not faded


def test_only_what_a_run_collects_fades() -> None:
    config = LearningConfig(replay_sampling="lap", priority_half_life_steps=50)
    spec = NetworkSpec((2, 36, 36), (1.0,), 2, (4, 4, 4), 4, (8,))
    replay = make_replay(spec, config, "cpu", 30)
    assert replay.half_life == 50
    assert warm_start.restored(replay.state(), spec, config, "cpu").half_life == 0


# What an observation is made of.


def test_shifts_move_the_images_of_a_sample_and_nothing_else() -> None:
    buffer = ReplayBuffer(spec_of(3), 50)
    fill(buffer, 5, 8)
    shifts = torch.randint(-1, 2, (2, 2, 40), generator=torch.Generator().manual_seed(1))
    plain = buffer.sample(40, torch.Generator().manual_seed(0))
    moved = buffer.sample(40, torch.Generator().manual_seed(0), shifts)
    assert torch.equal(
        moved.observations["image"], shift_images(plain.observations["image"], shifts[0])
    )
    assert torch.equal(
        moved.next_observations["image"], shift_images(plain.next_observations["image"], shifts[1])
    )
    assert not torch.equal(moved.observations["image"], plain.observations["image"])
    assert torch.equal(moved.observations["vector"], plain.observations["vector"])


@pytest.mark.parametrize("shape", [(3, 2, HEIGHT, WIDTH), None])
def test_coloured_images_and_no_images_are_kept(shape: tuple[int, ...] | None) -> None:
    buffer = ReplayBuffer(ReplaySpec(shape, VECTOR, ACTIONS), 12)
    rng = np.random.default_rng(0)
    kept = []

    def observe(stack: list[np.ndarray]) -> dict[str, np.ndarray]:
        seen = {"vector": rng.normal(size=VECTOR).astype(np.float32)}
        if shape:
            stack.append(rng.integers(0, 256, shape[1:], dtype=np.uint8))
            first = [stack[0]] * shape[0]
            seen["image"] = np.stack([*first, *stack][-shape[0] :])
        return seen

    for _ in range(4):
        stack: list[np.ndarray] = []
        now = observe(stack)
        buffer.begin(now)
        for index in range(5):
            after = observe(stack)
            buffer.add(rng.normal(size=2), 1.0, after, terminated=index == 4)
            kept.append((now, after))
            now = after
    slots = sampleable(buffer)
    batch = copied(buffer).gather(torch.tensor(slots))
    for row, slot in enumerate(slots):
        episode, index = divmod(slot, 6)
        now, after = kept[5 * episode + index]
        assert set(batch.observations) == set(now)
        for key in now:
            np.testing.assert_array_equal(batch.observations[key][row], now[key])
            np.testing.assert_array_equal(batch.next_observations[key][row], after[key])


def test_images_alone_are_kept() -> None:
    buffer = ReplayBuffer(ReplaySpec((2, HEIGHT, WIDTH), 0, ACTIONS), 12)
    source = Source(2)
    for observation in (source.first(), source.next()):
        del observation["vector"]
        buffer.begin(observation)
    observation = source.next()
    buffer.add(np.zeros(2), 0.0, observation, terminated=True)
    batch = buffer.sample(3, torch.Generator().manual_seed(0))
    assert set(batch.observations) == set(batch.next_observations) == {"image"}


def test_a_capacity_below_an_n_step_return_is_refused() -> None:
    with pytest.raises(ValueError, match="5-step"):
        ReplayBuffer(spec_of(2), 7, n_step=5)
    ReplayBuffer(spec_of(2), 8, n_step=5)


# Several rings.


def several(rings: int, capacity: int, **options: object) -> ReplayBuffer:
    return ReplayBuffer(spec_of(3), capacity, rings=rings, **options)  # type: ignore[arg-type]


def of_ring(slots: list[int], ring: int, rings: int) -> torch.Tensor:
    return torch.tensor([slot * rings + ring for slot in slots])


interleaved = st.lists(
    st.tuples(
        st.integers(0, 2),  # which collector's turn it is
        st.booleans(),  # is the step clean?
        st.sampled_from(["goes on", "terminated", "truncated", "abandoned"]),
    ),
    min_size=1,
    max_size=90,
)


@settings(max_examples=60, deadline=None)
@given(spare=st.integers(4, 14), n_step=st.integers(1, 3), turns=interleaved)
def test_each_ring_holds_exactly_what_it_would_hold_alone(
    spare: int, n_step: int, turns: list[tuple[int, bool, str]]
) -> None:
    rings, share = 3, 3 + spare
    buffer = several(rings, rings * share, n_step=n_step, discount=DISCOUNT)
    sources = [Source(3) for _ in range(rings)]
    references = [Reference(3, share) for _ in range(rings)]
    for number, source in enumerate(sources):
        source._number = 1000 * number  # no two rings have an image in common
    driving = [False] * rings
    for ring, clean, end in turns:
        source, reference = sources[ring], references[ring]
        if not driving[ring]:
            observation = source.first()
            buffer.begin(observation, ring)
            reference.begin(observation)
        action, reward = source.action_and_reward()
        observation = source.next()
        terminated, truncated = end == "terminated", end == "truncated"
        buffer.add(
            action,
            reward,
            observation,
            terminated=terminated,
            truncated=truncated,
            clean=clean,
            ring=ring,
        )
        reference.add(action, reward, observation, terminated, clean)
        driving[ring] = end == "goes on"
    alive = [reference.alive() for reference in references]
    assert buffer.sizes() == [len(kept) for kept in alive]
    for ring, kept in enumerate(alive):
        slots = sorted(kept)
        if not slots:
            continue
        batch = buffer.gather(of_ring(slots, ring, rings))
        for row, slot in enumerate(slots):
            total, taken, final = walked(references[ring], kept, slot, n_step)
            assert batch.rewards[row].item() == pytest.approx(total, abs=1e-3)
            assert (batch.steps[row].item(), batch.terminated[row].item()) == (
                taken,
                final.terminated,
            )
            for key in ("image", "vector"):
                before, after = batch.observations[key], batch.next_observations[key]
                np.testing.assert_array_equal(before[row], kept[slot].observation[key])
                np.testing.assert_array_equal(after[row], final.next_observation[key])


def filled(buffer: ReplayBuffer, lengths: dict[int, int], episode: int = 5) -> list[Reference]:
    """Add that many steps to each ring, in episodes of `episode`; a step each in turn."""
    stack = buffer.spec.stack
    references = [Reference(stack, buffer.ring_capacity) for _ in range(buffer.rings)]
    sources = [Source(stack) for _ in range(buffer.rings)]
    for number, source in enumerate(sources):
        source._number = 1000 * number
    for step in range(max(lengths.values())):
        for ring, length in lengths.items():
            if step >= length:
                continue
            source, reference = sources[ring], references[ring]
            if step % episode == 0:
                first = source.first()
                buffer.begin(first, ring)
                reference.begin(first)
            action, reward = source.action_and_reward()
            observation, last = source.next(), step % episode == episode - 1
            buffer.add(action, reward, observation, terminated=last, ring=ring)
            reference.add(action, reward, observation, last, True)
    return references


@pytest.mark.parametrize("prioritized", [False, True])
def test_rings_are_drawn_from_by_their_sizes(prioritized: bool) -> None:
    buffer = several(4, 400, prioritized=prioritized)
    filled(buffer, {0: 10, 1: 40, 3: 70})
    assert buffer.sizes() == [10, 40, 0, 70] and len(buffer) == 120
    generator = torch.Generator().manual_seed(0)
    counts: dict[int, int] = {}
    for _ in range(60):
        batch = buffer.sample(1000, generator)
        assert batch.slots is not None
        for slot, reward in zip(batch.slots.tolist(), batch.rewards.tolist(), strict=True):
            counts[slot] = counts.get(slot, 0) + 1
            assert int(reward * 8) // 1000 == slot % 4  # it is of the ring that it says
    drawn = np.array(list(counts.values()))
    chi_square = float(np.sum((drawn - 500.0) ** 2) / 500.0)
    assert len(drawn) == 120 and abs(chi_square - 119) < 4 * np.sqrt(2 * 119)


def test_a_priority_finds_its_ring() -> None:
    buffer = several(2, 40, prioritized=True)
    filled(buffer, {0: 5, 1: 5})
    buffer.set_priorities(torch.tensor([2 * 3 + 1]), torch.tensor([7.0]))  # slot 3 of ring 1
    assert buffer.priorities[20:25].tolist() == [1.0, 1.0, 1.0, 7.0, 1.0]
    assert buffer.priorities[:6].tolist() == [1.0] * 5 + [0.0]
    assert buffer.greatest_priority.item() == 7.0
    # Slot 3 of a ring that has gone on past it is left alone.
    fill(buffer, 8, 5)
    buffer.set_priorities(torch.tensor([2 * 3]), torch.tensor([9.0]))
    assert 9.0 not in buffer.priorities


def test_rings_that_are_saved_are_restored_as_they_were() -> None:
    buffer, other = several(3, 60), several(3, 60)
    filled(buffer, {0: 50, 1: 3, 2: 12})
    other.restore(buffer.state())
    for name, tensor in buffer.state().items():
        assert torch.equal(tensor, other.state()[name]), name
    one, again = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    assert torch.equal(buffer.sample(64, one).rewards, other.sample(64, again).rewards)
    with pytest.raises(ValueError, match="begin"):
        other.add(np.zeros(2), 0.0, Source(3).first(), terminated=False, ring=2)


@pytest.mark.parametrize("before, after", [(1, 4), (4, 1), (3, 2), (2, 3)])
def test_episodes_are_spread_over_another_number_of_rings(before: int, after: int) -> None:
    buffer, other = several(before, 240), several(after, 240, n_step=2, discount=DISCOUNT)
    references = filled(buffer, {ring: 30 + 7 * ring for ring in range(before)})
    kept = {k.reward: k for reference in references for k in reference.alive().values()}
    other.restore(buffer.state())
    assert len(other) == len(buffer) == len(kept)
    assert max(other.sizes()) - min(other.sizes()) <= 5  # an episode
    other.n_step = 1
    for ring in range(after):
        first, end = other.queue[:, ring].tolist()
        slots = list(range(first, end))
        starts = other.transitions[[ring * other.ring_capacity + slot for slot in slots]]
        batch = other.gather(starts * after + ring)
        assert_exact(batch, [kept.pop(reward) for reward in batch.rewards.tolist()])
    assert not kept


def test_a_full_ring_is_spread_and_the_oldest_go_where_that_is_too_much() -> None:
    buffer = several(1, 60)
    filled(buffer, {0: 200}, episode=200)  # one episode, longer than any ring
    other = several(3, 60)
    other.restore(buffer.state())
    # It stays in one piece, in one ring of 20: the last starts nothing, 2 only complete stacks.
    assert other.sizes() == [17, 0, 0]
    slots = other.transitions[:17]
    images = other.gather(slots * 3).observations["image"][:, -1]
    assert images[:, 0, 0].tolist() == [(201 - 18 + index) % 256 for index in range(1, 18)]


def test_a_ring_that_is_missing_or_too_small_is_refused() -> None:
    buffer = several(3, 60)
    filled(buffer, {0: 5, 1: 5, 2: 5})
    state = buffer.state()
    del state["ring1.images"]
    with pytest.raises(ValueError, match="lacks a ring"):
        several(3, 60).restore(state)
    with pytest.raises(ValueError, match="capacity 12 for 3 rings is less than the 15"):
        several(3, 12)
