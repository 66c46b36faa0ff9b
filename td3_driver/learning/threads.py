# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How many threads PyTorch uses on the CPU, for one thread of the process at a time."""

from __future__ import annotations

import threading

import torch

_changing = threading.Lock()


def use_one_thread() -> None:
    """Let PyTorch use no other thread for what the calling one does from now on."""
    with _changing:
        process = torch.get_num_threads()
        torch.set_num_threads(1)
        # PyTorch keeps a number for each thread, and hands the one set last to those that have
        # none yet: they are to get the number from before.
        other = threading.Thread(target=torch.set_num_threads, args=(process,))
        other.start()
        other.join()
