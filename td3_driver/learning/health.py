# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Warns when training goes wrong, and saves what led to a breakdown.

`HealthMonitor` checks the figures of each interval; a warning gives the figure, the likely cause
and the remedy. NaN and infinity do not warn: they end a run, before they reach a checkpoint.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from td3_driver.learning.batch import Batch
from td3_driver.learning.counters import SavedHealth

INTERVALS_IN_A_ROW = 3
"""Intervals in a row after which a warning begins, or, without the problem, ends."""
Q_MARGIN = 1.05
"""Factor by which an approximated Q may exceed the limit set by the rewards."""
GAP_DEVIATIONS = 2.0
GAP_REWARD_SPANS = 1.0
"""The policy's Q may differ from the data's by this many standard deviations of the latter, or
this many differences between best and worst reward, whichever is larger: the two differ in one
action only."""
SATURATED_SHARE = 0.9
DORMANT_SHARE = 0.9

Figures = Mapping[str, float]


class NotFiniteError(ArithmeticError):
    """Training produced NaN or infinity; the message says where."""


@dataclass(frozen=True)
class Rewards:
    """The smallest and the largest reward, and the Q-values that they allow."""

    least: float
    greatest: float
    discount: float

    @property
    def q_limits(self) -> tuple[float, float]:
        """Return the smallest and largest discounted sum of rewards over any number of steps."""
        horizon = 1.0 / (1.0 - self.discount)
        return min(self.least, 0.0) * horizon, max(self.greatest, 0.0) * horizon


@dataclass(frozen=True)
class HealthWarning:
    """Something that is going wrong."""

    check: str
    figure: str
    advice: str

    def __str__(self) -> str:
        return f"{self.figure}. {self.advice}"


@dataclass(frozen=True)
class Check:
    """One way training can go wrong: how the figures show it, and the advice to give."""

    name: str
    needs: tuple[str, ...]
    """Figures that the check needs; some are missing while the actor does not learn yet."""
    judge: Callable[[Figures, Rewards], tuple[bool, str]]
    """Returns whether training goes wrong, and the figure in words."""
    advice: str


def _q_beyond_rewards(figures: Figures, rewards: Rewards) -> tuple[bool, str]:
    value = figures["policy_q_mean"]
    least, greatest = rewards.q_limits
    words = f"policy Q is {value:.4g}, but the rewards allow {least:.4g} to {greatest:.4g}"
    return not least * Q_MARGIN <= value <= greatest * Q_MARGIN, words


def _q_gap(figures: Figures, rewards: Rewards) -> tuple[bool, str]:
    policy, data = figures["policy_q_mean"], figures["q1_mean"]
    allowed = max(
        GAP_DEVIATIONS * figures["q1_std"],
        GAP_REWARD_SPANS * (rewards.greatest - rewards.least),
    )
    words = f"policy Q is {policy:.4g} and data Q {data:.4g}, more than {allowed:.4g} apart"
    return abs(policy - data) > allowed, words


def _saturated(figures: Figures, _rewards: Rewards) -> tuple[bool, str]:
    share = figures["saturated_share"]
    return share > SATURATED_SHARE, f"{share:.0%} of the policy's actions are at their bounds"


def _no_gradient(figures: Figures, _rewards: Rewards) -> tuple[bool, str]:
    dead = [
        part
        for part, name in (
            ("head", "actor_gradient_norm"),
            ("encoder", "actor_encoder_gradient_norm"),
        )
        if figures.get(name) == 0.0
    ]
    return bool(dead), f"the gradient of the actor's {' and '.join(dead)} is exactly 0"


def _dormant(figures: Figures, _rewards: Rewards) -> tuple[bool, str]:
    shares = {
        part: figures[f"{part}_dormant_share"]
        for part in ("actor", "critic")  # which need not have an encoder
        if f"{part}_dormant_share" in figures
    }
    dead = (f"{share:.0%} of a layer of the {part}'s encoder" for part, share in shares.items())
    return max(shares.values()) > DORMANT_SHARE, f"{' and '.join(dead)} is dead"


