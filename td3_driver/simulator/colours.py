# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The colours of a world, with the light on them: a map's own, drawn from a seed and its name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from td3_driver.looks import ASPHALT_TONE, USUAL, Colour


def brightened(colour: Colour, factor: float) -> Colour:
    """Return a colour with all channels multiplied by `factor`, at most 255."""
    blue, green, red = colour
    return min(255.0, factor * blue), min(255.0, factor * green), min(255.0, factor * red)


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """Return a colour with a share of another."""
    blue, green, red = colour
    other_blue, other_green, other_red = other
    return (
        blue + (other_blue - blue) * share,
        green + (other_green - green) * share,
        red + (other_red - red) * share,
    )


@dataclass(frozen=True)
class Colours:
    """Colours of everything that is drawn, with the light already applied."""

    sky_top: Colour
    sky_horizon: Colour
    hills: Colour
    grass: Colour
    verge: Colour
    asphalt: Colour
    white: Colour
    yellow: Colour
    seed: int
    """Seed of the noise in the textures and the skyline."""


# For each, the usual colour and the largest random deviation from it, per channel.
_SKY: dict[str, tuple[Colour, Colour]] = {
    "sky_top": ((205.0, 150.0, 95.0), (35.0, 30.0, 30.0)),
    "sky_horizon": ((232.0, 220.0, 208.0), (18.0, 18.0, 22.0)),
}


def draw_colours(seed: int, map_name: str) -> Colours:
    """Return the colours of a map for a seed; equal arguments give equal colours."""
    # crc32 rather than hash(), which differs between processes.
    rng = np.random.default_rng([seed, zlib.crc32(map_name.encode())])
    light = rng.uniform(0.75, 1.12)
    asphalt_tone = rng.uniform(-ASPHALT_TONE, ASPHALT_TONE)
    colours = {}
    for name, (usual, spread) in {**_SKY, **USUAL}.items():
        colour = np.array(usual) + np.array(spread) * rng.uniform(-1.0, 1.0, 3)
        if name == "asphalt":
            colour += asphalt_tone
        colours[name] = tuple(np.clip(colour * light, 0.0, 255.0).tolist())
    return Colours(**colours, seed=int(rng.integers(2**31)))
