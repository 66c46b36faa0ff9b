# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The networks and TD3's update: what moves what, hand-worked targets, and a plain reference."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from small_networks import SMALL
from torch import Tensor, nn
from torch.nn import functional

from td3_driver.config import LearningConfig
from td3_driver.learning.batch import Batch, replay_spec
from td3_driver.learning.metrics import COLUMNS
from td3_driver.learning.networks import (
    Actor,
    Critic,
    Encoder,
    NetworkSpec,
    Observations,
    gradient_norm,
    scale_image,
)
from td3_driver.learning.td3 import TD3, split_parameters

torch.set_num_threads(1)  # the networks are too small for more

SPEC = dataclasses.replace(SMALL, vector_scale=(1.0, 2.0, 8.0))
BATCH = 6


@pytest.fixture(autouse=True)
def the_same_networks_every_time() -> None:
    torch.manual_seed(0)


def observations(generator: torch.Generator, batch: int = BATCH) -> Observations:
    return {
        "image": torch.randint(
            0, 256, (batch, *SPEC.image), dtype=torch.uint8, generator=generator
        ),
        "vector": torch.randn(batch, len(SPEC.vector_scale), generator=generator),
    }


def make_batch(seed: int = 0, batch: int = BATCH) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        observations=observations(generator, batch),
        actions=2 * torch.rand(batch, SPEC.actions, generator=generator) - 1,
        rewards=torch.randn(batch, generator=generator),
        next_observations=observations(generator, batch),
        terminated=(torch.arange(batch) % 3 == 0).float(),
        steps=torch.ones(batch),
    )


def make_learner(seed: int = 0, **settings: Any) -> TD3:
    config = LearningConfig(**{"actor_warmup_updates": 0, **settings})
    return TD3(dataclasses.replace(SPEC, encoders=config.encoders), config, seed=seed)


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def all_different(one: list[Tensor], other: list[Tensor]) -> bool:
    return not any(torch.equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))


def perturb(network: nn.Module) -> None:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def test_images_are_mapped_to_plus_and_minus_one_half() -> None:
    image = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 3, 1, 1)
    scaled = scale_image(image)
    assert scaled.dtype == torch.float32
    torch.testing.assert_close(scaled.flatten(), torch.tensor([-0.5, -0.3, 0.5]))
    assert scale_image(image, torch.float64).dtype == torch.float64
    assert image.flatten().tolist() == [0, 51, 255]
    assert scale_image(scaled) is scaled


def test_an_encoder_gives_the_same_state_from_bytes_and_from_scaled_floats() -> None:
    encoder = Encoder(SPEC)
    seen = observations(torch.Generator().manual_seed(0))
    state = encoder(seen)
    assert state.shape == (BATCH, SPEC.state_size) == (BATCH, 7 + 3)
    floats = {"image": seen["image"].float() / 255 - 0.5, "vector": seen["vector"]}
    torch.testing.assert_close(encoder(floats), state)


def test_the_default_state_has_the_documented_size() -> None:
    spec = NetworkSpec((4, 84, 84), (1.0,) * 23, 2, (32, 64, 64), 512, (256, 256))
    assert spec.state_size == 535
    flat = 64 * 7 * 7
    assert Encoder(spec).trunk[0].in_features == flat


def test_image_features_are_bounded_and_the_vector_is_divided_by_its_scale() -> None:
    encoder = Encoder(SPEC)
    perturb(encoder)
    seen = observations(torch.Generator().manual_seed(0))
    state = encoder(seen)
    assert state[:, :7].abs().max() <= 1.0
    torch.testing.assert_close(state[:, 7:], seen["vector"] / torch.tensor([1.0, 2.0, 8.0]))


def test_the_twins_are_two_functions_of_the_image_the_vector_and_the_action() -> None:
    critic, batch = Critic(SPEC), make_batch()
    q1, q2 = critic(batch.observations, batch.actions)
    assert q1.shape == q2.shape == (BATCH,)
    assert not torch.equal(q1, q2)
    for changed in (
        {**batch.observations, "image": 255 - batch.observations["image"]},
        {**batch.observations, "vector": batch.observations["vector"] + 1},
    ):
        for before, after in zip((q1, q2), critic(changed, batch.actions), strict=True):
            assert (before != after).any()
    for before, after in zip((q1, q2), critic(batch.observations, -batch.actions), strict=True):
        assert (before != after).any()


def test_q1_of_an_action_is_the_first_twin_and_passes_gradient_to_the_action_alone() -> None:
    critic, batch = Critic(SPEC), make_batch()
    actions = batch.actions.requires_grad_(True)
    value = critic.q1_of_action(batch.observations, actions)
    torch.testing.assert_close(value, critic(batch.observations, actions)[0])
    value.sum().backward()
    assert actions.grad is not None and (actions.grad != 0).any()
    assert all(parameter.grad is None for parameter in critic.encoder.parameters())


