# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The categorical critic: projection by hand and in a plain loop, its learning, its scale."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_learning_td3 import SPEC as SCALAR
from torch import Tensor, nn

from td3_driver.config import ConfigError, LearningConfig, load, override
from td3_driver.learning import categorical
from td3_driver.learning.batch import Batch, ReplaySpec
from td3_driver.learning.categorical import ATOMS, cross_entropy, mean, projected
from td3_driver.learning.critic_forms import FORMS
from td3_driver.learning.mixed_replay import MixedReplay
from td3_driver.learning.networks import VECTOR, Critic, NetworkSpec
from td3_driver.learning.normalization import Returns, RewardNorm
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.saved_rings import RETURNS
from td3_driver.learning.td3 import TD3

torch.set_num_threads(1)  # the networks are too small for more

VALUES = [round(-5.0 + 0.1 * index, 1) for index in range(101)]
"""What the atoms stand for, by hand."""
FORM = FORMS["categorical"]


def surely(*values: float) -> Tensor:
    """Return distributions that are certain of one value each, (B, ATOMS)."""
    rows = torch.zeros(len(values), ATOMS)
    for row, value in enumerate(values):
        rows[row, VALUES.index(value)] = 1.0
    return rows


def shares(distribution: Tensor) -> dict[float, float]:
    """Return the probabilities that are not 0, by value."""
    return {
        VALUES[index]: round(share, 4)
        for index, share in enumerate(distribution.tolist())
        if round(share, 4)
    }


# ------------------------------------------------------------------ the distribution


def test_the_atoms_are_what_they_are_said_to_be() -> None:
    assert categorical.atoms_like(torch.zeros(())).tolist() == pytest.approx(VALUES, abs=1e-6)


@pytest.mark.parametrize(
    "value, reward, bootstrap, wanted",
    [
        (2.0, 0.5, 1.0, {2.5: 1.0}),  # on an atom
        (2.0, 0.0, 0.52, {1.0: 0.6, 1.1: 0.4}),  # 1.04: between two
        (-2.0, 0.03, 1.0, {-2.0: 0.7, -1.9: 0.3}),
        (5.0, 0.0, 1.0, {5.0: 1.0}),  # at the ends
        (-5.0, 0.0, 1.0, {-5.0: 1.0}),
        (5.0, 0.7, 1.0, {5.0: 1.0}),  # beyond them
        (-4.0, -3.0, 0.99, {-5.0: 1.0}),
        (3.0, -1.25, 0.0, {-1.3: 0.5, -1.2: 0.5}),  # terminated: the value does not matter
        (-3.0, 12.0, 0.0, {5.0: 1.0}),
    ],
)
def test_a_certain_value_by_hand(
    value: float, reward: float, bootstrap: float, wanted: dict[float, float]
) -> None:
    got = projected(surely(value), torch.tensor([reward]), torch.tensor([bootstrap]))
    assert shares(got[0]) == pytest.approx(wanted, abs=2e-4)


def test_two_values_that_meet_are_added() -> None:
    both = 0.25 * surely(4.0) + 0.75 * surely(-4.0)
    got = projected(both, torch.tensor([1.0]), torch.tensor([0.5]))
    assert shares(got[0]) == pytest.approx({3.0: 0.25, -1.0: 0.75}, abs=2e-4)
    ended = projected(both, torch.tensor([1.0]), torch.tensor([0.0]))
    assert shares(ended[0]) == pytest.approx({1.0: 1.0}, abs=2e-4)


def slowly_projected(distribution: list[float], reward: float, bootstrap: float) -> list[float]:
    """Do the same by the definition: each atom's share by its distance, one after the other."""
    result = [0.0] * 101
    for probability, value in zip(distribution, VALUES, strict=True):
        moved = min(max(reward + bootstrap * value, -5.0), 5.0)
        for index, atom in enumerate(VALUES):
            result[index] += probability * max(0.0, 1.0 - abs(moved - atom) / 0.1)
    return result


