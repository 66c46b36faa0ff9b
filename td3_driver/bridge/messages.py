# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Messages of the bridge, read into this package's types by their fields.

Any object with a message's fields will do: rclpy's, or what a bag's reader makes without ROS. Axes
and signs are those of the messages: REP-103, except for `VehicleControl.steer` (+ = right) and a
collision's impulse, which the bridge passes on as CARLA has them.
"""

from __future__ import annotations

import math
from dataclasses import fields
from io import BytesIO
from typing import Any

import cv2
import numpy as np

from td3_driver.config import DriverConfig, limits
from td3_driver.driving.control import AckermannCommand
from td3_driver.driving.world import Collision, LaneInvasion, Pose, VehicleControl
from td3_driver.looks import Weather

NANOSECONDS = 1_000_000_000
LARGEST_IMAGE_PX: tuple[int, int] = (
    limits(DriverConfig.model_fields["image_width_px"])["le"],
    limits(DriverConfig.model_fields["image_height_px"])["le"],
)
"""Width and height beyond which no image is read: a driver cannot be set to take it."""

# Where each encoding keeps blue, green, red and alpha; -1 where it has no alpha.
IMAGE_CHANNELS: dict[str, tuple[int, ...]] = {
    "bgra8": (0, 1, 2, 3),
    "rgba8": (2, 1, 0, 3),
    "bgr8": (0, 1, 2, -1),
    "rgb8": (2, 1, 0, -1),
    "mono8": (0, 0, 0, -1),
    "8UC1": (0, 0, 0, -1),
    "8UC3": (0, 1, 2, -1),
    "8UC4": (0, 1, 2, 3),
}


class ConversionError(ValueError):
    """A message is invalid; the text says what is wrong with it."""


class EncodingError(ConversionError):
    """An image has an encoding that cannot be read here."""


def ns_from_stamp(stamp: Any) -> int:
    """Return nanoseconds of simulation time of a `builtin_interfaces/Time`."""
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def yaw_from_quaternion(quaternion: Any) -> float:
    """Return the rotation about z, radians; 0 for a zero quaternion, as the bridge takes it."""
    x, y, z, w = quaternion.x, quaternion.y, quaternion.z, quaternion.w
    if x == 0.0 and y == 0.0:
        # Exact for pure yaw up to +-pi, so a pose survives the round trip.
        return math.remainder(2.0 * math.atan2(z, w), math.tau) if z or w else 0.0
    return math.atan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))


def pose_from_message(message: Any) -> Pose:
    """Return the position and the yaw of a pose; raises ConversionError if not finite."""
    position = message.position
    pose = Pose(position.x, position.y, yaw_from_quaternion(message.orientation), position.z)
    if not all(map(math.isfinite, (pose.x, pose.y, pose.z, pose.yaw))):
        raise ConversionError(f"the pose is not finite: {pose}")
    return pose


def control_from_message(message: Any) -> VehicleControl:
    """Return a command unchecked; the simulator decides what to do if it is not finite."""
    return VehicleControl(
        throttle=message.throttle,
        steer=message.steer,
        brake=message.brake,
        hand_brake=message.hand_brake,
        reverse=message.reverse,
        gear=message.gear,
        manual_gear_shift=message.manual_gear_shift,
    )


def ackermann_from_message(message: Any) -> AckermannCommand:
    """Return the command of an `ackermann_msgs/AckermannDrive`, or of a stamped one.

    Some forks of the bridge take the stamped one. What is not finite is the caller's to judge.
    """
    drive = getattr(message, "drive", message)
    return AckermannCommand(float(drive.steering_angle), float(drive.speed))


def image_from_message(message: Any) -> np.ndarray:
    """Return uint8 (height, width, 4), channels blue, green, red, alpha.

    A `bgra8` image is a view of the message's data. Raises ConversionError for a message whose
    sizes contradict each other, and EncodingError for an encoding that is not in IMAGE_CHANNELS.
    """
    channels = IMAGE_CHANNELS.get(message.encoding)
    if channels is None:
        raise EncodingError(
            f"the image's encoding is {message.encoding!r}; only {', '.join(IMAGE_CHANNELS)} can "
            "be read"
        )
    pixels = _pixels(message, max(channels) + 1)
    if channels == (0, 1, 2, 3):
        return pixels
    image = pixels[:, :, [max(channel, 0) for channel in channels]]
    if channels[3] < 0:
        image[:, :, 3] = 255
    return image


_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
# What a whole image ends with; a decoder fills in what a cut one lacks, and says nothing.
_ENDS = {_JPEG: b"\xff\xd9", _PNG: b"IEND"}
_LONGEST_END = 64


def image_from_compressed(message: Any) -> np.ndarray:
    """Return what `image_from_message` does for a `sensor_msgs/CompressedImage` (JPEG or PNG).

    Raises ConversionError for an image that is larger than LARGEST_IMAGE_PX, cut off or damaged;
    its size is read before any memory is taken for it.
    """
    data = bytes(message.data)
    if not data:
        raise ConversionError("the compressed image is empty")
    magic = next((magic for magic in _ENDS if data.startswith(magic)), None)
    if magic is None:
        raise ConversionError("the compressed image is neither a JPEG nor a PNG")
    _check_size(*_compressed_size(data, magic))
    if _ENDS[magic] not in data.rstrip(b"\0")[-_LONGEST_END:]:  # some cameras fill up with 0
        raise ConversionError("the compressed image is cut off")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None:
        raise ConversionError("the compressed image cannot be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2BGRA)


def _compressed_size(data: bytes, magic: bytes) -> tuple[int, int]:
    """Return width and height by the header of a JPEG or PNG."""
    from PIL.JpegImagePlugin import JpegImageFile  # only recordings have compressed images
    from PIL.PngImagePlugin import PngImageFile

    try:
        width, height = (JpegImageFile if magic == _JPEG else PngImageFile)(BytesIO(data)).size
    except Exception:  # whatever the library makes of odd bytes
        raise ConversionError("the compressed image's header is damaged") from None
    return width, height


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise ConversionError(f"the image is empty: {width} x {height} pixels")
    if width > LARGEST_IMAGE_PX[0] or height > LARGEST_IMAGE_PX[1]:
        raise ConversionError(
            f"the image is too large: {width} x {height} pixels, more than "
            f"{LARGEST_IMAGE_PX[0]} x {LARGEST_IMAGE_PX[1]}"
        )


def _pixels(message: Any, channels: int) -> np.ndarray:
    """Return uint8 (height, width, channels), without the padding at the rows' ends."""
    height, width, step = message.height, message.width, message.step
    _check_size(width, height)
    if step < width * channels:
        raise ConversionError(
            f"the image's rows have {step} bytes, too few for {width} {message.encoding} pixels"
        )
    if len(message.data) != height * step:
        raise ConversionError(
            f"the image has {len(message.data)} bytes instead of {height} rows of {step}"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)
    return rows[:, : width * channels].reshape(height, width, channels)


