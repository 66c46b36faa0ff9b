# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The topic contract of carla-ros-bridge in one table: names, types, directions and QoS.

The simulator node uses one side of this table, `CarlaWorld` and the driver the other. `PROFILES`
holds what other bridges do differently, and settings (`carla.*`) override both. Importing this
module needs no ROS; message types, QoS and the `create_...` functions do.
"""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from td3_driver.config import LONGEST_ROS_NAME, ROS_NAME, CarlaConfig, ConfigError, shown

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.publisher import Publisher
    from rclpy.qos import QoSProfile


class Direction(enum.Enum):
    """Who publishes a topic."""

    FROM_SIMULATOR = "from the simulator"
    TO_SIMULATOR = "to the simulator"
    FROM_NODES = "from this package's other nodes"


@dataclass(frozen=True)
class Qos:
    """The part of a QoS profile that the bridge chooses; history is always KEEP_LAST."""

    reliable: bool
    latched: bool
    depth: int

    def profile(self) -> QoSProfile:
        """Return the profile as rclpy knows it."""
        from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

        return QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self.depth,
            reliability=(
                ReliabilityPolicy.RELIABLE if self.reliable else ReliabilityPolicy.BEST_EFFORT
            ),
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if self.latched else DurabilityPolicy.VOLATILE
            ),
        )

    def __str__(self) -> str:
        reliability = "reliable" if self.reliable else "best effort"
        durability = "transient local" if self.latched else "volatile"
        return f"{reliability}, {durability}, depth {self.depth}"


RELIABLE = Qos(reliable=True, latched=False, depth=10)
LATCHED = Qos(reliable=True, latched=True, depth=1)
LATCHED_DEEP = Qos(reliable=True, latched=True, depth=10)
# Best effort matches every fork of the bridge; depth 2 keeps a second image for the lock-step's
# stamp check while the first is being processed.
IMAGE_SUBSCRIBER = Qos(reliable=False, latched=False, depth=2)
SENSOR_DATA = Qos(reliable=False, latched=False, depth=5)


@dataclass(frozen=True)
class Topic:
    """One topic: its contents, its publisher, and the QoS on either side."""

    template: str
    type_name: str
    direction: Direction
    bridge_qos: Qos
    """QoS of the bridge's end, and of the embedded simulator's."""
    client_qos: Qos
    """QoS of this package's end."""
    description: str

    def name(self, config: CarlaConfig) -> str:
        """Return the full name for a profile, role name, camera id and control id."""
        template = _renamed(config).get(self) or self.template
        return template.format(role=config.role_name, camera=config.camera, control=config.control)

    @property
    def message_type(self) -> Any:
        """The bridge's message class; raises ImportError if its package is not installed."""
        return message_class(self.type_name)

    def message_type_in(self, config: CarlaConfig) -> Any:
        """Return the message class selected by the settings."""
        return message_class(self.type_name_in(config))

    def type_name_in(self, config: CarlaConfig) -> str:
        """Return the name of the message type selected by the settings."""
        return ackermann_type(config) if self is ACKERMANN else self.type_name

    def bridge_qos_in(self, config: CarlaConfig) -> Qos:
        """Return the QoS of the bridge's end under a profile."""
        best_effort = self is IMAGE and not PROFILES[config.profile].images_reliable
        return SENSOR_DATA if best_effort else self.bridge_qos

    def client_qos_in(self, config: CarlaConfig) -> Qos:
        """Return the QoS of this package's end; raises ConfigError if it cannot match."""
        if self is not IMAGE or config.image_reliability == "best_effort":
            return self.client_qos
        if not self.bridge_qos_in(config).reliable:
            raise ConfigError(
                f"carla.image_reliability is reliable, but the profile {config.profile} publishes "
                "images best effort, and no image would arrive: set best_effort"
            )
        return replace(self.client_qos, reliable=True)


def message_class(type_name: str) -> Any:
    """Return the class of `package/msg/Type`; raises ImportError if it is not installed."""
    package, _, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def _published(
    template: str,
    type_name: str,
    description: str,
    bridge_qos: Qos = RELIABLE,
    client_qos: Qos = RELIABLE,
) -> Topic:
    return Topic(
        template, type_name, Direction.FROM_SIMULATOR, bridge_qos, client_qos, description
    )


def _subscribed(
    template: str,
    type_name: str,
    description: str,
    bridge_qos: Qos = RELIABLE,
    client_qos: Qos = RELIABLE,
) -> Topic:
    return Topic(template, type_name, Direction.TO_SIMULATOR, bridge_qos, client_qos, description)


