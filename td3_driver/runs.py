# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A run's folder: its configuration, checkpoints, figures and pictures."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from td3_driver import config as configuration
from td3_driver.config import Config, ConfigError, shown
from td3_driver.files import check_link, create, is_utf8, point_link
from td3_driver.learning.manifest import CHECKPOINTS
from td3_driver.roads.map_files import is_shipped

RUNS = Path("runs")
LATEST = "latest"
HOW_NOT_WHAT = frozenset(
    f"learning.{name}"
    for name in ("device", "replay_device", "replay_memory_fraction", "precision", "cuda_graphs")
)
"""Settings of how a run computes, which may differ when it goes on, as on another machine."""
NOTED_VERSIONS = (
    "td3_driver",
    "torch",
    "numpy",
    "gymnasium",
    "carla",
    "opencv-python-headless",
)


class RunError(ConfigError):
    """A run's folder is missing, already exists or is incomplete; the message says which."""


class RunFolder:
    """An existing run, given by its path or by its name under `runs/`."""

    def __init__(self, name_or_path: str | Path) -> None:
        for path in (Path(name_or_path), RUNS / name_or_path):
            if (path / "config.yaml").is_file():
                self.path = path.resolve()
                _check_utf8(self.path)
                return
        known = sorted(
            path.parent.name for path in RUNS.glob("*/config.yaml") if not path.parent.is_symlink()
        )
        raise RunError(
            f"no run {str(name_or_path)!r}: no folder with a config.yaml there or under "
            f"{RUNS.resolve()} (runs there: {', '.join(known) or 'none'})"
        )

    @classmethod
    def create(cls, name_or_path: str, config: Config) -> RunFolder:
        """Make a new run; without a name, it gets date and time. Raises RunError if it exists."""
        if name_or_path:
            path = Path(name_or_path) if os.sep in name_or_path else RUNS / name_or_path
            _check_name(path)
            _check_utf8(Path(os.path.abspath(path)))
            _check_latest(path)
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RunError(f"{path} cannot be made: {error.strerror}") from None
        else:
            _check_latest(RUNS / LATEST)
            path = _new_folder(time.strftime("%Y%m%d-%H%M%S"))
        try:
            create(path / "config.yaml", _heading() + _parameters(config))
        except FileExistsError:
            raise RunError(
                f"the run {path} exists: resume it (--resume {path}; with ros2 launch: "
                f"resume:={path}), choose another name, or remove its folder"
            ) from None
        if path.parent == RUNS:
            point_link(RUNS / LATEST, path)
        return cls(path)

    @property
    def config(self) -> Config:
        """The configuration that the run was made with."""
        return configuration.load(self.path / "config.yaml")

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other processes from training in this run meanwhile; raises RunError if one does.

        The claim ends with the process, however that ends.
        """
        folder = os.open(self.path, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # A network's file system may know no such locks.
                try:
                    fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise RunError(
                        f"another process is training in {self.path}: wait for its end, or end it"
                    ) from None
            yield
        finally:
            os.close(folder)

    def check_same(self, config: Config, sections: Sequence[str]) -> None:
        """Raise RunError naming every setting of `sections` that is not as in the run.

        Settings that say how, and not what, is computed may differ.
        """
        made_with = self.config
        differing = [
            f"{section}.{name} is {shown(value)}, the run's {shown(runs)}"
            for section in sections
            for name, runs in getattr(made_with, section)
            if (value := getattr(getattr(config, section), name)) != runs
            and f"{section}.{name}" not in HOW_NOT_WHAT
        ]
        if differing:
            raise RunError(
                f"the run {self.path} was made with other settings: {'; '.join(differing)}. Leave "
                f"them out, or start with config:={self.path / 'config.yaml'}"
            )

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def best_checkpoint(self, warn: Callable[[str], object] = warnings.warn) -> Path:
        """Return the checkpoint to drive with: of the best examination, or else the newest.

        Warns about any that are skipped; raises CheckpointError if there is none.
        """
        from td3_driver.learning import checkpoint

        return checkpoint.to_choose(self.checkpoints, warn)

    def latest_checkpoint(self, warn: Callable[[str], object] = warnings.warn) -> Path:
        """Return the newest usable checkpoint; warn about any that are skipped.

        Raises CheckpointError if there is none.
        """
        # This imports PyTorch, which looking up a run does not need.
        from td3_driver.learning import checkpoint

        return checkpoint.latest(self.checkpoints, warn)


def find_checkpoint(name_or_path: str | Path) -> tuple[RunFolder, Path]:
    """Return a run and its best checkpoint, or the checkpoint named by its own folder.

    Raises RunError or CheckpointError.
    """
    path = Path(name_or_path)
    if path.parent.name == CHECKPOINTS and path.is_dir():
        return RunFolder(path.resolve().parents[1]), path.resolve()
    run = RunFolder(name_or_path)
    return run, run.best_checkpoint()


def _check_name(path: Path) -> None:
    """Raise RunError for a path that is no new run's: `runs/latest`, a parent, a file, ..."""
    if path.name in ("", ".", "..", LATEST) or _is_runs(path):
        raise RunError(f"{path} cannot be a run's name: choose another one")
    if os.path.lexists(path) and not path.is_dir():
        raise RunError(f"{path} is a file, or a link to nothing: choose another name for the run")


def _is_runs(path: Path) -> bool:
    return os.path.realpath(path) == os.path.realpath(RUNS)


def _check_latest(path: Path) -> None:
    """Raise RunError if `runs/latest` cannot be pointed at a run there."""
    try:
        if path.parent == RUNS:
            check_link(RUNS / LATEST)
    except FileExistsError:
        raise RunError(
            f"{RUNS / LATEST} is not the link that it should be: rename or remove it"
        ) from None


def _check_utf8(path: Path) -> None:
    """Raise RunError for a path that neither ROS nor safetensors takes."""
    if not is_utf8(path):
        raise RunError(f"the path of a run has to be UTF-8, unlike {shown(str(path))}: rename it")


def _new_folder(name: str) -> Path:
    """Make a folder under `runs/`, numbered if another run has just taken the name."""
    for number in itertools.count(1):
        path = RUNS / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("not reached")


def _parameters(config: Config) -> str:
    values = {"/**": {"ros__parameters": _from_anywhere(config).model_dump(mode="json")}}
    return yaml.safe_dump(values, sort_keys=False)


def _from_anywhere(config: Config) -> Config:
    """Return the settings with absolute paths of files, which mean the same in any folder."""
    given: dict[str, Any] = {
        "simulator.map": _absolute_map(config.simulator.map),
        "training.starts_file": _absolute(config.training.starts_file),
    }
    for name, section in config:
        if maps := getattr(section, "maps", ()):
            given[f"{name}.maps"] = tuple(map(_absolute_map, maps))
    return configuration.override(config, given, "the run")


def _absolute_map(name_or_path: str) -> str:
    return name_or_path if is_shipped(name_or_path) else _absolute(name_or_path)


def _absolute(name_or_path: str) -> str:
    """Return the absolute path of a file; the name of anything else, as it is."""
    return os.path.abspath(name_or_path) if os.path.isfile(name_or_path) else name_or_path


def _heading() -> str:
    """Return the versions that a run was made with, as comments."""
    lines = [f"# python {platform.python_version()}"]
    for package in NOTED_VERSIONS:
        try:
            lines.append(f"# {package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            lines.append(f"# {package} without package metadata")
    lines.append(f"# git {git_revision()}")
    return "\n".join(lines) + "\n"


def git_revision() -> str:
    """Return the revision of the source, or "unknown"."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            command,
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5.0,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return answer.stdout.strip() or "unknown"
