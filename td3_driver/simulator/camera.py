# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The front camera: ground by inverse perspective, sky, and boxes for other vehicles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

import cv2
import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.world import Pose
from td3_driver.looks import Colour, Look, Surfaces, Weather
from td3_driver.roads.road_map import RoadMap
from td3_driver.simulator.boxes import Box, Shade, as_painted, draw_boxes
from td3_driver.simulator.colours import draw_colours, mixed
from td3_driver.simulator.ground import ColourPaints, Ground, paint_ground
from td3_driver.simulator.light import Air, Scene, lit
from td3_driver.simulator.materials import MaterialPaints, Mixer
from td3_driver.simulator.pinhole import Intrinsics, Mounting, Projection
from td3_driver.simulator.roadside import Roadside
from td3_driver.simulator.sensor import Sensor
from td3_driver.simulator.sky import Sky, Skyline

# Images are small: a thread pool would cost more than it saves, and take cores away from the
# learner. cv2 only has this setting per process.
cv2.setNumThreads(1)


class Camera:
    """Renders what a car sees on one map, in the map's own colours or under a look."""

    def __init__(
        self, road_map: RoadMap, config: SimulatorConfig, look: Look | None = None
    ) -> None:
        """Paint the map's ground and prepare everything that does not depend on the pose."""
        self.intrinsics = Intrinsics.of(config)
        self.mounting = Mounting.of(config)
        self.colours = draw_colours(config.seed, road_map.name)
        self._road_map = road_map
        self._roadside = Roadside(road_map, self.colours.seed) if config.roadside else None
        self.wear(look)

    @property
    def own_look(self) -> Look:
        """A look with the map's own colours, to be seen in other weather."""
        own = self.colours
        surfaces = Surfaces(own.hills, own.grass, own.verge, own.asphalt, own.white, own.yellow)
        return Look(Weather(), surfaces)

    def wear(self, look: Look | None) -> None:
        """Show the world under a look from now on; None = in the map's own colours."""
        self._sensor = None
        if look is None:
            self._view = self._own_view
            return
        scene = lit(look, self.colours.seed)
        self._view = _View(
            Projection(self.intrinsics, _moved(self.mounting, look)),
            self._materials,
            lambda projection: Sky(
                self._skyline,
                scene.colours,
                scene.air,
                *projection.sky_angles(),
                scene.sun_azimuth,
                scene.glow,
            ),
            lambda view: Mixer(
                scene,
                view.sky.horizon_colour,
                view.projection.forward_m,
                view.projection.mounting.z,
                self.intrinsics.width,
            ),
            _shade(scene),
        )
        self._sensor = self._one_sensor
        self._sensor.use(look.optics, look.seed)

    def render(self, pose: Pose, boxes: Sequence[Box] = (), number: int = 0) -> np.ndarray:
        """Return what a car at `pose` sees, uint8 (height, width, 4), `bgra8`.

        `number` decides the camera's noise, if the look has any.
        """
        image = self._view.render(pose)
        if self._roadside is not None:
            boxes = [*boxes, *self._roadside.near(pose)]
        projection = self._view.projection
        draw_boxes(
            image, boxes, pose, projection.mounting, self.intrinsics, self._view.shade
        )  # fmt: skip
        if self._sensor is not None:
            self._sensor.apply(image, number)
        return image

    def pixel_to_map(self, pose: Pose) -> np.ndarray:
        """Return the homography (3, 3) from pixel u, v, 1 to the ground's map x, y, 1."""
        return self._view.projection.pixel_to_map(pose)

    @cached_property
    def _own_view(self) -> _View:
        """The map in its own colours."""
        air = Air()
        return _View(
            Projection(self.intrinsics, self.mounting),
            paint_ground(self._road_map, ColourPaints(self.colours), self.colours.seed),
            lambda projection: Sky(self._skyline, self.colours, air, *projection.sky_angles()),
            lambda view: _Haze(air, view.sky.horizon_colour, view.projection.forward_m),
        )

    @cached_property
    def _materials(self) -> Ground:
        """Painted when the first look is worn, for all that follow."""
        return paint_ground(self._road_map, MaterialPaints(), self.colours.seed)

    @cached_property
    def _skyline(self) -> Skyline:
        return Skyline(self.colours.seed)

    @cached_property
    def _one_sensor(self) -> Sensor:
        return Sensor(self.intrinsics.height, self.intrinsics.width)


