# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The ratio of updates to steps, held beside the steps and in turn with them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from td3_driver.config import Config, ConfigError, override
from td3_driver.learning.pacing import MOST_STEPS_AHEAD, UpdatePacer
from td3_driver.learning.settling import Settling

pytestmark = pytest.mark.timeout(20)


class Updates:
    """Counts updates; each waits for a permit where there is a gate."""

    def __init__(self, gated: bool = False, fails_at: int = 0) -> None:
        self.done = 0
        self.permits = threading.Semaphore(0)
        self.begun = threading.Event()
        """Set when the first update has begun."""
        self._gated, self._fails_at = gated, fails_at

    def __call__(self) -> None:
        self.begun.set()
        if self._gated:
            self.permits.acquire()
        if self.done + 1 == self._fails_at:
            raise ArithmeticError("not a number")
        self.done += 1


def eventually(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 5.0
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return condition()


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("ratio, updates", [(0.5, 15), (1.0, 30), (2.0, 60), (0.3, 9)])
def test_the_ratio_is_held_and_the_first_steps_are_without(
    ratio: float, updates: int, threaded: bool
) -> None:
    update = Updates()
    pacer = UpdatePacer(update, ratio=ratio, first_step=10, threaded=threaded)
    for step in range(1, 41):
        pacer.step_taken(step)
        if step <= 10:
            assert update.done == 0
        # Never ahead of the ratio; in turn, never behind it either.
        assert update.done <= ratio * max(step - 10, 0) + 1e-9
        if not threaded:
            assert update.done == int(ratio * max(step - 10, 0))
    pacer.finish()
    assert update.done == pacer.updates == updates


@pytest.mark.parametrize("threaded", [False, True])
def test_a_resumed_run_counts_on_from_the_updates_done(threaded: bool) -> None:
    update = Updates()
    # Whatever ratio led here, only what the present one asks for from now on is due.
    pacer = UpdatePacer(
        update, ratio=2.0, first_step=10, steps_taken=100, updates_done=90, threaded=threaded
    )
    pacer.step_taken(100)
    pacer.step_taken(103)
    pacer.finish()
    assert update.done == 6 and pacer.updates == 96


@pytest.mark.parametrize("threaded", [False, True])
def test_another_ratio_counts_from_where_it_begins(threaded: bool) -> None:
    update = Updates()
    pacer = UpdatePacer(update, ratio=0.5, first_step=10, threaded=threaded)
    for step in range(1, 21):
        pacer.step_taken(step)
    pacer.hold(2.0)
    pacer.step_taken(20)
    pacer.hold(2.0)
    pacer.step_taken(25)
    pacer.finish()
    assert update.done == 5 + 10
    assert pacer.ratio == 2.0 and pacer.allows(26, 1) and not pacer.allows(27, 1)
    resumed = UpdatePacer(
        update, ratio=2.0, first_step=10, steps_taken=25, updates_done=15, threaded=threaded
    )
    resumed.step_taken(27)
    resumed.finish()
    assert resumed.updates == 19


def test_an_update_may_change_the_ratio_while_it_is_due() -> None:
    pacers: list[UpdatePacer] = []
    done: list[int] = []

    def update() -> None:
        done.append(1)
        pacers[0].hold(3.0)

    pacers.append(UpdatePacer(update, ratio=2.0, first_step=0, threaded=False))
    pacers[0].step_taken(1)
    assert len(done) == 2
    pacers[0].step_taken(2)
    assert len(done) == 5


def test_a_share_has_settled_once_the_latest_are_close_and_stays_so() -> None:
    settling, found = Settling(), []
    assert settling.counters() == {}
    for share in (0.5, 0.3, 0.2, 0.17, 0.16, 0.9):
        settling.observe(share, 3, 0.05)
        found.append(settling.settled)
    assert found == [False, False, False, False, True, True]
    assert settling.counters() == {"settling": {"shares": [0.17, 0.16, 0.9], "settled": True}}


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"training.updates_per_step_final": 0.5}, "at least updates_per_step"),
        (
            {"training.updates_per_step_final": 2.0, "learning.image_key": ""},
            "a critic that has image layers",
        ),
    ],
)
def test_a_ratio_that_cannot_rise_is_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        override(Config(), changes, "a test")


def test_updates_run_beside_the_steps_in_a_thread_of_their_own() -> None:
    update = Updates(gated=True)
    pacer = UpdatePacer(update, ratio=1.0, first_step=0)
    pacer.step_taken(1)  # returns though the update cannot have been made
    assert update.done == 0
    update.permits.release()
    assert eventually(lambda: update.done == 1)
    pacer.stop()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_collecting_waits_when_it_is_too_far_ahead(ratio: float) -> None:
    update = Updates(gated=True)
    pacer = UpdatePacer(update, ratio=ratio, first_step=0)
    taken = []

    def collect() -> None:
        for step in range(1, 3 * MOST_STEPS_AHEAD):
            pacer.step_taken(step)
            taken.append(step)

    collecting = threading.Thread(target=collect, daemon=True)
    collecting.start()
    limit = MOST_STEPS_AHEAD + (1 if ratio < 1 else 0)  # half an update is none
    assert eventually(lambda: len(taken) == limit)
    time.sleep(0.05)
    assert len(taken) == limit
    for _ in range(round(2 * ratio)):
        update.permits.release()
    assert eventually(lambda: len(taken) >= limit + 2)
    time.sleep(0.05)
    assert len(taken) <= limit + 3
    for _ in range(500):
        update.permits.release()
    collecting.join(5.0)
    assert not collecting.is_alive()
    pacer.finish()


@pytest.mark.parametrize("threaded", [False, True])
def test_an_error_in_an_update_is_raised_where_steps_are_taken(threaded: bool) -> None:
    update = Updates(fails_at=3)
    pacer = UpdatePacer(update, ratio=1.0, first_step=0, threaded=threaded)
    with pytest.raises(ArithmeticError, match="not a number"):
        for step in range(1, 1000):
            pacer.step_taken(step)
    assert update.done == 2
    pacer.stop()


def test_an_error_is_raised_by_finish_and_again_by_later_steps() -> None:
    update = Updates(gated=True, fails_at=1)
    pacer = UpdatePacer(update, ratio=1.0, first_step=0)
    pacer.step_taken(5)
    update.permits.release()
    with pytest.raises(ArithmeticError):
        pacer.finish()
    with pytest.raises(ArithmeticError):
        pacer.step_taken(100)
    pacer.stop()


def test_an_error_frees_a_collector_that_waits() -> None:
    update = Updates(gated=True, fails_at=1)
    pacer = UpdatePacer(update, ratio=1.0, first_step=0)
    errors = []

    def collect() -> None:
        try:
            pacer.step_taken(1000)
        except ArithmeticError as error:
            errors.append(error)

    collecting = threading.Thread(target=collect, daemon=True)
    collecting.start()
    update.permits.release()
    collecting.join(5.0)
    assert len(errors) == 1
    pacer.stop()


def test_stopping_leaves_out_what_is_still_due() -> None:
    update = Updates(gated=True)
    pacer = UpdatePacer(update, ratio=1.0, first_step=0)
    pacer.step_taken(16)
    threading.Timer(0.05, update.permits.release).start()
    began = time.monotonic()
    pacer.stop()
    assert time.monotonic() - began < 2.0
    assert update.done <= 1
    assert not any(thread.name == "updates" for thread in threading.enumerate())
