# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Messages to this package's types and back."""

import math
from array import array

import numpy as np
import pytest
from geometry_msgs.msg import Quaternion
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from td3_driver.bridge import conversion
from td3_driver.bridge.conversion import ConversionError
from td3_driver.driving.world import Collision, LaneInvasion, Pose, VehicleControl
from td3_driver.looks import NAMED, Weather
from td3_driver.nodes.simulator.publications import vehicle_info_to_message
from td3_driver.simulator.vehicle import VehicleParameters


def image_message(encoding, pixels, padding=0):
    height, width, channels = pixels.shape
    rows = np.zeros((height, width * channels + padding), np.uint8)
    rows[:, : width * channels] = pixels.reshape(height, -1)
    return Image(
        height=height,
        width=width,
        encoding=encoding,
        step=width * channels + padding,
        data=array("B", rows.tobytes()),
    )


@pytest.fixture
def bgra():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    return pixels


@pytest.mark.parametrize("yaw", [0.0, 1.0, -2.5, math.pi, 3.0])
def test_pose_survives_the_way_there_and_back(yaw):
    pose = Pose(1.5, -2.0, yaw, 0.25)
    back = conversion.pose_from_message(conversion.pose_to_message(pose))
    assert (back.x, back.y, back.z) == (pose.x, pose.y, pose.z)
    assert math.remainder(back.yaw - yaw, math.tau) == pytest.approx(0.0, abs=1e-12)


def test_yaw_of_a_tilted_car():
    half = math.sqrt(0.5)
    tilt, turn = math.sin(0.1), math.cos(0.1)  # roll of 0.2 rad, then a quarter turn left
    tilted = Quaternion(x=half * tilt, y=half * tilt, z=half * turn, w=half * turn)
    assert conversion.yaw_from_quaternion(tilted) == pytest.approx(math.pi / 2.0)


def test_zero_quaternion_is_yaw_zero():
    assert conversion.yaw_from_quaternion(Quaternion(w=0.0)) == 0.0


def test_pose_that_is_not_finite_is_refused():
    message = conversion.pose_to_message(Pose(0.0, 0.0, 0.0))
    message.position.x = math.nan
    with pytest.raises(ConversionError, match="not finite"):
        conversion.pose_from_message(message)


def test_stamps():
    stamp = conversion.stamp_from_ns(12_050_000_001)
    assert (stamp.sec, stamp.nanosec) == (12, 50_000_001)
    assert conversion.ns_from_stamp(stamp) == 12_050_000_001


def test_control_round_trip_keeps_every_field():
    control = VehicleControl(0.5, -0.25, 0.125, True, True, 2, True)
    message = conversion.control_to_message(control, stamp_ns=5)
    assert message.header.stamp.nanosec == 5
    assert conversion.control_from_message(message) == control


@pytest.mark.parametrize("field", ["throttle", "steer", "brake"])
def test_control_that_is_not_finite_is_refused(field):
    with pytest.raises(ConversionError, match="not finite"):
        conversion.control_to_message(VehicleControl(**{field: math.nan}))


def test_same_control_forgives_float32_but_no_more():
    control = VehicleControl(throttle=0.3)
    as_sent = VehicleControl(throttle=float(np.float32(0.3)), gear=1)
    assert conversion.same_control(control, as_sent)
    assert not conversion.same_control(control, VehicleControl(throttle=0.31))
    assert not conversion.same_control(control, VehicleControl(throttle=0.3, hand_brake=True))


def test_image_round_trip(bgra):
    message = conversion.image_to_message(bgra, Header(frame_id="camera"))
    assert (message.encoding, message.step, message.is_bigendian) == ("bgra8", 28, 0)
    np.testing.assert_array_equal(conversion.image_from_message(message), bgra)


def test_image_that_is_not_contiguous_is_sent_right(bgra):
    flipped = bgra[:, ::-1]
    message = conversion.image_to_message(flipped, Header())
    np.testing.assert_array_equal(conversion.image_from_message(message), flipped)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    "encoding, order",
    [
        ("bgra8", (0, 1, 2, 3)),
        ("rgba8", (2, 1, 0, 3)),
        ("bgr8", (0, 1, 2)),
        ("rgb8", (2, 1, 0)),
    ],
)
def test_image_encodings(bgra, encoding, order, padding):
    message = image_message(encoding, bgra[..., order], padding)
    np.testing.assert_array_equal(conversion.image_from_message(message), bgra)


@pytest.mark.parametrize("padding", [0, 5])
def test_grey_image(bgra, padding):
    grey = bgra[..., :1]
    image = conversion.image_from_message(image_message("mono8", grey, padding))
    np.testing.assert_array_equal(image[..., :3], np.repeat(grey, 3, axis=2))
    assert (image[..., 3] == 255).all()


