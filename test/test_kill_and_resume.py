# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A training killed with SIGKILL goes on from its newest checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
KILLS = 2


@pytest.mark.timeout(180)
def test_every_kill_is_followed_by_a_run_from_the_newest_checkpoint() -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kill_and_resume.py", "--kills", str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["resumed_from_newest"] == result["kills"] == KILLS
    assert result["refused_checkpoints"] == 0
