# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Sets how many CPU threads PyTorch uses, for a single thread of the process."""

from __future__ import annotations

import threading

import torch

_changing = threading.Lock()


def use_one_thread() -> None:
    """Keep PyTorch to the calling thread for everything that it does from now on."""
    with _changing:
        process = torch.get_num_threads()
        torch.set_num_threads(1)
        # PyTorch keeps a number per thread; a thread without one gets the number set last. Setting
        # the previous number again, in another thread, keeps it the default for new threads.
        other = threading.Thread(target=torch.set_num_threads, args=(process,))
        other.start()
        other.join()
