# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the driver publishes about itself, read by the messages' fields.

Any object with a message's fields will do: rclpy's, or what a bag's reader makes without ROS. Two
forms are read: `td3_driver_msgs`, and the older one, which bags may still have: JSON in a
`std_msgs/String`, and values by name in a `sensor_msgs/JointState`.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import PurePath
from typing import Any

from td3_driver.bridge.messages import ConversionError, ns_from_stamp
from td3_driver.documents import MOST_DIGITS, in_short, parse_json

BASELINE = "baseline"
"""What stands in a checkpoint's place where the baseline drives."""


class PolicyKind(enum.IntEnum):
    """The kinds of `td3_driver_msgs/PolicyInfo`."""

    BASELINE = 0
    CHECKPOINT = 1
    POLICY_FILE = 2


class ComparedWith(enum.IntEnum):
    """What `td3_driver_msgs/ShadowDisagreement` compares with."""

    ACKERMANN_COMMAND = 0
    VEHICLE_STATUS = 1


@dataclass(frozen=True)
class PolicyInfo:
    """Which policy drives, and why the last checkpoint was refused."""

    kind: PolicyKind
    path: str
    """The checkpoint's folder or the policy file; empty for the baseline."""
    step: int | None
    """The run's step at which it was saved; None where that is not known."""
    actor_sha256: str
    has_critic: bool
    refused_reason: str
    """Empty where none was refused."""


@dataclass(frozen=True)
class PolicyOutput:
    """One decision; NaN is what is not known."""

    stamp_ns: int
    """The image's, simulation time."""
    steering: float
    """Of the action, in [-1, 1], + = left."""
    speed: float
    """Of the action, in [-1, 1]."""
    steering_angle_rad: float
    """As commanded, + = left."""
    speed_mps: float
    """As commanded."""
    q1: float
    q2: float
    inference_s: float
    image_to_command_s: float


@dataclass(frozen=True)
class Disagreement:
    """The driver's own command less that of whoever drives; NaN is what cannot be compared."""

    compared_with: ComparedWith
    steering_angle_rad: float
    """+ = further left."""
    speed_mps: float = math.nan
    pedal: float = math.nan
    """Throttle less brake, in [-2, 2]."""


_OF_OUTPUT = tuple(field.name for field in fields(PolicyOutput) if field.name != "stamp_ns")
_OF_DISAGREEMENT = ("steering_angle_rad", "speed_mps", "pedal")


def policy_info_from_message(message: Any) -> PolicyInfo:
    """Return what `~/policy` says; raises ConversionError where it means nothing."""
    if hasattr(message, "data"):
        return _policy_info_from_json(message.data)
    try:
        kind = PolicyKind(message.kind)
    except ValueError:
        raise ConversionError(f"there is no policy of kind {message.kind}") from None
    return PolicyInfo(
        kind=kind,
        path=message.path,
        step=int(message.step),
        actor_sha256=message.actor_sha256,
        has_critic=bool(message.has_critic),
        refused_reason=message.refused_reason,
    )


def _policy_info_from_json(text: str) -> PolicyInfo:
    try:
        values = parse_json(text, "the policy")
        path, name = str(values["checkpoint"]), str(values["step"])
        digest, has_critic = str(values["actor_sha256"]), bool(values["critic"])
        refused = str(values["refused"])
    except (ValueError, TypeError, KeyError) as error:
        raise ConversionError(
            f"the policy is not described as it was: {in_short(error)}"
        ) from None
    # Its `step` was the last part of the path, whatever that was.
    if path == BASELINE:
        kind, path, step = PolicyKind.BASELINE, "", 0
    elif PurePath(path).suffix == ".onnx":
        kind, step = PolicyKind.POLICY_FILE, None
    else:
        number = name.partition("-")[0]
        is_number = number.isdecimal() and len(number) <= MOST_DIGITS
        kind, step = PolicyKind.CHECKPOINT, int(number) if is_number else None
    return PolicyInfo(kind, path, step, digest, has_critic, refused)


def policy_output_from_message(message: Any) -> PolicyOutput:
    """Return one decision; raises ConversionError where the older form lacks a value."""
    values = {"q1": math.nan, "q2": math.nan, **_numbers(message, _OF_OUTPUT)}
    missing = [name for name in _OF_OUTPUT if name not in values]
    if missing:
        raise ConversionError(f"the decision has no {', '.join(missing)}")
    return PolicyOutput(
        ns_from_stamp(message.header.stamp), **{name: values[name] for name in _OF_OUTPUT}
    )


def disagreement_from_message(message: Any) -> Disagreement:
    """Return a disagreement; raises ConversionError where it means nothing."""
    values = _numbers(message, _OF_DISAGREEMENT)
    # The older form has either a pedal or a speed.
    older = ComparedWith.VEHICLE_STATUS if "pedal" in values else ComparedWith.ACKERMANN_COMMAND
    try:
        return Disagreement(
            ComparedWith(getattr(message, "compared_with", older)),
            values["steering_angle_rad"],
            values.get("speed_mps", math.nan),
            values.get("pedal", math.nan),
        )
    except (KeyError, ValueError) as error:
        raise ConversionError(f"the disagreement means nothing: {error!r}") from None


def _numbers(message: Any, names: Iterable[str]) -> dict[str, float]:
    """Return the numbers of these names; the older form may lack some, or have others."""
    if hasattr(message, "position"):
        return dict(zip(message.name, map(float, message.position), strict=False))
    return {name: float(getattr(message, name)) for name in names}
