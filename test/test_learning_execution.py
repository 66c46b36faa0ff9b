# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How updates run: precision, convolutions by shares, and what a captured update may not do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from td3_driver.config import LearningConfig
from td3_driver.learning import execution
from td3_driver.learning.execution import (
    GraphedUpdates,
    Updates,
    choose_precision,
    describe,
    make_updates,
)
from td3_driver.learning.networks import IMAGE, NetworkSpec, scale_image
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.td3 import TD3, UpdateKind
from td3_driver.learning.threads import use_one_thread

GREY, COLOUR = (4, 36, 40), (2, 3, 36, 40)
BATCH = 16
CPU = torch.device("cpu")

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

EVERYTHING: dict[str, Any] = {
    "replay_sampling": "lap",
    "n_step": 3,
    "gradient_clip_norm": 1.0,
    "normalize_rewards": True,
    "learning_rate_decay_updates": 100,
    "image_jitter": 0.3,
    "priority_half_life_steps": 40,
}
SETTINGS = [{}, {"image_shift_px": 0}, {"replay_sampling": "lap"}, EVERYTHING]
ONE_ENCODER = {**EVERYTHING, "encoders": "critic"}
CATEGORICAL = {**EVERYTHING, "critic": "categorical", "normalize_rewards": False}
PREDICTING = {
    **EVERYTHING,
    "self_prediction": 1.0,
    "self_prediction_steps": 2,
    "self_prediction_of": "both",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_spec(image: tuple[int, ...] | None = GREY, **shape: Any) -> NetworkSpec:
    return NetworkSpec(
        image=image,
        vector_scale=(1.0, 2.0, 3.0),
        actions=2,
        channels=(8, 8, 8),
        image_features=16,
        hidden=(16, 16),
        **shape,
    )


def add_episodes(replay: ReplayBuffer, steps: int, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    assert replay.spec.image is not None
    shape = replay.spec.image

    def observe() -> dict[str, np.ndarray]:
        return {
            "image": random.integers(0, 256, shape, np.uint8),
            "vector": random.normal(size=3).astype(np.float32),
        }

    for step in range(steps):
        if step % 9 == 0:
            replay.begin(observe())
        replay.add(
            random.uniform(-1, 1, 2).astype(np.float32),
            float(random.normal()),
            observe(),
            terminated=step % 18 == 8,
            truncated=step % 18 == 17,
        )


def make(
    device: torch.device = CPU,
    precision: torch.dtype = torch.float32,
    image: tuple[int, ...] = GREY,
    **settings: Any,
) -> tuple[TD3, ReplayBuffer, torch.Generator]:
    config = LearningConfig(
        **{
            "batch_size": BATCH,
            "replay_capacity": 100,
            "actor_warmup_updates": 4,
            "image_shift_px": 2,
            **settings,
        }
    )
    spec = make_spec(image, critic=config.critic, encoders=config.encoders)
    learner = TD3(spec, config, device, seed=1, precision=precision)
    replay = make_replay(spec, config, device)
    add_episodes(replay, 150)
    return learner, replay, torch.Generator(device).manual_seed(2)


def weights(learner: TD3) -> list[Tensor]:
    networks = (learner.actor, learner.critic, learner.actor_target, learner.critic_target)
    return [
        tensor.to("cpu", copy=True)
        for network in networks
        for tensor in network.state_dict().values()
    ]


# ------------------------------------------------------------------ nothing is read back


class NothingReadBack(TorchDispatchMode):
    """Fails where the host reads a value of a tensor, or needs one for a shape."""

    READERS = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero")

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), keywords: Any = None
    ) -> Any:
        name = function.overloadpacket.__name__
        assert name not in self.READERS, f"{name} reads from the device"
        assert not any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for index in (arguments[1] if name in ("index", "index_put_") else ())
        ), "a mask makes a shape that depends on values"
        return function(*arguments, **(keywords or {}))


