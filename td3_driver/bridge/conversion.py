# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Messages of the bridge to this package's types, and back.

Axes and signs are those of the messages: REP-103, except for `VehicleControl.steer` (+ = right)
and a collision's impulse, which the bridge passes on as CARLA has them.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import asdict
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from carla_msgs.msg import (
    CarlaCollisionEvent,
    CarlaEgoVehicleControl,
    CarlaEgoVehicleInfo,
    CarlaEgoVehicleStatus,
    CarlaLaneInvasionEvent,
    CarlaWeatherParameters,
)
from geometry_msgs.msg import Point, PoseStamped, Quaternion, Twist, Vector3
from geometry_msgs.msg import Pose as PoseMessage
from nav_msgs.msg import Odometry, Path
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from td3_driver.bridge import messages, topics
from td3_driver.bridge.messages import (
    NANOSECONDS,
    ConversionError,
    EncodingError,
    collision_from_message,
    control_from_message,
    lane_invasion_from_message,
    ns_from_stamp,
    odometry_from_message,
    pose_from_message,
    poses_from_path,
    route_from_path,
    speed_from_message,
    weather_from_message,
    yaw_from_quaternion,
)
from td3_driver.config import CarlaConfig
from td3_driver.driving.control import AckermannCommand
from td3_driver.driving.world import Collision, LaneInvasion, Pose, VehicleControl
from td3_driver.looks import Weather

MAP_FRAME = "map"

# Reading needs no ROS and has its own module; code that uses ROS finds both directions here.
__all__ = [
    "ConversionError",
    "ackermann_to_message",
    "camera_info_to_message",
    "collision_from_message",
    "collision_to_message",
    "control_from_message",
    "control_to_message",
    "image_from_message",
    "image_to_message",
    "lane_invasion_from_message",
    "lane_invasion_to_message",
    "make_header",
    "max_steer_from_vehicle_info",
    "ns_from_stamp",
    "odometry_from_message",
    "odometry_to_message",
    "pose_from_message",
    "pose_to_message",
    "poses_from_path",
    "quaternion_from_yaw",
    "route_from_path",
    "route_to_path",
    "same_control",
    "speed_from_message",
    "stamp_from_ns",
    "target_velocity_from_message",
    "target_velocity_to_message",
    "vector_to_message",
    "vehicle_status_to_message",
    "weather_from_message",
    "weather_to_message",
    "yaw_from_quaternion",
]


def stamp_from_ns(stamp_ns: int) -> Time:
    """Return a stamp for nanoseconds of simulation time."""
    seconds, nanoseconds = divmod(stamp_ns, NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def make_header(stamp_ns: int, frame_id: str = MAP_FRAME) -> Header:
    """Return a header stamped with nanoseconds of simulation time."""
    return Header(stamp=stamp_from_ns(stamp_ns), frame_id=frame_id)


def quaternion_from_yaw(yaw: float) -> Quaternion:
    """Return the unit quaternion of a rotation about z, radians."""
    return Quaternion(x=0.0, y=0.0, z=math.sin(yaw / 2.0), w=math.cos(yaw / 2.0))


def pose_to_message(pose: Pose) -> PoseMessage:
    """Return a pose in the map frame as a message."""
    return PoseMessage(
        position=Point(x=float(pose.x), y=float(pose.y), z=float(pose.z)),
        orientation=quaternion_from_yaw(pose.yaw),
    )


def control_to_message(
    control: VehicleControl, stamp_ns: int | None = None
) -> CarlaEgoVehicleControl:
    """Return a command as a message; raises ConversionError if it is not finite.

    `stamp_ns` is the stamp of the image that the command answers, so latency can be measured.
    """
    if not all(map(math.isfinite, (control.throttle, control.steer, control.brake))):
        raise ConversionError(f"the command is not finite: {control}")
    message = CarlaEgoVehicleControl(
        throttle=float(control.throttle),
        steer=float(control.steer),
        brake=float(control.brake),
        hand_brake=control.hand_brake,
        reverse=control.reverse,
        gear=control.gear,
        manual_gear_shift=control.manual_gear_shift,
    )
    if stamp_ns is not None:
        message.header.stamp = stamp_from_ns(stamp_ns)
    return message


def ackermann_to_message(
    command: AckermannCommand, config: CarlaConfig, stamp_ns: int | None = None
) -> Any:
    """Return a command as the message type in the settings, stamped or not.

    Raises ConversionError if it is not finite. `stamp_ns` is the stamp of the image that the
    command answers; `ackermann_msgs/AckermannDrive` has no field for it.
    """
    if not all(map(math.isfinite, (command.steering_angle, command.speed))):
        raise ConversionError(f"the command is not finite: {command}")
    drive = topics.ACKERMANN.message_type(
        steering_angle=float(command.steering_angle), speed=float(command.speed)
    )
    if topics.ackermann_type(config) != topics.ACKERMANN_STAMPED:
        return drive
    message = topics.ACKERMANN.message_type_in(config)(drive=drive)
    message.header.frame_id = config.role_name
    if stamp_ns is not None:
        message.header.stamp = stamp_from_ns(stamp_ns)
    return message


def same_control(first: VehicleControl, second: VehicleControl, tolerance: float = 1e-3) -> bool:
    """Return whether two commands mean the same; the gear is the gearbox's choice."""
    return (
        abs(first.throttle - second.throttle) <= tolerance
        and abs(first.steer - second.steer) <= tolerance
        and abs(first.brake - second.brake) <= tolerance
        and first.hand_brake == second.hand_brake
        and first.reverse == second.reverse
    )


def image_to_message(image: np.ndarray, header: Header) -> Image:
    """Return a uint8 (height, width, 4) image as a `bgra8` message."""
    height, width, channels = image.shape
    data = array("B")  # The only type that rclpy accepts without checking every byte.
    data.frombytes(np.ascontiguousarray(image).data)
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="bgra8",
        is_bigendian=0,
        step=width * channels,
        data=data,
    )


