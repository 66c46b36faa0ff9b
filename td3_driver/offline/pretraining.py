# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""`td3-driver pretrain`: turns bags of any driver into a run to drive with or train further."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from td3_driver.config import Config, ConfigError, override
from td3_driver.deployment.task_networks import networks_of
from td3_driver.learning.assembly import offline_training
from td3_driver.learning.batch import replay_spec
from td3_driver.learning.devices import available_bytes, check_memory, choose_device
from td3_driver.learning.offline import BC_ALPHA
from td3_driver.learning.replay import ReplayBuffer, make_replay
from td3_driver.learning.trainer import Progress
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.frames import BagFrame, BagFrames
from td3_driver.offline.transitions import TransitionBuilder
from td3_driver.runs import RunFolder

LEAST_TRANSITIONS = 100
"""Fewer are probably a mistake, and too few to learn from."""


@dataclass(frozen=True)
class Pretrained:
    """The result of pretraining."""

    folder: RunFolder
    checkpoint: Path
    transitions: int
    updates: int


def offline_config(config: Config) -> Config:
    """Return the configuration with TD3+BC's `bc_alpha`, unless it has one of its own.

    Raises ConfigError where a bag cannot hold what training needs.
    """
    if config.driving.needs_others:
        raise ConfigError(
            "bags do not hold who else was on the road: set driving.privileged_others to 0 and "
            "driving.advice to false"
        )
    if config.learning.bc_alpha:
        return config
    return override(config, {"learning.bc_alpha": BC_ALPHA}, "pretraining")


def pretrain(bags: Sequence[Path], run: str, config: Config) -> Pretrained:
    """Read the bags and train on them, reporting progress on the way.

    Raises BagError, ConfigError, RunError or ReplayMemoryError in plain words.
    """
    config = offline_config(config)
    with ExitStack() as opened:
        sources = [
            BagFrames(opened.enter_context(Bag(path)), config.carla) for path in bags
        ]  # open all of them before reading any, to report a wrong one at once
        folder = RunFolder.create(run, config)
        recorded = read_transitions(sources, config)
    return train_on(recorded, folder)


def train_on(recorded: ReplayBuffer, folder: RunFolder) -> Pretrained:
    """Train on transitions with a new run's configuration, and save to its folder."""
    config = folder.config
    training = offline_training(
        recorded,
        networks_of(config),
        config.learning,
        config.training,
        folder.path,
        say=tqdm.write,
        show=_bar(),
    )
    checkpoint = training.run()
    return Pretrained(folder, checkpoint, len(recorded), training.trainer.learner.updates)


def read_transitions(sources: Sequence[BagFrames], config: Config) -> ReplayBuffer:
    """Return the bags' transitions, in host memory; print a summary of what was left out.

    Raises BagError if there are too few transitions, or if the bags' ticks differ.
    """
    learning = config.learning
    deltas = {source.fixed_delta_s for source in sources}
    if len(deltas) > 1:
        listed = ", ".join(f"{source.bag.path}: {source.fixed_delta_s:g} s" for source in sources)
        raise BagError(f"the bags' ticks differ in length ({listed}): pretrain on one kind only")
    spec = networks_of(config)
    # Each observation adds one image, so no more slots than images can be needed.
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
            f"the bags have {builder.transitions} transitions, too few to learn from: at least "
            f"{LEAST_TRANSITIONS} are needed" + "".join(_oddities(source) for source in sources)
        )
    return replay


def _shown(source: BagFrames, progress: tqdm) -> Iterator[BagFrame]:
    """Yield a bag's frames, and advance the bar by its images; print what was wrong."""
    seen = 0
    for frame in source:
        progress.update(source.findings.images - seen)
        seen = source.findings.images
        yield frame
    progress.update(source.findings.images - seen)
    print(_oddities(source).strip("; "), end="")
    for note in source.bag.notes:
        print(f"{source.bag.path}: {note}")


def _oddities(source: BagFrames) -> str:
    """Return what was wrong with a bag's messages, in words."""
    findings = source.findings
    counts = {
        "images have no odometry of the same stamp": findings.unmatched_images,
        "images arrived twice or too late": findings.repeated_images,
        "messages are invalid": sum(findings.unreadable.values()),
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    found += filter(None, [findings.stamps.wrong()])
    return f"; in {source.bag.path}, {', '.join(found)}\n" if found else ""


def _summary(builder: TransitionBuilder) -> str:
    ends = ", ".join(f"{count} {end}" for end, count in builder.ends.most_common())
    lines = [
        f"{builder.transitions:,} transitions ({builder.seconds / 60.0:.1f} min of driving) in "
        f"{builder.episodes} episodes; ended by: {ends or 'nothing'}"
    ]
    rejected = builder.rejections.table()
    return "\n".join([*lines, "left out:", rejected] if rejected else lines)


def _bar() -> Callable[[Progress], None]:
    """Return a function that shows pretraining's progress in a bar."""
    bars: list[tqdm] = []

    def show(progress: Progress) -> None:
        if not bars:
            bars.append(tqdm(desc="pretrain", total=progress.total_steps, unit="update"))
        bars[0].update(progress.updates - bars[0].n)
        if progress.updates >= progress.total_steps:
            bars[0].close()

    return show