def test_the_gradient_norm_is_that_of_all_gradients_together() -> None:
    critic, batch = Critic(SPEC), make_batch()
    assert torch.isnan(gradient_norm(list(critic.parameters())))
    sum(critic(batch.observations, batch.actions)).sum().backward()  # type: ignore[union-attr]
    flat = torch.cat([parameter.grad.flatten() for parameter in critic.parameters()])
    torch.testing.assert_close(gradient_norm(list(critic.parameters())), flat.norm())


def test_an_encoder_and_its_head_are_all_there_is() -> None:
    actor = Actor(SPEC)
    encoder, head = split_parameters(actor)
    assert {id(parameter) for parameter in encoder} == {
        id(parameter) for parameter in actor.encoder.parameters()
    }
    assert {id(parameter) for parameter in encoder + head} == {
        id(parameter) for parameter in actor.parameters()
    }
    assert len(encoder) + len(head) == len(list(actor.parameters()))


def test_every_encoder_and_head_has_its_own_learning_rate() -> None:
    rates = {
        ("actor", "head"): 3e-3,
        ("actor", "encoder"): 1e-3,
        ("critic", "head"): 4e-3,
        ("critic", "encoder"): 2e-3,
    }
    learner = make_learner(
        policy_freq=1,
        actor_learning_rate=rates["actor", "head"],
        actor_encoder_learning_rate=rates["actor", "encoder"],
        critic_learning_rate=rates["critic", "head"],
        critic_encoder_learning_rate=rates["critic", "encoder"],
    )
    networks = {"critic": learner.critic, "actor": learner.actor}
    before = {key: copy.deepcopy(network.state_dict()) for key, network in networks.items()}
    learner.update(make_batch())
    # Adam's first step is its rate, whatever the gradient.
    for key, network in networks.items():
        for name, parameter in network.named_parameters():
            step = (parameter - before[key][name]).abs().max().item()
            rate = rates[key, "encoder" if name.startswith("encoder.") else "head"]
            assert step == pytest.approx(rate, rel=0.02), name


def test_no_network_shares_a_weight_with_another() -> None:
    learner = make_learner()
    places = [
        parameter.data_ptr()
        for network in (learner.actor, learner.critic, learner.actor_target, learner.critic_target)
        for parameter in network.parameters()
    ]
    assert len(set(places)) == len(places)
    assert equal(weights(learner.actor), weights(learner.actor_target))
    assert equal(weights(learner.critic), weights(learner.critic_target))


def test_the_critics_loss_leaves_the_actor_without_gradient() -> None:
    learner = make_learner(policy_freq=2)
    learner.update(make_batch())
    for network in (learner.actor, learner.actor_target, learner.critic_target):
        assert all(parameter.grad is None for parameter in network.parameters())
    assert all(parameter.grad is not None for parameter in learner.critic.parameters())


def test_the_actors_loss_leaves_no_mark_on_the_critic() -> None:
    with_actor = make_learner(policy_freq=1)
    without = make_learner(policy_freq=1, actor_warmup_updates=100)
    batch = make_batch()
    for learner in (with_actor, without):
        learner.update(batch)
    assert all(parameter.grad is not None for parameter in with_actor.actor.parameters())
    assert all(parameter.grad is None for parameter in without.actor.parameters())
    assert equal(weights(with_actor.critic), weights(without.critic))
    for mine, theirs in zip(
        with_actor.critic.parameters(), without.critic.parameters(), strict=True
    ):
        assert torch.equal(mine.grad, theirs.grad)  # type: ignore[arg-type]


def test_the_actors_loss_reaches_every_weight_of_the_actor() -> None:
    learner = make_learner(pre_tanh_penalty=0.0)
    loss, *_ = learner.actor_loss(make_batch().observations)
    gradients = torch.autograd.grad(loss, list(learner.actor.parameters()))
    # LayerNorm takes a shift common to all features out of the trunk's bias, not all of it.
    assert all((gradient != 0).any() for gradient in gradients)


@pytest.mark.parametrize("encoders", ["separate", "critic"])
@pytest.mark.parametrize("tau", [0.005, 0.25, 1.0])
def test_each_target_weight_moves_by_exactly_tau(tau: float, encoders: str) -> None:
    learner = make_learner(tau=tau, policy_freq=1, image_shift_px=0, encoders=encoders)
    pairs = ((learner.actor, learner.actor_target), (learner.critic, learner.critic_target))
    for network, _ in pairs:
        perturb(network)
    before = [weights(target) for _, target in pairs]
    learner.update(make_batch())
    for (network, target), old in zip(pairs, before, strict=True):
        assert all_different(old, weights(target))
        for now, was, online in zip(weights(target), old, weights(network), strict=True):
            torch.testing.assert_close(now, (1 - tau) * was + tau * online, rtol=1e-5, atol=1e-7)


