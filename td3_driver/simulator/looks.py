# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How a world looks: colours and light, drawn at random from a seed and the map's name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

Colour = tuple[float, float, float]
"""Blue, green, red in [0, 255]."""


def brightened(colour: Colour, factor: float) -> Colour:
    """Return a colour with all channels multiplied by `factor`, at most 255."""
    blue, green, red = (min(255.0, factor * channel) for channel in colour)
    return blue, green, red


@dataclass(frozen=True)
class Looks:
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
_USUAL: dict[str, tuple[Colour, Colour]] = {
    "sky_top": ((205.0, 150.0, 95.0), (35.0, 30.0, 30.0)),
    "sky_horizon": ((232.0, 220.0, 208.0), (18.0, 18.0, 22.0)),
    "hills": ((92.0, 104.0, 82.0), (25.0, 20.0, 20.0)),
    "grass": ((52.0, 118.0, 88.0), (18.0, 25.0, 32.0)),
    "verge": ((92.0, 128.0, 128.0), (20.0, 20.0, 25.0)),
    "asphalt": ((92.0, 90.0, 88.0), (6.0, 6.0, 6.0)),
    "white": ((226.0, 230.0, 232.0), (12.0, 12.0, 12.0)),
    "yellow": ((62.0, 182.0, 222.0), (16.0, 14.0, 14.0)),
}


def draw_looks(seed: int, map_name: str) -> Looks:
    """Return the looks of a map for a seed; equal arguments give equal looks."""
    # crc32 rather than hash(), which differs between processes.
    rng = np.random.default_rng([seed, zlib.crc32(map_name.encode())])
    light = rng.uniform(0.75, 1.12)
    asphalt_tone = rng.uniform(-22.0, 22.0)
    colours = {}
    for name, (usual, spread) in _USUAL.items():
        colour = np.array(usual) + np.array(spread) * rng.uniform(-1.0, 1.0, 3)
        if name == "asphalt":
            colour += asphalt_tone
        colours[name] = tuple(np.clip(colour * light, 0.0, 255.0).tolist())
    return Looks(**colours, seed=int(rng.integers(2**31)))
