# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The interfaces, those of ackermann_msgs, carla_msgs and tf2_msgs among them, field for field."""

import hashlib
import random
import re
from importlib import import_module
from pathlib import Path

import pytest
from rclpy.serialization import deserialize_message, serialize_message

from td3_driver.bridge.driver_messages import ComparedWith, PolicyKind
from td3_driver.bridge.interfaces import SHIPPED
from tools import setup_environment

INTERFACES = Path(__file__).resolve().parent.parent / "interfaces"

FIELDS = {
    "ackermann_msgs/msg/AckermannDrive": {
        "steering_angle": "float",
        "steering_angle_velocity": "float",
        "speed": "float",
        "acceleration": "float",
        "jerk": "float",
    },
    "ackermann_msgs/msg/AckermannDriveStamped": {
        "header": "std_msgs/Header",
        "drive": "ackermann_msgs/AckermannDrive",
    },
    "carla_msgs/msg/CarlaActorInfo": {
        "id": "uint32",
        "parent_id": "uint32",
        "type": "string",
        "rolename": "string",
    },
    "carla_msgs/msg/CarlaActorList": {"actors": "sequence<carla_msgs/CarlaActorInfo>"},
    "carla_msgs/msg/CarlaBoundingBox": {
        "center": "geometry_msgs/Vector3",
        "size": "geometry_msgs/Vector3",
    },
    "carla_msgs/msg/CarlaCollisionEvent": {
        "header": "std_msgs/Header",
        "other_actor_id": "uint32",
        "normal_impulse": "geometry_msgs/Vector3",
    },
    "carla_msgs/msg/CarlaControl": {"command": "int8"},
    "carla_msgs/msg/CarlaEgoVehicleControl": {
        "header": "std_msgs/Header",
        "throttle": "float",
        "steer": "float",
        "brake": "float",
        "hand_brake": "boolean",
        "reverse": "boolean",
        "gear": "int32",
        "manual_gear_shift": "boolean",
    },
    "carla_msgs/msg/CarlaEgoVehicleInfo": {
        "id": "uint32",
        "type": "string",
        "rolename": "string",
        "wheels": "sequence<carla_msgs/CarlaEgoVehicleInfoWheel>",
        "max_rpm": "float",
        "moi": "float",
        "damping_rate_full_throttle": "float",
        "damping_rate_zero_throttle_clutch_engaged": "float",
        "damping_rate_zero_throttle_clutch_disengaged": "float",
        "use_gear_autobox": "boolean",
        "gear_switch_time": "float",
        "clutch_strength": "float",
        "mass": "float",
        "drag_coefficient": "float",
        "center_of_mass": "geometry_msgs/Vector3",
    },
    "carla_msgs/msg/CarlaEgoVehicleInfoWheel": {
        "tire_friction": "float",
        "damping_rate": "float",
        "max_steer_angle": "float",
        "radius": "float",
        "max_brake_torque": "float",
        "max_handbrake_torque": "float",
        "position": "geometry_msgs/Vector3",
    },
    "carla_msgs/msg/CarlaEgoVehicleStatus": {
        "header": "std_msgs/Header",
        "velocity": "float",
        "acceleration": "geometry_msgs/Accel",
        "orientation": "geometry_msgs/Quaternion",
        "control": "carla_msgs/CarlaEgoVehicleControl",
    },
    "carla_msgs/msg/CarlaLaneInvasionEvent": {
        "header": "std_msgs/Header",
        "crossed_lane_markings": "sequence<int32>",
    },
    "carla_msgs/msg/CarlaStatus": {
        "frame": "uint64",
        "fixed_delta_seconds": "float",
        "synchronous_mode": "boolean",
        "synchronous_mode_running": "boolean",
    },
    "carla_msgs/msg/CarlaTrafficLightInfo": {
        "id": "uint32",
        "transform": "geometry_msgs/Pose",
        "trigger_volume": "carla_msgs/CarlaBoundingBox",
    },
    "carla_msgs/msg/CarlaTrafficLightInfoList": {
        "traffic_lights": "sequence<carla_msgs/CarlaTrafficLightInfo>"
    },
    "carla_msgs/msg/CarlaTrafficLightStatus": {"id": "uint32", "state": "uint8"},
    "carla_msgs/msg/CarlaTrafficLightStatusList": {
        "traffic_lights": "sequence<carla_msgs/CarlaTrafficLightStatus>"
    },
    "carla_msgs/msg/CarlaWalkerControl": {
        "direction": "geometry_msgs/Vector3",
        "speed": "float",
        "jump": "boolean",
    },
    "carla_msgs/msg/CarlaWeatherParameters": {
        "cloudiness": "float",
        "precipitation": "float",
        "precipitation_deposits": "float",
        "wind_intensity": "float",
        "fog_density": "float",
        "fog_distance": "float",
        "wetness": "float",
        "sun_azimuth_angle": "float",
        "sun_altitude_angle": "float",
    },
    "carla_msgs/msg/CarlaWorldInfo": {"map_name": "string", "opendrive": "string"},
    "carla_msgs/srv/SpawnObject_Request": {
        "type": "string",
        "id": "string",
        "attributes": "sequence<diagnostic_msgs/KeyValue>",
        "transform": "geometry_msgs/Pose",
        "attach_to": "uint32",
        "random_pose": "boolean",
    },
    "carla_msgs/srv/SpawnObject_Response": {"id": "int32", "error_string": "string"},
    "carla_msgs/srv/DestroyObject_Request": {"id": "int32"},
    "carla_msgs/srv/DestroyObject_Response": {"success": "boolean"},
    "carla_msgs/srv/GetBlueprints_Request": {"filter": "string"},
    "carla_msgs/srv/GetBlueprints_Response": {"blueprints": "sequence<string>"},
    "td3_driver_msgs/msg/PolicyInfo": {
        "kind": "uint8",
        "run": "string",
        "path": "string",
        "step": "uint64",
        "actor_sha256": "string",
        "has_critic": "boolean",
        "loaded_at": "builtin_interfaces/Time",
        "decision_period_s": "double",
        "max_steering_angle_rad": "double",
        "max_speed_mps": "double",
        "refused_path": "string",
        "refused_reason": "string",
    },
    "td3_driver_msgs/msg/PolicyOutput": {
        "header": "std_msgs/Header",
        "steering": "double",
        "speed": "double",
        "steering_angle_rad": "double",
        "speed_mps": "double",
        "q1": "double",
        "q2": "double",
        "inference_s": "double",
        "image_to_command_s": "double",
    },
    "td3_driver_msgs/msg/ShadowDisagreement": {
        "header": "std_msgs/Header",
        "compared_with": "uint8",
        "steering_angle_rad": "double",
        "speed_mps": "double",
        "pedal": "double",
    },
    "tf2_msgs/msg/TF2Error": {"error": "uint8", "error_string": "string"},
    "tf2_msgs/msg/TFMessage": {"transforms": "sequence<geometry_msgs/TransformStamped>"},
    "tf2_msgs/srv/FrameGraph_Request": {},
    "tf2_msgs/srv/FrameGraph_Response": {"frame_yaml": "string"},
}