def test_targets_stay_outside_the_gradients_graph() -> None:
    learner = make_learner(policy_freq=1)
    for _ in range(2):
        learner.update(make_batch())
    for target in (learner.actor_target, learner.critic_target):
        assert all(
            not parameter.requires_grad and parameter.grad_fn is None
            for parameter in target.parameters()
        )


def seen_by_target_critic(learner: TD3) -> tuple[Tensor, Tensor]:
    """Return the action given to the target critic, and the target values."""
    actions: list[Tensor] = []
    hook = learner.critic_target.register_forward_pre_hook(
        lambda module, arguments: actions.append(arguments[1].clone())
    )
    learner.generator.manual_seed(3)
    batch = make_batch()
    values = learner.target_values(batch, batch.next_observations)
    hook.remove()
    return actions[0], values


def test_the_target_action_comes_from_the_actors_own_target_encoder() -> None:
    learner = make_learner()
    action, values = seen_by_target_critic(learner)
    perturb(learner.actor_target.encoder)
    changed_action, changed_values = seen_by_target_critic(learner)
    assert (action != changed_action).all() and not torch.equal(values, changed_values)
    for network in (learner.actor, learner.critic):
        perturb(network)
        again, values_again = seen_by_target_critic(learner)
        assert torch.equal(again, changed_action) and torch.equal(values_again, changed_values)
    perturb(learner.critic_target.encoder)
    again, values_again = seen_by_target_critic(learner)
    assert torch.equal(again, changed_action)
    assert not torch.equal(values_again, changed_values)


class Constant(nn.Module):
    """Stands in for a network and returns what it was given."""

    def __init__(self, answer: Callable[..., Any]) -> None:
        super().__init__()
        self._answer = answer

    def forward(self, *arguments: Any) -> Any:
        return self._answer(*arguments)


def hand_worked(
    rewards: list[float], terminated: list[float], q1: float, q2: float
) -> list[float]:
    learner = make_learner(discount=0.9)
    count = len(rewards)
    learner.critic_target = Constant(  # type: ignore[assignment]
        lambda seen, actions: (torch.full((count,), q1), torch.full((count,), q2))
    )
    batch = make_batch(batch=count)
    batch = Batch(
        batch.observations,
        batch.actions,
        torch.tensor(rewards),
        batch.next_observations,
        torch.tensor(terminated),
        torch.ones(count),
    )
    return learner.target_values(batch, batch.next_observations).tolist()


def test_a_termination_ends_the_value_and_anything_else_bootstraps_from_the_smaller_twin() -> None:
    # A truncated transition arrives with terminated = 0, as any other that goes on.
    assert hand_worked([1.0, 1.0, -5.0], [0.0, 1.0, 1.0], 2.0, 5.0) == pytest.approx(
        [1.0 + 0.9 * 2.0, 1.0, -5.0]
    )
    assert hand_worked([0.5], [0.0], 4.0, -3.0) == pytest.approx([0.5 - 0.9 * 3.0])


@pytest.mark.parametrize("policy, low, high", [(0.0, -0.5, 0.5), (0.8, 0.3, 1.0)])
def test_the_smoothing_noise_is_clipped_and_so_is_the_action(
    policy: float, low: float, high: float
) -> None:
    learner = make_learner(policy_noise=10.0, noise_clip=0.5)
    learner.actor_target = Constant(  # type: ignore[assignment]
        lambda seen: torch.full((BATCH, 2), policy)
    )
    action, _ = seen_by_target_critic(learner)
    assert action.min() == pytest.approx(low) and action.max() == pytest.approx(high)


def test_the_smoothing_noise_has_its_deviation() -> None:
    learner = make_learner(policy_noise=0.2, noise_clip=0.5)
    count, seen = 4000, []
    learner.actor_target = Constant(lambda _: torch.zeros(count, 2))  # type: ignore[assignment]
    learner.critic_target = Constant(  # type: ignore[assignment]
        lambda _, actions: (seen.append(actions), (torch.zeros(count), torch.zeros(count)))[1]
    )
    batch = make_batch(batch=1)
    zeros = torch.zeros(count)
    learner.target_values(Batch({}, batch.actions, zeros, {}, zeros, zeros), {})
    # A normal one clipped at 2.5 deviations has 0.982 of its deviation.
    assert seen[0].std().item() == pytest.approx(0.982 * 0.2, rel=0.03)
    assert seen[0].mean().item() == pytest.approx(0.0, abs=0.01)


