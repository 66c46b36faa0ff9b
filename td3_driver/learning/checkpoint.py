# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checkpoints: folders that are either complete or absent; loading one runs no code."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from td3_driver.config import shown
from td3_driver.documents import DocumentError, in_short, load_json
from td3_driver.files import READABLE, flush, point_link
from td3_driver.learning.batch import Replay
from td3_driver.learning.counters import LearnerCounters, checked
from td3_driver.learning.learner_state import learner_tensors, restore_learner
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
    for leftover in (*folder.glob(f"{UNFINISHED}*"), *folder.glob(f".{LATEST}-*")):
        _remove(leftover)
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
        _complete(unfinished, complete)
    _point_latest(folder, complete)
    for old in list_checkpoints(folder)[:-keep]:
        _remove(old)
    return complete


def _complete(unfinished: Path, complete: Path) -> None:
    """Give a checkpoint its name; raises CheckpointError if something else has it."""
    try:
        if complete.is_symlink():  # to nothing
            complete.unlink()
        unfinished.rename(complete)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise CheckpointError(
            f"no checkpoint could be written to {complete}: {error.strerror}. Remove what is "
            "there, then resume"
        ) from None


def _point_latest(folder: Path, complete: Path) -> None:
    """Point `latest` at a checkpoint; raises CheckpointError if something else has that name."""
    try:
        point_link(folder / LATEST, complete)
    except OSError as error:
        raise CheckpointError(
            f"{complete} is complete, but {folder / LATEST} cannot be pointed at it: "
            f"{error.strerror}. Remove what is there, then resume"
        ) from None


def _remove(path: Path) -> None:
    """Remove a folder, or a link or file in its place; what a link points at stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


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
    return _first_usable(folder, list_checkpoints(folder), _verify_policy, warn)


def to_choose(folder: Path, warn: Callable[[str], object] = warnings.warn) -> Path:
    """Return the checkpoint of the best examination, or else the newest, as `latest` does."""
    candidates = list_checkpoints(folder)
    if (found := best(folder)) is not None:
        candidates.append(found)
    return _first_usable(folder, candidates, _verify_policy, warn)


def _verify_policy(checkpoint: Path) -> None:
    verify(checkpoint, POLICY_FILES)


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

    used = _first_usable(folder, list_checkpoints(folder), take_over, warn)
    for refused in list_checkpoints(folder):
        if refused.name > used.name:
            _set_aside(refused)
    _point_latest(folder, used)
    return used, counters


def _set_aside(refused: Path) -> None:
    """Rename a checkpoint that was refused; an earlier one of that name makes room."""
    aside = refused.with_name(f"{REFUSED}{refused.name}")
    try:
        if os.path.lexists(aside):
            _remove(aside)
        refused.rename(aside)
    except OSError as error:
        raise CheckpointError(
            f"{refused} was refused, but cannot be renamed to {aside.name}: {error.strerror}"
        ) from None


def _first_usable(
    folder: Path,
    candidates: Sequence[Path],
    use: Callable[[Path], None],
    warn: Callable[[str], object],
) -> Path:
    """Return the last of the candidates that `use` accepts; it refuses with CheckpointError."""
    refusals: list[CheckpointError] = []
    for checkpoint in reversed(candidates):
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
    spec = load_spec(checkpoint)
    if spec != learner.spec:
        raise CheckpointError(
            f"{checkpoint} holds other networks than the configuration describes: "
            f"{_difference(spec, learner.spec)}"
        )
    counters = _read_counters(checkpoint / COUNTERS)
    restore_learner(learner, generators, load_tensors(checkpoint / LEARNER), checkpoint / LEARNER)
    try:
        replay.restore(load_tensors(checkpoint / REPLAY))
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{checkpoint / REPLAY} does not fit: {in_short(error)}") from None
    learner.updates = counters["updates"]
    return counters


def _difference(saved: NetworkSpec, here: NetworkSpec) -> str:
    return "; ".join(
        f"{field.name} {shown(getattr(saved, field.name))}, not {shown(getattr(here, field.name))}"
        for field in dataclasses.fields(NetworkSpec)
        if getattr(saved, field.name) != getattr(here, field.name)
    )


def _read_counters(path: Path) -> dict[str, Any]:
    """Return the counters of a checkpoint; raises CheckpointError."""
    try:
        counters: dict[str, Any] = load_json(path)
        checked(LearnerCounters, counters)
    except DocumentError as error:
        raise CheckpointError(str(error)) from None
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None
    return counters