Finish = Callable[[np.ndarray, np.ndarray], None]
"""Turns the ground's channels, as they are in the texture, into part of a `bgra8` image."""


class _View:
    """Sky and ground, seen through one projection."""

    def __init__(
        self,
        projection: Projection,
        ground: Ground,
        sky: Callable[[Projection], Sky],
        finish: Callable[[_View], Finish],
        shade: Shade = as_painted,
    ) -> None:
        self.projection = projection
        self.shade = shade
        self.sky = sky(projection)
        self._ground = ground
        self._bands = _bands(projection.forward_m, projection.intrinsics.focal, ground)
        self._finish = finish(self)

    def render(self, pose: Pose) -> np.ndarray:
        """Return the image without other vehicles."""
        k, horizon = self.projection.intrinsics, self.projection.horizon
        image = np.empty((k.height, k.width, 4), np.uint8)
        image[:horizon] = self.sky.look(pose.yaw)
        if horizon == k.height:
            return image
        channels = self._ground.levels[0].shape[2]
        ground = np.empty((k.height - horizon, k.width, channels), np.uint8)
        to_map = self.projection.pixel_to_map(pose)
        for first, last, level in self._bands:
            from_row = np.array([[1, 0, 0], [0, 1, horizon + first], [0, 0, 1]])
            cv2.warpPerspective(
                self._ground.levels[level],
                self._ground.from_map(level) @ to_map @ from_row,
                (k.width, last - first),
                dst=ground[first:last],
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=self._ground.outside,
            )
        self._finish(ground, image[horizon:])
        return image


class _Haze:
    """Lays haze over the farthest rows of a ground of colours."""

    def __init__(self, air: Air, colour: Colour, forward_m: np.ndarray) -> None:
        share = air.hidden(forward_m)
        self._rows = int(np.count_nonzero(share > 0.0))
        self._clear_share = (1.0 - np.clip(share[: self._rows], 0.0, 1.0))[:, None, None]
        self._haze = np.array(colour) * (1.0 - self._clear_share)

    def __call__(self, ground: np.ndarray, image: np.ndarray) -> None:
        far = ground[: self._rows]
        far[:] = far * self._clear_share + self._haze
        cv2.cvtColor(ground, cv2.COLOR_BGR2BGRA, dst=image)


def _moved(mounting: Mounting, look: Look) -> Mounting:
    """Return the mounting with a look's deviations."""
    return replace(
        mounting,
        z=mounting.z + look.optics.height_m,
        pitch=mounting.pitch + math.radians(look.optics.pitch_deg),
    )


def _shade(scene: Scene) -> Shade:
    """Return what light and haze make of other vehicles' colours."""
    air = scene.air

    def shade(colour: Colour, distance_m: float, painted: bool) -> Colour:
        factors = scene.vehicles if painted else scene.light
        blue, green, red = (
            min(255.0, one * factor) for one, factor in zip(colour, factors, strict=True)
        )
        hidden = min(max(air.hidden(distance_m), 0.0), 1.0)
        return mixed((blue, green, red), air.fog_colour, hidden)

    return shade


def _bands(forward: np.ndarray, focal: float, ground: Ground) -> list[tuple[int, int, int]]:
    """Group ground rows by the texture level they are drawn from.

    `forward` is each row's distance ahead in metres. Returns first row, row after the last,
    level. A pixel covers d / f metres across and d^2 / (f h) along the road. Choosing the level
    whose texel is nearest to the geometric mean of the two keeps distant lines from flickering
    without washing them out.
    """
    across = forward / focal
    along = np.abs(np.gradient(forward)) if len(forward) > 1 else across
    texels = np.sqrt(across * along) * ground.px_per_m
    levels = np.clip(np.round(np.log2(texels)), 0, len(ground.levels) - 1).astype(int)
    edges = [0, *(np.flatnonzero(np.diff(levels)) + 1).tolist(), len(levels)]
    return [
        (first, last, int(levels[first]))
        for first, last in itertools.pairwise(edges)
        if last > first
    ]
