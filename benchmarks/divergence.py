# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Compare the first description's wiring, the right one and ours, trained on the same batches.

    python benchmarks/divergence.py              three wirings, three seeds
    python benchmarks/divergence.py --remedies   each remedy on its own instead

Writes a table and, for the three wirings, a figure; docs/why-it-diverged.md explains them. The
last line is JSON.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from td3_driver.config import Config, LearningConfig
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import vector_scale
from td3_driver.learning.batch import Batch, replay_spec
from td3_driver.learning.networks import NetworkSpec, Observations, gradient_norm, network_spec
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.learning.td3 import SATURATED, TD3, Seen, split_parameters
from td3_driver.roads.starts import StartSampler
from td3_driver.simulator.world import SimulatedWorld

mpl.use("Agg")

PUBLISHED = {100: -611.0, 200: -173_718.0, 300: -2_618_163.0, 400: -16_462_581.0}
"""Actor loss by update, from the log published with the first description."""
LARGEST_REWARD = 1.0
"""Largest reward of one decision; see td3_driver.driving.reward."""
CLIPPED_TO = 1.0
"""Gradient norm in the wiring that clips."""
PROBE = 128
"""Number of transitions on which the actor is measured, always the same ones."""

Row = dict[str, float | str]


class PlainFeatures(TD3):
    """TD3 with image features that end in ReLU, unbounded, instead of LayerNorm and tanh."""

    def __init__(self, spec: NetworkSpec, settings: LearningConfig, seed: int) -> None:
        super().__init__(spec, settings, seed=seed)
        for network in (self.actor, self.critic, self.actor_target, self.critic_target):
            network.encoder.trunk = nn.Sequential(network.encoder.trunk[0], nn.ReLU())


