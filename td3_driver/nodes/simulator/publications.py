# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Publishes a simulator's frames as carla-ros-bridge does, in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from carla_msgs.msg import (
    CarlaEgoVehicleInfo,
    CarlaEgoVehicleInfoWheel,
    CarlaStatus,
    CarlaWorldInfo,
)
from geometry_msgs.msg import Quaternion, Transform, TransformStamped
from rclpy.node import Node
from rclpy.publisher import Publisher
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float32

from td3_driver.bridge import topics
from td3_driver.bridge.conversion import (
    camera_info_to_message,
    collision_to_message,
    image_to_message,
    lane_invasion_to_message,
    make_header,
    odometry_to_message,
    quaternion_from_yaw,
    route_to_path,
    stamp_from_ns,
    vector_to_message,
    vehicle_status_to_message,
)
from td3_driver.bridge.topics import Topic
from td3_driver.config import CarlaConfig, SimulatorConfig
from td3_driver.driving.world import Frame, Pose
from td3_driver.simulator.vehicle import VehicleParameters

COLLISION_SENSOR = "collision"
LANE_INVASION_SENSOR = "lane_invasion"


class Publications:
    """The publishers of a bridge with one car.

    Messages that are costly to make are not made while they have no subscriber.
    """

    def __init__(
        self,
        node: Node,
        carla: CarlaConfig,
        simulator: SimulatorConfig,
        deliver: Callable[[Topic, Callable[[], None]], None],
    ) -> None:
        """Create the publishers on `node`; `deliver` is called to publish each message."""
        self._node = node
        self._deliver = deliver
        self._config = carla
        self._simulator = simulator
        self._publishers: dict[Topic, Publisher] = {
            topic: topics.create_bridge_publisher(node, topic, carla)
            for topic in topics.TOPICS
            if topic.direction is topics.Direction.FROM_SIMULATOR
        }
        self._role = carla.role_name
        self._map_frame = topics.map_frame(carla)
        self._camera_frame = f"{carla.role_name}/{carla.camera}"
        self._camera_transform = _camera_transform(simulator)

    def world_info(self, map_name: str, opendrive: str) -> None:
        """Publish the map, latched."""
        self._publish(topics.WORLD_INFO, CarlaWorldInfo(map_name=map_name, opendrive=opendrive))

    def vehicle_info(self, message: Any) -> None:
        """Publish the car's parameters, latched."""
        self._publish(topics.VEHICLE_INFO, message)

    def waypoints(self, route: np.ndarray, stamp_ns: int) -> None:
        """Publish the route (n, 3: x, y, yaw), latched."""
        self._publish(
            topics.WAYPOINTS, route_to_path(route, make_header(stamp_ns, self._map_frame))
        )

    def status(self, frame: int, running: bool) -> None:
        """Publish frame number and run state."""
        self._publish(
            topics.STATUS,
            CarlaStatus(
                frame=frame,
                fixed_delta_seconds=self._simulator.fixed_delta_s,
                synchronous_mode=True,
                synchronous_mode_running=running,
            ),
        )

    def tick(
        self, frame: Frame, lateral_speed: float, acceleration: tuple[float, float, float]
    ) -> None:
        """Publish one tick, after its status: the clock, then the car, then its sensors.

        `lateral_speed` is the origin's, m/s to the left; `acceleration` (m/s²) is in map axes.
        """
        self._publish(topics.CLOCK, Clock(clock=stamp_from_ns(frame.stamp_ns)))
        in_map = make_header(frame.stamp_ns, self._map_frame)
        if self._heard(topics.VEHICLE_STATUS):
            speed = math.hypot(frame.speed, lateral_speed)
            self._publish(
                topics.VEHICLE_STATUS,
                vehicle_status_to_message(frame.pose, speed, acceleration, frame.control, in_map),
            )
        self.camera(frame)
        for collision in frame.collisions:
            self._publish(
                topics.COLLISION,
                collision_to_message(collision, f"{self._role}/{COLLISION_SENSOR}"),
            )
        for invasion in frame.lane_invasions:
            self._publish(
                topics.LANE_INVASION,
                lane_invasion_to_message(invasion, f"{self._role}/{LANE_INVASION_SENSOR}"),
            )
        if self._heard(topics.ODOMETRY):
            velocity = (frame.speed, lateral_speed, frame.yaw_rate)
            self._publish(
                topics.ODOMETRY, odometry_to_message(frame.pose, velocity, in_map, self._role)
            )
        if self._heard(topics.SPEEDOMETER):
            self._publish(topics.SPEEDOMETER, Float32(data=float(frame.speed)))
        if self._heard(topics.TF):
            self._transforms(frame)

    def _publish(self, topic: Topic, message: Any) -> None:
        self._deliver(topic, partial(self._publishers[topic].publish, message))

    def _heard(self, topic: Topic) -> bool:
        return self._publishers[topic].get_subscription_count() > 0

    def camera(self, frame: Frame) -> None:
        """Publish the image, and the camera's parameters with it."""
        header = make_header(frame.stamp_ns, self._camera_frame)
        if self._heard(topics.CAMERA_INFO):
            camera = self._simulator
            self._publish(
                topics.CAMERA_INFO,
                camera_info_to_message(
                    camera.image_width_px, camera.image_height_px, camera.camera_fov_deg, header
                ),
            )
        if self._heard(topics.IMAGE):
            self._publish(topics.IMAGE, image_to_message(frame.image, header))

    def _transforms(self, frame: Frame) -> None:
        car = TransformStamped(
            header=make_header(frame.stamp_ns, self._map_frame), child_frame_id=self._role
        )
        car.transform = _transform(frame.pose)
        camera = TransformStamped(
            header=make_header(frame.stamp_ns, self._role), child_frame_id=self._camera_frame
        )
        camera.transform = self._camera_transform
        self._publish(topics.TF, topics.TF.message_type(transforms=[car, camera]))


