# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Looks as the camera shows them: each property is there to be seen, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from test_simulator_camera import LANE_CENTRE, STRAIGHT

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Start, VehicleControl
from td3_driver.looks import NAMED, Colour, Look, Optics, Weather
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box
from td3_driver.simulator.camera import Camera
from td3_driver.simulator.world import SimulatedWorld

HORIZON = 60
FAR, NEAR = np.s_[HORIZON + 2 : HORIZON + 7], np.s_[95:]
LANE = np.s_[72:88]
"""Columns around the lane's centre, where there is nothing but asphalt below the horizon."""


@pytest.fixture(scope="module")
def camera() -> Camera:
    return Camera(RoadMap.from_opendrive("straight", STRAIGHT), SimulatorConfig())


@pytest.fixture(scope="module")
def plain(camera: Camera) -> Look:
    """The map's own colours on a clear day."""
    return camera.own_look


def grey(camera: Camera, look: Look | None, number: int = 0, boxes: tuple = ()) -> np.ndarray:
    """Return what the camera sees under a look, grey, float (height, width)."""
    camera.wear(look)
    grey: np.ndarray = camera.render(LANE_CENTRE, boxes, number)[..., :3].mean(axis=2)
    return grey


def contrast(rows: np.ndarray) -> float:
    """Return how much grey differs within each row."""
    return float(rows.std(axis=1).mean())


def under(look: Look, **weather: float) -> Look:
    return replace(look, weather=replace(look.weather, **weather))


def through(look: Look, **optics: float) -> Look:
    return replace(look, optics=Optics(**optics))


# As rendered before there were looks: every 20th pixel's blue, green and red.
BEFORE = {
    "ring_meadow": [
        [[161, 147, 104], [158, 144, 97], [158, 144, 95], [159, 146, 100]],
        [[166, 153, 119], [164, 151, 113], [163, 150, 111], [165, 152, 116]],
        [[174, 162, 141], [172, 161, 138], [172, 161, 137], [173, 162, 139]],
        [[37, 89, 61], [107, 106, 108], [125, 123, 126], [32, 77, 53]],
        [[56, 56, 56], [175, 171, 176], [59, 60, 60], [63, 89, 80]],
        [[56, 56, 56], [57, 58, 58], [58, 59, 59], [185, 180, 186]],
    ],
    "grid_old_town": [
        [[232, 199, 142], [231, 196, 134], [231, 196, 131], [232, 198, 138]],
        [[232, 205, 161], [232, 203, 154], [232, 202, 151], [232, 204, 157]],
        [[233, 213, 188], [233, 212, 184], [233, 212, 183], [233, 213, 186]],
        [[100, 106, 96], [115, 117, 105], [166, 162, 160], [38, 110, 78]],
        [[105, 107, 96], [254, 240, 255], [106, 108, 97], [100, 118, 110]],
        [[105, 107, 96], [102, 104, 94], [105, 107, 96], [243, 230, 243]],
    ],
}


@pytest.mark.parametrize("name", BEFORE)
def test_off_is_as_it_was_before_there_were_looks(name: str) -> None:
    road_map = RoadMap.load(name)
    start = Start(name, *road_map.random_start(np.random.default_rng(5), 60.0), seed=7)
    image = SimulatedWorld(SimulatorConfig(map=name)).reset(start).image
    # Another OpenCV may round differently.
    assert np.abs(image[10::20, 10::40, :3].astype(int) - BEFORE[name]).max() <= 2


def test_off_comes_back_exactly(camera: Camera) -> None:
    camera.wear(None)
    before = camera.render(LANE_CENTRE)
    camera.wear(NAMED["downpour"])
    assert not np.array_equal(camera.render(LANE_CENTRE), before)
    camera.wear(None)
    assert np.array_equal(camera.render(LANE_CENTRE), before)


def test_mixed_materials_look_as_the_painted_colours_do(camera: Camera, plain: Look) -> None:
    road = RoadMap.load("grid_old_town")
    camera = Camera(road, SimulatorConfig(map="grid_old_town"))
    pose, _ = road.random_start(np.random.default_rng(0), 60.0)
    painted = camera.render(pose)[HORIZON + 5 :].astype(float)
    # Daylight that changes nothing.
    camera.wear(through(camera.own_look, exposure=1.0 / 1.056))
    mixed = camera.render(pose)[HORIZON + 5 :].astype(float)
    assert np.abs(painted - mixed).mean() < 4.0
    assert np.corrcoef(painted[..., 1].ravel(), mixed[..., 1].ravel())[0, 1] > 0.98


