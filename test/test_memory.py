# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the tensors of an update leave free is used again by the next one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

UPDATES = """
import resource, sys, threading
from td3_driver.memory import keep_freed_memory

if sys.argv[1] == "keeps":
    assert keep_freed_memory()
import torch
from td3_driver.config import LearningConfig
from td3_driver.learning.batch import Batch
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.td3 import TD3

torch.set_num_threads(1)
settings = LearningConfig(channels=(16, 32, 32), image_features=64, hidden=(128, 128))
spec = NetworkSpec((4, 84, 84), (1.0,) * 23, 2, settings.channels, 64, settings.hidden)
learner = TD3(spec, settings)

def observations():
    image = torch.randint(0, 256, (64, 4, 84, 84), dtype=torch.uint8)
    return {"image": image, "vector": torch.zeros(64, 23)}

batch = Batch(
    observations(), torch.zeros(64, 2), torch.zeros(64), observations(), torch.zeros(64),
    torch.ones(64), torch.zeros(64, dtype=torch.int64),
)

def faults(updates):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(updates):
        learner.update(batch)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / updates

def measure():
    faults(3)
    print(faults(8))

# As in training, which updates in a thread of its own.
thread = threading.Thread(target=measure)
thread.start()
thread.join()
"""


def faults_per_update(keeps: bool) -> float:
    """Return the page faults of an update on batches of 64, whose tensors take some 40 MB."""
    # Who runs the tests may have told glibc something of the kind.
    environment = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    done = subprocess.run(
        [sys.executable, "-c", UPDATES, "keeps" if keeps else "frees"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has the option")
def test_an_update_takes_no_new_pages_once_its_process_keeps_what_is_freed() -> None:
    kept = faults_per_update(keeps=True)
    assert kept < 300
    assert faults_per_update(keeps=False) > 3 * kept