def test_it_agrees_with_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3.0 * torch.randn(8, ATOMS, generator=generator, dtype=torch.float64)
    rewards = 4.0 * torch.randn(8, generator=generator, dtype=torch.float64)
    bootstrap = torch.tensor([0.99, 0.0, 0.97, 1.0, 0.5, 0.0, 0.99, 0.9], dtype=torch.float64)
    got = projected(logits.softmax(dim=1), rewards, bootstrap)
    for row in range(8):
        wanted = slowly_projected(
            logits[row].softmax(dim=0).tolist(), rewards[row].item(), bootstrap[row].item()
        )
        assert got[row].tolist() == pytest.approx(wanted, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    reward=st.floats(-20.0, 20.0, width=32),
    bootstrap=st.floats(0.0, 1.0, width=32),
    sharpness=st.floats(0.0, 20.0),
)
def test_it_stays_a_distribution_and_keeps_the_mean_where_nothing_is_cut_off(
    seed: int, reward: float, bootstrap: float, sharpness: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    before = (sharpness * torch.randn(1, ATOMS, generator=generator)).softmax(dim=1)
    after = projected(before, torch.tensor([reward]), torch.tensor([bootstrap]))
    assert (after >= 0.0).all() and after.sum().item() == pytest.approx(1.0, abs=1e-5)
    wanted = reward + bootstrap * mean(before).item()
    if abs(reward) + 5.0 * bootstrap <= 5.0:
        assert mean(after).item() == pytest.approx(wanted, abs=1e-4)
    assert abs(mean(after).item()) <= 5.0 + 1e-5


def test_the_target_is_that_of_the_twin_with_the_smaller_mean() -> None:
    certain = 40.0 * surely(1.0, 3.0)  # logits
    torn = 40.0 * (surely(-4.0, -4.0) + surely(5.0, 5.0))  # both alike: a mean of 0.5
    low = 40.0 * surely(-1.0, 4.0)
    rewards, bootstrap = torch.zeros(2), torch.ones(2)
    target = FORM.target(rewards, bootstrap, (certain, torn))
    assert [shares(row) for row in target] == [{-4.0: 0.5, 5.0: 0.5}] * 2
    for twins in ((certain, low), (low, certain)):
        target = FORM.target(rewards, bootstrap, twins)
        assert [shares(row) for row in target] == [{-1.0: 1.0}, {3.0: 1.0}]


def test_the_loss_is_the_cross_entropy() -> None:
    target = 0.25 * surely(1.0) + 0.75 * surely(2.0)
    logits = torch.full((1, ATOMS), -30.0)
    logits[0, VALUES.index(1.0)] = logits[0, VALUES.index(2.0)] = 0.0  # half each
    assert cross_entropy(logits, target).item() == pytest.approx(math.log(2.0))
    plain = LearningConfig(critic="categorical")
    assert FORM.loss(logits, target, plain).item() == pytest.approx(math.log(2.0))
    # Its gradient is the difference of both distributions.
    logits.requires_grad_()
    cross_entropy(logits, target).sum().backward()
    wanted = logits.detach().softmax(dim=1) - target
    torch.testing.assert_close(logits.grad, wanted, rtol=1e-5, atol=1e-7)


def test_with_lap_an_error_counts_less_by_as_much_as_it_is_drawn_more() -> None:
    lap = LearningConfig(
        critic="categorical", replay_sampling="lap", huber_threshold=0.5, priority_exponent=0.4
    )
    logits, target = 12.0 * surely(1.0, 1.0), surely(3.0, 1.2)
    errors = (mean(target) - FORM.values(logits)).abs()
    assert errors[0] > 1.9 and errors[1] < 0.5
    each = cross_entropy(logits, target)
    wanted = (each[0] * (errors[0] / 0.5) ** -0.4 + each[1]) / 2
    torch.testing.assert_close(FORM.loss(logits, target, lap), wanted)


# ------------------------------------------------------------------ the learner


SPEC = dataclasses.replace(SCALAR, critic="categorical")
BATCH = 6


def make_learner(spec: NetworkSpec = SPEC, **changes: Any) -> TD3:
    given = {"actor_warmup_updates": 0, "policy_freq": 1, **changes}
    return TD3(spec, LearningConfig(**given), seed=3)


def make_batch(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def observations() -> dict[str, Tensor]:
        size = (BATCH, *SPEC.image) if SPEC.image else ()
        return {
            "image": torch.randint(0, 256, size, dtype=torch.uint8, generator=generator),
            "vector": torch.randn(BATCH, 3, generator=generator),
        }

    return Batch(
        observations=observations(),
        actions=2 * torch.rand(BATCH, 2, generator=generator) - 1,
        rewards=torch.randn(BATCH, generator=generator),
        next_observations=observations(),
        terminated=(torch.arange(BATCH) % 3 == 0).float(),
        steps=1.0 + torch.arange(BATCH) % 3,
    )


def test_the_target_of_an_update_has_its_discount_ends_and_scale() -> None:
    learner, batch = make_learner(discount=0.9, policy_noise=0.0), make_batch()
    learner.reward_norm.follow(Returns(10, 0.0, 40.0, 3.0))  # a deviation of 2
    target = learner.target_values(batch, batch.next_observations)
    with torch.no_grad():
        following = learner.actor_target(batch.next_observations)
        twins = learner.critic_target(batch.next_observations, following)
        values = learner.critic_target.q_values(batch.next_observations, following)
    for row in range(BATCH):
        lower = twins[0] if values[0][row] <= values[1][row] else twins[1]
        goes_on = 0.0 if row % 3 == 0 else 0.9 ** (1 + row % 3)
        wanted = slowly_projected(
            lower[row].softmax(dim=0).tolist(), batch.rewards[row].item() / 2.0, goes_on
        )
        assert target[row].tolist() == pytest.approx(wanted, abs=1e-5)


def test_errors_and_figures_are_those_of_the_means() -> None:
    learner, batch = make_learner(replay_sampling="lap", huber_threshold=0.1), make_batch()
    with torch.no_grad():
        q1, q2 = learner.critic.q_values(batch.observations, batch.actions)
    learner.generator.manual_seed(5)
    target = mean(learner.target_values(batch, batch.next_observations))
    learner.generator.manual_seed(5)
    figures = learner.update(batch, measure=True)
    errors = torch.maximum((q1 - target).abs(), (q2 - target).abs())
    torch.testing.assert_close(learner.td_errors, errors, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learner.priorities(), errors.clamp(min=0.1) ** 0.4)
    assert figures["q1_mean"].item() == pytest.approx(q1.mean().item(), abs=1e-5)
    assert figures["target_mean"].item() == pytest.approx(target.mean().item(), abs=1e-5)
    assert all(math.isfinite(figure) for figure in figures.values())


def test_the_actors_gradient_is_that_of_the_mean_of_the_first_head() -> None:
    learner, batch = make_learner(pre_tanh_penalty=0.0), make_batch()
    actions = batch.actions.clone().requires_grad_()
    q = learner.critic.q1_of_action(batch.observations, actions)
    (gradient,) = torch.autograd.grad(q.sum(), actions)
    with torch.no_grad():
        for column in range(2):
            step = torch.zeros(2)
            step[column] = 1e-2
            more, less = (
                learner.critic.q_values(batch.observations, batch.actions + sign * step)[0]
                for sign in (1, -1)
            )
            slope = (more - less) / 2e-2
            torch.testing.assert_close(gradient[:, column], slope, rtol=0.05, atol=1e-3)
    assert learner.actor_loss(batch.observations)[0].item() == pytest.approx(
        -learner.actor_loss(batch.observations)[3].mean().item()
    )


def test_it_begins_with_normal_distributions_of_deviation_1() -> None:
    critic = Critic(SPEC)
    for head in (critic.q1, critic.q2):
        last = head[-1]
        assert isinstance(last, nn.Linear)
        start = last.bias.detach().softmax(dim=0)
        density = torch.tensor([0.1 * math.exp(-0.5 * value * value) for value in VALUES])
        torch.testing.assert_close(start, density / math.sqrt(2 * math.pi), rtol=1e-4, atol=1e-6)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def test_every_units_weights_keep_a_norm_of_1() -> None:
    learner = make_learner()
    for number in range(3):
        for network, count in ((learner.actor, 1 + 3), (learner.critic, 1 + 3 + 3)):
            layers = linear_layers(network)
            assert len(layers) == count
            for layer in layers:
                norms = layer.weight.norm(dim=1)
                torch.testing.assert_close(norms, torch.ones_like(norms))
        before = [layer.weight.clone() for layer in linear_layers(learner.critic)]
        learner.update(make_batch(number))
        after = [layer.weight for layer in linear_layers(learner.critic)]
        assert not any(torch.equal(*pair) for pair in zip(before, after, strict=True))


def test_a_scalar_critic_is_what_it_was() -> None:
    learner = make_learner(SCALAR)
    learner.reward_norm.follow(Returns(10, 0.0, 40.0, 3.0))
    learner.update(make_batch())
    assert learner.critic.q1[-1].out_features == 1  # type: ignore[union-attr]
    assert learner.reward_norm.scale() == 1.0 and not learner.reward_norm.state_dict()
    norms = torch.cat([layer.weight.norm(dim=1) for layer in linear_layers(learner.critic)])
    assert (norms - 1.0).abs().min() > 1e-3
    batch = make_batch()
    values = learner.critic(batch.observations, batch.actions)
    again = learner.critic.q_values(batch.observations, batch.actions)
    assert all(torch.equal(*pair) for pair in zip(values, again, strict=True))


def test_in_bfloat16_the_last_layer_and_the_distribution_are_float32() -> None:
    learner = TD3(SPEC, LearningConfig(actor_warmup_updates=0), precision=torch.bfloat16)
    batch = make_batch()
    with learner.autocast():
        first, _ = learner.critic(batch.observations, batch.actions)
        q = learner.critic.q1_of_action(batch.observations, batch.actions)
    assert first.dtype == q.dtype == torch.float32
    assert learner.target_values(batch, batch.next_observations).dtype == torch.float32
    figures = learner.update(batch, measure=True)
    assert all(math.isfinite(figure) for figure in figures.values())


def chain_batch(generator: torch.Generator, count: int = 32) -> Batch:
    """Draw steps of a chain of three states; the last one's reward is 0 or -2 and ends it.

    Half of those from the first are two steps at once. With a discount of 0.5 the states are
    worth 1.75, 1.5 and -1.
    """
    state = torch.randint(0, 3, (count,), generator=generator)
    twice = (state == 0) & (torch.rand(count, generator=generator) < 0.5)
    last = -2.0 * (torch.rand(count, generator=generator) < 0.5).float()
    rewards = torch.where(state == 2, last, 1.0 + state)
    rewards = torch.where(twice, torch.tensor(1.0 + 0.5 * 2.0), rewards)
    after = (state + 1 + twice.long()).clamp(max=2)
    return Batch(
        observations={VECTOR: torch.eye(3)[state]},
        actions=2 * torch.rand(count, 1, generator=generator) - 1,
        rewards=rewards,
        next_observations={VECTOR: torch.eye(3)[after]},
        terminated=(state == 2).float(),
        steps=1.0 + twice.float(),
    )


def test_it_learns_the_values_of_a_known_chain() -> None:
    spec = NetworkSpec(None, (1.0, 1.0, 1.0), 1, (1, 1, 1), 1, (32, 32), critic="categorical")
    learner = make_learner(spec, discount=0.5, tau=0.1, critic_learning_rate=3e-3, policy_freq=2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        learner.update(chain_batch(generator))
    with torch.no_grad():
        seen = {VECTOR: torch.eye(3)}
        for values in learner.critic.q_values(seen, torch.zeros(3, 1)):
            assert values.tolist() == pytest.approx([1.75, 1.5, -1.0], abs=0.15)
        logits, _ = learner.critic(seen, torch.zeros(3, 1))
    ends = logits[2].softmax(dim=0)
    # It knows both ends, not only their mean.
    assert ends[VALUES.index(-2.0)] == pytest.approx(0.5, abs=0.15)
    assert ends[VALUES.index(0.0)] == pytest.approx(0.5, abs=0.15)


# ------------------------------------------------------------------ the scale


def test_returns_are_counted_as_numpy_counts_them() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, 50)
    known = Returns()
    assert known.deviation == 1.0
    for value in values[:30]:
        known = known.and_one(float(value))
    other = Returns()
    for value in values[30:]:
        other = other.and_one(float(value))
    for joined in (known.joined(other), other.joined(known)):
        assert joined.count == 50 and joined.mean == pytest.approx(values.mean())
        assert joined.deviation == pytest.approx(values.std())
        assert joined.largest == np.abs(values).max()
    assert Returns().joined(known) == known.joined(Returns()) == known


@pytest.mark.parametrize(
    "deviation, largest, divisor",
    [(2.0, 9.0, 2.0), (2.0, 30.0, 6.0), (0.0, 0.0, 1.0), (0.1, 0.2, 0.1)],
)
def test_rewards_are_divided_by_the_deviation_or_so_that_the_largest_return_fits(
    deviation: float, largest: float, divisor: float
) -> None:
    norm = RewardNorm(1.0, False, greatest_q=5.0)
    rewards = torch.tensor([1.0, -3.0])
    assert torch.equal(norm(rewards), rewards)
    norm.follow(Returns(4, 1.0, 4 * deviation**2, largest))
    torch.testing.assert_close(norm(rewards), rewards / divisor)
    assert norm.state_dict()["divisor"].item() == pytest.approx(divisor)


def add(replay: ReplayBuffer, rewards: list[float], ring: int = 0, **last: bool) -> None:
    """Add an episode; the flags are those of its last step."""
    seen = {VECTOR: np.zeros(1, np.float32)}
    replay.begin(seen, ring)
    for number, reward in enumerate(rewards):
        flags = last if number == len(rewards) - 1 else {}
        replay.add(np.zeros(1), reward, seen, **{"terminated": False, **flags}, ring=ring)


def make_replay(capacity: int = 40, rings: int = 1) -> ReplayBuffer:
    return ReplayBuffer(ReplaySpec(None, 1, 1), capacity, discount=0.5, rings=rings)


def known_of(values: list[float]) -> Returns:
    return Returns(
        len(values),
        float(np.mean(values)),
        float(len(values) * np.var(values)),
        max(map(abs, values)),
    )


def assert_alike(one: Returns, other: Returns) -> None:
    assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other))