class ForeignFeatures(TD3):
    """First fault: the actor's loss gives the critic the features of the actor's encoder."""

    def actor_loss(
        self,
        observations: Observations,
        recorded: Tensor | None = None,
        encoded: Observations | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return -Q1(actor's features, action), actions, pre-tanh activations and Q."""
        state = self.actor.encoder(observations)
        pre_tanh = self.actor.head(state)
        actions = torch.tanh(pre_tanh)
        # The gradient reaches the encoder through the action and also through the state.
        q = self.critic.q1(torch.cat([state, actions], dim=1)).squeeze(1)
        return -q.mean(), actions, pre_tanh, q


class NoTargetEncoders(TD3):
    """Second fault: the target's action and value both use the critic's current features."""

    @torch.no_grad()
    def target_values(
        self, batch: Batch, next_observations: Observations, seen: Seen | None = None
    ) -> Tensor:
        """Return r + discount (1 - terminated) min Q'(critic's features, a')."""
        settings = self.settings
        state = self.critic.encoder(next_observations)
        actions = torch.tanh(self.actor_target.head(state))
        noise = torch.randn(actions.shape, generator=self.generator) * settings.policy_noise
        noise = noise.clamp(-settings.noise_clip, settings.noise_clip)
        inputs = torch.cat([state, (actions + noise).clamp(-1.0, 1.0)], dim=1)
        target = self.critic_target
        value = torch.minimum(target.q1(inputs), target.q2(inputs)).squeeze(1)
        return batch.rewards + settings.discount * (1.0 - batch.terminated) * value


class FirstDescription(ForeignFeatures, NoTargetEncoders, PlainFeatures):
    """Both faults, on plain features."""


class FirstWithTargetEncoders(ForeignFeatures, PlainFeatures):
    """The first fault alone."""


class FirstWithOwnFeatures(NoTargetEncoders, PlainFeatures):
    """The second fault alone."""


class FirstWithBoundedFeatures(ForeignFeatures, NoTargetEncoders):
    """Both faults, on our LayerNorm and tanh."""


class FirstClipped(FirstDescription):
    """Both faults, with both networks' gradients clipped before each step."""

    def __init__(self, spec: NetworkSpec, settings: LearningConfig, seed: int) -> None:
        super().__init__(spec, settings, seed)
        for optimizer in (self.actor_optimizer, self.critic_optimizer):
            optimizer.register_step_pre_hook(clip_gradients)


def clip_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """Clip the joint gradient norm of all the optimizer's parameters to CLIPPED_TO."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(parameters, CLIPPED_TO)


@dataclass(frozen=True)
class Wiring:
    """A way to train: the learner's class and its settings."""

    learner: type[TD3]
    settings: LearningConfig


def plain_settings(**settings: float) -> LearningConfig:
    """Return the first description's settings: one learning rate and no guards."""
    plain = {
        "actor_encoder_learning_rate": 3e-4,
        "critic_encoder_learning_rate": 3e-4,
        "actor_warmup_updates": 0,
        "pre_tanh_penalty": 0.0,
        "image_shift_px": 0,
    }
    return LearningConfig.model_validate(plain | settings)


FIRST, RIGHT, OURS = "first description", "right wiring alone", "ours"
WIRINGS = {
    FIRST: Wiring(FirstDescription, plain_settings()),
    RIGHT: Wiring(PlainFeatures, plain_settings()),
    OURS: Wiring(TD3, LearningConfig()),
}
REMEDIES = {
    "first + clipped gradients": Wiring(FirstClipped, plain_settings()),
    "first + target encoders": Wiring(FirstWithTargetEncoders, plain_settings()),
    "first + own features": Wiring(FirstWithOwnFeatures, plain_settings()),
    "first + bounded features": Wiring(FirstWithBoundedFeatures, plain_settings()),
    "right + bounded features": Wiring(TD3, plain_settings()),
    "right + warm-up": Wiring(PlainFeatures, plain_settings(actor_warmup_updates=400)),
    "right + penalty": Wiring(PlainFeatures, plain_settings(pre_tanh_penalty=1e-3)),
}


def noisy_follower(vector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Steer towards the third route point ahead with strong noise, at a random speed."""
    ahead_m, left_m = vector[7], vector[8]
    steering = 2.0 * np.arctan2(left_m, ahead_m) + rng.normal(0.0, 0.4)
    return np.clip([steering, rng.uniform(-0.5, 1.0)], -1.0, 1.0).astype(np.float32)


def collect(transitions: int, seed: int) -> tuple[ReplayBuffer, NetworkSpec]:
    """Drive in the embedded simulator; return the transitions and the networks' sizes."""
    config = Config()
    starts = StartSampler(config.training.maps, config.training.route_length_m)
    env = DrivingEnv(SimulatedWorld(config.simulator), starts, config.driving)
    scale = vector_scale(config.driving)
    spec = network_spec(config.learning, env.observation_space, env.action_space, scale)
    # The last observation of each episode takes a slot as well.
    replay = ReplayBuffer(replay_spec(spec), 10**4)
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    replay.begin(observation)
    for _ in tqdm(range(transitions), desc=f"seed {seed}, driving", unit="step", leave=False):
        action = noisy_follower(observation["vector"], rng)
        observation, reward, terminated, truncated, _ = env.step(action)
        replay.add(action, float(reward), observation, terminated=terminated, truncated=truncated)
        if terminated or truncated:
            observation, _ = env.reset()
            replay.begin(observation)
    env.close()
    return replay, spec


def train(
    learner: TD3,
    replay: ReplayBuffer,
    seed: int,
    *,
    updates: int,
    batch_size: int,
    every: int,
    label: str = "",
) -> Iterator[dict[str, float]]:
    """Do updates on batches that depend only on the seed; yield figures now and then."""
    sampling = torch.Generator().manual_seed(seed)
    probe = replay.sample(PROBE, sampling)
    for number in tqdm(range(1, updates + 1), label, unit="update", leave=False):
        measured = number % every == 0
        # The shifts come from the learner's own stream: all wirings see the same transitions.
        batch = replay.sample(batch_size, sampling, learner.draw_shifts(batch_size))
        figures = learner.update(batch, measured)
        if measured:
            yield {
                "update": number,
                **measure_actor(learner, probe),
                "critic_loss": float(figures["critic_loss"]),
                "critic_head_gradient": float(figures["critic_gradient_norm"]),
                "critic_encoder_gradient": float(figures["critic_encoder_gradient_norm"]),
            }


def measure_actor(learner: TD3, probe: Batch) -> dict[str, float]:
    """Return the actor's loss, gradients and actions on the probe."""
    actor, critic, seen = learner.actor, learner.critic, probe.observations
    loss, actions, pre_tanh, _ = learner.actor_loss(seen)
    learner.actor_optimizer.zero_grad()
    loss.backward(inputs=list(actor.parameters()))
    encoder, head = split_parameters(actor)
    images = learner.spec.image_features
    with torch.no_grad():
        figures = {
            "actor_loss": loss,
            "q_policy": critic(seen, actions)[0].mean(),
            "q_data": critic(seen, probe.actions)[0].mean(),
            "actor_head_gradient": gradient_norm(head),
            "actor_encoder_gradient": gradient_norm(encoder),
            "actor_features": actor.encoder(seen)[:, :images].norm(dim=1).mean(),
            "critic_features": critic.encoder(seen)[:, :images].norm(dim=1).mean(),
            "pre_tanh_abs": pre_tanh.abs().mean(),
            "exactly_at_bound": (actions.abs() == 1.0).float().mean(),
            "saturated": (actions.abs() > SATURATED).float().mean(),
        }
        return {name: float(figure) for name, figure in figures.items()}


def run(wirings: dict[str, Wiring], options: argparse.Namespace) -> list[Row]:
    """Train every wiring with every seed; return all figures."""
    rows: list[Row] = []
    for seed in range(options.seeds):
        replay, spec = collect(options.transitions, seed)
        for name, wiring in wirings.items():
            learner = wiring.learner(spec, wiring.settings, seed=seed)
            measured = train(
                learner,
                replay,
                seed,
                updates=options.updates,
                batch_size=options.batch,
                every=options.every,
                label=f"seed {seed}, {name}",
            )
            rows += [{"wiring": name, "seed": seed, **figures} for figures in measured]
    return rows


def values(rows: Sequence[Row], wiring: str, update: int, column: str) -> list[float]:
    """Return one figure for each seed."""
    return [
        float(row[column]) for row in rows if row["wiring"] == wiring and row["update"] == update
    ]


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write all figures as CSV."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


SHOWN = (
    ("actor_loss", "actor loss"),
    ("q_policy", "Q of policy"),
    ("q_data", "Q of data"),
    ("actor_head_gradient", "|g| head"),
    ("actor_encoder_gradient", "|g| encoder"),
    ("actor_features", "|actor f|"),
    ("critic_features", "|critic f|"),
    ("exactly_at_bound", "|a| = 1"),
    ("saturated", "|a| > .99"),
)


def print_table(rows: Sequence[Row], wirings: Sequence[str], marks: Sequence[int]) -> None:
    """Print the means over the seeds."""
    print(f"{'wiring':<26}{'update':>7}" + "".join(f"{title:>13}" for _, title in SHOWN))
    for wiring, mark in product(wirings, marks):
        means = [np.mean(values(rows, wiring, mark, column)) for column, _ in SHOWN]
        print(f"{wiring:<26}{mark:>7}" + "".join(f"{mean:>13.4g}" for mean in means))
    print(f"{'published log':<26}" + ", ".join(f"{k}: {v:,.0f}" for k, v in PUBLISHED.items()))


COLOURS = {FIRST: "tab:red", RIGHT: "tab:orange", OURS: "tab:blue"}
# The first line stays visible where the second lies on top of it.
WIDTHS = {FIRST: 4.0, RIGHT: 2.0, OURS: 2.0}


def draw_curves(axis: Axes, rows: Sequence[Row], column: str, dashed: str = "") -> None:
    """Draw one column for the three wirings: thin for each seed, thick for the mean."""
    for wiring, colour in COLOURS.items():
        mine = [row for row in rows if row["wiring"] == wiring]
        updates = sorted({int(row["update"]) for row in mine})
        for name, style in ((column, "-"), (dashed, ":")):
            if name:
                curves = np.array([values(mine, wiring, at, name) for at in updates])
                axis.plot(updates, curves, style, color=colour, lw=0.6, alpha=0.5)
                axis.plot(updates, curves.mean(axis=1), style, color=colour, lw=WIDTHS[wiring])


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the three wirings' figures over the updates."""
    figure = Figure(figsize=(13, 7.6), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True).ravel()
    limit = LARGEST_REWARD / (1.0 - LearningConfig().discount)

    warm_up = WIRINGS[OURS].settings.actor_warmup_updates

    draw_curves(axes[0], rows, "actor_loss")
    axes[0].plot(list(PUBLISHED), list(PUBLISHED.values()), "kX", ms=8, zorder=3)
    axes[0].axhspan(-1e12, -limit, color="0.93", zorder=0)
    axes[0].set_yscale("symlog", linthresh=1.0)
    axes[0].set_ylim(-1e10, 100.0)
    axes[0].set_title(f"actor loss (grey: beyond what any policy can earn, {limit:.0f})")

    draw_curves(axes[1], rows, "q_policy", "q_data")
    axes[1].set_title("Q1 of the policy's actions (dotted: of the data's)")

    draw_curves(axes[2], rows, "exactly_at_bound")
    axes[2].set_title("share of action components exactly at ±1")

    for axis, column, title in (
        (axes[3], "actor_head_gradient", "gradient norm of the actor's head"),
        (axes[4], "actor_encoder_gradient", "gradient norm of the actor's encoder"),
    ):
        draw_curves(axis, rows, column)
        axis.set_yscale("symlog", linthresh=1e-8)
        axis.set_ylim(bottom=-3e-9)
        axis.set_title(title)

    draw_curves(axes[5], rows, "actor_features", "critic_features")
    axes[5].set_yscale("log")
    axes[5].set_title("norm of the actor's image features (dotted: critic's)")

    for axis in axes:
        axis.grid(alpha=0.3)
        axis.title.set_fontsize(10)
        axis.axvline(warm_up, color=COLOURS[OURS], ls="--", lw=0.8)
    for axis in axes[3:]:
        axis.set_xlabel("update")
    for wiring, colour in COLOURS.items():
        axes[0].plot([], [], color=colour, lw=WIDTHS[wiring], label=wiring)
    axes[0].plot([], [], "--", color=COLOURS[OURS], lw=0.8, label="our actor begins to learn")
    axes[0].plot([], [], "kX", ms=8, label="published log")
    figure.legend(loc="outside upper center", ncols=5)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the comparison; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/divergence"), help="output")
    parser.add_argument("--remedies", action="store_true", help="train each remedy on its own")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (default 3)")
    parser.add_argument("--updates", type=int, default=800, help="updates (default 800)")
    parser.add_argument("--batch", type=int, default=32, help="batch size (default 32)")
    parser.add_argument("--transitions", type=int, default=3000, help="default 3000")
    parser.add_argument("--every", type=int, default=25, help="updates between two figures")
    options = parser.parse_args()
    wirings = REMEDIES if options.remedies else WIRINGS
    load = os.getloadavg()[0]
    rows = run(wirings, options)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.remedies:
        write_table(rows, options.out / "remedies.csv")
    else:
        write_table(rows, options.out / "divergence.csv")
        draw(rows, options.out / "divergence.png")
    marks = [mark for mark in (100, 200, 300, 400, 600, 800) if mark <= options.updates]
    print_table(rows, list(wirings), marks)
    losses = {
        wiring: {
            mark: [float(f"{loss:.5g}") for loss in values(rows, wiring, mark, "actor_loss")]
            for mark in marks
        }
        for wiring in wirings
    }
    result = {
        "wirings": list(wirings),
        "seeds": options.seeds,
        "actor_loss": losses,
        "device": f"cpu, {torch.get_num_threads()} threads",
        "load_average": load,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
