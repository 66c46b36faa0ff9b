# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Chooses devices for a learner and its replay buffer, and checks the memory."""

from __future__ import annotations

from pathlib import Path

import torch

from td3_driver.config import ConfigError
from td3_driver.learning.batch import ReplaySpec


class ReplayMemoryError(ValueError):
    """The buffer would take more memory than allowed."""


def choose_device(wanted: str, setting: str = "learning.device") -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    Raises ConfigError naming the `setting` if it is missing.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"{setting} is cuda, but PyTorch finds no GPU: set auto or cpu")
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


def check_memory(spec: ReplaySpec, capacity: int, available_bytes: int, fraction: float) -> str:
    """Return a line about a buffer's memory; raises ReplayMemoryError if it needs too much.

    `fraction` is the share of `available_bytes` that it may take.
    """
    needed = capacity * spec.bytes_per_slot
    line = (
        f"replay buffer: {capacity:,} slots of {spec.bytes_per_slot:,} bytes = "
        f"{needed / 1e9:.2f} GB of {available_bytes / 1e9:.1f} GB available"
    )
    if needed > fraction * available_bytes:
        fits = int(fraction * available_bytes // spec.bytes_per_slot)
        raise ReplayMemoryError(
            f"{line}; learning.replay_memory_fraction allows only {fraction:.0%} of it: "
            f"set learning.replay_capacity to {fits:,} at most"
        )
    return line