def test_reading_a_value_would_be_noticed() -> None:
    tensor = torch.arange(3)
    for read in (
        lambda: float(tensor[0]),
        lambda: tensor[tensor[1]],
        lambda: tensor[tensor > 1],
        lambda: bool(tensor.sum() > 1),
    ):
        with pytest.raises(AssertionError), NothingReadBack():
            read()


@pytest.mark.parametrize("settings", [*SETTINGS, ONE_ENCODER, CATEGORICAL, PREDICTING])
@pytest.mark.parametrize("image", [GREY, COLOUR])
@pytest.mark.parametrize("actor", [False, True])
def test_an_update_reads_nothing_back(
    settings: dict[str, Any], image: tuple[int, ...], actor: bool
) -> None:
    learner, replay, generator = make(image=image, **settings)
    replay.gathers_pixels = True  # as on a GPU
    updates = GraphedUpdates(learner, replay, generator)
    kind = UpdateKind(actor=actor, targets=actor)
    updates.update_eagerly(kind)  # sets the optimisers up, which reads
    before = weights(learner)
    with NothingReadBack():
        updates.update_eagerly(kind)
    assert any(not torch.equal(*pair) for pair in zip(before, weights(learner), strict=True))


@pytest.mark.parametrize("settings", SETTINGS)
def test_updates_that_wait_for_their_capture_are_the_plain_ones(settings: dict[str, Any]) -> None:
    plain = Updates(*make(**settings))
    graphed = GraphedUpdates(*make(**settings))
    for measure in (False, True, False):  # as many as are taken eagerly of every kind
        figures, same = plain(measure), graphed(measure)
        assert figures.keys() == same.keys()
        for name, figure in figures.items():
            torch.testing.assert_close(same[name], figure, equal_nan=True, rtol=0, atol=0)
    for one, other in zip(weights(plain.learner), weights(graphed.learner), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(plain.replay.priorities, graphed.replay.priorities)


class Faulty(GraphedUpdates):
    """Captures updates on the CPU, with a fault of its own."""

    def __init__(self, fault: str, **settings: Any) -> None:
        self.heard: list[str] = []
        super().__init__(*make(**settings), warn=self.heard.append)
        self.fault = fault
        self.replays = 0

    def _capture(self, kind: UpdateKind) -> Any:
        if self.fault == "fails":
            torch.rand(3, generator=self.learner.generator)
            raise RuntimeError("operation not permitted when stream is capturing")
        self.batch = self.replay.draw(BATCH, torch.Generator())
        return SimpleNamespace(replay=lambda: self._replayed(kind))

    def _replayed(self, kind: UpdateKind) -> None:
        self.replays += 1
        if self.fault == "does nothing":
            return
        if self.fault == "misses the targets":
            kind = kind._replace(targets=False)
        if self.fault == "takes other numbers":
            torch.rand(3, generator=self.learner.generator)
        self.update_eagerly(kind)
        if self.fault == "loses a moment":
            for moments in self.learner.critic_optimizer.state.values():
                moments["exp_avg_sq"].zero_()
        if self.fault == "is not finite":
            self.learner.finite.fill_(False)


def update_twenty_times(updates: Updates) -> list[Tensor]:
    for _ in range(20):
        updates()
    return [
        *weights(updates.learner),
        *updates.replay.priority_tensors(),
        updates.learner.generator.get_state(),
        updates.learner.finite,
    ]


@pytest.fixture(scope="module")
def reached_eagerly() -> Callable[[dict[str, Any]], list[Tensor]]:
    """Return what 20 eager updates lead to, done once for some settings."""
    reached: dict[str, list[Tensor]] = {}

    def updated(settings: dict[str, Any]) -> list[Tensor]:
        name = repr(settings)
        if name not in reached:
            reached[name] = update_twenty_times(Updates(*make(**settings)))
        return reached[name]

    return updated


FAULTS = {
    "fails": "it failed (operation not permitted when stream is capturing)",
    "does nothing": "it takes other random numbers",
    "misses the targets": "of actor_target, its change differs by 1 times",
    "takes other numbers": "it takes other random numbers",
    "loses a moment": "of critic_optimizer.exp_avg_sq, its change differs by ",
    "is not finite": "its losses are not finite",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_where_captured_updates_differ_eager_ones_go_on(
    fault: str,
    settings: dict[str, Any],
    reached_eagerly: Callable[[dict[str, Any]], list[Tensor]],
) -> None:
    updates = Faulty(fault, **settings)
    reached = update_twenty_times(updates)
    for one, other in zip(reached_eagerly(settings), reached, strict=True):
        assert torch.equal(one, other)
    assert FAULTS[fault] in updates.given_up
    assert len(updates.heard) == 1 and updates.given_up in updates.heard[0]
    assert "eager" in describe(updates) and updates.replays <= 4 and not updates.graphs


@pytest.mark.parametrize("settings", [*SETTINGS, ONE_ENCODER, CATEGORICAL])
def test_where_captured_updates_are_right_they_are_checked_and_then_replayed(
    settings: dict[str, Any],
    reached_eagerly: Callable[[dict[str, Any]], list[Tensor]],
) -> None:
    updates = Faulty("", **settings)
    reached = update_twenty_times(updates)
    for one, other in zip(reached_eagerly(settings), reached, strict=True):
        assert torch.equal(one, other)
    assert not updates.heard and "CUDA graphs" in describe(updates)
    # Of 20 updates, the first 3 of each kind are eager.
    assert updates.checked[UpdateKind(False, False)] == execution.CHECKED_REPLAYS
    assert updates.replays == 20 - 3 - 3 - 2  # the third kind comes twice, in the warm-up


def test_an_empty_buffer_is_refused_before_an_update_is_counted() -> None:
    learner, _, generator = make()
    empty = make_replay(learner.spec, learner.settings, "cpu")
    with pytest.raises(ValueError, match="no transition"):
        GraphedUpdates(learner, empty, generator)()
    assert learner.updates == 0
    assert not empty.lock.locked()


@pytest.mark.parametrize("image", [GREY, COLOUR])
def test_gathering_pixels_gives_what_shifting_images_gives(image: tuple[int, ...]) -> None:
    _, replay, _ = make(image=image)
    slots = replay.transitions[20:60]
    shifts = torch.randint(-5, 6, (2, 2, len(slots)))
    blocks = replay.gather(slots, shifts)
    replay.gathers_pixels = True
    pixels = replay.gather(slots, shifts)
    for one, other in (
        (blocks.observations[IMAGE], pixels.observations[IMAGE]),
        (blocks.next_observations[IMAGE], pixels.next_observations[IMAGE]),
    ):
        assert other.shape == (len(slots), *image)
        assert torch.equal(one, other)
        scaled = scale_image(other)
        assert torch.equal(scaled, scale_image(one))
        assert scaled.is_contiguous(memory_format=torch.channels_last)


def test_a_transition_that_was_drawn_twice_gets_the_greater_priority() -> None:
    _, replay, _ = make(replay_sampling="lap")
    oldest = int(replay.queue[0, 0])
    first, second, third = replay.transitions[torch.arange(oldest, oldest + 3) % 100].tolist()
    for order in ([first, second, first], [first, first, second]):
        values = {first: [5.0, 3.0], second: [2.0]}
        given = torch.tensor([values[slot].pop(0) for slot in order])
        untouched = replay.priorities[third % replay.capacity].clone()
        replay.set_priorities(torch.tensor(order), given)
        assert replay.priorities[first % replay.capacity] == 5.0
        assert replay.priorities[second % replay.capacity] == 2.0
        assert replay.priorities[third % replay.capacity] == untouched


# ------------------------------------------------------------------ precision


def test_bfloat16_is_chosen_where_it_was_measured_to_be_quicker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(execution, "has_bfloat16", lambda device: True)

    def chosen(spec: NetworkSpec, device: torch.device = CPU, **settings: Any) -> torch.dtype:
        return choose_precision(LearningConfig(**settings), spec, device)

    assert chosen(make_spec(), batch_size=256) == torch.bfloat16
    assert chosen(make_spec(), batch_size=32) == torch.bfloat16
    assert chosen(make_spec(), batch_size=31) == torch.float32
    assert chosen(make_spec(), torch.device("cuda"), batch_size=16) == torch.bfloat16
    assert chosen(make_spec(image=None), batch_size=256) == torch.float32
    assert chosen(make_spec(), batch_size=256, precision="float32") == torch.float32
    monkeypatch.setattr(execution, "has_bfloat16", lambda device: False)
    assert chosen(make_spec(), batch_size=256) == torch.float32
    assert chosen(make_spec(), batch_size=2, precision="bfloat16") == torch.bfloat16


def test_on_a_cpu_updates_are_eager_and_say_so() -> None:
    updates = make_updates(*make(precision=torch.bfloat16))
    assert type(updates) is Updates
    assert describe(updates) == ("learning on cpu, bfloat16, eager; batches of 16 from cpu")


def test_bfloat16_stays_close_to_float32() -> None:
    learners = {}
    for precision in (torch.float32, torch.bfloat16):
        learner, replay, generator = make(precision=precision, actor_warmup_updates=0)
        batch = replay.sample(64, generator)
        seen = learner.prepare(batch.observations)
        assert seen[IMAGE].dtype == precision
        with learner.autocast():
            q1, _ = learner.critic(seen, batch.actions)
            pre_tanh = learner.actor.pre_tanh(seen)
        assert q1.dtype == pre_tanh.dtype == torch.float32
        loss = q1.square().mean()
        loss.backward()
        gradients = torch.cat([p.grad.flatten() for p in learner.critic.encoder.parameters()])
        assert gradients.dtype == torch.float32
        learners[precision] = (q1.detach(), pre_tanh.detach(), gradients)
    (q1, pre_tanh, gradients), (q1_16, pre_tanh_16, gradients_16) = learners.values()
    torch.testing.assert_close(q1_16, q1, rtol=0.02, atol=0.01)
    torch.testing.assert_close(pre_tanh_16, pre_tanh, rtol=0.02, atol=0.01)
    assert not torch.equal(q1_16, q1)
    assert torch.nn.functional.cosine_similarity(gradients_16, gradients, dim=0) > 0.995
    assert gradients_16.norm() == pytest.approx(gradients.norm().item(), rel=0.02)


def test_updates_in_bfloat16_go_where_those_in_float32_go() -> None:
    moved = {}
    for precision in (torch.float32, torch.bfloat16):
        learner, replay, generator = make(precision=precision, actor_warmup_updates=0)
        before = torch.cat([weight.flatten() for weight in weights(learner)])
        updates = make_updates(learner, replay, generator)
        for _ in range(20):
            updates()
        assert learner.finite
        moved[precision] = torch.cat([weight.flatten() for weight in weights(learner)]) - before
    exact, rounded = moved.values()
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.9
    assert rounded.norm() == pytest.approx(exact.norm().item(), rel=0.1)


def test_an_image_is_rounded_once() -> None:
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    exact = image.double() / 255 - 0.5
    assert torch.equal(scale_image(image, torch.bfloat16), exact.bfloat16())


# ------------------------------------------------------------------ threads


def test_one_thread_for_one_is_not_one_thread_for_all() -> None:
    torch.set_num_threads(3)
    seen: dict[str, int] = {}

    def confined() -> None:
        use_one_thread()
        seen["confined"] = torch.get_num_threads()

    def other() -> None:
        seen["later"] = torch.get_num_threads()

    for target in (confined, other):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    assert seen == {"confined": 1, "later": 3}
    assert torch.get_num_threads() == 3


# ------------------------------------------------------------------ on a GPU


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    return torch.device("cuda")


@needs_gpu
@pytest.mark.parametrize("settings", [*SETTINGS, CATEGORICAL, PREDICTING])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_captured_updates_equal_eager_ones(
    cuda: torch.device, settings: dict[str, Any], precision: torch.dtype
) -> None:
    eager = make_updates(*make(cuda, precision, cuda_graphs=False, **settings))
    graphed = make_updates(*make(cuda, precision, **settings))
    assert type(eager) is Updates and type(graphed) is GraphedUpdates
    for number in range(30):
        for updates in (eager, graphed):
            figures = updates(number % 7 == 6)
            assert bool(figures) == (number % 7 == 6)
        if number % 5 == 0:  # the buffer changes between replays
            for updates in (eager, graphed):
                add_episodes(updates.replay, 9, seed=number)
        assert eager.batch is not None and graphed.batch is not None
        assert eager.batch.slots is not None and graphed.batch.slots is not None
        # LAP draws by what was learnt, which may differ in its last digit.
        if eager.learner.settings.replay_sampling == "uniform":
            assert torch.equal(eager.batch.slots, graphed.batch.slots)
            for key, value in eager.batch.observations.items():
                assert torch.equal(value, graphed.batch.observations[key])
    assert {UpdateKind(False, False), UpdateKind(True, True)} <= graphed.graphs.keys()
    assert eager.learner.updates == graphed.learner.updates == 30
    assert torch.equal(eager.learner.generator.get_state(), graphed.learner.generator.get_state())
    assert bool(eager.learner.finite) and bool(graphed.learner.finite)
    close = {"rtol": 1e-3, "atol": 1e-5 if precision == torch.float32 else 1e-3}
    for one, other in zip(weights(eager.learner), weights(graphed.learner), strict=True):
        torch.testing.assert_close(other, one, **close)
    torch.testing.assert_close(graphed.replay.priorities, eager.replay.priorities, **close)


@needs_gpu
def test_a_learning_rate_that_decays_reaches_captured_updates(cuda: torch.device) -> None:
    learner, replay, generator = make(
        cuda, learning_rate_decay_updates=20, learning_rate_final_share=1e-6
    )
    updates = make_updates(learner, replay, generator)
    for _ in range(20):
        updates()
    before = [weight.clone() for weight in learner.critic.parameters()]
    for _ in range(4):
        updates()
    for weight, old in zip(learner.critic.parameters(), before, strict=True):
        assert (weight - old).abs().max() < 1e-6


@needs_gpu
def test_another_thread_may_add_while_updates_are_captured(cuda: torch.device) -> None:
    learner, replay, generator = make(cuda, **EVERYTHING)
    updates = make_updates(learner, replay, generator)
    stop = threading.Event()
    wrong: list[BaseException] = []

    def add() -> None:
        try:
            while not stop.is_set():
                add_episodes(replay, 9)
        except BaseException as error:
            wrong.append(error)

    adding = threading.Thread(target=add)
    adding.start()
    try:
        for _ in range(60):
            updates()
    finally:
        stop.set()
        adding.join()
    torch.cuda.synchronize()
    assert not wrong and bool(learner.finite)
    assert len(updates.graphs) >= 2  # type: ignore[attr-defined]


@needs_gpu
def test_pixels_on_a_gpu_are_those_on_the_cpu(cuda: torch.device) -> None:
    for image in (GREY, COLOUR):
        _, on_gpu, _ = make(cuda, image=image)
        _, on_cpu, _ = make(image=image)
        slots = on_cpu.transitions[20:60]
        shifts = torch.randint(-5, 6, (2, 2, len(slots)))
        expected = on_cpu.gather(slots, shifts).observations[IMAGE]
        gathered = on_gpu.gather(slots.to(cuda), shifts.to(cuda)).observations[IMAGE]
        assert torch.equal(gathered.cpu(), expected)
