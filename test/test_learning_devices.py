# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Which device learns and which remembers, and how a policy on the CPU follows one on a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from td3_driver.config import ConfigError, LearningConfig
from td3_driver.learning import assembly, devices, following
from td3_driver.learning.devices import ReplayMemoryError, choose_device
from td3_driver.learning.following import Follower
from td3_driver.learning.networks import Actor, NetworkSpec
from td3_driver.learning.policy import Policy


def spec_of(image: tuple[int, ...] | None) -> NetworkSpec:
    return NetworkSpec(
        image=image,
        vector_scale=(1.0, 1.0),
        actions=2,
        channels=(4, 4, 4),
        image_features=8,
        hidden=(4,),
    )


def test_a_gpu_that_is_not_there_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match=r"learning\.device is cuda"):
        choose_device("cuda")
    with pytest.raises(ConfigError, match=r"learning\.replay_device is cuda"):
        choose_device("cuda", "learning.replay_device")


def too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_available() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old", stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)


def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with TORCH_USE_")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 << 30, 16 << 30))
    monkeypatch.setattr(devices, "_try_gpu", fail)


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (300_000_000, 16 << 30))


@pytest.mark.parametrize(
    "case, said",
    [(too_old, "is too old"), (no_kernels, "no kernel image"), (full, "0.3 GB of its memory")],
)
def test_a_gpu_that_cannot_be_used_is_told_and_the_cpu_taken_where_either_will_do(
    case: Callable[[pytest.MonkeyPatch], None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case(monkeypatch)
    heard: list[str] = []
    assert choose_device("auto", say=heard.append).type == "cpu"
    assert len(heard) == 1 and said in heard[0] and "on the CPU" in heard[0]
    assert len(heard[0].splitlines()) == 1
    with pytest.raises(ConfigError, match=rf"learning\.device is cuda, but .*{said}"):
        choose_device("cuda", say=heard.append)
    assert len(heard) == 1


def test_a_gpu_that_works_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    no_kernels(monkeypatch)
    monkeypatch.setattr(devices, "_try_gpu", lambda: None)
    assert choose_device("auto", say=pytest.fail).type == "cuda"
    assert choose_device("cuda", say=pytest.fail).type == "cuda"


def test_a_replay_buffer_that_a_gpu_has_no_room_for_is_kept_in_host_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free = {"cuda": 1_000_000, "cpu": 10**9}
    monkeypatch.setattr(assembly, "available_bytes", lambda device: free[device.type])
    spec = spec_of((2, 36, 36))
    gpu, heard = torch.device("cuda"), list[str]()

    def chosen(capacity: int, device: torch.device = gpu, **settings: str) -> str:
        learning = LearningConfig(replay_capacity=capacity, **settings)
        return assembly._with_room(device, spec, learning, heard.append).type

    assert chosen(200) == "cuda" and not [line for line in heard if "warning" in line]
    assert chosen(5_000) == "cpu"
    assert "machine's memory instead" in heard[1] and "1.0 GB available" in heard[2]
    with pytest.raises(ReplayMemoryError):
        chosen(5_000, replay_device="cuda")
    with pytest.raises(ReplayMemoryError):
        chosen(10**9)


# ------------------------------------------------------------------ the acting copy


class OnTheWay(Follower):
    """Copies as a GPU does: when it is told to."""

    def __init__(self, policy: Policy, actor: Actor) -> None:
        self.now_s = 0.0
        self.done = False
        self.asked = 0
        super().__init__(policy, actor, lambda: self.now_s)
        self._on_gpu = True

    def _mark(self) -> Any:
        self.asked += 1
        self.done = False
        return SimpleNamespace(query=lambda: self.done)


def test_weights_that_are_on_their_way_are_taken_over_when_they_have_arrived() -> None:
    spec = spec_of(None)
    actor, policy = Actor(spec), Policy.like(spec)
    follower = OnTheWay(policy, actor)

    def level() -> float:
        return float(next(policy.actor.parameters()).flatten()[0])

    def set_level(value: float) -> None:
        with torch.no_grad():
            next(actor.parameters()).fill_(value)

    begin = level()
    set_level(1.0)
    follower.follow(at_once=False)
    assert level() == begin and follower.asked == 1
    set_level(2.0)
    for _ in range(3):  # the first copy has not arrived
        follower.now_s += 1.0
        follower.follow(at_once=False)
    assert level() == begin and follower.asked == 1
    follower.done = True
    follower.follow(at_once=False)
    assert level() == 1.0 and follower.asked == 2
    follower.done = True
    set_level(3.0)
    follower.now_s += 0.5 * following.LEAST_PERIOD_S
    follower.follow(at_once=False)  # too soon for another
    assert level() == 2.0 and follower.asked == 2
    follower.follow(at_once=True)
    assert level() == 3.0


def test_on_a_cpu_the_policy_follows_at_once() -> None:
    spec = spec_of((2, 36, 36))
    actor, policy = Actor(spec), Policy.like(spec)
    follower = Follower(policy, actor)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.add_(1.0)
    follower.follow(at_once=False)
    for one, other in zip(actor.parameters(), policy.actor.parameters(), strict=True):
        assert torch.equal(one, other)