def test_fog_hides_what_is_far(camera: Camera, plain: Look) -> None:
    clear, foggy = grey(camera, plain), grey(camera, under(plain, fog_density=60.0))
    assert contrast(foggy[FAR]) < 0.3 * contrast(clear[FAR])
    assert contrast(foggy[NEAR]) > 0.8 * contrast(clear[NEAR])
    # The hills fade into the fog.
    assert np.ptp(foggy[HORIZON - 6 : HORIZON]) < 0.5 * np.ptp(clear[HORIZON - 6 : HORIZON])
    far_off = grey(camera, under(plain, fog_density=60.0, fog_distance=30.0))
    assert contrast(far_off[70:75]) > contrast(foggy[70:75])


def test_fog_hides_vehicles_too(camera: Camera, plain: Look) -> None:
    boxes = [
        Box(replace(LANE_CENTRE, x=LANE_CENTRE.x + ahead), 4.0, 2.0, 1.5, (0.0, 0.0, 0.0))
        for ahead in (8.0, 35.0)
    ]
    seen = []
    for look in (plain, under(plain, fog_density=70.0)):
        empty = grey(camera, look)
        seen.append([np.abs(grey(camera, look, boxes=(box,)) - empty).max() for box in boxes])
    (near, far), (near_in_fog, far_in_fog) = seen
    assert far_in_fog < 0.2 * far
    assert near_in_fog > 0.5 * near


def test_it_is_darker_the_lower_the_sun(camera: Camera, plain: Look) -> None:
    means = [
        grey(camera, under(plain, sun_altitude_angle=degrees)).mean()
        for degrees in (60.0, 15.0, 0.0, -10.0)
    ]
    assert means == sorted(means, reverse=True)
    assert 5.0 < means[3] < 0.5 * means[0]


def test_clouds_take_light_and_the_skys_blue(camera: Camera, plain: Look) -> None:
    clear, cloudy = (
        grey_image(camera, under(plain, cloudiness=cloudiness)).astype(float)
        for cloudiness in (0.0, 100.0)
    )
    assert cloudy[NEAR].mean() < 0.9 * clear[NEAR].mean()
    assert np.ptp(cloudy[:20].mean(axis=(0, 1))[:3]) < 0.3 * np.ptp(
        clear[:20].mean(axis=(0, 1))[:3]
    )


def test_a_low_sun_is_warm_and_clouds_are_not(camera: Camera, plain: Look) -> None:
    def redness(look: Look) -> float:
        camera.wear(look)
        blue, _, red, _ = camera.render(LANE_CENTRE)[NEAR].astype(float).mean(axis=(0, 1))
        return float(red / blue)

    low = under(plain, sun_altitude_angle=8.0)
    assert redness(low) > 1.1 * redness(plain)
    assert redness(under(low, cloudiness=100.0)) < redness(low)


def test_the_sky_is_brighter_where_the_sun_is(camera: Camera, plain: Look) -> None:
    # CARLA's azimuth is clockwise: 30 degrees are to the right of a car that looks along x.
    sky = grey(camera, under(plain, sun_altitude_angle=14.0, sun_azimuth_angle=30.0))[20:45]
    assert sky[:, 120:].mean() > sky[:, :40].mean() + 5.0
    left = grey(camera, under(plain, sun_altitude_angle=14.0, sun_azimuth_angle=-30.0))[20:45]
    assert left[:, :40].mean() > left[:, 120:].mean() + 5.0


@pytest.mark.parametrize("quantity", ["wetness", "precipitation_deposits", "precipitation"])
def test_a_wet_road_is_dark_and_mirrors_the_sky(
    camera: Camera, plain: Look, quantity: str
) -> None:
    dry, wet = grey(camera, plain), grey(camera, under(plain, **{quantity: 100.0}))
    assert wet[NEAR, LANE].mean() < 0.85 * dry[NEAR, LANE].mean()
    assert wet[FAR, LANE].mean() > dry[FAR, LANE].mean()


