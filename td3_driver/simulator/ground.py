# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A map's ground seen from above: asphalt, markings, verges and grass in one texture.

What a texel holds is for `Paints` to say: a colour, or what the ground is made of there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import cv2
import numpy as np

from td3_driver.looks import Colour
from td3_driver.roads.road_map import MarkedLine, RoadMap
from td3_driver.simulator.colours import Colours, brightened

_FINEST_PX_PER_M = 8.0
_MARGIN_M = 15.0
_FADE_M = 10.0
# Texels of the finest level: 72 MB, 3 bytes each. Larger maps get a coarser texture.
_MOST_TEXELS = 24_000_000
_LEVELS = 5
MID_GREY = 128
"""Brightness of a spot that is as bright as its surface on average."""
PAVEMENT_BRIGHTNESS = 1.35
"""Of pavements, relative to asphalt."""
_DASH_M, _DASH_GAP_M = 3.0, 4.5
# Fractional bits of the coordinates that cv2 draws with.
_SHIFT = 4

_SEALED = {"Driving", "Parking", "Bidirectional", "Stop", "Entry", "Exit", "OnRamp", "OffRamp"}
_SEALED |= {"Shoulder", "Biking"}
_PAVED = {"Sidewalk", "Median", "Border", "Curb"}


Surface = Literal["grass", "verge", "pavement", "asphalt"]
Line = Literal["white", "yellow"]


class Paints(Protocol):
    """What the ground is painted with: some channels for each texel, at most four."""

    @property
    def outside(self) -> Sequence[float]:
        """The plain grass beyond the texture."""

    def shades(self, surface: Surface) -> np.ndarray:
        """Return a surface at every brightness, uint8 (256, channels)."""

    def line(self, line: Line) -> Sequence[float]:
        """Return a marking."""


class ColourPaints:
    """Paints with colours: blue, green, red."""

    def __init__(self, colours: Colours) -> None:
        self._colours = colours
        self.outside = colours.grass

    def shades(self, surface: Surface) -> np.ndarray:
        """Return a surface's colour at every brightness; see `Paints`."""
        colours = {
            "grass": self._colours.grass,
            "verge": self._colours.verge,
            "pavement": brightened(self._colours.asphalt, PAVEMENT_BRIGHTNESS),
            "asphalt": self._colours.asphalt,
        }
        colour = colours[surface]
        steps = np.arange(256.0)[:, None] - MID_GREY
        # Brightness steps keep the hue: darker channels change less.
        shades = np.array(colour) * (1.0 + steps / max(colour))
        return np.clip(np.round(shades), 0.0, 255.0).astype(np.uint8)

    def line(self, line: Line) -> Colour:
        """Return a marking's colour."""
        return self._colours.yellow if line == "yellow" else self._colours.white


@dataclass(frozen=True, eq=False)
class Ground:
    """The ground texture at several resolutions, each half as fine as the one before."""

    levels: tuple[np.ndarray, ...]
    """uint8 (height, width, channels); row 0 is the largest y."""
    px_per_m: float
    """Resolution of the finest level."""
    left: float
    """x of the texture's left edge, metres."""
    top: float
    """y of the texture's upper edge, metres."""
    outside: Sequence[float]
    """The channels of the ground beyond the texture."""

    def from_map(self, level: int) -> np.ndarray:
        """Return the matrix (3, 3) from map x, y, 1 to texel column, row, 1 of a level.

        Texel centres are at integers, so the texture's corner is at -0.5.
        """
        scale = self.px_per_m / 2**level
        return np.array(
            [
                [scale, 0.0, -self.left * scale - 0.5],
                [0.0, -scale, self.top * scale - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )


def paint_ground(road_map: RoadMap, paints: Paints, seed: int) -> Ground:
    """Rasterise a map; equal arguments give equal textures.

    `seed` is that of the blotches.
    """
    low_x, low_y, high_x, high_y = road_map.bounds
    width = high_x - low_x + 2.0 * _MARGIN_M
    height = high_y - low_y + 2.0 * _MARGIN_M
    px_per_m = min(_FINEST_PX_PER_M, (_MOST_TEXELS / (width * height)) ** 0.5)
    shape = (int(np.ceil(height * px_per_m)), int(np.ceil(width * px_per_m)))
    left, top = low_x - _MARGIN_M, high_y + _MARGIN_M

    rng = np.random.default_rng(seed)
    grass = paints.shades("grass")
    image = _textured(rng, shape, grass, px_per_m, (0.5, 6.0, 25.0), (7.0, 9.0, 8.0))
    sealed, paved = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    to_texel = Ground((), px_per_m, left, top, paints.outside).from_map(0)
    for surface in road_map.surfaces:
        layer = sealed if surface.type in _SEALED else paved if surface.type in _PAVED else None
        if layer is not None:
            outline = np.vstack([surface.left, surface.right[::-1]])
            cv2.fillPoly(layer, [_fixed_point(to_texel, outline)], 255, cv2.LINE_AA, _SHIFT)
    # A worn strip of earth runs along the road before the grass begins.
    reach = 2 * round(0.8 * px_per_m) + 1
    verge = cv2.dilate(sealed, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach)))
    earth = paints.shades("verge")
    _blend(image, verge, _textured(rng, shape, earth, px_per_m, (0.4, 3.0), (8.0, 7.0)))
    # Pavements are drawn before the roads that cross them.
    slabs = paints.shades("pavement")
    _blend(image, paved, _textured(rng, shape, slabs, px_per_m, (0.5, 4.0), (4.0, 4.0)))
    asphalt = paints.shades("asphalt")
    _blend(image, sealed, _textured(rng, shape, asphalt, px_per_m, (0.3, 5.0), (4.0, 5.0)))
    for line in road_map.marked_lines:
        colour = paints.line("yellow" if line.colour == "Yellow" else "white")
        for stroke in _strokes(line):
            cv2.fillPoly(
                image, [_fixed_point(to_texel, stroke)], colour, cv2.LINE_AA, _SHIFT
            )  # fmt: skip

    levels = [image]
    for _ in range(_LEVELS - 1):
        levels.append(_halved(levels[-1]))
    return Ground(tuple(levels), px_per_m, left, top, paints.outside)


