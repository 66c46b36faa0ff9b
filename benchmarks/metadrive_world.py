# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""MetaDrive (github.com/metadriverse/metadrive) as a `World`: roads that nobody here made.

It needs requirements-metadrive.txt. Roads are MetaDrive's own, of `BLOCKS`; a start's seed draws
their lengths, radii, angles and directions. The car keeps to the rightmost of three lanes, without
traffic. It is drawn off-screen without the car itself, which our camera would not see either, and
without anisotropic filters: both take a processor long.

MetaDrive's y points to the right, and its headings turn clockwise. Its car is another one: on
springs, so that the camera pitches and rolls with it, and with a wheelbase of 2.47 m, where ours
has 2.87 m. A command turns the wheels by the same angle as those of our car, which so turns this
one more, and presses the pedals as far, which push and brake otherwise than ours.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from typing import Any

import numpy as np

from td3_driver.config import SimulatorConfig
from td3_driver.driving.angles import wrap_angle
from td3_driver.driving.world import Frame, Pose, Start, VehicleControl
from td3_driver.simulator.pinhole import Intrinsics, Mounting
from td3_driver.simulator.vehicle import VehicleParameters

MAP_NAME = "metadrive"
BLOCKS = "CSC"
"""MetaDrive's letters for its blocks behind 50 m straight on: a bend, a straight and a bend."""
LANES = 3
FULL_STEER_RAD = math.radians(40.0)
FRONT_AXLE_M, REAR_AXLE_M = 1.05234, -1.4166
"""Of MetaDrive's default car, ahead of its origin."""
ORIGIN_AHEAD_M = -(FRONT_AXLE_M + REAR_AXLE_M) / 2.0
"""MetaDrive's origin ahead of ours, which is midway between the axles."""
CHASSIS_HEIGHT_M = 0.537
"""Of MetaDrive's origin above the road, at rest on its springs."""
SPAWN_M = 5.0
"""From the first lane's begin, as MetaDrive has it."""
SETTLING_TICKS = 16
PHYSICS_STEPS = 2
"""In one tick."""
ANTIALIASING = 4
"""Samples of a pixel: what Mesa's software renderer has; MetaDrive asks for 16."""


def map_pose(x: float, y: float, heading: float) -> Pose:
    """Return our pose of a place (metres) and a heading (radians) in MetaDrive's axes."""
    return Pose(x, -y, wrap_angle(-heading))


def middle_of(car: Pose) -> Pose:
    """Return the pose midway between the axles of MetaDrive's car, whose origin is at `car`."""
    return Pose(
        car.x - ORIGIN_AHEAD_M * math.cos(car.yaw),
        car.y - ORIGIN_AHEAD_M * math.sin(car.yaw),
        car.yaw,
    )


def metadrive_action(control: VehicleControl, full_steer_rad: float) -> tuple[float, float]:
    """Return MetaDrive's steering (+ = left) and pedal (+ = throttle), both in [-1, 1].

    `full_steer_rad` is the wheel angle that the control's full steer means.
    """
    steering = -control.steer * full_steer_rad / FULL_STEER_RAD
    pedal = control.throttle - control.brake
    return min(max(steering, -1.0), 1.0), min(max(pedal, -1.0), 1.0)


