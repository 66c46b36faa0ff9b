# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A run's folder: its configuration, checkpoints, figures and pictures."""

from __future__ import annotations

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
from td3_driver.files import point_link

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
    """A run's folder is missing, taken or incomplete; the message says which."""


class RunFolder:
    """An existing run, by its path, or by its name under `runs/`."""

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
        """Make a new run; an empty name becomes the time of day. Raises RunError if it exists."""
        name = name_or_path or time.strftime("%Y%m%d-%H%M%S")
        path = Path(name) if os.sep in name else RUNS / name
        if (path / "config.yaml").exists():
            raise RunError(
                f"the run {path} exists: resume it (--resume {path}; with ros2 launch: "
                f"resume:={path}), choose another name, or remove its folder"
            )
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.yaml").write_text(_heading() + _parameters(config))
        if path.parent == RUNS:
            point_link(RUNS / LATEST, path)
        return cls(path)

    @property
    def config(self) -> Config:
        """The configuration that was in effect."""
        return configuration.load(self.path / "config.yaml")

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    def latest_checkpoint(self, warn: Callable[[str], object] = warnings.warn) -> Path:
        """Return the newest usable checkpoint, and warn of those passed over.

        Raises CheckpointError where there is none.
        """
        # PyTorch comes with it, which who only looks a run up does not need.
        from td3_driver.learning import checkpoint

        return checkpoint.latest(self.checkpoints, warn)


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
    """Return the revision of the source, or say that there is none."""
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