CLOCK = _published("/clock", "rosgraph_msgs/msg/Clock", "Simulation time, each tick.")
STATUS = _published(
    "/carla/status",
    "carla_msgs/msg/CarlaStatus",
    "Frame number and run state, at every change of either.",
)
WORLD_INFO = _published(
    "/carla/world_info",
    "carla_msgs/msg/CarlaWorldInfo",
    "Name and OpenDRIVE text of the map, once for each map.",
    bridge_qos=LATCHED_DEEP,
    client_qos=LATCHED,
)
TF = _published("/tf", "tf2_msgs/msg/TFMessage", "map to car, and car to camera, each tick.")
VEHICLE_STATUS = _published(
    "/carla/{role}/vehicle_status",
    "carla_msgs/msg/CarlaEgoVehicleStatus",
    "Unsigned speed, acceleration in map axes and the command in force (steer + = right).",
)
VEHICLE_INFO = _published(
    "/carla/{role}/vehicle_info",
    "carla_msgs/msg/CarlaEgoVehicleInfo",
    "Wheels, largest steering angle and mass of the car, once.",
    bridge_qos=LATCHED_DEEP,
    client_qos=LATCHED,
)
CAMERA_INFO = _published(
    "/carla/{role}/{camera}/camera_info",
    "sensor_msgs/msg/CameraInfo",
    "Intrinsics, before each image and with its header.",
)
IMAGE = _published(
    "/carla/{role}/{camera}/image",
    "sensor_msgs/msg/Image",
    "Forward camera, bgra8.",
    client_qos=IMAGE_SUBSCRIBER,
)
ODOMETRY = _published(
    "/carla/{role}/odometry",
    "nav_msgs/msg/Odometry",
    "Pose in the map; velocities in the car's frame (x forward, y left, yaw + = left).",
)
SPEEDOMETER = _published(
    "/carla/{role}/speedometer", "std_msgs/msg/Float32", "Signed forward speed, m/s; no header."
)
COLLISION = _published(
    "/carla/{role}/collision",
    "carla_msgs/msg/CarlaCollisionEvent",
    "One message for each contact in each tick; the impulse keeps CARLA's axes.",
)
LANE_INVASION = _published(
    "/carla/{role}/lane_invasion",
    "carla_msgs/msg/CarlaLaneInvasionEvent",
    "Lane markings crossed, when they are.",
)
WAYPOINTS = _published(
    "/carla/{role}/waypoints",
    "nav_msgs/msg/Path",
    "Route to the goal, points 1 m apart, after each goal and each teleport.",
    bridge_qos=LATCHED,
    client_qos=LATCHED,
)
CONTROL = _subscribed("/carla/control", "carla_msgs/msg/CarlaControl", "PLAY, PAUSE or STEP_ONCE.")
WEATHER = _subscribed(
    "/carla/weather_control",
    "carla_msgs/msg/CarlaWeatherParameters",
    "Weather and sun, in force until replaced.",
)
VEHICLE_CONTROL = _subscribed(
    "/carla/{role}/vehicle_control_cmd",
    "carla_msgs/msg/CarlaEgoVehicleControl",
    "Pedals and steering (+ = right), in force until replaced; ignored under manual override.",
)
VEHICLE_CONTROL_MANUAL = _subscribed(
    "/carla/{role}/vehicle_control_cmd_manual",
    "carla_msgs/msg/CarlaEgoVehicleControl",
    "Pedals and steering under manual override.",
)
MANUAL_OVERRIDE = _subscribed(
    "/carla/{role}/vehicle_control_manual_override",
    "std_msgs/msg/Bool",
    "Whether the manual commands are the ones in force.",
    bridge_qos=LATCHED,
    client_qos=LATCHED,
)
ENABLE_AUTOPILOT = _subscribed(
    "/carla/{role}/enable_autopilot", "std_msgs/msg/Bool", "Hands the car to CARLA's autopilot."
)
SET_TRANSFORM = _subscribed(
    "/carla/{role}/{control}/set_transform",
    "geometry_msgs/msg/Pose",
    "Teleports the car, which keeps its velocity.",
)
SET_TARGET_VELOCITY = _subscribed(
    "/carla/{role}/{control}/set_target_velocity",
    "geometry_msgs/msg/Twist",
    "Sets the car's velocity in its own frame; angular.z + turns right, as in the bridge.",
)
GOAL = _subscribed(
    "/carla/{role}/goal", "geometry_msgs/msg/PoseStamped", "Where the route should lead."
)
ACKERMANN = _subscribed(
    "/carla/{role}/ackermann_cmd",
    "ackermann_msgs/msg/AckermannDrive",
    "Steering angle (+ = left) and speed, for carla_ackermann_control.",
)

BY_KEY: dict[str, Topic] = {
    key.lower(): value for key, value in list(globals().items()) if isinstance(value, Topic)
}
"""Each topic by its name in this table, in lower case: what `carla.topic_names` calls it."""
TOPICS: tuple[Topic, ...] = tuple(BY_KEY.values())
"""What a bridge and this package's nodes say to each other."""

