# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Values that change over a run."""

from __future__ import annotations


def linear(first: float, last: float, length: int, at: int) -> float:
    """Return the value at `at` of a ramp from `first` at 0 to `last` at `length` and beyond.

    With a length of 0 it stays at `first`.
    """
    if length == 0:
        return first
    return first + (last - first) * min(max(at / length, 0.0), 1.0)
