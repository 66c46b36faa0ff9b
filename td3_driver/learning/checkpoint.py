# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints: folders that are either complete or absent; loading one runs no code."""

from __future__ import annotations

import copy
import json
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from td3_driver.files import READABLE, flush, point_link
from td3_driver.learning.batch import Replay
from td3_driver.learning.manifest import CheckpointError, seal, verify
from td3_driver.learning.networks import Actor, NetworkSpec
from td3_driver.learning.policy import (
    POLICY_FILES,
    load_spec,
    load_tensors,
    save_actor,
)
from td3_driver.learning.td3 import TD3

LEARNER = "learner.safetensors"
REPLAY = "replay.safetensors"
COUNTERS = "counters.json"
LATEST = "latest"
BEST = "best"
REFUSED = "refused-"
UNFINISHED = ".unfinished-"
NAME = re.compile(r"\d{9}(-\d{9})?")
"""A checkpoint's name: its step, and its updates if one was taken at that step before."""
RANDOM_STATE_SHAPES = ((5056,), (16,))
"""Shapes of the random states of PyTorch's generators, on the CPU and on CUDA."""


@dataclass(frozen=True)
class Snapshot:
    """A copy of a checkpoint's contents, so training can continue while it is written."""

    step: int
    spec: NetworkSpec
    actor: Actor
    learner: dict[str, Tensor]
    replay: dict[str, Tensor]
    counters: dict[str, Any]


def take(
    step: int,
    learner: TD3,
    replay: Replay | None,
    counters: dict[str, Any],
    generators: dict[str, torch.Generator],
) -> Snapshot:
    """Copy everything, or all but a replay; its images stay valid until the next call."""
    return Snapshot(
        step,
        learner.spec,
        copy.deepcopy(learner.actor),
        learner_tensors(learner, generators),
        {} if replay is None else replay.state(),
        {"step": step, "updates": learner.updates, **counters},
    )


def write(folder: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write `folder/<step>/` and point `folder/latest` at it; return its path.

    Everything is written under another name, flushed to disk and only then renamed, so a kill at
    any instant leaves the last complete checkpoint usable. The newest `keep` are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob(f"{UNFINISHED}*"):
        shutil.rmtree(leftover)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    try:
        _fill(unfinished, snapshot)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        kept = list_checkpoints(folder)
        raise CheckpointError(
            f"no checkpoint could be written to {folder}: {error}. "
            + (f"{kept[-1].name} is safe" if kept else "There is none from before")
            + ": make room, then resume"
        ) from None
    step, updates = snapshot.step, snapshot.counters["updates"]
    complete = folder / f"{step:09d}"
    if complete.exists():  # saved at this step before: keep that one until this one is complete
        complete = folder / f"{step:09d}-{updates:09d}"
    if complete.exists():  # nothing has changed since
        shutil.rmtree(unfinished)
    else:
        unfinished.rename(complete)
    point_link(folder / LATEST, complete)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return complete


def _fill(unfinished: Path, snapshot: Snapshot) -> None:
    """Write a checkpoint's files into an empty folder, on disk and readable as others are."""
    save_actor(unfinished, snapshot.actor, snapshot.spec)
    save_file(snapshot.learner, unfinished / LEARNER)
    if snapshot.replay:
        save_file(snapshot.replay, unfinished / REPLAY)
    (unfinished / COUNTERS).write_text(json.dumps(snapshot.counters, indent=1))
    seal(unfinished)
    for path in unfinished.iterdir():
        path.chmod(READABLE)
        flush(path)
    unfinished.chmod(0o755)
    flush(unfinished)


def keep_best(folder: Path, snapshot: Snapshot) -> Path:
    """Write `folder/best-<step>/`, point `folder/best` at it, and remove the one before.

    It holds the networks, to drive and to judge with, but nothing to resume from. Raises
    CheckpointError if it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder))
    complete = folder / f"{BEST}-{snapshot.step:09d}"
    try:
        _fill(unfinished, snapshot)
        shutil.rmtree(complete, ignore_errors=True)  # of a run that was resumed from before
        unfinished.rename(complete)
        point_link(folder / BEST, complete)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(f"the best policy cannot be kept in {folder}: {error}") from None
    for old in folder.glob(f"{BEST}-*"):
        if old != complete:
            shutil.rmtree(old, ignore_errors=True)
    return complete


def best(folder: Path) -> Path | None:
    """Return the checkpoint of the best examination; None if there was none."""
    link = folder / BEST
    return link.resolve() if link.is_dir() else None


class Writer:
    """Writes checkpoints while training continues, one at a time."""

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._written: Future[Path] | None = None

    def wait(self) -> Path | None:
        """Wait for the last checkpoint and return its path; raise the error if writing failed."""
        return self._written.result() if self._written else None

    def start(self, snapshot: Snapshot) -> None:
        """Start writing; `wait` must have returned."""
        self._written = self._thread.submit(write, self._folder, snapshot, self._keep)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the complete checkpoints, oldest first."""
    return sorted(
        path for path in folder.glob("[0-9]*") if NAME.fullmatch(path.name) and path.is_dir()
    )


def to_drive(folder: Path) -> list[Path]:
    """Return the checkpoints to drive with, the first choice last.

    That is the one of the best examination where there was one, and otherwise all of them, oldest
    first. Names of later choices compare as greater.
    """
    found = best(folder)
    return list_checkpoints(folder) if found is None else [found]


def step_of(checkpoint: Path) -> int:
    """Return the step at which a checkpoint was taken."""
    return int(checkpoint.name.removeprefix(f"{BEST}-").partition("-")[0])


def latest(folder: Path, warn: Callable[[str], object] = warnings.warn) -> Path:
    """Return the newest checkpoint with a usable policy; warn about any that are skipped.

    Raises CheckpointError if there is none.
    """
    return _newest(folder, lambda checkpoint: verify(checkpoint, POLICY_FILES), warn)


def resume(
    folder: Path,
    learner: TD3,
    replay: Replay,
    generators: dict[str, torch.Generator],
    warn: Callable[[str], object],
) -> tuple[Path, dict[str, Any]]:
    """Restore the newest usable checkpoint; return its path and counters.

    Newer checkpoints that are refused are renamed; otherwise they would count as the newest again.
    Raises CheckpointError if none is usable.
    """
    counters: dict[str, Any] = {}

    def take_over(checkpoint: Path) -> None:
        counters.update(load(checkpoint, learner, replay, generators))

    used = _newest(folder, take_over, warn)
    for refused in list_checkpoints(folder):
        if refused.name > used.name:
            shutil.rmtree(folder / f"{REFUSED}{refused.name}", ignore_errors=True)
            refused.rename(folder / f"{REFUSED}{refused.name}")
    point_link(folder / LATEST, used)
    return used, counters


def _newest(folder: Path, use: Callable[[Path], None], warn: Callable[[str], object]) -> Path:
    """Return the newest checkpoint that `use` accepts; it refuses with CheckpointError."""
    refusals: list[CheckpointError] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            use(checkpoint)
        except CheckpointError as error:
            refusals.append(error)
            continue
        for refusal in refusals:
            warn(f"{refusal}; going back to checkpoint {checkpoint.name}")
        return checkpoint
    if refusals:
        raise refusals[0]
    raise CheckpointError(f"{folder} has no complete checkpoint")


def load(
    checkpoint: Path,
    learner: TD3,
    replay: Replay,
    generators: dict[str, torch.Generator],
) -> dict[str, Any]:
    """Restore a checkpoint and return its counters; raise CheckpointError if it cannot be used."""
    verify(checkpoint)
    if load_spec(checkpoint) != learner.spec:
        raise CheckpointError(
            f"{checkpoint} holds other networks ({load_spec(checkpoint)}) than the "
            f"configuration describes ({learner.spec})"
        )
    try:
        counters: dict[str, Any] = json.loads((checkpoint / COUNTERS).read_text())
        updates = int(counters["updates"])
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint / COUNTERS} cannot be used: {error!r}") from None
    restore_learner(learner, generators, load_tensors(checkpoint / LEARNER), checkpoint / LEARNER)
    try:
        replay.restore(load_tensors(checkpoint / REPLAY))
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{checkpoint / REPLAY} does not fit: {error}") from None
    learner.updates = updates
    return counters


