# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Play, pause and single steps, as the bridge's queue has them."""

import pytest

from td3_driver.bridge.run_state import RunCommand, RunState

PLAY, PAUSE, STEP_ONCE = RunCommand.PLAY, RunCommand.PAUSE, RunCommand.STEP_ONCE


@pytest.fixture
def changes():
    return []


@pytest.fixture
def state(changes):
    return RunState(changes.append)


def commands(state, *given):
    for command in given:
        state.command(command)


def test_starts_playing(state, changes):
    assert state.running and state.may_tick() and not state.waiting
    assert changes == []


def test_pause_stops_once_and_says_so_once(state, changes):
    commands(state, PAUSE)
    assert not state.may_tick() and state.waiting
    commands(state, PAUSE)
    assert not state.may_tick()
    assert changes == [False]


def test_step_once_is_one_tick(state, changes):
    commands(state, PAUSE)
    state.may_tick()
    commands(state, STEP_ONCE)
    assert state.may_tick()
    assert not state.may_tick()
    assert changes == [False, True, False]


def test_a_running_simulator_takes_the_last_command_only(state, changes):
    commands(state, PAUSE, STEP_ONCE, PLAY)
    assert state.may_tick() and state.may_tick()
    assert changes == []


def test_steps_given_together_collapse_into_one(state, changes):
    commands(state, PAUSE)
    state.may_tick()
    commands(state, STEP_ONCE, STEP_ONCE, STEP_ONCE)
    assert [state.may_tick() for _ in range(3)] == [True, False, False]
    assert changes == [False, True, False]


def test_a_step_given_during_a_step_replaces_its_pause(state, changes):
    commands(state, PAUSE)
    state.may_tick()
    commands(state, STEP_ONCE)
    assert state.may_tick()
    commands(state, STEP_ONCE)
    assert state.may_tick()
    assert not state.may_tick()
    assert changes == [False, True, False]


def test_play_after_pause(state, changes):
    commands(state, PAUSE)
    state.may_tick()
    commands(state, PLAY)
    assert state.may_tick() and state.may_tick()
    assert changes == [False, True]