CHECKS = (
    Check(
        "policy_q_beyond_rewards",
        ("policy_q_mean",),
        _q_beyond_rewards,
        "The critic diverges, or the actor exploits its extrapolation: lower "
        "learning.critic_learning_rate or learning.tau, and check the scale of the rewards.",
    ),
    Check(
        "policy_q_leaves_data_q",
        ("policy_q_mean", "q1_mean", "q1_std"),
        _q_gap,
        "The actor exploits errors of the critic on actions that were never tried: raise "
        "learning.exploration_noise or learning.policy_noise, or lower "
        "learning.actor_learning_rate.",
    ),
    Check(
        "actor_saturated",
        ("saturated_share",),
        _saturated,
        "Its tanh is stuck and passes hardly any gradient: raise learning.pre_tanh_penalty or "
        "learning.actor_warmup_updates and start again.",
    ),
    Check(
        "actor_without_gradient",
        ("actor_gradient_norm",),
        _no_gradient,
        "The actor can no longer change, because of saturation or dead units: resume an earlier "
        "checkpoint with a larger learning.pre_tanh_penalty or a lower learning rate.",
    ),
    Check(
        "encoder_dormant",
        ("actor_dormant_share",),
        _dormant,
        "The networks hardly use the image: check that the camera's images vary, or lower "
        "learning.actor_encoder_learning_rate or learning.critic_encoder_learning_rate and start "
        "again.",
    ),
)


class HealthMonitor:
    """Reports each warning once when it begins and once when it ends."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        # Intervals in a row that contradict the current state.
        self._contrary = {check.name: 0 for check in CHECKS}
        self._warnings: dict[str, HealthWarning] = {}

    @property
    def warnings(self) -> tuple[HealthWarning, ...]:
        """The current warnings, with their latest figures."""
        return tuple(self._warnings.values())

    def state(self) -> dict[str, Any]:
        """Return the state that a resumed run continues with, as JSON can hold it."""
        return {
            "contrary": dict(self._contrary),
            "warnings": [asdict(warning) for warning in self._warnings.values()],
        }

    def restore(self, state: SavedHealth) -> None:
        """Restore what `state()` returned; raises ValueError if it is of other checks."""
        names = {check.name for check in CHECKS}
        warnings = [HealthWarning(**dict(warning)) for warning in state.warnings]
        if state.contrary.keys() != names or not names.issuperset(w.check for w in warnings):
            raise ValueError("the health is of other checks than there are")
        self._contrary = dict(state.contrary)
        self._warnings = {warning.check: warning for warning in warnings}

    def observe(self, figures: Figures, rewards: Rewards) -> None:
        """Check an interval's figures."""
        for check in CHECKS:
            if all(name in figures for name in check.needs):
                self._observe(check, *check.judge(figures, rewards))

    def _observe(self, check: Check, wrong: bool, figure: str) -> None:
        name = check.name
        warned = name in self._warnings
        self._contrary[name] = self._contrary[name] + 1 if wrong != warned else 0
        changes = self._contrary[name] >= INTERVALS_IN_A_ROW
        if changes:
            self._contrary[name] = 0
        if wrong and (warned or changes):
            self._warnings[name] = HealthWarning(name, figure, check.advice)
            if changes:
                self._say(f"warning: {self._warnings[name]}")
        elif warned and changes:
            del self._warnings[name]
            self._say(f"health: {name.replace('_', ' ')} is over")


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that contain NaN or infinity."""
    numbers = {
        name: tensor.detach() for name, tensor in tensors.items() if tensor.is_floating_point()
    }
    if not numbers:
        return []
    # Sums are by far the fastest check, but sums of finite numbers can overflow.
    sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in numbers.values()])
    suspects = [
        name for name, fine in zip(numbers, sums.isfinite().tolist(), strict=True) if not fine
    ]
    return [name for name in suspects if not numbers[name].isfinite().all()]


def write_failure(
    folder: Path,
    reason: str,
    figures: Figures,
    warnings: Sequence[HealthWarning],
    batches: Mapping[int, Batch],
) -> None:
    """Save what led to a breakdown: `failure.json`, and each update's batch as safetensors."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for update, batch in batches.items():
        tensors = {
            **{f"observations.{key}": value for key, value in batch.observations.items()},
            **{
                f"next_observations.{key}": value for key, value in batch.next_observations.items()
            },
            "actions": batch.actions,
            "rewards": batch.rewards,
            "terminated": batch.terminated,
            "steps": batch.steps,
        }
        save_file(
            {
                name: tensor.to("cpu", copy=True, memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            },
            folder / f"batch-{update:09d}.safetensors",
        )
    # JSON has no NaN.
    numbers = {
        name: value if math.isfinite(value) else str(value) for name, value in figures.items()
    }
    account = {
        "reason": reason,
        "figures": numbers,
        "warnings": [asdict(warning) for warning in warnings],
    }
    (folder / "failure.json").write_text(json.dumps(account, indent=1))
