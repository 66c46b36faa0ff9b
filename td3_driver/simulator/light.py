# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What a weather does to colours: daylight, the sky's colours, haze, and a wet road."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from td3_driver.looks import Colour, Look, Weather
from td3_driver.simulator.colours import Colours, mixed

Distance = TypeVar("Distance", float, np.ndarray)

_CLEAR_TOP: Colour = (205.0, 150.0, 95.0)
_CLEAR_HORIZON: Colour = (232.0, 220.0, 208.0)
_CLOUDS_TOP: Colour = (182.0, 176.0, 170.0)
_CLOUDS_HORIZON: Colour = (212.0, 208.0, 204.0)
_LOW_SUN_TOP: Colour = (178.0, 126.0, 96.0)
_LOW_SUN_HORIZON: Colour = (128.0, 176.0, 240.0)
_NIGHT_TOP: Colour = (150.0, 105.0, 80.0)
_NIGHT_HORIZON: Colour = (170.0, 140.0, 120.0)
_FOG: Colour = (214.0, 212.0, 208.0)


@dataclass(frozen=True)
class Air:
    """What lies between the camera and what it sees."""

    haze_starts_m: float = 50.0
    haze_full_m: float = 160.0
    fog: float = 0.0
    """Density, in [0, 1]: how much of the horizon is fog."""
    fog_colour: Colour = _FOG

    def hidden(self, distance_m: Distance) -> Distance:
        """Return the share of haze before what is that far away; not clipped to [0, 1]."""
        return (distance_m - self.haze_starts_m) / (self.haze_full_m - self.haze_starts_m)


@dataclass(frozen=True)
class Scene:
    """A look with its light applied."""

    colours: Colours
    air: Air
    light: Colour
    """Factors of the colours of everything that daylight falls on."""
    vehicles: Colour
    """Factors of the other vehicles' paint, with the light."""
    wetness: float
    """Of the road, in [0, 1]."""
    sun_azimuth: float
    """Radians in the map's axes, + = left."""
    glow: float
    """How much of the sky around the sun's azimuth is brighter, in [0, 1]."""


def lit(look: Look, seed: int) -> Scene:
    """Return a look with its light applied; `seed` is that of the textures and the skyline."""
    weather, surfaces = look.weather, look.surfaces
    light = daylight(weather, look.optics.exposure)
    strength = max(light)
    clouds, low, night = weather.cloudiness / 100.0, _low_sun(weather), _night(weather)
    top = mixed(mixed(_CLEAR_TOP, _LOW_SUN_TOP, low), _NIGHT_TOP, night)
    horizon = mixed(mixed(_CLEAR_HORIZON, _LOW_SUN_HORIZON, low), _NIGHT_HORIZON, night)
    colours = Colours(
        sky_top=_times(mixed(top, _CLOUDS_TOP, clouds), strength),
        sky_horizon=_times(mixed(horizon, _CLOUDS_HORIZON, clouds), strength),
        hills=_under(surfaces.hills, light),
        grass=_under(surfaces.grass, light),
        verge=_under(surfaces.verge, light),
        asphalt=_under(surfaces.asphalt, light),
        white=_under(surfaces.white, light),
        yellow=_under(surfaces.yellow, light),
        seed=seed,
    )
    # CARLA's angles are clockwise.
    azimuth = math.remainder(-math.radians(weather.sun_azimuth_angle), math.tau)
    return Scene(
        colours=colours,
        air=_air(weather, strength),
        light=light,
        vehicles=_under(surfaces.vehicles, light),
        wetness=wetness(weather),
        sun_azimuth=azimuth,
        glow=0.5 * (1.0 - clouds) * max(low, 0.3) * (1.0 - night),
    )


def daylight(weather: Weather, exposure: float = 1.0) -> Colour:
    """Return the factors that daylight has for blue, green and red: about 1 on a clear day."""
    risen = _smooth((weather.sun_altitude_angle + 8.0) / 33.0)
    clouds = weather.cloudiness / 100.0
    # The camera's automatic exposure gives back a part of what is missing.
    strength = 1.08 * ((0.16 + 0.84 * risen) * (1.0 - 0.35 * clouds)) ** 0.7 * exposure
    warm, night = _low_sun(weather), _night(weather)
    return (
        strength * (1.0 - 0.32 * warm + 0.20 * night + 0.03 * clouds),
        strength * (1.0 - 0.10 * warm),
        strength * (1.0 + 0.06 * warm - 0.20 * night - 0.03 * clouds),
    )


def wetness(weather: Weather) -> float:
    """Return how wet the road is, in [0, 1]: rained on, or with puddles."""
    wettest = max(
        weather.wetness, 0.8 * weather.precipitation_deposits, 0.6 * weather.precipitation
    )
    return wettest / 100.0


def _air(weather: Weather, strength: float) -> Air:
    """Return the haze: the usual at a fog density of 0, and 18 m of sight at 100."""
    # Rain hides what is far away, too.
    fog = min(1.0, weather.fog_density / 100.0 + 0.15 * weather.precipitation / 100.0)
    full_m = 18.0 + 142.0 * (1.0 - fog) ** 2
    starts_m = 50.0 * (1.0 - fog) ** 3
    if fog > 0.0:
        starts_m = min(max(starts_m, weather.fog_distance), 0.8 * full_m)
    return Air(starts_m, full_m, fog, _times(_FOG, strength))


def _low_sun(weather: Weather) -> float:
    """Return how red the light of a low sun is, in [0, 1]; clouds hide it."""
    away = (weather.sun_altitude_angle - 5.0) / 12.0
    return math.exp(-away * away) * (1.0 - 0.8 * weather.cloudiness / 100.0)


def _night(weather: Weather) -> float:
    return _smooth(-weather.sun_altitude_angle / 12.0)


def _smooth(share: float) -> float:
    share = min(max(share, 0.0), 1.0)
    return share * share * (3.0 - 2.0 * share)


def _under(colour: Colour, light: Colour) -> Colour:
    blue, green, red = (one * factor for one, factor in zip(colour, light, strict=True))
    return blue, green, red


def _times(colour: Colour, strength: float) -> Colour:
    return _under(colour, (strength, strength, strength))