def _transform(pose: Pose) -> Transform:
    return Transform(
        translation=vector_to_message((pose.x, pose.y, pose.z)),
        rotation=quaternion_from_yaw(pose.yaw),
    )


def _camera_transform(config: SimulatorConfig) -> Transform:
    """Return the camera on the car, turned to optical axes (z ahead, x right, y down)."""
    half = math.radians(config.camera_pitch_deg) / 2.0
    sine, cosine = math.sin(half), math.cos(half)
    # The pitch about y, times the optical rotation (-1/2, 1/2, -1/2, 1/2).
    minus, plus = (cosine - sine) / 2.0, (cosine + sine) / 2.0
    return Transform(
        translation=vector_to_message((config.camera_x_m, 0.0, config.camera_z_m)),
        rotation=Quaternion(x=-plus, y=plus, z=-minus, w=minus),
    )


def vehicle_info_to_message(
    vehicle: VehicleParameters, actor_id: int, type_id: str, role_name: str
) -> CarlaEgoVehicleInfo:
    """Return a car's parameters; wheels are front left, front right, rear left, rear right."""
    front, left = vehicle.wheelbase_m / 2.0, vehicle.track_m / 2.0
    wheels = [
        CarlaEgoVehicleInfoWheel(
            tire_friction=vehicle.friction,
            max_steer_angle=vehicle.max_steering_angle_rad if x > 0.0 else 0.0,
            radius=vehicle.wheel_radius_m,
            position=vector_to_message((x, y, vehicle.wheel_radius_m)),
        )
        for x in (front, -front)
        for y in (left, -left)
    ]
    return CarlaEgoVehicleInfo(
        id=actor_id,
        type=type_id,
        rolename=role_name,
        wheels=wheels,
        max_rpm=vehicle.max_rpm,
        moi=vehicle.moment_of_inertia_kgm2,
        use_gear_autobox=True,
        mass=vehicle.mass_kg,
        drag_coefficient=vehicle.drag_coefficient,
    )
