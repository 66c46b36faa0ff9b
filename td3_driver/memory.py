# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Keeps the memory of freed tensors in a process that learns on a CPU."""

from __future__ import annotations

import ctypes

# Options of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGEST_MMAP_THRESHOLD = 32 << 20
_NEVER_TRIM = (1 << 31) - 1


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, for the next tensors; return whether it does.

    An update frees some hundred megabytes, which glibc would hand back to the kernel and fetch
    again page by page. Call it before NumPy or PyTorch is imported: their threads are the first to
    ask for a heap, which settles how many there may be. Other C libraries have no such option.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = (
        (_ARENA_MAX, 1),
        (_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD),
        (_TRIM_THRESHOLD, _NEVER_TRIM),
    )
    accepted = [mallopt(option, value) for option, value in options]
    return all(accepted)