def image_from_message(message: Image) -> np.ndarray:
    """Return uint8 (height, width, 4), channels blue, green, red, alpha.

    A `bgra8` image is a view of the message's data. Raises ConversionError for a message whose
    sizes contradict each other, or for an encoding nobody here can read.
    """
    try:
        return messages.image_from_message(message)
    except EncodingError as error:
        return _image_by_cv_bridge(message, error)


def _image_by_cv_bridge(message: Image, refusal: EncodingError) -> np.ndarray:
    try:
        from cv_bridge import CvBridge, CvBridgeError
    except ImportError:
        raise ConversionError(f"{refusal} without cv_bridge") from None
    try:
        return np.asarray(CvBridge().imgmsg_to_cv2(message, "bgra8"))
    except CvBridgeError as error:
        raise ConversionError(f"cv_bridge cannot read the image: {error}") from None


def camera_info_to_message(
    width_px: int, height_px: int, fov_deg: float, header: Header
) -> CameraInfo:
    """Return the intrinsics of a pinhole camera with square pixels and no distortion."""
    focal_px = width_px / (2.0 * math.tan(math.radians(fov_deg) / 2.0))
    centre_x, centre_y = width_px / 2.0, height_px / 2.0
    return CameraInfo(
        header=header,
        width=width_px,
        height=height_px,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal_px, 0.0, centre_x, 0.0, focal_px, centre_y, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal_px, 0.0, centre_x, 0.0, 0.0, focal_px, centre_y, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def odometry_to_message(
    pose: Pose, velocity: tuple[float, float, float], header: Header, child_frame_id: str
) -> Odometry:
    """Return the pose in the map, and the velocity in the car's frame.

    `velocity`: forward and left in m/s, yaw rate in rad/s (+ = left).
    """
    message = Odometry(header=header, child_frame_id=child_frame_id)
    message.pose.pose = pose_to_message(pose)
    twist = message.twist.twist
    twist.linear.x, twist.linear.y, twist.angular.z = map(float, velocity)
    return message


def vehicle_status_to_message(
    pose: Pose,
    speed: float,
    acceleration: tuple[float, float, float],
    control: VehicleControl,
    header: Header,
) -> CarlaEgoVehicleStatus:
    """Return a car's status; `acceleration` (m/s^2) is in the map's axes."""
    message = CarlaEgoVehicleStatus(header=header, velocity=abs(float(speed)))
    message.acceleration.linear = vector_to_message(acceleration)
    message.orientation = quaternion_from_yaw(pose.yaw)
    message.control = control_to_message(control)
    return message


def max_steer_from_vehicle_info(message: CarlaEgoVehicleInfo) -> float:
    """Return the largest angle of any wheel, radians: what a `steer` of 1 stands for."""
    return max((wheel.max_steer_angle for wheel in message.wheels), default=0.0)


def vector_to_message(vector: tuple[float, float, float]) -> Vector3:
    """Return three components as a message."""
    x, y, z = vector
    return Vector3(x=float(x), y=float(y), z=float(z))


def route_to_path(route: np.ndarray, header: Header) -> Path:
    """Return route points (n, 3: x, y, yaw); each pose's own header stays empty."""
    path = Path(header=header)
    path.poses = [
        PoseStamped(pose=pose_to_message(Pose(x, y, yaw))) for x, y, yaw in route.tolist()
    ]
    return path


def collision_to_message(collision: Collision, frame_id: str) -> CarlaCollisionEvent:
    """Return a contact as a message."""
    return CarlaCollisionEvent(
        header=make_header(collision.stamp_ns, frame_id),
        other_actor_id=collision.other_actor_id,
        normal_impulse=vector_to_message(collision.normal_impulse),
    )


def lane_invasion_to_message(invasion: LaneInvasion, frame_id: str) -> CarlaLaneInvasionEvent:
    """Return crossed lane markings as a message."""
    return CarlaLaneInvasionEvent(
        header=make_header(invasion.stamp_ns, frame_id),
        crossed_lane_markings=list(invasion.crossed_lane_markings),
    )


def target_velocity_to_message(
    forward_mps: float, left_mps: float = 0.0, yaw_rate_rps: float = 0.0
) -> Twist:
    """Return a velocity (yaw rate + = left) as `set_target_velocity` takes it."""
    message = Twist(linear=Vector3(x=float(forward_mps), y=float(left_mps)))
    # The bridge hands the yaw rate to CARLA without turning its sign: + turns right.
    message.angular.z = -float(yaw_rate_rps)
    return message


def target_velocity_from_message(message: Twist) -> tuple[float, float, float]:
    """Return forward and left velocity (m/s) and yaw rate (rad/s, + = left)."""
    velocity: tuple[Any, ...] = (message.linear.x, message.linear.y, -message.angular.z)
    if not all(map(math.isfinite, velocity)):
        raise ConversionError(f"the velocity is not finite: {velocity}")
    forward, left, yaw_rate = velocity
    return forward, left, yaw_rate


def weather_to_message(weather: Weather) -> CarlaWeatherParameters:
    """Return a weather as a message."""
    return CarlaWeatherParameters(**asdict(weather))
