"""The networks of a checkpoint, to look at what they make of recorded observations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from td3_driver.config import DrivingConfig
from td3_driver.driving.observation import Observation, vector_names
from td3_driver.learning.checkpoint import LEARNER
from td3_driver.learning.manifest import CheckpointError, verify
from td3_driver.learning.networks import Actor, Critic, NetworkSpec, Observations
from td3_driver.learning.policy import POLICY_FILES, WEIGHTS, load_spec, load_tensors
from td3_driver.runs import RunFolder

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Networks:
    """A checkpoint's actor, and what it needs to value actions, where that was saved."""

    checkpoint: Path
    spec: NetworkSpec
    actor: Actor
    critic: Critic | None = None
    actor_target: Actor | None = None
    critic_target: Critic | None = None

    @property
    def name(self) -> str:
        """The run and the step, for people."""
        return f"{self.checkpoint.parents[1].name} @ {int(self.checkpoint.name.split('-')[0])}"


def find_checkpoint(name_or_path: str | Path) -> tuple[RunFolder, Path]:
    """Return a run and its newest usable checkpoint, or the checkpoint named by its own folder.

    Raises RunError or CheckpointError.
    """
    path = Path(name_or_path)
    if path.parent.name == "checkpoints" and path.is_dir():
        return RunFolder(path.resolve().parents[1]), path.resolve()
    run = RunFolder(name_or_path)
    return run, run.latest_checkpoint()


def load_networks(checkpoint: Path) -> Networks:
    """Load what a checkpoint's folder holds, on the CPU; raises CheckpointError.

    A checkpoint without its learner (an actor alone) has no critic.
    """
    spec = load_spec(checkpoint)
    verify(checkpoint, POLICY_FILES)
    actor = _fill(Actor(spec), load_tensors(checkpoint / WEIGHTS), checkpoint / WEIGHTS)
    if not (checkpoint / LEARNER).is_file():
        return Networks(checkpoint, spec, actor)
    verify(checkpoint, [LEARNER])
    tensors = load_tensors(checkpoint / LEARNER)
    source = checkpoint / LEARNER

    def part(network: Network, name: str) -> Network:
        prefix = f"{name}."
        own = {
            key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)
        }
        return _fill(network, own, source)

    return Networks(
        checkpoint,
        spec,
        actor,
        part(Critic(spec), "critic"),
        part(Actor(spec), "actor_target"),
        part(Critic(spec), "critic_target"),
    )


def _fill(network: Network, tensors: dict[str, Tensor], source: Path) -> Network:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{source} does not fit its networks: {error}") from None
    return network.eval().requires_grad_(False)


def check_fit(networks: Networks, driving: DrivingConfig) -> None:
    """Raise CheckpointError where the networks are not made for the task's observations."""
    image = (driving.image_stack, driving.image_size_px, driving.image_size_px)
    entries = len(vector_names(driving))
    if networks.spec.image != image or len(networks.spec.vector_scale) != entries:
        raise CheckpointError(
            f"{networks.checkpoint} is made for images {networks.spec.image} and "
            f"{len(networks.spec.vector_scale)} numbers, the run's driving settings for {image} "
            f"and {entries}"
        )


def batch_of(observations: Sequence[Observation]) -> Observations:
    """Return observations as one batch for the networks."""
    keys = observations[0].keys()
    return {
        key: torch.from_numpy(np.stack([observation[key] for observation in observations]))
        for key in keys
    }


@dataclass(frozen=True)
class Evaluation:
    """What the networks make of a batch of decisions; each array has an entry for each, or NaN."""

    policy_action: np.ndarray
    """float32 (n, 2): the actor's choice."""
    q1: np.ndarray
    q2: np.ndarray
    """Value of the recorded action, by either critic."""
    policy_q: np.ndarray
    """Lower value of the actor's choice."""
    td_error_1: np.ndarray
    td_error_2: np.ndarray
    """Target less value: r + discount (1 - terminated) min Q'(s', pi'(s')) - Q(s, a)."""


def evaluate(
    networks: Networks,
    observations: Sequence[Observation],
    actions: np.ndarray,
    rewards: np.ndarray,
    next_observations: Sequence[Observation | None],
    terminated: np.ndarray,
    discount: float,
) -> Evaluation:
    """Evaluate decisions: actions (n, 2) and rewards (n,) are NaN where they are not known.

    The TD error is that of Fujimoto et al. (2018) with the target networks, but without the
    smoothing noise of their target policy, so that it is the same each time.
    """
    count = len(observations)
    unknown = np.full(count, np.nan, dtype=np.float32)
    values = {
        name: unknown.copy() for name in ("q1", "q2", "policy_q", "td_error_1", "td_error_2")
    }
    with torch.inference_mode():
        batch = batch_of(observations)
        chosen = networks.actor(batch)
        if networks.critic is not None:
            values["policy_q"] = torch.minimum(*networks.critic(batch, chosen)).numpy()
            known = ~np.isnan(actions).any(axis=1)
            if known.any():
                recorded = torch.from_numpy(np.nan_to_num(actions).astype(np.float32))
                q1, q2 = (q.numpy().copy() for q in networks.critic(batch, recorded))
                q1[~known] = q2[~known] = np.nan
                values["q1"], values["q2"] = q1, q2
                target = _targets(networks, rewards, next_observations, terminated, discount)
                values["td_error_1"], values["td_error_2"] = target - q1, target - q2
    return Evaluation(chosen.numpy(), **values)


def _targets(
    networks: Networks,
    rewards: np.ndarray,
    next_observations: Sequence[Observation | None],
    terminated: np.ndarray,
    discount: float,
) -> np.ndarray:
    """Return the targets, (n,), NaN where the next observation is not known."""
    targets = np.full(len(rewards), np.nan, dtype=np.float32)
    known = [index for index, item in enumerate(next_observations) if item is not None]
    if not known or networks.actor_target is None or networks.critic_target is None:
        return targets
    following = batch_of([item for item in next_observations if item is not None])
    values = networks.critic_target(following, networks.actor_target(following))
    lower = torch.minimum(*values).numpy()
    targets[known] = rewards[known] + discount * (1.0 - terminated[known]) * lower
    return targets