DIAGNOSTICS = Topic(
    "/diagnostics",
    "diagnostic_msgs/msg/DiagnosticArray",
    Direction.FROM_NODES,
    RELIABLE,
    RELIABLE,
    "Statuses named after their node: the trainer's health, figures and lock-step; the driver's "
    "watchdog, camera, policy, commands and company.",
)

ACKERMANN_STAMPED = "ackermann_msgs/msg/AckermannDriveStamped"


@dataclass(frozen=True)
class Profile:
    """How a bridge differs from carla-simulator's ros-bridge."""

    description: str
    names: Mapping[Topic, str] = field(default_factory=dict)
    map_frame: str = "map"
    ackermann_type: str = ACKERMANN.type_name
    images_reliable: bool = True


PROFILES: dict[str, Profile] = {
    "ros_bridge": Profile(
        "carla-simulator/ros-bridge, and ika-rwth-aachen/carla-ros-bridge with the same topics"
    ),
    "ttgamage": Profile(
        "ttgamage/carla-ros-bridge; its cars are called hero by default",
        names={GOAL: "/carla/{role}/goal_pose"},
    ),
    "tum": Profile("TUMFTM/ros-bridge; its images are best effort", images_reliable=False),
    "openads": Profile(
        "openads-project/carla-ros-bridge",
        names={VEHICLE_CONTROL: "/carla/{role}/vehicle_control_cmd_automated"},
        map_frame="carla_map",
        ackermann_type=ACKERMANN_STAMPED,
    ),
}


def map_frame(config: CarlaConfig) -> str:
    """Return the name of the map's frame."""
    return config.map_frame or PROFILES[config.profile].map_frame


def ackermann_type(config: CarlaConfig) -> str:
    """Return the type name of Ackermann commands."""
    if config.ackermann_message == "profile":
        return PROFILES[config.profile].ackermann_type
    return f"ackermann_msgs/msg/{config.ackermann_message}"


def create_publisher(node: Node, topic: Topic, config: CarlaConfig) -> Publisher:
    """Create this package's end of a topic that goes to the simulator."""
    return _create_publisher(node, topic, config, topic.client_qos_in(config))


def create_subscription(
    node: Node, topic: Topic, config: CarlaConfig, handler: Callable[[Any], None]
) -> Any:
    """Create this package's end of a topic that comes from the simulator."""
    return _create_subscription(node, topic, config, topic.client_qos_in(config), handler)


def create_bridge_publisher(node: Node, topic: Topic, config: CarlaConfig) -> Publisher:
    """Create the simulator's end of a topic that comes from it."""
    return _create_publisher(node, topic, config, topic.bridge_qos_in(config))


def create_bridge_subscription(
    node: Node, topic: Topic, config: CarlaConfig, handler: Callable[[Any], None]
) -> Any:
    """Create the simulator's end of a topic that goes to it."""
    return _create_subscription(node, topic, config, topic.bridge_qos_in(config), handler)


def _create_publisher(node: Node, topic: Topic, config: CarlaConfig, qos: Qos) -> Publisher:
    return node.create_publisher(topic.message_type_in(config), topic.name(config), qos.profile())


def _create_subscription(
    node: Node, topic: Topic, config: CarlaConfig, qos: Qos, handler: Callable[[Any], None]
) -> Any:
    return node.create_subscription(
        topic.message_type_in(config), topic.name(config), handler, qos.profile()
    )


def _renamed(config: CarlaConfig) -> Mapping[Topic, str]:
    """Return the name templates that differ from the table's."""
    return {**PROFILES[config.profile].names, **_given_names(config.topic_names)}


@lru_cache(maxsize=8)
def _given_names(text: str) -> Mapping[Topic, str]:
    """Read `carla.topic_names`; raises ConfigError naming what is wrong."""
    names: dict[Topic, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, template = (piece.strip() for piece in part.partition("="))
        if key not in BY_KEY:
            raise ConfigError(f"carla.topic_names: {key!r} is none of {', '.join(BY_KEY)}")
        plain = re.sub(r"\{(role|camera|control)\}", "x", template)
        parts = plain.removeprefix("/").split("/")
        fits = plain.startswith("/") and len(plain) <= LONGEST_ROS_NAME
        if not (fits and all(map(ROS_NAME.fullmatch, parts))):
            raise ConfigError(
                f"carla.topic_names: {shown(part)} is not of the form topic=/name, where "
                "{role}, {camera} and {control} may stand for their settings; a name has letters, "
                f"digits and _ only, and at most {LONGEST_ROS_NAME} characters"
            )
        names[BY_KEY[key]] = template
    return names
