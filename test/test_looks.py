# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Looks: what levels draw, what is held out, and that it is repeatable."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from td3_driver.config import Config, ConfigError, SimulatorConfig, load, override
from td3_driver.launching.settings import setting_overrides
from td3_driver.looks import (
    ASPHALT_TONE,
    HELD_OUT,
    NAMED,
    REACH,
    TRAINING,
    USUAL,
    Look,
    Reach,
    Weather,
    episode_look,
    look_under,
    seed_of,
)

SEEDS = 2000


def beyond(look: Look, reach: Reach) -> dict[str, float]:
    """Return how far beyond a level's reach each quantity is, as a share of it, where it is."""
    weather, optics = look.weather, look.optics
    found = {
        "cloudiness": weather.cloudiness / reach.cloudiness - 1.0,
        "wetness": weather.wetness / reach.wetness - 1.0,
        "puddles": weather.precipitation_deposits / reach.wetness - 1.0,
        "fog": weather.fog_density / reach.fog_density - 1.0,
        "sun": 1.0 - weather.sun_altitude_angle / reach.lowest_sun_deg,
        "exposure": abs(optics.exposure - 1.0) / reach.exposure - 1.0,
        "noise": optics.noise / reach.noise - 1.0,
        "blur": optics.blur / reach.blur - 1.0,
        "pitch": abs(optics.pitch_deg) / reach.pitch_deg - 1.0,
        "height": abs(optics.height_m) / reach.height_m - 1.0,
        "paint": float(np.abs(np.array(look.surfaces.vehicles) - 1.0).max()) / reach.paint - 1.0,
    }
    if weather.precipitation or reach.precipitation:
        rain = reach.precipitation or 1e-9
        found["rain"] = weather.precipitation / rain - 1.0
    for name, (usual, spread) in USUAL.items():
        tone = ASPHALT_TONE if name == "asphalt" else 0.0
        away = np.abs(np.array(getattr(look.surfaces, name)) - usual) / (np.array(spread) + tone)
        found[name] = float(away.max()) / reach.colours - 1.0
    return {name: share for name, share in found.items() if share > 1e-9}


@pytest.mark.parametrize("level", ["mild", "strong"])
def test_no_level_draws_what_is_held_out(level: str) -> None:
    held_out = {
        name: max(shares, key=shares.__getitem__)
        for name in HELD_OUT
        if (shares := beyond(NAMED[name], REACH["strong"]))
    }
    assert set(held_out) == set(HELD_OUT)
    config = SimulatorConfig(looks=level)
    for seed in range(SEEDS):
        look = episode_look(config, seed, "ring_meadow")
        assert look is not None
        assert not beyond(look, REACH[level]), seed


def test_the_looks_to_train_on_are_within_reach_and_the_others_far_beyond() -> None:
    assert (len(TRAINING), len(HELD_OUT)) == (8, 4)
    assert set(NAMED) == {*TRAINING, *HELD_OUT}
    for name in TRAINING:
        assert not beyond(NAMED[name], REACH["strong"]), name
    for name in HELD_OUT:
        assert max(beyond(NAMED[name], REACH["strong"]).values()) > 0.3, name
    assert len({look.seed for look in NAMED.values()}) == len(NAMED)


def test_mild_is_within_strong() -> None:
    for field in fields(Reach):
        mild, strong = (getattr(REACH[level], field.name) for level in ("mild", "strong"))
        assert strong < mild if field.name == "lowest_sun_deg" else mild < strong


def test_looks_follow_both_seeds_and_the_map() -> None:
    draw = partial(episode_look, SimulatorConfig(looks="strong", seed=3))
    assert draw(5, "a") == draw(5, "a")
    other = episode_look(SimulatorConfig(looks="strong", seed=4), 5, "a")
    assert len({draw(5, "a"), draw(6, "a"), draw(5, "b"), other}) == 4
    assert episode_look(SimulatorConfig(), 5, "a") is None


def test_off_needs_no_quotes(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    for text, level in (("off", "off"), ("strong", "strong")):
        file.write_text(f"/**: {{ros__parameters: {{simulator: {{looks: {text}}}}}}}")
        assert load(file).simulator.looks == level
    base = override(Config(), {"simulator.looks": "strong"}, "the test")
    given = setting_overrides(["simulator.looks=off"], base)
    assert given == {"simulator.looks": "off"}
    with pytest.raises(ConfigError, match=r"simulator\.looks"):
        override(Config(), {"simulator.looks": True}, "the test")


def test_all_kinds_of_weather_are_drawn() -> None:
    config = SimulatorConfig(looks="strong")
    drawn = [episode_look(config, seed, "a") for seed in range(200)]
    weathers = [look.weather for look in drawn if look is not None]
    for quantity in ("wetness", "fog_density", "precipitation"):
        some = sum(getattr(weather, quantity) > 0.0 for weather in weathers)
        assert 60 < some < 160, quantity
    assert all(weather.cloudiness >= weather.precipitation for weather in weathers)


@pytest.mark.parametrize("group, names", [("training", TRAINING), ("held_out", HELD_OUT)])
def test_a_group_gives_each_of_its_looks_and_no_other(group: str, names: tuple) -> None:
    config = SimulatorConfig(look=group)
    drawn = {episode_look(config, seed, "a") for seed in range(200)}
    assert drawn == {NAMED[name] for name in names}


def test_a_named_look_is_every_episodes_whatever_the_level() -> None:
    for level in ("off", "strong"):
        config = SimulatorConfig(looks=level, look="dusk")
        assert {episode_look(config, seed, "a") for seed in range(5)} == {NAMED["dusk"]}


def test_a_weather_is_brought_into_range() -> None:
    odd = Weather(
        cloudiness=-5.0,
        fog_density=300.0,
        fog_distance=-1.0,
        wetness=1e9,
        sun_altitude_angle=100.0,
    )
    assert odd.bounded() == replace(
        odd,
        cloudiness=0.0,
        fog_density=100.0,
        fog_distance=0.0,
        wetness=100.0,
        sun_altitude_angle=90.0,
    )
    assert all(look.weather.bounded() == look.weather for look in NAMED.values())


def test_a_named_look_is_known_by_its_weather() -> None:
    config = SimulatorConfig(look="training")
    assert len({seed_of(look.weather) for look in NAMED.values()}) == len(NAMED)
    for name in TRAINING:
        assert look_under(config, NAMED[name].weather, "a") == NAMED[name]
    other = look_under(config, Weather(wetness=33.0), "a")
    assert other is not None and other.weather == Weather(wetness=33.0)
    assert look_under(SimulatorConfig(), NAMED["dusk"].weather, "a") is None
    drawn = look_under(SimulatorConfig(looks="strong"), NAMED["dusk"].weather, "a")
    assert drawn is not None and drawn.surfaces != NAMED["dusk"].surfaces


def test_the_seed_of_a_weather_survives_a_message() -> None:
    weather = Weather(cloudiness=12.3456789)
    assert seed_of(replace(weather, cloudiness=float(np.float32(12.3456789)))) == seed_of(weather)
    assert seed_of(Weather()) != seed_of(weather)
