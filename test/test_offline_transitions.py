# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Transitions from bags: those of the live environment, and nothing that was not driven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from bag_drives import drive, follow_lane

from td3_driver.config import DrivingConfig
from td3_driver.driving.control import AckermannCommand
from td3_driver.driving.task import DrivingTask
from td3_driver.driving.world import Collision
from td3_driver.learning.batch import ReplaySpec
from td3_driver.learning.replay import ReplayBuffer
from td3_driver.offline.frames import BagFrame
from td3_driver.offline.transitions import (
    AFTER_FAILURE,
    BEYOND_ACTION_RANGE,
    MISSING_IMAGES,
    NO_COMMAND,
    NOT_FINITE,
    TransitionBuilder,
)

CONFIG = DrivingConfig(action_repeat=2)


@pytest.fixture(scope="module")
def frames() -> list[BagFrame]:
    """Return 6 s on the lane: frames, and what was commanded in answer."""
    driven = drive(ticks=121, config=CONFIG, act=follow_lane)
    return [
        BagFrame(frame, place, ackermann=command.ackermann)
        for place, (frame, command) in enumerate(zip(driven.frames, driven.commands, strict=True))
    ]


def build(*bags: Sequence[BagFrame]) -> tuple[TransitionBuilder, ReplayBuffer]:
    replay = ReplayBuffer(ReplaySpec((4, 84, 84), 23, 2), 300)
    builder = TransitionBuilder(replay, CONFIG)
    for bag in bags:
        builder.add(bag, 0.05)
    return builder, replay


def changed(
    frames: list[BagFrame], places: range, change: Callable[[BagFrame], BagFrame]
) -> list[BagFrame]:
    return [change(item) if place in places else item for place, item in enumerate(frames)]


def test_a_clean_drive_becomes_what_the_task_makes_of_it(frames: list[BagFrame]) -> None:
    builder, replay = build(frames)
    assert (builder.transitions, builder.episodes, len(replay)) == (60, 1, 60)
    assert builder.seconds == pytest.approx(6.0)
    task = DrivingTask(CONFIG, 0.05)
    observation = task.begin(frames[0].frame)
    batch = replay.gather(torch.arange(60))
    for place in range(60):
        action = batch.actions[place].numpy()
        behind = [item.frame for item in frames[2 * place + 1 : 2 * place + 3]]
        invasions = tuple(event for frame in behind for event in frame.lane_invasions)
        outcome = task.judge(action, behind[1], (), invasions, 2)
        assert np.array_equal(batch.observations["image"][place], observation["image"])
        assert np.array_equal(batch.observations["vector"][place], observation["vector"])
        following = batch.next_observations["image"][place]
        assert np.array_equal(following, outcome.observation["image"])
        assert batch.rewards[place].item() == pytest.approx(outcome.reward.total, abs=1e-6)
        observation = outcome.observation
    assert not batch.terminated.any()
    # What is cut is cut by the end of the recording; there is nothing else.
    assert builder.rejections.stretches == {"end of the recording": 1}


def test_stretches_are_rejected_by_reason(frames: list[BagFrame]) -> None:
    silent = changed(frames, range(20, 28), lambda item: replace(item, ackermann=None))
    reckless = changed(
        frames, range(40, 50), lambda item: replace(item, ackermann=AckermannCommand(0.0, 20.0))
    )
    dropped = [item for place, item in enumerate(frames) if place not in (31, 61)]
    paused = changed(
        frames,
        range(60, 121),
        lambda item: replace(
            item, frame=replace(item.frame, stamp_ns=item.frame.stamp_ns + 10**10)
        ),
    )
    lost = changed(
        frames,
        range(30, 34),
        lambda item: replace(item, frame=replace(item.frame, speed=float("nan"))),
    )
    builder, replay = build(silent, reckless, dropped, paused, lost)
    stretches, seconds = builder.rejections.stretches, builder.rejections.seconds
    # Four decisions without a command, and the one whose change of steering is not known.
    assert stretches[NO_COMMAND] == 1 and seconds[NO_COMMAND] == pytest.approx(0.5)
    assert stretches[BEYOND_ACTION_RANGE] == 1
    assert seconds[BEYOND_ACTION_RANGE] == pytest.approx(0.5)
    assert stretches[MISSING_IMAGES] == 2
    assert stretches["a gap in time"] == 1
    assert stretches[NOT_FINITE] == 1
    assert sum(stretches.values()) == 11  # and five recordings have an end
    assert len(replay) == builder.transitions
    assert "no command recorded" in builder.rejections.table()


def test_what_is_rejected_is_in_no_batch(frames: list[BagFrame]) -> None:
    reckless = changed(
        frames, range(40, 50), lambda item: replace(item, ackermann=AckermannCommand(0.0, 20.0))
    )
    builder, replay = build(reckless)
    batch = replay.sample(2000, torch.Generator().manual_seed(0))
    assert builder.transitions == 55 and builder.episodes == 1
    assert batch.actions[:, 1].max() < 0.9
    slots = set(batch.slots.tolist())  # type: ignore[union-attr]
    assert slots == set(range(60)) - set(range(20, 25))
    # The images go on: the stack of the first one after is of four different ones.
    stack = replay.gather(torch.tensor([25])).observations["image"][0]
    assert len({image.numpy().tobytes() for image in stack}) == 4


def test_a_failure_ends_the_episode_and_the_next_begins_when_it_is_over(
    frames: list[BagFrame],
) -> None:
    crash = Collision(0, 7, (500.0, 0.0, 0.0))
    crashed = changed(
        frames,
        range(40, 50),
        lambda item: replace(item, frame=replace(item.frame, collisions=(crash,))),
    )
    builder, replay = build(crashed)
    batch = replay.gather(torch.arange(builder.transitions + 1))
    terminated = batch.terminated.nonzero().flatten().tolist()
    assert terminated == [19]  # the decision on frame 38 led to frame 40
    assert batch.rewards[19] < -CONFIG.failure_cost + 1.5
    assert builder.ends == {"collision": 1} and builder.episodes == 2
    assert builder.rejections.stretches[AFTER_FAILURE] == 1
    assert builder.rejections.seconds[AFTER_FAILURE] == pytest.approx(0.5)
    first_after = replay.gather(torch.tensor([21])).observations["image"][0]
    assert all(torch.equal(image, first_after[0]) for image in first_after)


def test_pedals_alone_are_enough(frames: list[BagFrame]) -> None:
    driven = drive(ticks=61, config=CONFIG, act=follow_lane)
    bare = [BagFrame(frame, place, status_known=True) for place, frame in enumerate(driven.frames)]
    builder, replay = build(bare)
    assert builder.transitions == 30
    full = [
        BagFrame(frame, place, ackermann=command.ackermann)
        for place, (frame, command) in enumerate(zip(driven.frames, driven.commands, strict=True))
    ]
    _, told = build(full)
    read, said = replay.actions[:30], told.actions[:30]
    assert (read - said).abs().max() < 0.03


def test_a_frame_without_a_route_is_left_out(frames: list[BagFrame]) -> None:
    lost = changed(
        frames,
        range(10),
        lambda item: replace(item, frame=replace(item.frame, route=np.zeros((0, 3)))),
    )
    builder, _ = build(lost)
    assert builder.rejections.stretches["no route"] == 1
    assert builder.rejections.seconds["no route"] == pytest.approx(0.5)
