# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Chooses devices for a learner and its replay buffer, and checks the memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional

from td3_driver.config import ConfigError
from td3_driver.documents import in_short
from td3_driver.learning.batch import ReplaySpec

LEAST_FREE_BYTES = 1 << 30
"""Free memory that a GPU needs for PyTorch's libraries and a learner of the usual size."""


class ReplayMemoryError(ValueError):
    """The buffer would take more memory than allowed."""


def choose_device(
    wanted: str,
    setting: str = "learning.device",
    say: Callable[[str], object] = print,
) -> torch.device:
    """Return the device for "auto", "cpu" or "cuda".

    With "auto", a GPU that cannot be used is reported to `say`, and the CPU is used. Raises
    ConfigError naming the `setting` if the GPU is asked for and cannot be used.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    there, wrong = find_gpu()
    if there and not wrong:
        return torch.device("cuda")
    if wanted == "cuda":
        reason = f"the GPU cannot be used ({wrong})" if wrong else "PyTorch finds no GPU"
        raise ConfigError(f"{setting} is cuda, but {reason}: set auto or cpu")
    if wrong:
        say(f"warning: the GPU cannot be used ({wrong}): going on on the CPU")
    return torch.device("cpu")


def find_gpu() -> tuple[bool, str]:
    """Return whether PyTorch finds a GPU, and why it cannot be used; empty if nothing is wrong."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
    if not there:  # of a driver that is too old, PyTorch warns
        return False, in_short(caught[-1].message) if caught else ""
    try:
        free = available_bytes(torch.device("cuda"))
        if free < LEAST_FREE_BYTES:
            return (
                True,
                f"{free / 1e9:.1f} GB of its memory are free, {LEAST_FREE_BYTES / 1e9:.1f} needed",
            )
        _try_gpu()
    except RuntimeError as error:  # as where PyTorch was not built for it
        return True, in_short(error)
    return True, ""


def _try_gpu() -> None:
    """Do some of what a learner does; raises RuntimeError if the GPU cannot."""
    image = torch.ones(2, 3, 8, 8, device="cuda", requires_grad=True)
    functional.conv2d(image, torch.ones(4, 3, 3, 3, device="cuda")).sum().backward()
    torch.cuda.synchronize()


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