@pytest.mark.parametrize("surface", ["asphalt", "grass", "verge", "white", "hills"])
def test_each_surface_has_the_looks_colour(camera: Camera, plain: Look, surface: str) -> None:
    colour: Colour = (20.0, 20.0, 240.0)
    looks = plain, replace(plain, surfaces=replace(plain.surfaces, **{surface: colour}))
    before, after = (grey_of_red(camera, look) for look in looks)
    redder = after - before > 20.0
    assert redder.any()
    if surface == "asphalt":
        assert redder[NEAR, LANE].mean() > 0.9
    if surface == "grass":
        assert redder[HORIZON + 8 : 80, :20].mean() > 0.9
    if surface == "hills":
        assert redder[:HORIZON].any() and not redder[NEAR].any()


def grey_of_red(camera: Camera, look: Look) -> np.ndarray:
    """Return how much redder than blue each pixel is."""
    camera.wear(look)
    image = camera.render(LANE_CENTRE).astype(float)
    difference: np.ndarray = image[..., 2] - image[..., 0]
    return difference


def test_vehicles_have_the_looks_paint(camera: Camera, plain: Look) -> None:
    box = Box(replace(LANE_CENTRE, x=LANE_CENTRE.x + 10.0), 4.0, 2.0, 1.5, (100.0, 100.0, 100.0))
    painted = replace(plain, surfaces=replace(plain.surfaces, vehicles=(1.0, 1.0, 1.6)))
    camera.wear(painted)
    changed = camera.render(LANE_CENTRE, [box]).astype(int)
    camera.wear(plain)
    usual = camera.render(LANE_CENTRE, [box]).astype(int)
    assert (changed - usual)[..., 2].max() > 30
    assert np.array_equal(changed[..., :2], usual[..., :2])