class MetaDriveWorld:
    """A `World` whose starts come from `start_on`. MetaDrive allows one in a process.

    It draws only every `drawn_every` ticks, from an episode's first frame on, and shows the latest
    picture in between: what decides every so many ticks sees no difference.
    """

    def __init__(self, config: SimulatorConfig) -> None:
        """Take the camera and the length of a tick from the settings."""
        self.drawn_every = 1
        self.fixed_delta_s = config.fixed_delta_s
        self._camera = Intrinsics.of(config)
        self._mounting = Mounting.of(config)
        self._full_steer_rad = VehicleParameters().max_steering_angle_rad
        self._env = _environment(self._camera, config.fixed_delta_s)
        self._frame = 0
        self._ticks_since_start = 0
        self._image = np.full((self._camera.height, self._camera.width, 4), 255, np.uint8)
        self._route = np.empty((0, 3))
        self._control = VehicleControl()

    def start_on(self, seed: int, length_m: float) -> Start:
        """Return the start on the road of a seed, with a route of a length along its lane."""
        self._load(seed)
        route = lane_points(self._env.vehicle.navigation, length_m)
        begin, end = (Pose(*map(float, point)) for point in route[[0, -1]])
        return Start(MAP_NAME, begin, end, seed, route)

    def reset(self, start: Start) -> Frame:
        """Put the car at rest where MetaDrive begins: at the start of the seed's route.

        It comes to rest without brakes: held by them, it creeps backwards.
        """
        assert start.map_name == MAP_NAME and start.route is not None
        self._load(start.seed)
        self._route = np.array(start.route)
        self._route.flags.writeable = False
        self._control = VehicleControl()
        for _ in range(SETTLING_TICKS - 1):
            self._tick(drawn=False)
        self._ticks_since_start = 0
        self._tick(drawn=True)
        return self._look()

    def step(self, control: VehicleControl) -> Frame:
        """Apply `control` for one tick and return the state after it."""
        self._control = control
        self._ticks_since_start += 1
        self._tick(drawn=self._ticks_since_start % self.drawn_every == 0)
        return self._look()

    def close(self) -> None:
        """End MetaDrive."""
        self._env.close()

    def _tick(self, drawn: bool) -> None:
        """Simulate one tick under the command in force; take a picture of it if it is drawn."""
        car = self._env.vehicle
        for window in self._env.engine.graphicsEngine.getWindows():
            # Those of a pixel belong to the main camera, which nobody looks through.
            window.setActive(drawn and window.getXSize() > 1)
        self._env.step(metadrive_action(self._control, self._full_steer_rad))
        self._frame += 1
        if drawn:
            sensor = car.image_sensors["rgb_camera"]
            self._image = self._image.copy()
            self._image[..., :3] = sensor.get_pixels_array(car, clip=False)

    def _load(self, seed: int) -> None:
        """Put the car at the begin of a seed's road."""
        self._env.reset(force_seed=seed)
        for texture in self._env.engine.render.findAllTextures():
            texture.setAnisotropicDegree(1)
        car = self._env.vehicle
        car.origin.hide()
        self._mount(car.image_sensors["rgb_camera"])

    def _mount(self, sensor: Any) -> None:
        """Mount the camera on the car as ours is, with its field of view.

        A lens's film of the image's size, in pixels, makes its focal length one in pixels too.
        """
        camera, mounting = sensor.get_cam(), self._mounting
        ahead = mounting.x - ORIGIN_AHEAD_M
        camera.setPos(0.0, ahead, mounting.z - CHASSIS_HEIGHT_M)
        camera.setHpr(0.0, -math.degrees(mounting.pitch), 0.0)
        lens = sensor.get_lens()
        lens.setFilmSize(self._camera.width, self._camera.height)
        lens.setFocalLength(self._camera.focal)

    def _look(self) -> Frame:
        """Return the frame of the latest tick."""
        car = self._env.vehicle
        x, y = car.position
        pose = map_pose(x, y, car.heading_theta)
        velocity = car.body.getLinearVelocity()
        return Frame(
            frame=self._frame,
            stamp_ns=round(self._frame * self.fixed_delta_s * 1e9),
            image=self._image,
            pose=middle_of(pose),
            speed=velocity[0] * math.cos(pose.yaw) + velocity[1] * math.sin(pose.yaw),
            yaw_rate=float(car.body.getAngularVelocity()[2]),
            route=self._route,
            control=self._control,
        )


def _environment(camera: Intrinsics, fixed_delta_s: float) -> Any:
    """Return MetaDrive with our camera's size and tick, without traffic; the rest is its own."""
    # Its messages were compiled for an older protobuf.
    os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
    from panda3d.core import loadPrcFileData

    loadPrcFileData("", "load-display p3headlessgl")
    from metadrive import MetaDriveEnv
    from metadrive.engine.core.our_pbr import OurPipeline

    original = OurPipeline.__init__

    def with_fewer_samples(self: Any, **given: Any) -> None:
        original(self, **{**given, "msaa_samples": ANTIALIASING})

    OurPipeline.__init__ = with_fewer_samples
    return MetaDriveEnv(
        {
            "image_observation": True,
            "rgb_clip": False,
            "map": BLOCKS,
            "environment_num": 1000,
            "traffic_density": 0.0,
            "random_spawn_lane_index": False,
            "physics_world_step_size": fixed_delta_s / PHYSICS_STEPS,
            "decision_repeat": PHYSICS_STEPS,
            "show_interface": False,
            "show_fps": False,
            "multi_thread_render": False,
            "disable_model_compression": True,
            "vehicle_config": {
                "vehicle_model": "static_default",
                "rgb_camera": (camera.width, camera.height),
                "show_navi_mark": False,
                "spawn_longitude": SPAWN_M,
                "lidar": {"num_lasers": 0, "distance": 0},
            },
            "target_vehicle_configs": {
                "default_agent": {"spawn_lane_index": (">", ">>", LANES - 1)}
            },
        }
    )


def lane_points(navigation: Any, length_m: float) -> np.ndarray:
    """Return points 1 m apart along the middle of the rightmost lane, float64 (n, 3), as `Frame`.

    They begin where the car does. Raises ValueError if the road is shorter than that.
    """
    nodes, graph = navigation.checkpoints, navigation.map.road_network.graph
    lanes = [graph[begin][end][-1] for begin, end in pairwise(nodes)]
    ends = np.cumsum([lane.length for lane in lanes])
    if SPAWN_M + length_m > ends[-1]:
        raise ValueError(f"the road is {ends[-1]:.0f} m long, too short for {length_m:.0f} m")
    points = []
    for along in SPAWN_M + np.arange(length_m + 1.0):
        which = int(np.searchsorted(ends, along))
        lane, on_lane = lanes[which], along - (ends[which] - lanes[which].length)
        x, y = lane.position(on_lane, 0.0)
        pose = map_pose(x, y, lane.heading_theta_at(on_lane))
        points.append((pose.x, pose.y, pose.yaw))
    return np.array(points)
