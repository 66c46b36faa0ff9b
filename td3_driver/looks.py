# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How an episode looks: its weather, the colours beside the road, and the camera's own faults.

Eight looks have names to train on, and four more are held out: no level draws what they look like.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields, replace
from typing import get_args

import numpy as np

from td3_driver.config import HeldOutLook, LookLevel, SimulatorConfig, TrainingLook

Colour = tuple[float, float, float]
"""Blue, green, red in [0, 255]."""

TRAINING: tuple[TrainingLook, ...] = get_args(TrainingLook)
HELD_OUT: tuple[HeldOutLook, ...] = get_args(HeldOutLook)


@dataclass(frozen=True)
class Weather:
    """Weather and sun, field for field `carla_msgs/CarlaWeatherParameters`.

    In percent, except for `fog_distance` in metres and the sun's angles in degrees, its azimuth
    clockwise.
    """

    cloudiness: float = 10.0
    precipitation: float = 0.0
    precipitation_deposits: float = 0.0
    wind_intensity: float = 10.0
    fog_density: float = 0.0
    fog_distance: float = 0.0
    wetness: float = 0.0
    sun_azimuth_angle: float = 0.0
    sun_altitude_angle: float = 50.0

    def bounded(self) -> Weather:
        """Return the weather with every value in CARLA's range."""
        bounds = {
            "fog_distance": (0.0, np.inf),
            "sun_azimuth_angle": (-np.inf, np.inf),
            "sun_altitude_angle": (-90.0, 90.0),
        }
        values = {
            field.name: float(
                np.clip(getattr(self, field.name), *bounds.get(field.name, (0.0, 100.0)))
            )
            for field in fields(self)
        }
        return Weather(**values)


@dataclass(frozen=True)
class Surfaces:
    """Colours in plain daylight."""

    hills: Colour
    grass: Colour
    verge: Colour
    asphalt: Colour
    white: Colour
    yellow: Colour
    vehicles: Colour = (1.0, 1.0, 1.0)
    """Factors of the other vehicles' paint."""


@dataclass(frozen=True)
class Optics:
    """What the camera adds: how it is mounted, exposed and focused."""

    exposure: float = 1.0
    noise: float = 0.0
    """Standard deviation, in grey levels of 256."""
    blur: float = 0.0
    """Standard deviation, in 160ths of the image's width."""
    pitch_deg: float = 0.0
    """Added to the camera's pitch, + = down."""
    height_m: float = 0.0
    """Added to the camera's height."""


@dataclass(frozen=True)
class Look:
    """How everything looks in one episode."""

    weather: Weather
    surfaces: Surfaces
    optics: Optics = Optics()
    seed: int = 0
    """Seed of the camera's noise."""


USUAL: dict[str, tuple[Colour, Colour]] = {
    "hills": ((92.0, 104.0, 82.0), (25.0, 20.0, 20.0)),
    "grass": ((52.0, 118.0, 88.0), (18.0, 25.0, 32.0)),
    "verge": ((92.0, 128.0, 128.0), (20.0, 20.0, 25.0)),
    "asphalt": ((92.0, 90.0, 88.0), (6.0, 6.0, 6.0)),
    "white": ((226.0, 230.0, 232.0), (12.0, 12.0, 12.0)),
    "yellow": ((62.0, 182.0, 222.0), (16.0, 14.0, 14.0)),
}
"""For each surface, the usual colour and its deviation per channel, which levels multiply."""
ASPHALT_TONE = 22.0
"""Deviation of all of the asphalt's channels together."""


@dataclass(frozen=True)
class Reach:
    """How far a level's draws go: the largest value unless said."""

    cloudiness: float
    precipitation: float
    wetness: float
    fog_density: float
    lowest_sun_deg: float
    colours: float
    """Factor of the usual colours' deviations."""
    paint: float
    """Share by which the other vehicles' paint may differ."""
    exposure: float
    """Share by which the exposure may differ."""
    noise: float
    blur: float
    pitch_deg: float
    """In either direction, as the height."""
    height_m: float


