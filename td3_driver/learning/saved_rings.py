# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A replay buffer's rings as they are saved: checked, and spread over another number of rings."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from td3_driver.learning.normalization import Returns

CONTENTS = ("images", "vectors", "actions", "rewards", "terminated")
"""What slots hold of themselves."""
STORED = (*CONTENTS, "stacked", "priorities", "transitions")
RETURNS = "returns"
"""The fields of `Returns`, float64 (4,)."""
_OF_RING = re.compile(r"ring(\d+)\.(\w+)")

State = dict[str, Tensor]


def prefix(ring: int, rings: int) -> str:
    """Return what the names of a ring's tensors begin with: nothing where there is but one."""
    return f"ring{ring}." if rings > 1 else ""


def split(state: Mapping[str, Tensor]) -> list[State]:
    """Return the state of each ring; raises ValueError where one is missing."""
    if "counters" in state:
        return [{name: state[name] for name in (*STORED, "counters")}]
    rings: dict[int, State] = {}
    for name, tensor in state.items():
        if found := _OF_RING.fullmatch(name):
            rings.setdefault(int(found[1]), {})[found[2]] = tensor
    whole = [ring for ring, tensors in rings.items() if {*STORED, "counters"} <= set(tensors)]
    if not rings or sorted(whole) != list(range(len(rings))):
        raise ValueError("the saved replay lacks a ring, or a part of one: it is damaged")
    return [rings[ring] for ring in range(len(rings))]


def slots(state: Mapping[str, Tensor]) -> int:
    """Return the number of slots in use, in all rings together."""
    return sum(len(ring["images"]) for ring in split(state))


def returns(state: Mapping[str, Tensor], discount: float) -> Returns:
    """Return what was known of the returns; raises ValueError if that cannot be.

    Older checkpoints lack it: then it is that of the transitions that are left.
    """
    if RETURNS not in state:
        return _met_again(split(state), discount)
    saved = state[RETURNS]
    if saved.shape != (4,) or not saved.isfinite().all() or (saved[[0, 2, 3]] < 0.0).any():
        raise ValueError("the saved replay's returns are damaged")
    count, mean, squares, largest = saved.tolist()
    return Returns(int(count), mean, squares, largest)


def _met_again(rings: Sequence[State], discount: float) -> Returns:
    """Return what the transitions in rings say of the returns."""
    known = Returns()
    for ring in rings:
        used, added = len(ring["rewards"]), int(ring["counters"][0])
        rows = np.arange(added - used, added) % max(used, 1)
        so_far = 0.0
        starts, rewards = ring["priorities"].numpy()[rows] > 0.0, ring["rewards"].numpy()[rows]
        for start, reward in zip(starts.tolist(), rewards.tolist(), strict=True):
            so_far = discount * so_far + reward if start else 0.0
            known = known.and_one(so_far) if start else known
    return known


def check(state: State, shapes: Mapping[str, Tensor], stack: int, capacity: int | None) -> None:
    """Raise ValueError unless a ring's state fits tensors of these shapes and is whole.

    `capacity` is that of the ring that it is for; None where it may have been any.
    """
    used = len(state["images"])
    limit = used if capacity is None else capacity
    for name in STORED:
        mine, saved = shapes[name], state[name]
        fits = saved.shape[1:] == mine.shape[1:] and saved.dtype == mine.dtype
        if not fits or len(saved) != used or used > limit:
            raise ValueError(
                f"the saved replay's {name} are {tuple(saved.shape)} of {saved.dtype}; this "
                f"buffer takes up to {(limit, *mine.shape[1:])} of {mine.dtype}"
            )
    if state["counters"].shape != (3,):
        raise ValueError("the saved replay's counters are damaged")
    added, first, end = state["counters"].tolist()
    if added > used and used != limit:
        raise ValueError(
            f"the saved replay was full with {used} slots; this buffer has {limit}: "
            "set learning.replay_capacity to the saved value"
        )
    if added < used or not _is_whole(state, max(limit, 1), stack, added, first, end):
        raise ValueError("the saved replay contradicts itself: it is damaged")


def _is_whole(state: State, capacity: int, stack: int, added: int, first: int, end: int) -> bool:
    """Return whether a saved state's transitions lead to what was saved, and to numbers."""
    numbers = ("vectors", "actions", "rewards", "priorities")
    if not all(bool(state[name].isfinite().all()) for name in numbers):
        return False
    used, oldest = len(state["images"]), max(added - capacity, 0)
    if not (0 <= first <= end <= added and end - first <= used):
        return False
    stacked, priorities = state["stacked"].numpy(), state["priorities"].numpy()
    places = np.arange(first, end) % capacity
    if len(places) and places.max() >= used:
        return False
    starts = state["transitions"].numpy()[places]
    if len(starts) and not (oldest <= starts.min() and starts.max() < added - 1):
        return False
    rows = starts % capacity
    reached = starts - stacked[rows].astype(np.int64)
    elsewhere = np.delete(priorities, rows)
    return bool(
        stacked.max(initial=0) < stack
        and reached.min(initial=oldest) >= oldest
        and (priorities >= 0.0).all()
        and not elsewhere.any()
    )


def spread(saved: Sequence[State], rings: int, capacity: int) -> list[State]:
    """Return the states of `rings` rings of this capacity that hold what was `saved` in others.

    Episodes stay whole. They go, oldest first, to the ring that holds the least; where that is
    more than it can hold, it loses the oldest, as if they had been added one after the other.
    """
    stretches = [
        stretch for number, ring in enumerate(saved) for stretch in _stretches(number, ring)
    ]
    held: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(rings)]
    sizes = [0] * rings
    for _, number, rows in sorted(stretches, key=lambda stretch: -stretch[0]):
        ring = sizes.index(min(sizes))
        held[ring].append((number, rows))
        sizes[ring] += len(rows)
    return [_put_together(saved, parts, capacity) for parts in held]


def _stretches(number: int, ring: State) -> list[tuple[int, int, np.ndarray]]:
    """Cut a ring where neither a stack nor a transition reaches across.

    Returns each stretch's age in slots, the ring's number and its rows, oldest first.
    """
    used, added = len(ring["images"]), int(ring["counters"][0])
    if not used:
        return []
    rows = np.arange(added - used, added) % used
    starts, stacked = ring["priorities"].numpy()[rows] > 0.0, ring["stacked"].numpy()[rows]
    cuts = np.flatnonzero(~starts[:-1] & (stacked[1:] == 0)) + 1
    bounds = [0, *cuts.tolist(), used]
    return [(used - end, number, rows[begin:end]) for begin, end in itertools.pairwise(bounds)]


def _put_together(
    saved: Sequence[State], parts: Sequence[tuple[int, np.ndarray]], capacity: int
) -> State:
    """Return the state of a ring that holds some rows of other rings, one after the other."""

    def kept(name: str) -> Tensor:
        chosen = [saved[number][name][torch.from_numpy(rows)] for number, rows in parts]
        return torch.cat([saved[0][name][:0], *chosen])[-capacity:]

    state = {name: kept(name) for name in (*CONTENTS, "stacked", "priorities")}
    places = torch.arange(len(state["stacked"]))
    # A stack of the first ones may have reached back to what no longer fits.
    alive = (state["priorities"] > 0.0) & (state["stacked"] <= places)
    state["priorities"] = state["priorities"] * alive
    starts = places[alive]
    state["transitions"] = torch.zeros_like(places)
    state["transitions"][: len(starts)] = starts
    state["counters"] = torch.tensor([len(places), 0, len(starts)])
    return state