def odometry_from_message(message: Any) -> tuple[Pose, float]:
    """Return the pose and the yaw rate (rad/s, + = left); raises ConversionError for NaN."""
    yaw_rate = message.twist.twist.angular.z
    if not math.isfinite(yaw_rate):
        raise ConversionError(f"the yaw rate is not finite: {yaw_rate}")
    return pose_from_message(message.pose.pose), yaw_rate


def speed_from_message(message: Any) -> float:
    """Return the signed forward speed, m/s; raises ConversionError for NaN."""
    if not math.isfinite(message.data):
        raise ConversionError(f"the speed is not finite: {message.data}")
    return float(message.data)


def route_from_path(path: Any) -> np.ndarray:
    """Return route points, float64 (n, 3): x, y, yaw."""
    return np.array([(pose.x, pose.y, pose.yaw) for pose in poses_from_path(path)]).reshape(-1, 3)


def poses_from_path(path: Any) -> list[Pose]:
    """Return the poses of a route, heights included."""
    return [pose_from_message(stamped.pose) for stamped in path.poses]


def collision_from_message(message: Any) -> Collision:
    """Return a contact."""
    impulse = message.normal_impulse
    return Collision(
        stamp_ns=ns_from_stamp(message.header.stamp),
        other_actor_id=message.other_actor_id,
        normal_impulse=(impulse.x, impulse.y, impulse.z),
    )


def lane_invasion_from_message(message: Any) -> LaneInvasion:
    """Return crossed lane markings."""
    return LaneInvasion(
        stamp_ns=ns_from_stamp(message.header.stamp),
        crossed_lane_markings=tuple(message.crossed_lane_markings),
    )


def weather_from_message(message: Any) -> Weather:
    """Return a weather, with values beyond CARLA's ranges at their ends.

    Raises ConversionError if one is not finite.
    """
    values = {field.name: float(getattr(message, field.name)) for field in fields(Weather)}
    for name, value in values.items():
        if not math.isfinite(value):
            raise ConversionError(f"the weather's {name} is not finite: {value}")
    return Weather(**values).bounded()