def test_a_buffer_counts_the_returns_of_each_episode() -> None:
    replay = make_replay(rings=2)
    add(replay, [1.0, 2.0, -8.0], terminated=True)
    add(replay, [4.0], ring=1)  # goes on ...
    add(replay, [2.0, 2.0], truncated=True)
    seen = {VECTOR: np.zeros(1, np.float32)}
    replay.add(np.zeros(1), 1.0, seen, terminated=False, ring=1)  # ... here
    replay.add(np.zeros(1), 50.0, seen, terminated=False, clean=False, ring=1)
    replay.add(np.zeros(1), 1.0, seen, terminated=True, ring=1)
    values = [1.0, 2.5, -6.75, 4.0, 2.0, 3.0, 3.0, 1.0]
    assert_alike(replay.returns, known_of(values))

    other = make_replay(rings=2)
    other.restore(replay.state())
    assert other.returns == replay.returns
    older = {name: tensor for name, tensor in replay.state().items() if name != RETURNS}
    other.restore(older)
    assert_alike(other.returns, known_of(values))

    new = make_replay()
    add(new, [7.0], terminated=True)
    assert_alike(MixedReplay(replay, new, 0.5).returns, known_of([*values, 7.0]))


def test_what_has_been_overwritten_still_counts() -> None:
    replay = make_replay(capacity=6)
    for _ in range(4):
        add(replay, [1.0, 2.0, 4.0], terminated=True)
    values = 4 * [1.0, 2.5, 5.25]
    assert len(replay) < len(values)
    again = make_replay(capacity=6)
    again.restore(replay.state())
    assert_alike(again.returns, known_of(values))


@pytest.mark.parametrize(
    "damaged", [torch.zeros(3), torch.tensor([1.0, math.nan, 0.0, 0.0]), -torch.ones(4)]
)
def test_returns_that_cannot_be_are_refused(damaged: Tensor) -> None:
    replay = make_replay()
    add(replay, [1.0], terminated=True)
    with pytest.raises(ValueError, match="returns are damaged"):
        make_replay().restore(replay.state() | {RETURNS: damaged})


@pytest.mark.parametrize(
    "change", [{"learning.normalize_rewards": True}, {"learning.reward_scale": 0.1}]
)
def test_rewards_are_not_scaled_twice(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="critic: categorical scales rewards itself"):
        override(load("first_drive"), {"learning.critic": "categorical", **change}, "a test")


def test_the_critic_is_part_of_the_networks_shape() -> None:
    assert Critic(SPEC).state_dict()["q2.4.weight"].shape == (101, 8)
    assert Critic(SCALAR).state_dict()["q2.4.weight"].shape == (1, 8)