def test_byte_order_flag_means_nothing_for_bytes(bgra):
    message = image_message("bgra8", bgra)
    message.is_bigendian = 1
    np.testing.assert_array_equal(conversion.image_from_message(message), bgra)


def test_image_with_too_few_bytes(bgra):
    message = image_message("bgra8", bgra)
    message.data = message.data[:-1]
    with pytest.raises(ConversionError, match="139 bytes instead of 5 rows of 28"):
        conversion.image_from_message(message)


def test_image_with_short_rows(bgra):
    message = image_message("bgra8", bgra)
    message.step = 27
    with pytest.raises(ConversionError, match="27 bytes, too few for 7 bgra8 pixels"):
        conversion.image_from_message(message)


def test_empty_image():
    with pytest.raises(ConversionError, match="empty"):
        conversion.image_from_message(Image(encoding="bgra8"))


def test_unknown_encoding_needs_cv_bridge(bgra):
    message = image_message("no such encoding", bgra)
    with pytest.raises(ConversionError, match="cv_bridge"):
        conversion.image_from_message(message)


def test_camera_info():
    message = conversion.camera_info_to_message(160, 120, 90.0, Header())
    assert message.k[0] == message.k[4] == pytest.approx(80.0)
    assert (message.k[2], message.k[5]) == (80.0, 60.0)
    assert message.distortion_model == "plumb_bob" and list(message.d) == [0.0] * 5


def test_odometry():
    message = conversion.odometry_to_message(
        Pose(1.0, 2.0, 0.5), (3.0, 0.1, -0.2), conversion.make_header(7), "ego"
    )
    assert (message.header.frame_id, message.child_frame_id) == ("map", "ego")
    assert (message.twist.twist.linear.x, message.twist.twist.linear.y) == (3.0, 0.1)
    pose, yaw_rate = conversion.odometry_from_message(message)
    assert pose.yaw == pytest.approx(0.5) and yaw_rate == -0.2


def test_vehicle_status_has_no_sign_and_no_inner_header():
    message = conversion.vehicle_status_to_message(
        Pose(0.0, 0.0, 0.0), -2.0, (1.0, -1.0, 0.0), VehicleControl(steer=0.5), Header()
    )
    assert message.velocity == 2.0
    assert message.acceleration.linear.y == -1.0
    assert message.control.steer == 0.5 and message.control.header == Header()


def test_vehicle_info():
    message = vehicle_info_to_message(VehicleParameters(), 100, "vehicle.tesla.model3", "ego")
    assert (message.id, message.rolename) == (100, "ego")
    assert [wheel.max_steer_angle > 0.0 for wheel in message.wheels] == [True, True, False, False]
    assert message.wheels[0].position.y > 0.0 > message.wheels[1].position.y
    assert conversion.max_steer_from_vehicle_info(message) == pytest.approx(math.radians(70.0))


def test_path_round_trip():
    route = np.array([[0.0, 1.0, 0.5], [1.0, 2.0, -0.5]])
    path = conversion.route_to_path(route, conversion.make_header(3))
    assert path.header.frame_id == "map" and path.poses[0].header == Header()
    np.testing.assert_allclose(conversion.route_from_path(path), route, atol=1e-12)
    empty = conversion.route_to_path(route[:0], Header())
    assert conversion.route_from_path(empty).shape == (0, 3)


def test_events_round_trip():
    collision = Collision(5, 7, (1.0, -2.0, 3.0))
    message = conversion.collision_to_message(collision, "ego/collision")
    assert message.header.frame_id == "ego/collision"
    assert conversion.collision_from_message(message) == collision
    invasion = LaneInvasion(5, (2, 1))
    message = conversion.lane_invasion_to_message(invasion, "ego/lane_invasion")
    assert conversion.lane_invasion_from_message(message) == invasion


def test_target_velocity_turns_right_for_plus():
    message = conversion.target_velocity_to_message(3.0, yaw_rate_rps=0.5)
    assert message.angular.z == -0.5
    assert conversion.target_velocity_from_message(message) == (3.0, 0.0, 0.5)


def test_weather_round_trip():
    weather = NAMED["downpour"].weather
    assert conversion.weather_from_message(conversion.weather_to_message(weather)) == weather


def test_weather_is_brought_into_range_or_refused():
    message = conversion.weather_to_message(Weather(cloudiness=130.0, sun_altitude_angle=-91.0))
    weather = conversion.weather_from_message(message)
    assert (weather.cloudiness, weather.sun_altitude_angle) == (100.0, -90.0)
    for field in message.get_fields_and_field_types():
        for value in (math.nan, math.inf):
            message = conversion.weather_to_message(Weather())
            setattr(message, field, value)
            with pytest.raises(ConversionError, match=field):
                conversion.weather_from_message(message)
