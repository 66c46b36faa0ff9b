# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the counters of a checkpoint hold, checked before any of it is used."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from td3_driver.config import in_words
from td3_driver.documents import in_short

_Count = Annotated[int, Field(ge=0, le=10**15)]
_Text = Annotated[str, Field(max_length=1000)]


class _Saved(BaseModel):
    model_config = ConfigDict(strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=_Saved)


class SavedWarning(_Saved):
    """A warning of `learning.health` that was in force."""

    check: _Text
    figure: _Text
    advice: _Text


class SavedHealth(_Saved):
    """The state of `learning.health`."""

    contrary: Annotated[dict[_Text, _Count], Field(max_length=100)]
    warnings: Annotated[list[SavedWarning], Field(max_length=100)]


class LearnerCounters(_Saved):
    """What every checkpoint's counters hold."""

    updates: _Count


class SavedValidation(_Saved):
    """The state of `learning.validation`."""

    examined_step: _Count
    passed_in_a_row: _Count
    best_completion: float


class SavedSettling(_Saved):
    """The state of `learning.settling`."""

    shares: Annotated[list[float], Field(max_length=1000)]
    settled: bool


class SavedCounters(LearnerCounters):
    """What the counters of a run in an environment hold."""

    step: _Count
    episodes: _Count
    returns: Annotated[list[float], Field(max_length=1000)]
    completions: Annotated[list[float], Field(max_length=1000)]
    health: SavedHealth
    validation: SavedValidation | None = None
    """None in those of older runs."""
    settling: SavedSettling | None = None
    """None where the ratio of updates to decisions stays."""
    environment: dict[str, Any]
    """The state of the environment's random stream, as numpy has it."""


def checked(kind: type[Kind], counters: Any) -> Kind:
    """Return counters as one of the kinds above; raises ValueError in one line."""
    try:
        return kind.model_validate(counters)
    except ValidationError as error:
        raise ValueError(in_short(in_words(error))) from None
