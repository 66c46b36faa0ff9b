# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Values that change over a run."""

from __future__ import annotations

import pytest

from td3_driver.learning.schedules import linear


@pytest.mark.parametrize(
    "at, value", [(-5, 1.0), (0, 1.0), (25, 0.75), (50, 0.5), (100, 0.0), (1000, 0.0)]
)
def test_a_line_stays_where_it_begins_and_ends(at: int, value: float) -> None:
    assert linear(1.0, 0.0, 100, at) == pytest.approx(value)


def test_no_length_is_no_change() -> None:
    assert linear(0.4, 0.1, 0, 10**6) == 0.4