REACH: dict[LookLevel, Reach] = {
    "mild": Reach(
        cloudiness=40.0,
        precipitation=0.0,
        wetness=15.0,
        fog_density=8.0,
        lowest_sun_deg=35.0,
        colours=0.8,
        paint=0.1,
        exposure=0.05,
        noise=2.0,
        blur=0.6,
        pitch_deg=0.4,
        height_m=0.03,
    ),
    "strong": Reach(
        cloudiness=80.0,
        precipitation=40.0,
        wetness=60.0,
        fog_density=30.0,
        lowest_sun_deg=12.0,
        colours=1.5,
        paint=0.35,
        exposure=0.12,
        noise=5.0,
        blur=0.9,
        pitch_deg=1.5,
        height_m=0.12,
    ),
}
"""Levels draw only from what is trained on: the held-out looks are beyond the strongest."""
_HIGHEST_SUN_DEG = 75.0


def episode_look(config: SimulatorConfig, start_seed: int, map_name: str) -> Look | None:
    """Return the look that the settings give an episode; None where they leave the map as it is.

    Equal arguments give equal looks.
    """
    # crc32 rather than hash(), which differs between processes.
    rng = np.random.default_rng([config.seed, start_seed, zlib.crc32(map_name.encode())])
    if config.look == "drawn":
        return None if config.looks == "off" else draw_look(REACH[config.looks], rng)
    if config.look == "training":
        return NAMED[TRAINING[int(rng.integers(len(TRAINING)))]]
    if config.look == "held_out":
        return NAMED[HELD_OUT[int(rng.integers(len(HELD_OUT)))]]
    return NAMED[config.look]


def look_under(config: SimulatorConfig, weather: Weather, map_name: str) -> Look | None:
    """Return a world's look if only its weather is known; None where it is the map's own.

    With named looks, the weather shows which of them it is. Otherwise, what it says nothing about
    is drawn, equally for equal weathers.
    """
    seed = seed_of(weather)
    named = () if config.look == "drawn" else NAMED.values()
    look = next((look for look in named if seed_of(look.weather) == seed), None)
    look = look or episode_look(config, seed, map_name)
    return look and replace(look, weather=weather.bounded())


def seed_of(weather: Weather) -> int:
    """Return a seed that belongs to a weather, as exactly as messages carry it."""
    values = [getattr(weather, field.name) for field in fields(weather)]
    return zlib.crc32(np.array(values, np.float32).tobytes())


def draw_look(reach: Reach, rng: np.random.Generator) -> Look:
    """Draw a look."""
    weather = _drawn_weather(reach, rng)
    return Look(
        weather, _drawn_surfaces(reach, rng), _drawn_optics(reach, rng), int(rng.integers(2**31))
    )


def _drawn_weather(reach: Reach, rng: np.random.Generator) -> Weather:
    def sometimes(most: float) -> float:
        """Draw up to `most`, and 0 half the time."""
        return max(0.0, float(rng.uniform(-most, most)))

    rain = sometimes(reach.precipitation)
    wetness = max(rain, sometimes(reach.wetness))
    return Weather(
        # It does not rain from a clear sky.
        cloudiness=max(float(rng.uniform(0.0, reach.cloudiness)), 2.0 * rain),
        precipitation=rain,
        precipitation_deposits=0.8 * wetness,
        fog_density=sometimes(reach.fog_density),
        fog_distance=float(rng.uniform(0.0, 30.0)),
        wetness=wetness,
        sun_azimuth_angle=float(rng.uniform(0.0, 360.0)),
        sun_altitude_angle=float(rng.uniform(reach.lowest_sun_deg, _HIGHEST_SUN_DEG)),
    )


def _drawn_surfaces(reach: Reach, rng: np.random.Generator) -> Surfaces:
    tone = rng.uniform(-1.0, 1.0) * ASPHALT_TONE
    colours: dict[str, Colour] = {}
    for name, (usual, spread) in USUAL.items():
        away = np.array(spread) * rng.uniform(-1.0, 1.0, 3) + tone * (name == "asphalt")
        blue, green, red = np.clip(np.array(usual) + reach.colours * away, 0.0, 255.0).tolist()
        colours[name] = blue, green, red
    blue, green, red = rng.uniform(1.0 - reach.paint, 1.0 + reach.paint, 3).tolist()
    return Surfaces(**colours, vehicles=(blue, green, red))


