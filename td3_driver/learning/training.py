# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The training loop: collect from an environment, learn from the replay buffer, keep a record."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import gymnasium
import numpy as np
import torch

from td3_driver.config import ConfigError, LearningConfig, TrainingConfig
from td3_driver.learning import checkpoint
from td3_driver.learning.execution import choose_precision, describe, make_updates
from td3_driver.learning.health import (
    HealthMonitor,
    NotFiniteError,
    Rewards,
    not_finite,
    write_failure,
)
from td3_driver.learning.manifest import CheckpointError
from td3_driver.learning.metrics import MetricsWriter, in_words
from td3_driver.learning.mixed_replay import MixedReplay, Replay
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.pacing import UpdatePacer
from td3_driver.learning.policy import Policy
from td3_driver.learning.replay import Batch, check_memory, make_replay, replay_spec
from td3_driver.learning.schedules import linear
from td3_driver.learning.td3 import TD3
from td3_driver.learning.threads import use_one_thread
from td3_driver.learning.warm_start import begin_with_origin, has_origin, recorded_replay

EPISODES_AVERAGED = 5
POLICY_REFRESH_UPDATES = 10
"""Updates after which the acting copy of the policy is renewed, when updates run beside."""

FAILURE = "failure"
"""Folder in the run's for what led to a breakdown."""
LOSSES_AND_GRADIENTS = ("_loss", "gradient_norm")


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for people to see."""

    step: int
    total_steps: int
    updates: int
    episodes: int
    return_mean: float
    route_completion_mean: float
    steps_per_s: float
    updates_per_s: float
    remaining_s: float
    ended_by: str
    """Why the latest episode ended."""


def choose_device(wanted: str) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda"; raise ConfigError where it is missing."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("learning.device is cuda, but PyTorch sees no GPU: set auto or cpu")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def available_bytes(device: torch.device) -> int:
    """Return the free memory of a device, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/meminfo has no MemAvailable")


def network_spec(
    config: LearningConfig, env: gymnasium.Env[Any, Any], vector_scale: np.ndarray
) -> NetworkSpec:
    """Derive the networks' shape from an environment's spaces and the configuration.

    `vector_scale` is the usual magnitude of each entry of the vector. Raises ConfigError where
    the environment has no observation of a key.
    """
    spaces = env.observation_space
    assert isinstance(spaces, gymnasium.spaces.Dict) and env.action_space.shape is not None
    for setting in ("image_key", "vector_key"):
        key = getattr(config, setting)
        if key and key not in spaces.spaces:
            raise ConfigError(
                f"learning.{setting} is {key!r}, but the observations have "
                f"{', '.join(spaces.spaces)}"
            )
    return NetworkSpec(
        image=spaces[config.image_key].shape if config.image_key else None,
        vector_scale=tuple(map(float, vector_scale)) if config.vector_key else (),
        actions=env.action_space.shape[0],
        channels=config.channels,
        image_features=config.image_features,
        hidden=config.hidden,
        image_key=config.image_key,
        vector_key=config.vector_key,
        image_layer_norm=config.image_layer_norm,
        vector_features=config.vector_features,
        critic_layer_norm=config.critic_layer_norm,
        normalize_vector=config.normalize_vector,
    )


