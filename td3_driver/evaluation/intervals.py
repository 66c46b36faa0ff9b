# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Estimates from few episodes, with 95 % intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2.0)


@dataclass(frozen=True)
class Estimate:
    """A figure and its interval; all None where nothing was driven to estimate it from."""

    value: float | None = None
    low: float | None = None
    high: float | None = None


def wilson(successes: int, trials: int) -> Estimate:
    """Return a share and Wilson's score interval (E. B. Wilson, JASA 22, 1927).

    Unlike the usual interval, it stays within [0, 1] and has a width where all or none succeed.
    """
    if trials == 0:
        return Estimate()
    share, z2 = successes / trials, _Z * _Z
    middle = (share + z2 / (2.0 * trials)) / (1.0 + z2 / trials)
    spread = math.sqrt(share * (1.0 - share) / trials + z2 / (4.0 * trials * trials))
    half = _Z * spread / (1.0 + z2 / trials)
    # Rounding must not leave the share itself outside.
    return Estimate(
        share, min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)
    )


def ratio(parts: np.ndarray, wholes: np.ndarray) -> Estimate:
    """Return sum(parts) / sum(wholes) over episodes, with a percentile bootstrap interval.

    Both are float64 (episodes,). The episodes are resampled, always alike, so equal episodes give
    equal intervals. With wholes of 1, it is a mean.
    """
    count = len(parts)
    if count == 0 or not wholes.sum() > 0.0:
        return Estimate()
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    tops, bottoms = parts[drawn].sum(axis=1), wholes[drawn].sum(axis=1)
    ratios = tops[bottoms > 0.0] / bottoms[bottoms > 0.0]
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(ratios, [tail, 100.0 - tail]).tolist()
    return Estimate(float(parts.sum() / wholes.sum()), low, high)


def rate(events: np.ndarray, exposures: np.ndarray) -> Estimate:
    """Return events per exposure, such as kilometres, with a bootstrap interval.

    Where there was no event, resampling would promise that there never is one: then the upper end
    is Poisson's exact one, -ln(0.025) = 3.69 events in the whole exposure.
    """
    found = ratio(events, exposures)
    if found.value != 0.0:
        return found
    return Estimate(0.0, 0.0, -math.log(0.5 - CONFIDENCE / 2.0) / float(exposures.sum()))