def _drawn_optics(reach: Reach, rng: np.random.Generator) -> Optics:
    exposure, pitch, height = rng.uniform(-1.0, 1.0, 3).tolist()
    noise, blur = rng.uniform(0.0, 1.0, 2).tolist()
    return Optics(
        exposure=1.0 + reach.exposure * exposure,
        noise=reach.noise * noise,
        blur=reach.blur * blur,
        pitch_deg=reach.pitch_deg * pitch,
        height_m=reach.height_m * height,
    )


def _surfaces(**given: Colour) -> Surfaces:
    """Return the usual colours, except for those given."""
    return Surfaces(**{**{name: usual for name, (usual, _) in USUAL.items()}, **given})


NAMED: dict[TrainingLook | HeldOutLook, Look] = {
    "clear_noon": Look(Weather(sun_altitude_angle=70.0), _surfaces()),
    "overcast": Look(
        Weather(cloudiness=80.0),
        _surfaces(asphalt=(80.0, 78.0, 76.0)),
        Optics(noise=1.5),
        seed=1,
    ),
    "morning_haze": Look(
        Weather(fog_density=26.0, sun_altitude_angle=22.0, sun_azimuth_angle=100.0),
        _surfaces(grass=(64.0, 124.0, 92.0)),
        Optics(blur=0.7),
        seed=2,
    ),
    "evening_sun": Look(
        Weather(cloudiness=25.0, sun_altitude_angle=13.0, sun_azimuth_angle=250.0),
        _surfaces(vehicles=(0.8, 0.9, 1.1)),
        Optics(noise=3.0, pitch_deg=-0.8),
        seed=3,
    ),
    "after_rain": Look(
        Weather(cloudiness=40.0, precipitation_deposits=46.0, wetness=58.0),
        _surfaces(grass=(48.0, 128.0, 72.0)),
        Optics(exposure=1.08),
        seed=4,
    ),
    "drizzle": Look(
        Weather(
            cloudiness=80.0,
            precipitation=35.0,
            precipitation_deposits=30.0,
            wetness=40.0,
            fog_density=14.0,
            sun_altitude_angle=35.0,
        ),
        _surfaces(asphalt=(70.0, 68.0, 66.0)),
        Optics(noise=4.0, blur=0.7, height_m=-0.08),
        seed=5,
    ),
    "pale_road": Look(
        Weather(sun_altitude_angle=60.0),
        _surfaces(asphalt=(130.0, 130.0, 129.0), verge=(110.0, 148.0, 158.0)),
        Optics(pitch_deg=1.0, height_m=0.08),
        seed=6,
    ),
    "worn_lines": Look(
        Weather(cloudiness=30.0, sun_altitude_angle=40.0),
        _surfaces(
            asphalt=(84.0, 84.0, 84.0),
            white=(209.0, 213.0, 215.0),
            yellow=(84.0, 164.0, 203.0),
            grass=(74.0, 138.0, 132.0),
        ),
        Optics(exposure=0.92, blur=0.7, noise=2.0),
        seed=7,
    ),
    "thick_fog": Look(
        Weather(cloudiness=60.0, fog_density=65.0, sun_altitude_angle=40.0),
        _surfaces(),
        Optics(noise=1.0),
        seed=8,
    ),
    "dusk": Look(
        Weather(cloudiness=30.0, sun_altitude_angle=-1.0, sun_azimuth_angle=300.0),
        _surfaces(),
        Optics(noise=4.0),
        seed=9,
    ),
    "downpour": Look(
        Weather(
            cloudiness=100.0,
            precipitation=85.0,
            precipitation_deposits=95.0,
            fog_density=18.0,
            wetness=100.0,
            sun_altitude_angle=35.0,
        ),
        _surfaces(),
        Optics(noise=3.0, blur=0.7),
        seed=10,
    ),
    "red_earth": Look(
        Weather(sun_altitude_angle=55.0),
        _surfaces(
            hills=(70.0, 100.0, 150.0),
            grass=(72.0, 140.0, 176.0),
            verge=(40.0, 72.0, 168.0),
            asphalt=(84.0, 104.0, 160.0),
        ),
        seed=11,
    ),
}
"""The looks with names; the last four are the ones held out."""