class Training:
    """One run: `run()` trains until done or told to stop, and saves at its end.

    `show` is called after every step, and `report` with every row of figures, from the thread
    that updates. NaN or infinity ends the run without saving, with NotFiniteError. A folder that
    holds the checkpoint of another run (`learning.warm_start`) goes on from that.
    """

    online = True
    """Whether its steps are decisions in a world."""

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        vector_scale: np.ndarray,
        learning: LearningConfig,
        training: TrainingConfig,
        folder: Path,
        *,
        resume: bool = False,
        say: Callable[[str], object] = print,
        show: Callable[[Progress], None] = lambda progress: None,
        report: Callable[[Mapping[str, float], HealthMonitor], None] = lambda row, health: None,
    ) -> None:
        self._env = env
        self._learning = learning
        self._training = training
        self._folder = folder
        self._say = say
        self._show = show
        self._report = report
        self._stop = False
        self._failed = False
        self.health = HealthMonitor(say)
        if training.torch_threads:
            torch.set_num_threads(training.torch_threads)
        device = choose_device(learning.device)
        wanted = learning.replay_device
        replay_device = device if wanted == "auto" else choose_device(wanted)
        spec = network_spec(learning, env, vector_scale)
        precision = choose_precision(learning, spec, device)
        self.learner = TD3(spec, learning, device, training.seed, precision)
        # Looking costs nothing on the CPU; elsewhere the device would have to be waited for.
        interval = training.log_interval_updates
        self._updates_between_looks = 1 if device.type == "cpu" else interval
        self._latest_batches: dict[int, Batch] = {}
        self.replay = self._make_replay(spec, replay_device)
        self._policy = Policy.like(spec)
        self._policy.follow(self.learner.actor)
        # One stream for each purpose: how many numbers one takes never shifts another.
        self._generators = {
            "exploration": torch.Generator().manual_seed(training.seed + 1),
            "sampling": torch.Generator(replay_device).manual_seed(training.seed + 2),
        }
        self._take_update = make_updates(self.learner, self.replay, self._generators["sampling"])
        say(describe(self._take_update))
        self.step = 0
        self.episodes = 0
        self._returns: deque[float] = deque(maxlen=EPISODES_AVERAGED)
        self._completions: deque[float] = deque(maxlen=EPISODES_AVERAGED)
        self._has_origin = has_origin(folder)
        if resume:
            self._take_over(folder / "checkpoints", say)
        elif self._has_origin:
            self._begin_with_origin()
        self._resumed = resume
        self._writer = checkpoint.Writer(folder / "checkpoints", training.checkpoints_kept)
        self._metrics = MetricsWriter(folder, self.step if resume else None, self.learner.updates)
        self._ended_by = ""
        self._figures: dict[str, float] = {}
        self._first_step = self.step
        self._first_updates = self.learner.updates
        self._began = time.monotonic()

    def _make_replay(self, spec: NetworkSpec, device: torch.device) -> Replay:
        """Return an empty replay buffer, beside what the run began with."""
        learning = self._learning
        recorded = None
        if has_origin(self._folder):  # loaded first: what it takes is not available any more
            recorded = recorded_replay(self._folder, spec, learning, device)
        self._say(
            check_memory(
                replay_spec(spec),
                learning.replay_capacity,
                available_bytes(device),
                learning.replay_memory_fraction,
            )
        )
        replay = make_replay(spec, learning, device)
        return (
            replay if recorded is None else MixedReplay(recorded, replay, learning.offline_share)
        )

    def _begin_with_origin(self) -> None:
        """Take over what another run has learnt."""
        assert isinstance(self.replay, MixedReplay)
        recorded = self.replay.recorded
        begin_with_origin(self._folder, self.learner, recorded, self._training.seed)
        self._policy.follow(self.learner.actor)
        self._say(
            f"goes on after {self.learner.updates:,} updates, with {len(recorded):,} recorded "
            "transitions"
        )

    def _take_over(self, folder: Path, say: Callable[[str], object]) -> None:
        """Go on from the newest usable checkpoint."""
        used, counters = checkpoint.resume(
            folder,
            self.learner,
            self.replay,
            self._generators,
            lambda line: say(f"warning: {line}"),
        )
        if not counters.get("online", True):
            raise CheckpointError(
                f"{used} was made by pretraining: go on from it in a new run, with --from"
            )
        try:
            self.step, self.episodes = int(counters["step"]), int(counters["episodes"])
            self._returns.extend(counters["returns"])
            self._completions.extend(counters["completions"])
            self.health.restore(counters["health"])
            self._env.unwrapped.np_random.bit_generator.state = counters["environment"]
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{used / checkpoint.COUNTERS} cannot be used: {error!r}"
            ) from None
        self._policy.follow(self.learner.actor)
        say(f"resumed {used} at step {self.step:,} with {len(self.replay):,} transitions")

    @property
    def complete(self) -> bool:
        """Whether all steps have been taken."""
        return self.step >= self._training.total_steps

    def _over(self) -> bool:
        return self.complete or self._stop

    def stop(self) -> None:
        """Ask `run` to end after the step under way; may be called from a signal handler."""
        self._stop = True

    def run(self) -> Path:
        """Train, then save; return the last checkpoint's path.

        Where an error ends the training, what was learnt is saved as well, unless it is not
        finite: what led to that goes to the run's failure folder.
        """
        training = self._training
        self._began = time.monotonic()
        self._pacer = UpdatePacer(
            self._update,
            ratio=training.updates_per_step,
            first_step=self._first_updated_step(),
            steps_taken=self.step,
            updates_done=self.learner.updates,
            threaded=not training.synchronous_updates,
        )
        try:
            self._collect()
            if not self._stop:
                self._pacer.finish()
        finally:
            self._pacer.stop()
            self._metrics.close()
            try:
                if not self._failed:
                    self.save()
            finally:
                saved = self._writer.wait()
        assert saved is not None
        return saved

    def _first_updated_step(self) -> int:
        """Return the step before the first update.

        Where recorded transitions are there, the policy drives until the new ones of a batch
        need not all be the same few.
        """
        least = self._learning.batch_size if self._has_origin else 0
        return max(self._training.random_steps, least)

    def save(self) -> None:
        """Begin to write a checkpoint; one that is not finite is never written.

        Training stands still only while it is copied.
        """
        self._writer.wait()
        with self._pacer.paused():
            snapshot = checkpoint.take(
                self.step, self.learner, self.replay, self._counters(), self._generators
            )
            self._check_finite(snapshot.learner)
        self._writer.start(snapshot)

    def _counters(self) -> dict[str, Any]:
        """Return what else a resumed run goes on with."""
        return {
            "episodes": self.episodes,
            "returns": list(self._returns),
            "completions": list(self._completions),
            "health": self.health.state(),
            "environment": self._env.unwrapped.np_random.bit_generator.state,
            "online": self.online,
        }

    def _collect(self) -> None:
        """Step the environment and store transitions until the run is over.

        A checkpoint ends the episode under way, since no environment can be saved: so a run that
        stops there and is resumed goes on exactly as one that does not stop.
        """
        training = self._training
        if not training.synchronous_updates:
            use_one_thread()  # acting would wait for a core that the updates are using
        observation = self._begin_episode(None if self._resumed else training.seed)
        while not self._over():
            action = self._explore(observation)
            observation, reward, terminated, truncated, info = self._env.step(action)
            seen = self.learner.spec.select(observation)
            if not (math.isfinite(reward) and all(np.isfinite(v).all() for v in seen.values())):
                self._fail(["the environment's reward or observation"])
            self.replay.add(
                action,
                float(reward),
                seen,
                terminated=terminated,
                truncated=truncated,
                clean=info.get("clean", True),
            )
            self.step += 1
            self._pacer.step_taken(self.step)
            self._show(self.progress())
            ended = terminated or truncated
            if ended:
                self._episode_ended(info)
            if self._over():
                break  # `run` saves
            due = self.step % training.checkpoint_interval_steps == 0
            if due:
                self.save()
            if ended or due:
                observation = self._begin_episode()

    def _begin_episode(self, seed: int | None = None) -> dict[str, np.ndarray]:
        """Reset the environment, and seed its starts if given; return the first observation."""
        observation, _ = self._env.reset(seed=seed)
        self.replay.begin(self.learner.spec.select(observation))
        return observation

    def _explore(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """Return a random action at first, then the policy's with Gaussian noise."""
        generator = self._generators["exploration"]
        size = (self.learner.spec.actions,)
        if self.step < self._training.random_steps:
            return (2.0 * torch.rand(size, generator=generator) - 1.0).numpy()
        deviation = linear(
            self._learning.exploration_noise,
            self._learning.exploration_noise_final,
            self._learning.exploration_noise_decay_steps,
            self.step - self._training.random_steps,
        )
        noise = torch.randn(size, generator=generator).numpy() * deviation
        return np.clip(self._policy.act(observation) + noise, -1.0, 1.0).astype(np.float32)

    def _update(self) -> None:
        """Take one update, and note its figures at the end of each interval."""
        learner = self.learner
        interval = self._training.log_interval_updates
        number = learner.updates + 1
        # Whatever policy_freq is, the interval's last updates include one of the actor.
        measure = -number % interval < self._learning.policy_freq
        if self._learning.bc_alpha:
            learner.bc_weight.fill_(self._bc_weight())
        figures = self._take_update(measure)
        assert self._take_update.batch is not None
        # A loss can be the first sign of what the update before did to the weights.
        self._latest_batches = {
            update: kept for update, kept in self._latest_batches.items() if update == number - 1
        } | {number: self._take_update.batch}
        if measure:
            self._figures |= {name: float(value) for name, value in figures.items()}
        if number % self._updates_between_looks == 0 and not learner.finite:
            self._check_finite(checkpoint.learner_tensors(learner, {}))
            self._fail(["a loss"])
        if number % interval == 0:
            self._check_finite(dict(learner.actor.named_parameters(prefix="actor")))
            self._check_finite(dict(learner.critic.named_parameters(prefix="critic")))
            self._write_row()
        self._refresh_policy(number)

    def _refresh_policy(self, update: int) -> None:
        """Let the acting copy of the policy follow the one that learns."""
        if self._training.synchronous_updates or update % POLICY_REFRESH_UPDATES == 0:
            self._policy.follow(self.learner.actor)

    def _bc_weight(self) -> float:
        """Return the weight of the recorded actions, which fades with the decisions online."""
        decided = self.step if self.online else 0
        settings = self._learning
        return linear(1.0, settings.bc_weight_final, settings.bc_decay_steps, decided)

    def _write_row(self) -> None:
        progress = self.progress()
        row = {
            "step": progress.step,
            "updates": progress.updates,
            "episodes": progress.episodes,
            "wall_s": time.monotonic() - self._began,
            "steps_per_s": progress.steps_per_s,
            "updates_per_s": progress.updates_per_s,
        }
        if self._returns:
            row["return_mean"] = progress.return_mean
            row["route_completion_mean"] = progress.route_completion_mean
        self.health.observe(self._figures, self._rewards())
        row |= self._figures | {"health": len(self.health.warnings)}
        self._metrics.write(row)
        self._say(in_words(row))
        self._report(row, self.health)

    def _rewards(self) -> Rewards:
        """Return the limits of the rewards as the critic sees them."""
        scale = float(self.learner.reward_norm.scale())
        least, greatest = self.replay.reward_range()
        return Rewards(scale * least, scale * greatest, self._learning.discount)

    def _check_finite(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """End the run where a tensor or one of the latest figures is NaN or infinite."""
        wrong = not_finite(tensors)
        wrong += [
            name
            for name, value in self._figures.items()
            if name.endswith(LOSSES_AND_GRADIENTS) and not math.isfinite(value)
        ]
        if wrong:
            self._fail(wrong)

    def _fail(self, wrong: Iterable[str]) -> NoReturn:
        """Keep what led to NaN or infinity, and raise NotFiniteError."""
        self._failed = True
        folder = self._folder / FAILURE
        names = list(wrong)
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        reason = (
            f"NaN or infinity at step {self.step:,}, update {self.learner.updates:,} in "
            f"{', '.join(names[:3])}{more}"
        )
        warnings = self.health.warnings
        write_failure(folder, reason, self._figures, warnings, self._latest_batches)
        raise NotFiniteError(
            f"{reason}. What led to it is in {folder}; the last checkpoint is from before: "
            "resume it, with a lower learning.critic_learning_rate if this comes again"
        )

    def progress(self) -> Progress:
        """Return where the run stands."""
        elapsed_s = max(time.monotonic() - self._began, 1e-6)
        steps_per_s = (self.step - self._first_step) / elapsed_s
        missing = self._training.total_steps - self.step
        return Progress(
            step=self.step,
            total_steps=self._training.total_steps,
            updates=self.learner.updates,
            episodes=self.episodes,
            return_mean=_mean(self._returns),
            route_completion_mean=_mean(self._completions),
            steps_per_s=steps_per_s,
            updates_per_s=(self.learner.updates - self._first_updates) / elapsed_s,
            remaining_s=missing / steps_per_s if steps_per_s else float("inf"),
            ended_by=self._ended_by,
        )

    def _episode_ended(self, info: dict[str, Any]) -> None:
        self.episodes += 1
        if "episode" in info:
            summary = info["episode"]
            self._returns.append(summary.episode_return)
            self._completions.append(summary.route_completion)
            self._ended_by = summary.ended_by


def _mean(values: deque[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