def _networks(learner: TD3) -> dict[str, nn.Module]:
    return {
        "actor": learner.actor,
        "critic": learner.critic,
        "actor_target": learner.actor_target,
        "critic_target": learner.critic_target,
        "reward_norm": learner.reward_norm,
    }


def _optimizers(learner: TD3) -> dict[str, torch.optim.Optimizer]:
    return {
        "actor_optimizer": learner.actor_optimizer,
        "critic_optimizer": learner.critic_optimizer,
    }


def learner_tensors(learner: TD3, generators: dict[str, torch.Generator]) -> dict[str, Tensor]:
    """Return a copy of weights, optimiser and random states by name, in host memory."""
    tensors = {
        f"{name}.{key}": value
        for name, network in _networks(learner).items()
        for key, value in network.state_dict().items()
    }
    for name, optimizer in _optimizers(learner).items():
        for index, moments in optimizer.state_dict()["state"].items():
            tensors |= {f"{name}.{index}.{key}": value for key, value in moments.items()}
    for name, generator in (generators | {"learner": learner.generator}).items():
        tensors[f"generator.{name}"] = generator.get_state()
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def restore_learner(
    learner: TD3,
    generators: dict[str, torch.Generator],
    tensors: dict[str, Tensor],
    source: Path,
) -> None:
    """Restore what `learner_tensors` returned; raise CheckpointError if it does not fit."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        owner, _, key = name.partition(".")
        groups.setdefault(owner, {})[key] = tensor
    try:
        for name, network in _networks(learner).items():
            network.load_state_dict(groups.get(name, {}))
        for name, optimizer in _optimizers(learner).items():
            parameters = [
                parameter for group in optimizer.param_groups for parameter in group["params"]
            ]
            state: dict[int, dict[str, Tensor]] = {}
            for key, tensor in groups.get(name, {}).items():
                index, _, moment = key.partition(".")
                if moment != "step":
                    # The fused step expects the moments in the weights' memory layout.
                    tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
                state.setdefault(int(index), {})[moment] = tensor
            layout = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": state, "param_groups": layout})
        for name, generator in (generators | {"learner": learner.generator}).items():
            _restore_generator(generator, groups["generator"][name])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{source} does not fit the configuration: {error}") from None


def _restore_generator(generator: torch.Generator, state: Tensor) -> None:
    """Restore a random state; one from the other kind of device is used as a seed."""
    if state.shape in RANDOM_STATE_SHAPES and state.shape != generator.get_state().shape:
        generator.manual_seed(zlib.crc32(state.numpy().tobytes()))
    else:
        generator.set_state(state)