CONSTANTS = {
    "carla_msgs/msg/CarlaControl": {"PLAY": 0, "PAUSE": 1, "STEP_ONCE": 2},
    "carla_msgs/msg/CarlaLaneInvasionEvent": {
        "LANE_MARKING_OTHER": 0,
        "LANE_MARKING_BROKEN": 1,
        "LANE_MARKING_SOLID": 2,
    },
    "carla_msgs/msg/CarlaTrafficLightStatus": {
        "RED": 0,
        "YELLOW": 1,
        "GREEN": 2,
        "OFF": 3,
        "UNKNOWN": 4,
    },
    "td3_driver_msgs/msg/PolicyInfo": {kind.name: kind for kind in PolicyKind},
    "td3_driver_msgs/msg/ShadowDisagreement": {what.name: what for what in ComparedWith},
    "tf2_msgs/msg/TF2Error": {
        "NO_ERROR": 0,
        "LOOKUP_ERROR": 1,
        "CONNECTIVITY_ERROR": 2,
        "EXTRAPOLATION_ERROR": 3,
        "INVALID_ARGUMENT_ERROR": 4,
        "TIMEOUT_ERROR": 5,
        "TRANSFORM_ERROR": 6,
    },
}


def message_class(name: str) -> type:
    package, kind, leaf = name.split("/")
    return getattr(import_module(f"{package}.{kind}"), leaf)


def filled(cls: type, chance: random.Random):
    """Make a message with a different value in every field, nested ones too."""
    return cls(
        **{
            field: value_of(kind, chance)
            for field, kind in cls.get_fields_and_field_types().items()
        }
    )


