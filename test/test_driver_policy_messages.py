# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the driver's messages say of whatever drives."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from driver_runs import make_run, small_config
from td3_driver_msgs.msg import PolicyInfo, PolicyOutput, ShadowDisagreement

from td3_driver.bridge import driver_messages
from td3_driver.bridge.driver_messages import (
    ComparedWith,
    Disagreement,
    PolicyKind,
    disagreement_from_message,
    policy_info_from_message,
    policy_output_from_message,
)
from td3_driver.config import Config, DrivingConfig
from td3_driver.deployment.export import export_run
from td3_driver.deployment.loading import baseline_policy, load_checkpoint, load_policy
from td3_driver.driving.control import AckermannCommand, Command
from td3_driver.driving.observation import Observation
from td3_driver.driving.pilot import Pilot
from td3_driver.driving.world import VehicleControl
from td3_driver.learning.manifest import digest_of
from td3_driver.learning.policy import WEIGHTS
from td3_driver.nodes.driver.policy_messages import (
    disagreement_to_message,
    policy_info,
    policy_output,
)
from td3_driver.runs import RunFolder

LOADED_AT_S = 1_700_000_000.5


@pytest.fixture
def config() -> Config:
    return small_config()


@pytest.fixture
def run(config: Config, tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", config)


def test_the_baseline_comes_from_no_run(config: Config) -> None:
    served = baseline_policy(config.driving)
    message = policy_info(served, None, config, LOADED_AT_S, None)
    assert message.kind == PolicyInfo.BASELINE
    assert message.run == message.path == message.actor_sha256 == ""
    assert message.step == 0 and not message.has_critic
    assert policy_info_from_message(message).kind is PolicyKind.BASELINE


def test_a_checkpoint_is_named_with_its_step_and_what_its_actions_mean(
    config: Config, run: RunFolder
) -> None:
    checkpoint = run.latest_checkpoint()
    served = load_checkpoint(checkpoint, config.driving)
    digest = digest_of(checkpoint, WEIGHTS)
    refused = (run.checkpoints / "000000002", "it is damaged")
    message = policy_info(served, run, config, LOADED_AT_S, refused)
    assert message.kind == PolicyInfo.CHECKPOINT
    assert (message.run, message.path) == (str(run.path), str(checkpoint))
    assert (message.step, message.actor_sha256) == (1, digest)
    assert (message.loaded_at.sec, message.loaded_at.nanosec) == (1_700_000_000, 500_000_000)
    driving = config.driving
    period_s = driving.action_repeat * config.simulator.fixed_delta_s
    assert message.decision_period_s == pytest.approx(period_s)
    assert message.max_steering_angle_rad == driving.max_steering_angle_rad
    assert message.max_speed_mps == driving.max_speed_mps
    assert (message.refused_path, message.refused_reason) == (str(refused[0]), refused[1])


@pytest.mark.long
def test_a_policy_file_has_the_step_of_its_checkpoint(
    config: Config, run: RunFolder, tmp_path: Path
) -> None:
    path = tmp_path / "policy.onnx"
    export_run(run.path, path)
    loaded = load_policy(run, path, config.driving, config.simulator.fixed_delta_s)
    message = policy_info(loaded, run, config, LOADED_AT_S, None)
    assert message.kind == PolicyInfo.POLICY_FILE
    assert (message.run, message.path, message.step) == (str(run.path), str(path), 1)
    assert message.actor_sha256 == loaded.actor_sha256 != ""


def act(observation: Observation) -> np.ndarray:
    raise AssertionError("nothing is decided here")


@pytest.mark.parametrize("q_values", [(1.5, -2.5), None])
def test_a_decision_comes_back_as_it_was_published(q_values: tuple[float, float] | None) -> None:
    pilot = Pilot(DrivingConfig(), 0.05, act)
    pilot.action = np.array([0.25, -0.5], dtype=np.float32)
    pilot.inference_s = 0.005
    command = Command(AckermannCommand(0.125, 2.5), VehicleControl())
    message = policy_output(7_050_000_000, pilot, command, 0.02, q_values)
    q1, q2 = q_values or (math.nan, math.nan)
    read = policy_output_from_message(message)
    assert read.stamp_ns == 7_050_000_000
    np.testing.assert_equal(
        [read.steering, read.speed, read.steering_angle_rad, read.speed_mps, read.q1, read.q2],
        [0.25, -0.5, 0.125, 2.5, q1, q2],
    )
    assert (read.inference_s, read.image_to_command_s) == (0.005, 0.02)


@pytest.mark.parametrize(
    "found",
    [
        Disagreement(ComparedWith.ACKERMANN_COMMAND, 0.5, speed_mps=-1.0),
        Disagreement(ComparedWith.VEHICLE_STATUS, -0.5, pedal=1.5),
    ],
)
def test_a_disagreement_comes_back_as_it_was_published(found: Disagreement) -> None:
    message = disagreement_to_message(found, 7_050_000_000)
    assert isinstance(message, ShadowDisagreement) and message.header.stamp.sec == 7
    np.testing.assert_equal(vars(disagreement_from_message(message)), vars(found))


def test_all_of_a_decision_is_read() -> None:
    published = set(PolicyOutput.get_fields_and_field_types()) - {"header"}
    read = {field.name for field in fields(driver_messages.PolicyOutput)} - {"stamp_ns"}
    assert read == published
