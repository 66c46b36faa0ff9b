# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The camera's geometry against the pinhole formula, and what it draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Pose
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box
from td3_driver.simulator.camera import Camera
from td3_driver.simulator.colours import draw_colours
from td3_driver.simulator.pinhole import Intrinsics

STRAIGHT = (
    '<?xml version="1.0"?><OpenDRIVE><header revMajor="1" revMinor="4" name="straight"/>'
    '<road name="" length="200" id="1" junction="-1"><planView>'
    '<geometry s="0" x="0" y="0" hdg="0" length="200"><line/></geometry></planView>'
    '<lanes><laneSection s="0"><center><lane id="0" type="none"><roadMark sOffset="0" '
    'type="solid" weight="standard" color="white" width="0.15"/></lane></center><right>'
    '<lane id="-1" type="driving"><width sOffset="0" a="3.5" b="0" c="0" d="0"/><roadMark '
    'sOffset="0" type="solid" weight="standard" color="white" width="0.15"/></lane></right>'
    "</laneSection></lanes></road></OpenDRIVE>"
)
LANE_CENTRE = Pose(100.0, -1.75, 0.0)


@pytest.fixture(scope="module")
def straight() -> RoadMap:
    """One lane along x, its left line at y = 0 and its right line at y = -3.5."""
    return RoadMap.from_opendrive("straight", STRAIGHT)


@pytest.fixture(scope="module")
def camera(straight: RoadMap) -> Camera:
    """The default camera: 160 x 120, 90 degrees, 1.5 m ahead, 1.7 m up, level."""
    return Camera(straight, SimulatorConfig())


def test_intrinsics_are_the_bridges() -> None:
    k = Intrinsics.of(SimulatorConfig(image_width_px=200, image_height_px=100, camera_fov_deg=60))
    assert k.focal == pytest.approx(200.0 / (2.0 * math.tan(math.radians(30.0))))
    assert (k.cx, k.cy) == (100.0, 50.0)


@pytest.mark.parametrize("pitch_deg", [0.0, 12.0])
def test_known_ground_point_projects_by_the_pinhole_formula(
    straight: RoadMap, pitch_deg: float
) -> None:
    camera = Camera(straight, SimulatorConfig(camera_pitch_deg=pitch_deg))
    car = Pose(5.0, -4.0, 0.7)
    ahead, aside, k, pitch = 9.0, 2.0, camera.intrinsics, math.radians(pitch_deg)
    # In the camera's axes: x to the right, y down, z along the optical axis.
    x = -aside
    y = 1.7 * math.cos(pitch) - (ahead - 1.5) * math.sin(pitch)
    z = (ahead - 1.5) * math.cos(pitch) + 1.7 * math.sin(pitch)
    u, v = k.focal * x / z + k.cx, k.focal * y / z + k.cy
    where = camera.pixel_to_map(car) @ (u, v, 1.0)
    expected = (
        5.0 + ahead * math.cos(0.7) - aside * math.sin(0.7),
        -4.0 + ahead * math.sin(0.7) + aside * math.cos(0.7),
    )
    assert where[:2] / where[2] == pytest.approx(expected)


@pytest.mark.parametrize("row", [85, 100, 115])
def test_lane_lines_are_in_the_columns_that_geometry_says(camera: Camera, row: int) -> None:
    image = camera.render(LANE_CENTRE)
    k = camera.intrinsics
    depth = k.focal * 1.7 / (row - k.cy)
    grey = image[row, :, :3].astype(float).mean(axis=1)
    for line_y in (0.0, -3.5):
        column = k.cx - k.focal * (line_y - LANE_CENTRE.y) / depth
        if not 8 < column < k.width - 8:
            continue
        near = np.arange(int(column) - 7, int(column) + 9)
        # Nothing else nearby is as bright as the paint.
        weight = np.clip(grey[near] - np.median(grey[near]) - 15.0, 0.0, None)
        assert weight.sum() > 0.0
        assert float(near @ weight / weight.sum()) == pytest.approx(column, abs=1.0)


def test_image_is_bgra_and_the_sky_is_above(camera: Camera) -> None:
    image = camera.render(LANE_CENTRE)
    assert image.shape == (120, 160, 4)
    assert image.dtype == np.uint8
    assert (image[..., 3] == 255).all()
    blue, _, red, _ = image[:30].astype(float).mean(axis=(0, 1))
    assert blue > red
    assert image[:40].mean() > image[80:].mean()


def test_box_stands_where_it_should(camera: Camera) -> None:
    empty = camera.render(LANE_CENTRE)
    box = Box(Pose(112.0, -1.75, 0.0), 4.0, 2.0, 1.5, (0.0, 0.0, 255.0))
    changed = (camera.render(LANE_CENTRE, [box]) != empty).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    k, rear = camera.intrinsics, 112.0 - 2.0 - 101.5
    # The rear face is the nearest: 2 m wide, its shadow on the ground below it.
    assert columns[0] == pytest.approx(k.cx - k.focal / rear, abs=1.5)
    assert columns[-1] == pytest.approx(k.cx + k.focal / rear, abs=1.5)
    assert rows[-1] == pytest.approx(k.cy + k.focal * 1.7 / rear, abs=1.5)


def test_near_vehicle_hides_the_far_one(camera: Camera) -> None:
    near = Box(Pose(109.0, -1.75, 0.0), 4.0, 2.0, 1.5, (0.0, 0.0, 255.0))
    far = Box(Pose(118.0, -1.75, 0.0), 4.0, 1.0, 0.7, (255.0, 0.0, 0.0))
    hidden = camera.render(LANE_CENTRE, [near])
    assert np.array_equal(camera.render(LANE_CENTRE, [near, far]), hidden)
    assert np.array_equal(camera.render(LANE_CENTRE, [far, near]), hidden)


@pytest.mark.parametrize("x", [98.0, 101.0, 103.6])
def test_box_around_or_behind_the_camera_does_no_harm(camera: Camera, x: float) -> None:
    box = Box(Pose(x, -1.75, 0.4), 4.5, 1.9, 1.5, (0.0, 0.0, 255.0))
    assert camera.render(LANE_CENTRE, [box]).shape == (120, 160, 4)


def test_vehicle_behind_is_not_seen(camera: Camera) -> None:
    box = Box(Pose(90.0, -1.75, 0.0), 4.5, 1.9, 1.5, (0.0, 0.0, 255.0))
    assert np.array_equal(camera.render(LANE_CENTRE, [box]), camera.render(LANE_CENTRE))


def test_colours_follow_seed_and_map() -> None:
    assert draw_colours(3, "a") == draw_colours(3, "a")
    assert len({draw_colours(3, "a"), draw_colours(4, "a"), draw_colours(3, "b")}) == 3


@pytest.mark.parametrize(
    "settings",
    [
        {"image_width_px": 16, "image_height_px": 16},
        {"image_width_px": 321, "image_height_px": 77, "camera_fov_deg": 150.0},
        {"camera_pitch_deg": 45.0, "camera_fov_deg": 20.0},
        {"camera_pitch_deg": -20.0, "camera_fov_deg": 20.0},
    ],
)
def test_unusual_cameras_render(straight: RoadMap, settings: dict) -> None:
    config = SimulatorConfig(**settings)
    image = Camera(straight, config).render(Pose(500.0, 500.0, 3.0))
    assert image.shape == (config.image_height_px, config.image_width_px, 4)