def test_which_update_moves_what() -> None:
    learner = make_learner(policy_freq=2, actor_warmup_updates=3, tau=0.5)
    networks = {
        "actor": learner.actor,
        "critic": learner.critic,
        "actor_target": learner.actor_target,
        "critic_target": learner.critic_target,
    }
    moved = []
    for number in range(1, 7):
        before = {name: weights(network) for name, network in networks.items()}
        learner.update(make_batch(number))
        moved.append(
            {
                name
                for name, network in networks.items()
                if all_different(before[name], weights(network))
            }
        )
        still = set(networks) - moved[-1]
        assert all(equal(before[name], weights(networks[name])) for name in still)
    everything = set(networks)
    assert moved == [
        {"critic"},
        {"critic", "critic_target"},
        {"critic"},
        everything,
        {"critic"},
        everything,
    ]
    assert learner.updates == 6


def test_the_pre_tanh_penalty_is_the_mean_square() -> None:
    learner = make_learner(pre_tanh_penalty=0.3)
    learner.critic.q1_of_action = lambda seen, actions: torch.zeros(BATCH)  # type: ignore
    loss, actions, pre_tanh, _ = learner.actor_loss(make_batch().observations)
    torch.testing.assert_close(actions, torch.tanh(pre_tanh))
    assert loss.item() == pytest.approx(0.3 * pre_tanh.square().mean().item())
    (gradient,) = torch.autograd.grad(loss, pre_tanh, retain_graph=True)
    torch.testing.assert_close(gradient, 0.3 * 2 * pre_tanh / (BATCH * 2))
    bias = learner.actor.head[-1].bias
    (gradient,) = torch.autograd.grad(loss, [bias])
    torch.testing.assert_close(gradient, 0.3 * pre_tanh.mean(dim=0))


def test_the_penalty_revives_a_saturated_actor() -> None:
    learner = make_learner(pre_tanh_penalty=1e-3)
    with torch.no_grad():
        learner.actor.head[-1].bias.fill_(30.0)
    loss, actions, *_ = learner.actor_loss(make_batch().observations)
    assert (actions == 1.0).all()
    gradients = torch.autograd.grad(loss, learner.actor.head[-1].bias)
    assert (gradients[0] > 0).all()  # downhill is back towards the middle


def test_figures_are_given_when_asked_for_under_the_columns_names() -> None:
    learner = make_learner(policy_freq=2)
    batch = make_batch()
    assert learner.update(batch) == {}
    figures = learner.update(batch, measure=True)
    numbers = {name: float(value) for name, value in figures.items()}
    assert set(numbers) == set(COLUMNS[COLUMNS.index("q1_mean") :])
    assert all(value == value and abs(value) < 1e3 for value in numbers.values())
    only_critic = learner.update(batch, measure=True)
    assert set(figures) - set(only_critic) == {
        "actor_loss",
        "actor_gradient_norm",
        "actor_encoder_gradient_norm",
        "saturated_share",
        "pre_tanh_abs",
        "policy_q_mean",
        "policy_distance",
        "actor_dormant_share",
    }


def test_figures_say_what_they_are_called() -> None:
    learner = make_learner(policy_freq=1, image_shift_px=0, policy_noise=0.0)
    batch = make_batch()
    with torch.no_grad():
        learner.actor.head[-1].bias.copy_(torch.tensor([50.0, 0.0]))
        q1, q2 = learner.critic(batch.observations, batch.actions)
        target = learner.target_values(batch, batch.next_observations)
    figures = {name: float(value) for name, value in learner.update(batch, measure=True).items()}
    assert figures["q1_mean"] == pytest.approx(q1.mean().item(), rel=1e-4)
    assert figures["q2_std"] == pytest.approx(q2.std().item(), rel=1e-4)
    assert figures["target_mean"] == pytest.approx(target.mean().item(), rel=1e-4)
    assert figures["td_error_2"] == pytest.approx((target - q2).abs().mean().item(), rel=1e-4)
    loss = ((q1 - target) ** 2).mean() + ((q2 - target) ** 2).mean()
    assert figures["critic_loss"] == pytest.approx(loss.item(), rel=1e-4)
    assert figures["saturated_share"] == 0.5
    assert figures["pre_tanh_abs"] == pytest.approx(25.0, rel=0.05)


def test_the_same_seed_gives_the_same_weights_after_updates_and_another_one_does_not() -> None:
    def trained(seed: int) -> list[Tensor]:
        learner = make_learner(seed, policy_freq=1)
        for number in range(3):
            learner.update(make_batch(number))
        return weights(learner.actor) + weights(learner.critic_target)

    one, again, other = trained(1), trained(1), trained(2)
    assert equal(one, again)
    assert not equal(one, other)


def test_a_learner_neither_uses_nor_disturbs_the_global_random_state() -> None:
    torch.manual_seed(77)
    expected = torch.rand(3)
    torch.manual_seed(77)
    learner = make_learner(seed=1)
    learner.update(make_batch())
    assert torch.equal(torch.rand(3), expected)