def test_noise_is_as_strong_as_the_look_says(camera: Camera, plain: Look) -> None:
    camera.wear(plain)
    clean = camera.render(LANE_CENTRE)
    camera.wear(through(plain, noise=5.0))
    images = [camera.render(LANE_CENTRE, number=number) for number in (0, 0, 1, 2)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    for image in images[1:]:
        difference = image[NEAR, :, :3].astype(float) - clean[NEAR, :, :3]
        assert difference.std() == pytest.approx(5.0, rel=0.1)
        assert abs(difference.mean()) < 0.2
        assert (image[..., 3] == 255).all()
    # The noise of successive images has nothing in common.
    first, second = (image.astype(float) - clean for image in images[2:])
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    assert not np.array_equal(
        images[0], grey_image(camera, replace(through(plain, noise=5.0), seed=1))
    )


def grey_image(camera: Camera, look: Look) -> np.ndarray:
    camera.wear(look)
    return camera.render(LANE_CENTRE)


@pytest.mark.parametrize("size", [(160, 120), (640, 480)])
def test_blur_smooths_edges(plain: Look, size: tuple[int, int]) -> None:
    config = SimulatorConfig(image_width_px=size[0], image_height_px=size[1])
    camera = Camera(RoadMap.from_opendrive("straight", STRAIGHT), config, plain)
    edges = []
    for blur in (0.0, 0.7, 1.0):
        camera.wear(through(plain, blur=blur))
        edges.append(np.abs(np.diff(camera.render(LANE_CENTRE)[..., 1].astype(float))).max())
    assert edges == sorted(edges, reverse=True) and edges[2] < 0.8 * edges[0]


def test_pitch_and_height_move_the_image_and_not_the_intrinsics(
    camera: Camera, plain: Look
) -> None:
    k = camera.intrinsics
    camera.wear(plain)
    level = camera.pixel_to_map(LANE_CENTRE) @ (80.0, 100.0, 1.0)
    camera.wear(through(plain, pitch_deg=1.5))
    lower = camera.pixel_to_map(LANE_CENTRE) @ (80.0, 100.0, 1.0)
    camera.wear(through(plain, height_m=0.12))
    higher = camera.pixel_to_map(LANE_CENTRE) @ (80.0, 100.0, 1.0)
    ahead = [where[0] / where[2] - LANE_CENTRE.x - 1.5 for where in (level, lower, higher)]
    assert ahead[0] == pytest.approx(1.7 * 80.0 / 40.0)
    assert ahead[1] < ahead[0]
    assert ahead[2] == pytest.approx(1.82 * 80.0 / 40.0)
    assert camera.intrinsics is k and camera.mounting.z == 1.7


@pytest.mark.parametrize("name", NAMED)
def test_named_looks_differ_from_each_other_and_show_the_road(camera: Camera, name: str) -> None:
    image = grey(camera, NAMED[name])
    for other in NAMED:
        if other != name:
            assert np.abs(grey(camera, NAMED[other]) - image).mean() > 1.0, other
    row = image[100]
    # 3.4 m ahead, the lane's lines are 41 pixels from the middle.
    edges = [row[34:46].max(), row[115:127].max()]
    assert min(edges) > 1.4 * np.median(row[55:105])


@pytest.mark.parametrize(
    "settings",
    [
        {"image_width_px": 16, "image_height_px": 16},
        {"image_width_px": 321, "image_height_px": 77, "camera_fov_deg": 150.0},
        {"camera_pitch_deg": 45.0, "camera_fov_deg": 20.0},
        {"camera_pitch_deg": -20.0, "camera_fov_deg": 20.0},
    ],
)
def test_unusual_cameras_wear_looks(settings: dict) -> None:
    road_map = RoadMap.from_opendrive("straight", STRAIGHT)
    config = SimulatorConfig(**settings)
    image = Camera(road_map, config, NAMED["downpour"]).render(LANE_CENTRE)
    assert image.shape == (config.image_height_px, config.image_width_px, 4)
    assert (image[..., 3] == 255).all()


def start_with(seed: int) -> Start:
    pose, goal = RoadMap.load("ring_meadow").random_start(np.random.default_rng(0), 100.0)
    return Start("ring_meadow", pose, goal, seed)


def drive(world: SimulatedWorld, seed: int) -> list[np.ndarray]:
    """Return the images of a short episode."""
    images = [world.reset(start_with(seed)).image]
    return images + [world.step(VehicleControl(throttle=0.7)).image for _ in range(10)]


def test_equal_episodes_have_equal_frames_whatever_was_before() -> None:
    config = SimulatorConfig(looks="strong", traffic_vehicles=2)
    one, other = SimulatedWorld(config), SimulatedWorld(config)
    drive(other, 1)
    other.set_weather(Weather(wetness=100.0))
    first, second = drive(one, 2), drive(other, 2)
    assert all(np.array_equal(*pair) for pair in zip(first, second, strict=True))
    assert not np.array_equal(first[0], drive(one, 3)[0])


def test_levels_differ_in_strength() -> None:
    spreads = []
    for level in ("off", "mild", "strong"):
        world = SimulatedWorld(SimulatorConfig(looks=level))
        images = [world.reset(start_with(seed)).image.astype(float) for seed in range(12)]
        spreads.append(float(np.std(images, axis=0).mean()))
    assert spreads[0] == 0.0
    assert 0.0 < 1.5 * spreads[1] < spreads[2]


@pytest.mark.parametrize("level", ["off", "mild"])
def test_a_weather_acts_until_the_next_episode(level: str) -> None:
    world = SimulatedWorld(SimulatorConfig(looks=level))
    before = world.reset(start_with(0)).image
    world.set_weather(Weather(sun_altitude_angle=-60.0))
    night = world.tick().image
    assert night.mean() < 0.75 * before.mean()
    world.teleport(world.vehicle.pose)
    assert world.tick().image.mean() == pytest.approx(night.mean(), rel=0.05)
    assert np.array_equal(world.reset(start_with(0)).image, before)


def test_a_weather_draws_the_rest_of_a_look_for_itself() -> None:
    def grass(world: SimulatedWorld, cloudiness: float) -> np.ndarray:
        world.set_weather(Weather(cloudiness=cloudiness))
        return np.asarray(world.tick().image[70:80, :20, :3].mean(axis=(0, 1)))

    drawn, off = (SimulatedWorld(SimulatorConfig(looks=level)) for level in ("strong", "off"))
    for world in (drawn, off):
        world.reset(start_with(0))
    assert np.abs(grass(drawn, 10.0) - grass(drawn, 10.001)).max() > 4.0
    assert np.abs(grass(off, 10.0) - grass(off, 10.001)).max() < 1.0
