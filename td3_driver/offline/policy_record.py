# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a driver published about its policy and its decisions, as recorded in a bag."""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np

from td3_driver.bridge.driver_messages import (
    PolicyInfo,
    PolicyKind,
    disagreement_from_message,
    policy_info_from_message,
    policy_output_from_message,
)
from td3_driver.bridge.driver_topics import POLICY, POLICY_OUTPUT, SHADOW_DISAGREEMENT
from td3_driver.bridge.topics import Topic

DIGEST_SHOWN = 8
"""Number of a digest's digits that are displayed."""


class PolicyRecord:
    """Collects a driver's messages about its policy; a bag of a manual drive has none."""

    TOPICS = (POLICY, POLICY_OUTPUT, SHADOW_DISAGREEMENT)

    def __init__(self) -> None:
        self.policies: list[PolicyInfo] = []
        """One message for each policy that drove, in order."""
        self.refusals: list[str] = []
        """Why checkpoints were refused, in order."""
        self._inferences_s: dict[int, float] = {}
        self._steering_differences_rad = array("d")

    def hear(self, topic: Topic, message: Any) -> None:
        """Add a message on one of `TOPICS`, in the old or new form; raises ConversionError."""
        if topic is POLICY:
            self._hear_policy(policy_info_from_message(message))
        elif topic is POLICY_OUTPUT:
            output = policy_output_from_message(message)
            self._inferences_s[output.stamp_ns] = output.inference_s
        else:
            difference_rad = disagreement_from_message(message).steering_angle_rad
            self._steering_differences_rad.append(difference_rad)

    def inference_s(self, stamp_ns: int) -> float:
        """Return how long the policy took to decide on the image of a stamp; NaN if unknown."""
        return self._inferences_s.get(stamp_ns, math.nan)

    def inferences_s(self) -> np.ndarray:
        """Return how long each decision took, float64 (n,)."""
        return np.array(list(self._inferences_s.values()))

    def steering_differences_rad(self) -> np.ndarray:
        """Return by how much a shadow's steering angle differed, float64 (n,), absolute values."""
        return np.abs(self._steering_differences_rad)

    def driven_by(self) -> str:
        """Return which policies drove, in words; empty if that was not recorded."""
        return ", then ".join(map(_in_words, self.policies))

    def notes(self) -> list[str]:
        """Return why checkpoints were refused, in words."""
        return [f"the driver refused a checkpoint: {reason}" for reason in self.refusals]

    def _hear_policy(self, info: PolicyInfo) -> None:
        latest = self.policies[-1] if self.policies else None
        if latest is None or (latest.path, latest.actor_sha256) != (info.path, info.actor_sha256):
            self.policies.append(info)
        # Every message repeats the latest refusal.
        if info.refused_reason and info.refused_reason not in self.refusals[-1:]:
            self.refusals.append(info.refused_reason)


def _in_words(info: PolicyInfo) -> str:
    if info.kind is PolicyKind.BASELINE:
        return "the baseline"
    step = "" if info.step is None else f"step {info.step:,}, "
    return f"{info.path} ({step}actor {info.actor_sha256[:DIGEST_SHOWN]})"