def test_random_shifts_are_drawn_apart_for_both_observations() -> None:
    shifts = make_learner(image_shift_px=4).draw_shifts(64)
    assert shifts is not None and shifts.shape == (2, 2, 64)
    assert shifts.min() == -4 and shifts.max() == 4
    assert not torch.equal(shifts[0], shifts[1])
    assert make_learner(image_shift_px=0).draw_shifts(64) is None


# A plain TD3 for dict observations, written without the package, in double precision.


def plain_state(p: dict[str, Tensor], seen: Observations) -> Tensor:
    vector = seen["vector"] / torch.tensor(SPEC.vector_scale).double()
    if "image" not in seen:
        return vector
    x = seen["image"]
    for layer, stride in ((0, 4), (2, 2), (4, 1)):
        weight, bias = (p[f"encoder.convolutions.{layer}.{kind}"] for kind in ("weight", "bias"))
        x = functional.relu(functional.conv2d(x, weight, bias, stride=stride))
    x = x.flatten(1) @ p["encoder.trunk.0.weight"].T + p["encoder.trunk.0.bias"]
    deviation = torch.sqrt(x.var(dim=1, unbiased=False, keepdim=True) + 1e-5)
    x = (x - x.mean(dim=1, keepdim=True)) / deviation
    x = torch.tanh(x * p["encoder.trunk.1.weight"] + p["encoder.trunk.1.bias"])
    return torch.cat([x, vector], dim=1)


