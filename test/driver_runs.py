# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Run folders with an untrained actor, for tests of what drives with one."""

from __future__ import annotations

from untrained_run import add_checkpoint, make_run

from td3_driver.config import Config, build

__all__ = ["add_checkpoint", "make_run", "small_config"]


def small_config(**driving: object) -> Config:
    """Settings of small networks, and others of the driving task."""
    learning = {"channels": [4, 4, 4], "image_features": 8, "hidden": [16]}
    return build({"learning": learning, "driving": driving}, "the test")