def _fixed_point(to_texel: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return map points (n, 2) as texel positions in cv2's fixed point, int32 (n, 2)."""
    texels = points @ to_texel[:2, :2].T + to_texel[:2, 2]
    return np.round(texels * 2**_SHIFT).astype(np.int32)


def _textured(
    rng: np.random.Generator,
    shape: tuple[int, int],
    shades: np.ndarray,
    px_per_m: float,
    sizes_m: tuple[float, ...],
    strengths: tuple[float, ...],
) -> np.ndarray:
    """Return a plane of one surface with blotches of the given sizes and brightness."""
    height, width = shape
    # Half the resolution is enough to show even the smallest blotches.
    half = ((width + 1) // 2, (height + 1) // 2)
    noise = np.zeros(half[::-1], np.float32)
    for size, strength in zip(sizes_m, strengths, strict=True):
        cells = max(2, round(height / (size * px_per_m))), max(2, round(width / (size * px_per_m)))
        coarse = rng.standard_normal(cells, np.float32) * np.float32(strength)
        noise += cv2.resize(coarse, half, interpolation=cv2.INTER_LINEAR)
    noise *= _fade(half[1], px_per_m)[:, None] * _fade(half[0], px_per_m)
    coarse_grey = np.clip(noise + MID_GREY, 0.0, 255.0).astype(np.uint8)
    grey = cv2.resize(coarse_grey, (width, height), interpolation=cv2.INTER_LINEAR)
    channels = shades.shape[1]
    return cv2.LUT(cv2.merge([grey] * channels), shades.reshape(256, 1, channels))


def _fade(count: int, px_per_m: float) -> np.ndarray:
    """Return a weight per half-resolution texel that falls to 0 at both edges.

    The texture then meets the plain ground outside it without a visible edge.
    """
    from_edge = np.minimum(np.arange(count), np.arange(count)[::-1])
    return np.clip(from_edge * 2.0 / (_FADE_M * px_per_m), 0.0, 1.0).astype(np.float32)


def _blend(image: np.ndarray, mask: np.ndarray, plane: np.ndarray) -> None:
    """Lay `plane` over `image` where `mask` (uint8, 255 = fully) covers it."""
    edge = (mask > 0) & (mask < 255)
    share = mask[edge].astype(np.float32)[:, None] / 255.0
    mixed = image[edge] * (1.0 - share) + plane[edge] * share
    cv2.copyTo(plane, mask, image)
    image[edge] = np.round(mixed)


def _halved(image: np.ndarray) -> np.ndarray:
    """Return the mean of every 2 x 2 texels; an odd last row or column repeats itself."""
    height, width = image.shape[:2]
    even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    return cv2.resize(even, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _strokes(line: MarkedLine) -> list[np.ndarray]:
    """Return the painted polygons of a line: one per dash, or one or two solid bands."""
    gap = line.width
    sides = {
        "Broken": [(0.0, True)],
        "SolidSolid": [(gap, False), (-gap, False)],
        "BrokenBroken": [(gap, True), (-gap, True)],
        "SolidBroken": [(gap, False), (-gap, True)],
        "BrokenSolid": [(gap, True), (-gap, False)],
        "BottsDots": [(0.0, True)],
    }.get(line.type, [(0.0, False)])
    if line.type in ("Grass", "Curb"):
        return []
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line.points, axis=0).T))])
    tangent = np.gradient(line.points, along, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    found = []
    for offset, dashed in sides:
        inner = line.points + normal * (offset - line.width / 2.0)
        outer = line.points + normal * (offset + line.width / 2.0)
        for begin, end in _spans(float(along[-1]), dashed):
            inside = along[(along > begin) & (along < end)]
            at = np.concatenate([[begin], inside, [end]])
            borders = [
                np.stack([np.interp(at, along, border[:, axis]) for axis in (0, 1)], axis=1)
                for border in (inner, outer)
            ]
            found.append(np.vstack([borders[0], borders[1][::-1]]))
    return found


def _spans(length: float, dashed: bool) -> list[tuple[float, float]]:
    """Return where along a line there is paint."""
    if not dashed:
        return [(0.0, length)]
    # The gap is adjusted so that a line begins and ends with half a gap: the lines of successive
    # roads then join without an overlong dash or gap.
    count = max(1, round(length / (_DASH_M + _DASH_GAP_M)))
    period = length / count
    dash = min(_DASH_M, period)
    return [
        ((index + 0.5) * period - dash / 2.0, (index + 0.5) * period + dash / 2.0)
        for index in range(count)
    ]
