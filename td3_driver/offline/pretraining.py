# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""`td3-driver pretrain`: from bags of any driver to a run that drives and can be trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from td3_driver.config import Config, override
from td3_driver.driving.environment import action_space, observation_space
from td3_driver.driving.observation import vector_scale
from td3_driver.learning.assembly import offline_training
from td3_driver.learning.batch import replay_spec
from td3_driver.learning.devices import available_bytes, check_memory, choose_device
from td3_driver.learning.networks import NetworkSpec, network_spec
from td3_driver.learning.offline import BC_ALPHA
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.trainer import Progress
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.frames import BagFrame, BagFrames
from td3_driver.offline.transitions import TransitionBuilder
from td3_driver.runs import RunFolder

LEAST_TRANSITIONS = 100
"""Fewer are a mistake rather than something to learn from."""


@dataclass(frozen=True)
class Pretrained:
    """What pretraining came to."""

    folder: RunFolder
    checkpoint: Path
    transitions: int
    updates: int


def offline_config(config: Config) -> Config:
    """Return the configuration with TD3+BC's `bc_alpha`, unless it has one of its own."""
    if config.learning.bc_alpha:
        return config
    return override(config, {"learning.bc_alpha": BC_ALPHA}, "pretraining")


def pretrain(bags: Sequence[Path], run: str, config: Config) -> Pretrained:
    """Read the bags and train on them; say and show on the way how it goes.

    Raises BagError, RunError or ReplayMemoryError in plain words.
    """
    config = offline_config(config)
    with ExitStack() as opened:
        sources = [
            BagFrames(opened.enter_context(Bag(path)), config.carla) for path in bags
        ]  # all of them, before any is read: a wrong one is told at once
        folder = RunFolder.create(run, config)
        recorded = read_transitions(sources, config)
    return train_on(recorded, folder)


def train_on(recorded: ReplayBuffer, folder: RunFolder) -> Pretrained:
    """Train on transitions, with the configuration of a new run, into its folder."""
    config = folder.config
    training = offline_training(
        recorded,
        spec_of(config),
        config.learning,
        config.training,
        folder.path,
        say=tqdm.write,
        show=_bar(),
    )
    checkpoint = training.run()
    return Pretrained(folder, checkpoint, len(recorded), training.trainer.learner.updates)


def spec_of(config: Config) -> NetworkSpec:
    """Return the shape of the networks for the driving task."""
    driving = config.driving
    return network_spec(
        config.learning, observation_space(driving), action_space(), vector_scale(driving)
    )


def read_transitions(sources: Sequence[BagFrames], config: Config) -> ReplayBuffer:
    """Return what the bags hold to learn from, in host memory; print what they do not.

    Raises BagError where that is next to nothing, or their ticks differ.
    """
    learning = config.learning
    deltas = {source.fixed_delta_s for source in sources}
    if len(deltas) > 1:
        listed = ", ".join(f"{source.bag.path}: {source.fixed_delta_s:g} s" for source in sources)
        raise BagError(f"the bags' ticks are not of one length ({listed}): pretrain on one kind")
    spec = spec_of(config)
    # An observation is of one image, so that there cannot be more slots.
    least = spec.image[0] if spec.image else 1
    slots = max(sum(source.images for source in sources), least + learning.n_step + 1, 100)
    host = choose_device("cpu")
    fraction = learning.replay_memory_fraction
    print(check_memory(replay_spec(spec), slots, available_bytes(host), fraction))
    sized = learning.model_copy(update={"replay_capacity": slots})
    replay = make_replay(spec, sized, host)
    builder = TransitionBuilder(replay, config.driving, spec.select)
    images = sum(source.images for source in sources)
    with tqdm(desc="read", total=images, unit="image") as progress:
        for source in sources:
            builder.add(_shown(source, progress), source.fixed_delta_s)
    print(_summary(builder))
    if builder.transitions < LEAST_TRANSITIONS:
        raise BagError(
            f"the bags hold {builder.transitions} transitions, too few to learn from"
            + "".join(_oddities(source) for source in sources)
        )
    return replay


def _shown(source: BagFrames, progress: tqdm) -> Iterator[BagFrame]:
    """Yield a bag's frames, and move the bar by its images."""
    seen = 0
    for frame in source:
        progress.update(source.findings.images - seen)
        seen = source.findings.images
        yield frame
    progress.update(source.findings.images - seen)
    print(_oddities(source).strip("; "), end="")


def _oddities(source: BagFrames) -> str:
    """Return what was wrong with a bag's messages, in words."""
    findings = source.findings
    counts = {
        "images have no odometry of their stamp": findings.unmatched_images,
        "images came twice or too late": findings.repeated_images,
        "messages mean nothing": sum(findings.unreadable.values()),
    }
    said = [f"{count} {what}" for what, count in counts.items() if count]
    return f"; in {source.bag.path}, {', '.join(said)}\n" if said else ""


def _summary(builder: TransitionBuilder) -> str:
    ends = ", ".join(f"{count} {end}" for end, count in builder.ends.most_common())
    lines = [
        f"{builder.transitions:,} transitions ({builder.seconds / 60.0:.1f} min of driving) in "
        f"{builder.episodes} episodes; ended by: {ends or 'nothing'}"
    ]
    rejected = builder.rejections.table()
    return "\n".join([*lines, "left out:", rejected] if rejected else lines)


def _bar() -> Callable[[Progress], None]:
    """Return what shows pretraining's progress in a bar."""
    bars: list[tqdm] = []

    def show(progress: Progress) -> None:
        if not bars:
            bars.append(tqdm(desc="pretrain", total=progress.total_steps, unit="update"))
        bars[0].update(progress.updates - bars[0].n)
        if progress.updates >= progress.total_steps:
            bars[0].close()

    return show