def plain_head(p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    for layer in (0, 2):
        x = torch.relu(x @ p[f"{name}.{layer}.weight"].T + p[f"{name}.{layer}.bias"])
    return x @ p[f"{name}.4.weight"].T + p[f"{name}.4.bias"]


def plain_q(p: dict[str, Tensor], name: str, state: Tensor, action: Tensor) -> Tensor:
    return plain_head(p, name, torch.cat([state, action], dim=1))[:, 0]


class PlainAdam:
    """Kingma and Ba, algorithm 1, with a rate for each parameter's name."""

    def __init__(self, parameters: dict[str, Tensor], rate: Callable[[str], float]) -> None:
        self._parameters, self._rate, self._steps = parameters, rate, 0
        self._first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self._second = {name: torch.zeros_like(value) for name, value in parameters.items()}

    def step(self, loss: Tensor) -> None:
        gradients = torch.autograd.grad(loss, list(self._parameters.values()))
        self._steps += 1
        with torch.no_grad():
            for (name, value), gradient in zip(self._parameters.items(), gradients, strict=True):
                self._first[name] = 0.9 * self._first[name] + 0.1 * gradient
                self._second[name] = 0.999 * self._second[name] + 0.001 * gradient**2
                mean = self._first[name] / (1 - 0.9**self._steps)
                square = self._second[name] / (1 - 0.999**self._steps)
                value -= self._rate(name) * mean / (square.sqrt() + 1e-8)


def plain_parameters(network: nn.Module, learn: bool) -> dict[str, Tensor]:
    return {
        name: value.detach().clone().double().contiguous().requires_grad_(learn)
        for name, value in network.named_parameters()
    }


def doubled(batch: Batch) -> Batch:
    def seen(observations: Observations) -> Observations:
        image = observations["image"].double() / 255 - 0.5
        return {"image": image, "vector": observations["vector"].double()}

    return Batch(
        seen(batch.observations),
        batch.actions.double(),
        batch.rewards.double(),
        seen(batch.next_observations),
        batch.terminated.double(),
        batch.steps.double(),
    )


@pytest.mark.parametrize(
    "encoders, reuses", [("separate", False), ("separate", True), ("critic", True)]
)
def test_an_independent_plain_td3_arrives_at_the_same_weights(
    encoders: Literal["separate", "critic"], reuses: bool
) -> None:
    spec = dataclasses.replace(SPEC, encoders=encoders)
    shared = encoders == "critic"
    settings = LearningConfig(
        reuse_critic_features=reuses and not shared,
        discount=0.97,
        tau=0.1,
        policy_noise=0.3,
        noise_clip=0.35,
        policy_freq=2,
        actor_learning_rate=1e-2,
        critic_learning_rate=1e-2,
        actor_encoder_learning_rate=3e-3,
        critic_encoder_learning_rate=3e-3,
        actor_warmup_updates=2,
        pre_tanh_penalty=0.05,
        image_shift_px=0,
    )
    learner = TD3(spec, settings, seed=4)
    networks = {
        "actor": learner.actor,
        "critic": learner.critic,
        "actor_target": learner.actor_target,
        "critic_target": learner.critic_target,
    }
    for network in networks.values():
        network.double()

    actor, critic = (
        plain_parameters(network, True) for network in (learner.actor, learner.critic)
    )
    actor_target, critic_target = (
        plain_parameters(network, False) for network in (learner.actor, learner.critic)
    )
    if shared:  # of the actors, only the heads are theirs
        for plain_actor in (actor, actor_target):
            for name in [name for name in plain_actor if name.startswith("encoder.")]:
                del plain_actor[name]

    def rate(name: str) -> float:
        return 3e-3 if "encoder" in name else 1e-2

    actor_adam, critic_adam = PlainAdam(actor, rate), PlainAdam(critic, rate)
    generator = torch.Generator().manual_seed(4)
    for number in range(1, 9):
        batch = doubled(make_batch(number))
        learner.update(batch)

        after, now = batch.next_observations, batch.observations
        with torch.no_grad():
            noise = torch.randn(BATCH, 2, generator=generator, dtype=torch.float64)
            noise = (0.3 * noise).clamp(-0.35, 0.35)
            state = plain_state(critic_target, after)
            actors_state = state if shared else plain_state(actor_target, after)
            wanted = torch.tanh(plain_head(actor_target, "head", actors_state))
            wanted = (wanted + noise).clamp(-1, 1)
            twins = [plain_q(critic_target, name, state, wanted) for name in ("q1", "q2")]
            target = batch.rewards + 0.97 * (1 - batch.terminated) * torch.minimum(*twins)
        state = plain_state(critic, now)
        state_before = state.detach()
        errors = [plain_q(critic, name, state, batch.actions) - target for name in ("q1", "q2")]
        critic_adam.step(sum((error**2).mean() for error in errors))  # type: ignore[arg-type]
        if number % 2 == 0:
            if number > 2:
                state = state_before if reuses else plain_state(critic, now).detach()
                actors_state = state if shared else plain_state(actor, now)
                pre_tanh = plain_head(actor, "head", actors_state)
                value = plain_q(critic, "q1", state, torch.tanh(pre_tanh))
                actor_adam.step(-value.mean() + 0.05 * (pre_tanh**2).mean())
            for online, slow in ((actor, actor_target), (critic, critic_target)):
                for name in slow:
                    slow[name] = 0.9 * slow[name] + 0.1 * online[name].detach()

    plain = {
        "actor": actor,
        "critic": critic,
        "actor_target": actor_target,
        "critic_target": critic_target,
    }
    begun = TD3(spec, settings, seed=4)
    for name, network in networks.items():
        start = dict(getattr(begun, name).named_parameters())
        # What an actor has of the critic is the critic's.
        wanted_weights = plain[name.replace("actor", "critic")] | plain[name]
        for key, value in network.named_parameters():
            torch.testing.assert_close(value.detach(), wanted_weights[key], rtol=1e-7, atol=1e-9)
            assert (value - start[key].double()).abs().max() > 1e-4, (name, key)


def test_on_the_vector_alone_it_is_the_papers_td3_for_a_hundred_updates() -> None:
    """Algorithm 1 of Fujimoto et al. (2018), written down once more: no encoder and no guards."""
    spec = dataclasses.replace(SPEC, image=None)
    gamma, tau, sigma, clip, delay, rate = 0.98, 0.02, 0.2, 0.5, 2, 1e-3
    settings = LearningConfig(
        image_key="",
        discount=gamma,
        tau=tau,
        policy_noise=sigma,
        noise_clip=clip,
        policy_freq=delay,
        actor_learning_rate=rate,
        critic_learning_rate=rate,
        actor_warmup_updates=0,
        pre_tanh_penalty=0.0,
    )
    learner = TD3(spec, settings, seed=6)
    networks = {
        "actor": learner.actor,
        "critic": learner.critic,
        "actor_target": learner.actor_target,
        "critic_target": learner.critic_target,
    }
    for network in networks.values():
        network.double()
    policy, twins = (plain_parameters(networks[name], True) for name in ("actor", "critic"))
    slow_policy, slow_twins = (
        plain_parameters(networks[name], False) for name in ("actor", "critic")
    )
    policy_adam, twins_adam = (PlainAdam(each, lambda name: rate) for each in (policy, twins))
    generator = torch.Generator().manual_seed(6)
    for number in range(1, 101):
        batch = doubled(make_batch(number))
        for seen in (batch.observations, batch.next_observations):
            del seen["image"]
        learner.update(batch)

        s, after = (plain_state({}, o) for o in (batch.observations, batch.next_observations))
        with torch.no_grad():
            noise = torch.randn(BATCH, 2, generator=generator, dtype=torch.float64)
            action = torch.tanh(plain_head(slow_policy, "head", after))
            action = (action + (sigma * noise).clamp(-clip, clip)).clamp(-1, 1)
            least = torch.minimum(*(plain_q(slow_twins, q, after, action) for q in ("q1", "q2")))
            y = batch.rewards + gamma * (1 - batch.terminated) * least
        losses = [((y - plain_q(twins, q, s, batch.actions)) ** 2).mean() for q in ("q1", "q2")]
        twins_adam.step(losses[0] + losses[1])
        if number % delay == 0:
            wanted = torch.tanh(plain_head(policy, "head", s))
            policy_adam.step(-plain_q(twins, "q1", s, wanted).mean())
            for online, slow in ((policy, slow_policy), (twins, slow_twins)):
                for name in slow:
                    slow[name] = tau * online[name].detach() + (1 - tau) * slow[name]

    plain = {
        "actor": policy,
        "critic": twins,
        "actor_target": slow_policy,
        "critic_target": slow_twins,
    }
    begun = TD3(spec, settings, seed=6)
    for name, network in networks.items():
        start = dict(getattr(begun, name).named_parameters())
        assert {key for key, _ in network.named_parameters()} == set(plain[name])
        for key, value in network.named_parameters():
            torch.testing.assert_close(value.detach(), plain[name][key], rtol=1e-8, atol=1e-11)
            assert (value - start[key].double()).abs().max() > 1e-3, (name, key)


# Options.


def test_n_steps_discount_the_next_value_once_for_each() -> None:
    learner = make_learner(discount=0.9)
    learner.critic_target = Constant(  # type: ignore[assignment]
        lambda seen, actions: (torch.full((3,), 2.0), torch.full((3,), 5.0))
    )
    batch = dataclasses.replace(
        make_batch(batch=3),
        rewards=torch.tensor([1.0, 1.0, 1.0]),
        terminated=torch.tensor([0.0, 0.0, 1.0]),
        steps=torch.tensor([1.0, 3.0, 3.0]),
    )
    values = learner.target_values(batch, batch.next_observations).tolist()
    assert values == pytest.approx([1.0 + 0.9 * 2.0, 1.0 + 0.9**3 * 2.0, 1.0])


@pytest.mark.parametrize("threshold", [0.25, 2.0])
def test_hubers_loss_is_quadratic_up_to_its_threshold_and_linear_beyond(threshold: float) -> None:
    learner = make_learner(replay_sampling="lap", huber_threshold=threshold)
    errors = torch.tensor([-3.0, -0.1, 0.2, 1.0])
    small = 0.5 * errors**2
    large = threshold * (errors.abs() - 0.5 * threshold)
    wanted = torch.where(errors.abs() <= threshold, small, large).mean()
    torch.testing.assert_close(learner.critic_loss(errors, torch.zeros(4)), wanted)


def test_clipping_scales_each_networks_gradient_to_the_norm() -> None:
    learner = make_learner(gradient_clip_norm=1e-3, policy_freq=1)
    figures = learner.update(make_batch(), measure=True)
    for network, name in ((learner.critic, "critic"), (learner.actor, "actor")):
        norm = gradient_norm(list(network.parameters())).item()
        assert norm == pytest.approx(1e-3, rel=1e-3)
        # What is measured is the gradient as it was.
        assert figures[f"{name}_gradient_norm"].item() > 2e-3
    unclipped = make_learner(gradient_clip_norm=1e3)
    unclipped.update(make_batch())
    assert gradient_norm(list(unclipped.critic.parameters())).item() > 2e-3


def test_learning_rates_go_down_a_line_and_stay_at_its_end() -> None:
    learner = make_learner(
        learning_rate_decay_updates=4, learning_rate_final_share=0.2, policy_freq=1
    )
    first = {"encoder": 1e-4, "head": 3e-4}
    for number in range(1, 8):
        learner.update(make_batch(number))
        share = max(1.0 - 0.8 * (number - 1) / 4, 0.2)
        for optimizer in (learner.actor_optimizer, learner.critic_optimizer):
            rates = [group["lr"] for group in optimizer.param_groups]
            assert rates == pytest.approx([share * first["encoder"], share * first["head"]])
    constant = make_learner()
    constant.update(make_batch())
    assert constant.critic_optimizer.param_groups[1]["lr"] == 3e-4


def test_rewards_are_scaled_in_the_target() -> None:
    batch = make_batch()
    plain, scaled = make_learner(), make_learner(reward_scale=3.0)
    ending = dataclasses.replace(batch, terminated=torch.ones(BATCH))
    for learner, factor in ((plain, 1.0), (scaled, 3.0)):
        values = learner.target_values(ending, batch.next_observations)
        torch.testing.assert_close(values, factor * batch.rewards)


def test_rewards_are_divided_by_the_mean_size_of_all_sampled_so_far() -> None:
    learner = make_learner(normalize_rewards=True, reward_scale=2.0)
    sizes = []
    for number in range(3):
        batch = make_batch(number)
        learner.update(batch)
        sizes.append(batch.rewards.abs())
    ending = dataclasses.replace(make_batch(9), terminated=torch.ones(BATCH))
    values = learner.target_values(ending, ending.next_observations)
    torch.testing.assert_close(values, 2.0 * ending.rewards / torch.cat(sizes).mean())


def test_priorities_are_the_greater_error_above_a_least_one() -> None:
    learner = make_learner(replay_sampling="lap", huber_threshold=0.5, priority_exponent=0.4)
    batch = make_batch()
    with torch.no_grad():
        q1, q2 = learner.critic(batch.observations, batch.actions)
    learner.generator.manual_seed(5)
    target = learner.target_values(batch, batch.next_observations)
    learner.generator.manual_seed(5)
    learner.update(batch)
    errors = torch.maximum((q1 - target).abs(), (q2 - target).abs())
    wanted = errors.clamp(min=0.5) ** 0.4
    torch.testing.assert_close(learner.priorities(), wanted, rtol=1e-4, atol=1e-5)
    assert (wanted > 0.5**0.4).any() and (wanted == 0.5**0.4).any()


@pytest.mark.parametrize(
    "changes, size",
    [
        ({"image": None}, 3),
        ({"vector_scale": ()}, 7),
        ({"image": (2, 3, 36, 40)}, 7 + 3),
        ({"image_layer_norm": False}, 7 + 3),
        ({"vector_scale": (2.0,), "privileged_scale": (8.0, 1.0)}, 7 + 1),
        ({"vector_scale": (), "privileged_scale": (1.0, 2.0, 8.0)}, 7),
    ],
)
def test_every_shape_of_observation_is_learnt_from(changes: dict[str, Any], size: int) -> None:
    spec = dataclasses.replace(SPEC, **changes)
    learner = TD3(spec, LearningConfig(actor_warmup_updates=0, policy_freq=1), seed=2)
    batch = make_batch()
    if spec.image and len(spec.image) == 4:
        for seen in (batch.observations, batch.next_observations):
            seen["image"] = torch.randint(0, 256, (BATCH, *spec.image), dtype=torch.uint8)
    there = {"image": spec.image, "vector": spec.of_critic.vector_scale}
    kept = [key for key in there if there[key]]
    batch = dataclasses.replace(
        batch,
        observations={key: batch.observations[key] for key in kept},
        next_observations={key: batch.next_observations[key] for key in kept},
    )
    assert spec.state_size == size == learner.actor.encoder(batch.observations).shape[1]
    networks = (learner.actor, learner.critic, learner.actor_target, learner.critic_target)
    before = [weights(network) for network in networks]
    figures = learner.update(batch, measure=True)
    for old, network in zip(before, networks, strict=True):
        assert all_different(old, weights(network))
    numbers = [float(value) for value in figures.values()]
    assert all(value == value for value in numbers)
    assert ("critic_dormant_share" in figures) == (spec.image is not None)


def test_what_is_privileged_is_seen_by_the_critic_alone() -> None:
    spec = dataclasses.replace(SPEC, vector_scale=(2.0,), privileged_scale=(8.0, 1.0))
    learner = TD3(spec, LearningConfig(), seed=2)
    seen = make_batch().observations
    other = {**seen, "vector": seen["vector"] * torch.tensor([1.0, 3.0, 3.0])}
    actions = learner.actor(seen)
    assert torch.equal(actions, learner.actor(other))
    assert torch.equal(actions, learner.actor({**seen, "vector": seen["vector"][:, :1]}))
    q1, _ = learner.critic(seen, actions)
    assert not torch.equal(q1, learner.critic(other, actions)[0])


def test_what_is_privileged_is_stored_behind_the_vector_and_missing_when_driving() -> None:
    spec = dataclasses.replace(SPEC, vector_scale=(2.0,), privileged_scale=(8.0, 1.0))
    vector, hidden = np.array([1.0], np.float32), np.array([2.0, 3.0], np.float32)
    training = {"image": 1, "vector": vector, "privileged": hidden}
    assert spec.select(training)["vector"].tolist() == [1.0, 2.0, 3.0]
    assert spec.select({"image": 1, "vector": vector})["vector"].tolist() == [1.0]
    assert replay_spec(spec).vector == 3


def test_colours_change_what_is_seen() -> None:
    encoder = Encoder(dataclasses.replace(SPEC, image=(2, 3, 36, 36)))
    image = torch.randint(0, 256, (BATCH, 2, 3, 36, 36), dtype=torch.uint8)
    vector = torch.zeros(BATCH, 3)
    one = encoder({"image": image, "vector": vector})
    other = encoder({"image": image.flip(2), "vector": vector})
    assert not torch.equal(one, other)


def test_what_is_left_out_is_not_selected_and_keys_are_renamed() -> None:
    observation = {"camera": 1, "state": 2, "lidar": 3}
    spec = dataclasses.replace(SPEC, image_key="camera", vector_key="state")
    assert spec.select(observation) == {"image": 1, "vector": 2}
    assert dataclasses.replace(spec, image=None).select(observation) == {"vector": 2}
    assert dataclasses.replace(spec, vector_scale=()).select(observation) == {"image": 1}