def value_of(kind: str, chance: random.Random):
    sequence = re.fullmatch(r"sequence<(.+)>", kind)
    if sequence:
        return [value_of(sequence[1], chance) for _ in range(3)]
    if "/" in kind:
        package, leaf = kind.split("/")
        return filled(message_class(f"{package}/msg/{leaf}"), chance)
    if kind == "boolean":
        return True
    if kind in ("float", "double"):
        return chance.randrange(1, 4096) / 8  # exact in 32 bits
    if kind == "string":
        return f"ü{chance.randrange(10**6)}"
    return chance.randrange(1, 127)


@pytest.mark.parametrize("name", FIELDS)
def test_fields_are_in_order_and_of_the_right_type(name):
    assert list(message_class(name).get_fields_and_field_types().items()) == list(
        FIELDS[name].items()
    )


@pytest.mark.parametrize("name", CONSTANTS)
def test_constants(name):
    cls = message_class(name)
    assert {constant: getattr(cls, constant) for constant in CONSTANTS[name]} == CONSTANTS[name]


@pytest.mark.parametrize("name", FIELDS)
def test_a_message_survives_the_wire(name):
    cls = message_class(name)
    message = filled(cls, random.Random(name))
    assert deserialize_message(serialize_message(message), cls) == message


def test_every_definition_is_tested_and_listed_for_the_build():
    defined = set()
    for file in [*INTERFACES.glob("*/msg/*.msg"), *INTERFACES.glob("*/srv/*.srv")]:
        package, kind = file.parts[-3:-1]
        listed = (INTERFACES / package / "CMakeLists.txt").read_text()
        assert f"  {kind}/{file.name}\n" in listed
        ends = ("",) if kind == "msg" else ("_Request", "_Response")
        defined.update(f"{package}/{kind}/{file.stem}{end}" for end in ends)
    assert defined == FIELDS.keys()


def test_what_ships_is_set_up_and_can_be_named() -> None:
    folders = {manifest.parent.name for manifest in INTERFACES.glob("*/package.xml")}
    assert folders == set(SHIPPED) == set(setup_environment.INTERFACES)


BRIDGES_DEFINITIONS = {
    "msg/CarlaActorInfo.msg": "a538ad7a20605cfa",
    "msg/CarlaActorList.msg": "ee5bb869f6b2761f",
    "msg/CarlaBoundingBox.msg": "5faa43f097655f89",
    "msg/CarlaCollisionEvent.msg": "6ec7145bdfe32df1",
    "msg/CarlaControl.msg": "3c334eda897b5a6b",
    "msg/CarlaEgoVehicleControl.msg": "0f8fcb6a42717fbb",
    "msg/CarlaEgoVehicleInfo.msg": "d667e92ecbd02249",
    "msg/CarlaEgoVehicleInfoWheel.msg": "40f55f6b58c72c95",
    "msg/CarlaEgoVehicleStatus.msg": "292ebb5b37fad704",
    "msg/CarlaLaneInvasionEvent.msg": "e34377964bbb5852",
    "msg/CarlaStatus.msg": "96882564b710f133",
    "msg/CarlaTrafficLightInfo.msg": "3aa398665002718f",
    "msg/CarlaTrafficLightInfoList.msg": "211f7a4816941117",
    "msg/CarlaTrafficLightStatus.msg": "2aa771a0a05811cf",
    "msg/CarlaTrafficLightStatusList.msg": "842614366120bc02",
    "msg/CarlaWalkerControl.msg": "da0362ea69a041a6",
    "msg/CarlaWeatherParameters.msg": "01c1877c0bb98a0e",
    "msg/CarlaWorldInfo.msg": "79e4cef14c771deb",
    "srv/DestroyObject.srv": "2af4c2ff3041f6c3",
    "srv/GetBlueprints.srv": "f56fbc0f31cb573a",
    "srv/SpawnObject.srv": "68af898eba520e45",
}
"""Digests of carla_msgs at 081fdcd, the commit that carla-ros-bridge builds with (`digest`)."""


def digest(text: str) -> str:
    """Return a digest of a definition's fields and constants, in order, without its comments."""
    codes = (" ".join(line.split("#")[0].split()) for line in text.splitlines())
    lines = [re.sub(r" ?= ?", "=", code) for code in codes if code]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def test_the_definitions_are_those_of_the_bridges_carla_msgs() -> None:
    folder = INTERFACES / "carla_msgs"
    ours = {
        path.relative_to(folder).as_posix(): digest(path.read_text())
        for path in [*folder.glob("msg/*.msg"), *folder.glob("srv/*.srv")]
    }
    assert ours == BRIDGES_DEFINITIONS
