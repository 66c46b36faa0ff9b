# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""When a measurement is taken again, and when it counts."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from standstill import (
    LATE_S,
    TRIES,
    StandstillWatch,
    StoodStillWarning,
    measured,
    measurement,
    stand_still,
    time_to_end_s,
)


def test_a_process_that_was_stopped_is_noticed() -> None:
    with StandstillWatch(LATE_S) as watch:
        time.sleep(0.05)
        stand_still(0.3)
        time.sleep(0.05)
    assert watch.noted.count >= 1 and watch.noted.longest_s > 0.2


def test_a_failure_during_a_standstill_is_measured_again() -> None:
    calls: list[str] = []

    def attempt() -> int:
        calls.append("attempt")
        time.sleep(0.05)
        if len(calls) < 4:
            stand_still(0.3)
            time.sleep(0.05)
            raise AssertionError("too late")
        return 7

    with pytest.warns(StoodStillWarning, match=r"try 1 of 5 .* \(too late\)"):
        assert measured(attempt, prepare=lambda: calls.append("prepare")) == 7
    assert calls == ["prepare", "attempt"] * 2


def test_a_standstill_elsewhere_counts_as_well() -> None:
    def attempt() -> None:
        assert next(attempts), "too late"

    attempts = iter([False, True])
    with pytest.warns(StoodStillWarning):
        measured(attempt, elsewhere=lambda since_s: 1)


def test_a_failure_while_everything_ran_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("standstill.LATE_S", 60.0)
    calls: list[int] = []

    def attempt() -> None:
        calls.append(1)
        raise AssertionError("too late")

    with pytest.raises(AssertionError, match="too late"):
        measured(attempt)
    assert len(calls) == 1


def test_the_tries_come_to_an_end() -> None:
    calls: list[int] = []

    def attempt() -> None:
        calls.append(1)
        raise AssertionError("too late")

    with pytest.warns(StoodStillWarning), pytest.raises(AssertionError, match="too late"):
        measured(attempt, elsewhere=lambda since_s: 1)
    assert len(calls) == TRIES


def test_a_whole_test_begins_anew_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folders: list[Path] = []

    @measurement
    def test(tmp_path: Path, number: int) -> None:
        assert number == 7 and not any(tmp_path.iterdir())
        (tmp_path / "left behind").touch()
        folders.append(tmp_path)
        if len(folders) == 1:
            stand_still(0.3)
            time.sleep(0.05)
            raise AssertionError("too late")

    with pytest.warns(StoodStillWarning, match="too late"):
        test(tmp_path=tmp_path, number=7)
    assert len(folders) == 2


def test_a_short_standstill_is_no_reason_to_take_a_whole_test_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("standstill.LONG_S", 60.0)
    calls: list[int] = []

    @measurement
    def test() -> None:
        calls.append(1)
        stand_still(0.3)
        time.sleep(0.05)
        raise AssertionError("wrong")

    with pytest.raises(AssertionError, match="wrong"):
        test()
    assert len(calls) == 1


def test_what_pytest_raises_is_taken_again_as_well() -> None:
    attempts = iter([lambda: pytest.fail("it did not happen"), lambda: None])
    with pytest.warns(StoodStillWarning, match="it did not happen"):
        measured(lambda: next(attempts)(), elsewhere=lambda since_s: 1)


ENDS = {
    "asleep": "import time; time.sleep(0.4)",
    "busy": "import time\nwhile time.process_time() < 0.4: pass",
}


@pytest.mark.parametrize("program", ENDS.values(), ids=ENDS)
def test_a_process_takes_as_long_to_end_as_it_sleeps_and_works(program: str) -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", program])
    taken_s = time_to_end_s(process.pid, 30.0)
    assert process.wait() == 0
    assert taken_s > 0.3


def test_a_process_that_does_not_end_is_not_waited_for_for_ever() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        with pytest.raises(TimeoutError, match=f"process {process.pid} has not ended"):
            time_to_end_s(process.pid, 0.1)
    finally:
        process.kill()
        process.wait()
