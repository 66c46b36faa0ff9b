# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A run's folder: its configuration, checkpoints, figures and pictures."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import yaml

from td3_driver import config as configuration
from td3_driver.config import Config, ConfigError
from td3_driver.files import check_link, create, point_link
from td3_driver.learning.manifest import CHECKPOINTS

RUNS = Path("runs")
LATEST = "latest"
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

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    def latest_checkpoint(self, warn: Callable[[str], object] = warnings.warn) -> Path:
        """Return the newest usable checkpoint; warn about any that are skipped.

        Raises CheckpointError if there is none.
        """
        # This imports PyTorch, which looking up a run does not need.
        from td3_driver.learning import checkpoint

        return checkpoint.latest(self.checkpoints, warn)


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
    values = {"/**": {"ros__parameters": config.model_dump(mode="json")}}
    return yaml.safe_dump(values, sort_keys=False)


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
