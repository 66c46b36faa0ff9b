"""The topic contract of carla-ros-bridge in one table: names, types, directions and QoS.

The simulator node publishes and subscribes by this table, `CarlaWorld` and the driver meet it from
the other side. Importing it needs no ROS; `message_type` and the profiles do.
"""

from __future__ import annotations

import enum
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from td3_driver.config import CarlaConfig

if TYPE_CHECKING:
    from rclpy.qos import QoSProfile


class Direction(enum.Enum):
    """Who publishes a topic."""

    FROM_SIMULATOR = "from the simulator"
    TO_SIMULATOR = "to the simulator"


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
# Best effort matches every fork of the bridge; a second image waits for the stamp check of
# the lock-step while the first is being looked at.
IMAGE_SUBSCRIBER = Qos(reliable=False, latched=False, depth=2)


@dataclass(frozen=True)
class Topic:
    """One topic: what travels on it, who sends it, and with which QoS on either side."""

    template: str
    type_name: str
    direction: Direction
    bridge_qos: Qos
    """What the bridge, and the embedded simulator like it, creates its end with."""
    client_qos: Qos
    """What the nodes of this package create their end with."""
    description: str

    def name(self, config: CarlaConfig) -> str:
        """Return the full name for a role name, camera id and control id."""
        return self.template.format(
            role=config.role_name, camera=config.camera, control=config.control
        )

    @property
    def message_type(self) -> Any:
        """The message class; raises ImportError where its package is not installed."""
        return message_class(self.type_name)


def message_class(type_name: str) -> Any:
    """Return the class of `package/msg/Type`; raises ImportError where it is not installed."""
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
    "/carla/{role}/goal", "geometry_msgs/msg/PoseStamped", "Where the route is to lead."
)
ACKERMANN = _subscribed(
    "/carla/{role}/ackermann_cmd",
    "ackermann_msgs/msg/AckermannDrive",
    "Steering angle (+ = left) and speed, for carla_ackermann_control.",
)

TOPICS: tuple[Topic, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Topic)
)

# What the nodes of this package tell beside the contract, and what belongs to the transforms.
OUTPUTS = ("/driver/.+", "/diagnostics", "/tf_static")


def recorded_pattern(config: CarlaConfig) -> str:
    """Return a regular expression of the topics that make up the record of a drive."""
    names = [topic.name(config) for topic in TOPICS]  # letters, digits, _ and /
    return f"^({'|'.join([*names, *OUTPUTS])})$"
