# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Builds the td3_driver_msgs messages that the driver publishes about its policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from td3_driver.bridge.conversion import make_header, stamp_from_ns
from td3_driver.bridge.driver_messages import Disagreement, PolicyKind
from td3_driver.bridge.driver_topics import POLICY, POLICY_OUTPUT, SHADOW_DISAGREEMENT
from td3_driver.config import Config
from td3_driver.deployment.loading import LoadedPolicy
from td3_driver.driving.control import Command
from td3_driver.driving.pilot import Pilot
from td3_driver.runs import RunFolder

# The topics look the message classes up instead of importing them: if the package is missing, the
# node reports what to build (`bridge.interfaces`).


def policy_info(
    policy: LoadedPolicy,
    run: RunFolder | None,
    config: Config,
    loaded_at_s: float,
    refused: tuple[Path, str] | None,
) -> Any:
    """Return a `td3_driver_msgs/PolicyInfo`.

    `run` is None for the baseline; `loaded_at_s` is in seconds since 1970; `refused` is the last
    checkpoint that was refused since then, and why.
    """
    driving = config.driving
    refused_path, refused_reason = refused or ("", "")
    return POLICY.message_type(
        kind=_kind(policy),
        run=str(run.path) if run is not None else "",
        path=str(policy.source or ""),
        step=policy.step,
        actor_sha256=policy.actor_sha256,
        has_critic=policy.q_values is not None,
        loaded_at=stamp_from_ns(int(loaded_at_s * 1e9)),
        decision_period_s=driving.action_repeat * config.simulator.fixed_delta_s,
        max_steering_angle_rad=driving.max_steering_angle_rad,
        max_speed_mps=driving.max_speed_mps,
        refused_path=str(refused_path),
        refused_reason=refused_reason,
    )


def _kind(policy: LoadedPolicy) -> PolicyKind:
    if policy.source is None:
        return PolicyKind.BASELINE
    return PolicyKind.CHECKPOINT if policy.is_checkpoint else PolicyKind.POLICY_FILE


def policy_output(
    stamp_ns: int,
    pilot: Pilot,
    command: Command,
    image_to_command_s: float,
    q_values: tuple[float, float] | None,
) -> Any:
    """Return a `td3_driver_msgs/PolicyOutput` for the pilot's latest decision.

    `stamp_ns` is the image's stamp, and `command` the command that the guard let through.
    """
    steering, speed = pilot.action.tolist()
    q1, q2 = q_values or (float("nan"), float("nan"))
    return POLICY_OUTPUT.message_type(
        header=make_header(stamp_ns, ""),
        steering=steering,
        speed=speed,
        steering_angle_rad=command.ackermann.steering_angle,
        speed_mps=command.ackermann.speed,
        q1=q1,
        q2=q2,
        inference_s=pilot.inference_s,
        image_to_command_s=image_to_command_s,
    )


def disagreement_to_message(found: Disagreement, stamp_ns: int) -> Any:
    """Return a `td3_driver_msgs/ShadowDisagreement` about the image of `stamp_ns`."""
    return SHADOW_DISAGREEMENT.message_type(
        header=make_header(stamp_ns, ""),
        compared_with=found.compared_with,
        steering_angle_rad=found.steering_angle_rad,
        speed_mps=found.speed_mps,
        pedal=found.pedal,
    )
