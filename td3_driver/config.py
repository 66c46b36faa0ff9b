# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Every setting of td3_driver: its type, default, description, unit and range, in one place.

`load()` reads a YAML file in the form of a ROS 2 parameter file over these defaults. The nodes
declare the same settings as ROS parameters (`td3_driver.bridge.parameters`), and a run's folder
keeps the values in effect.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from td3_driver import parameter_files
from td3_driver.documents import in_short
from td3_driver.faults import HARMLESS, Fault
from td3_driver.parameter_files import ParameterFileError


def shipped_folder(module: Path) -> Path:
    """Return the folder of the shipped configurations: beside the source, or where installed."""
    source = module.parents[1]
    if (source / "package.xml").is_file():
        return source / "config"
    shares = (folder / "share" / "td3_driver" / "config" for folder in module.parents)
    return next((share for share in shares if share.is_dir()), source / "config")


CONFIG_FOLDER = shipped_folder(Path(__file__).resolve())


class ConfigError(ValueError):
    """A setting is unknown or out of range; the message names it."""


LARGEST = 1e9
"""Of numbers without a limit of their own: no count, memory or wait, in s, can be larger."""
LONGEST = 4096
"""Characters of a text, and items of a list."""


class Section(BaseModel):
    """A group of settings; unknown names are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*")
    @classmethod
    def _has_a_size_that_something_can_have(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        field = cls.model_fields[info.field_name]
        if isinstance(value, int | float) and not {"le", "lt"} & limits(field).keys():
            if abs(value) > LARGEST:
                raise ValueError(f"it is beyond {LARGEST:g}")
        elif isinstance(value, str | tuple) and len(value) > max(LONGEST, _most(field)):
            raise ValueError(f"it is longer than {LONGEST}")
        return value


def _setting(default: Any, description: str, unit: str = "", **limits: Any) -> Any:
    """Declare a setting; `limits` are pydantic's (ge, gt, le, lt, min_length, ...)."""
    return Field(default, description=description, json_schema_extra={"unit": unit}, **limits)


def limits(field: FieldInfo) -> dict[str, Any]:
    """Return a setting's limits by their names in pydantic: ge, gt, le, lt, min_length, ..."""
    names = ("ge", "gt", "le", "lt", "min_length", "max_length")
    return {
        name: getattr(item, name)
        for item in field.metadata
        for name in names
        if getattr(item, name, None) is not None
    }


def _most(field: FieldInfo) -> int:
    return int(limits(field).get("max_length", 0))


def unit(field: FieldInfo) -> str:
    """Return a setting's unit, empty where it has none."""
    extra = field.json_schema_extra
    return str(extra.get("unit", "")) if isinstance(extra, dict) else ""


WIDEST = 4096
"""Units that a layer of the networks may have."""
MOST_WEIGHTS = 1 << 28
"""Weights that a network may have: 1 GiB in single precision."""
Width = Annotated[int, Field(ge=1, le=WIDEST)]
LookLevel = Literal["off", "mild", "strong"]
TrainingLook = Literal[
    "clear_noon",
    "overcast",
    "morning_haze",
    "evening_sun",
    "after_rain",
    "drizzle",
    "pale_road",
    "worn_lines",
]
HeldOutLook = Literal["thick_fog", "dusk", "downpour", "red_earth"]
LookChoice = Literal["drawn", "training", "held_out", TrainingLook, HeldOutLook]
ObstacleKind = Literal["parked", "standing", "slow", "crossing", "pedestrian"]


class SimulatorConfig(Section):
    """The embedded simulator: map, car, camera, looks, traffic and obstacles."""

    map: str = _setting("ring_meadow", "Name of a shipped map, or path of an OpenDRIVE file.")
    seed: int = _setting(0, "Seed of the world's looks, traffic and obstacles.", ge=0, lt=2**31)
    fixed_delta_s: float = _setting(0.05, "Simulated time of one tick.", "s", gt=0.0, lt=0.1)
    realtime_factor: float = _setting(
        1.0,
        "Simulated seconds per wall-clock second while running freely.",
        gt=0.0,
        le=100.0,
    )
    image_width_px: int = _setting(160, "Width of the camera image.", "px", ge=16, le=1920)
    image_height_px: int = _setting(120, "Height of the camera image.", "px", ge=16, le=1080)
    camera_fov_deg: float = _setting(
        90.0, "Horizontal field of view of the camera.", "deg", ge=20.0, le=150.0
    )
    camera_x_m: float = _setting(1.5, "Camera ahead of the car's origin.", "m", ge=-5.0, le=5.0)
    camera_z_m: float = _setting(1.7, "Camera above the road.", "m", ge=0.3, le=10.0)
    camera_pitch_deg: float = _setting(
        0.0, "Pitch of the camera, + = looking down.", "deg", ge=-20.0, le=45.0
    )
    looks: LookLevel = _setting(
        "off",
        "How much light, weather, colours and the camera vary from episode to episode; off = each "
        "map always looks the same. In training over topics, the weather is also published where "
        "an episode begins. See docs/simulator.md.",
    )
    look: LookChoice = _setting(
        "drawn",
        "drawn = as simulator.looks says; training, held_out = one of the eight named looks to "
        "train on, or of the four held out, drawn for each episode; or one look for all episodes.",
    )
    roadside: bool = _setting(
        False, "Buildings and marker posts beside the road, so that depth and speed can be seen."
    )
    traffic_vehicles: int = _setting(0, "Other vehicles on the road.", ge=0, le=50)
    obstacles: int = _setting(
        0, "Most obstacles on a route; as many as fit on it at their spacing.", ge=0, le=20
    )
    obstacle_spacing_min_m: float = _setting(
        35.0,
        "Least distance along the route from its start to an obstacle, and from one to the next.",
        "m",
        ge=20.0,
        le=1000.0,
    )
    obstacle_spacing_max_m: float = _setting(
        60.0, "Largest such distance; each is drawn between the two.", "m", ge=20.0, le=1000.0
    )
    obstacle_kinds: tuple[ObstacleKind, ...] = _setting(
        ("parked", "standing", "slow"),
        "What an obstacle may be, each as often as the others, or as often as it is named: parked "
        "= partly in the lane; standing = in the lane, drives on after a while; slow = drives "
        "slowly at first; crossing, pedestrian = cross the lane as the car comes near. See "
        "docs/simulator.md.",
        min_length=1,
    )
    faults: str = _setting(
        "",
        "Faults to inject, to test how a client handles them, such as 'lost_step@40, "
        "missing:image@80x3/500'; empty = none. See docs/carla.md.",
    )

    @field_validator("looks", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        # YAML reads `off` as false, in a file as on a command line.
        return "off" if value is False else value

    @model_validator(mode="after")
    def _spacings_rise(self) -> SimulatorConfig:
        if self.obstacle_spacing_max_m < self.obstacle_spacing_min_m:
            raise ValueError("obstacle_spacing_max_m must not be below obstacle_spacing_min_m")
        return self


ROS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""One part of a ROS name."""
LONGEST_ROS_NAME = 80
"""Characters of a name that others are made with: ROS takes 247 for a topic's."""


class CarlaConfig(Section):
    """The topics of carla-ros-bridge and the lock-step over them."""

    role_name: str = _setting(
        "ego_vehicle",
        "Role name of the car; its topics are /carla/<role_name>/...",
        min_length=1,
    )
    camera: str = _setting("rgb_front", "Id of the camera sensor.", min_length=1)
    control: str = _setting("control", "Id of the actor.pseudo.control.", min_length=1)
    profile: Literal["ros_bridge", "ttgamage", "tum", "openads"] = _setting(
        "ros_bridge",
        "Which bridge's names, types and QoS to use: ros_bridge (carla-simulator's, and "
        "ika-rwth-aachen's), or another fork. See docs/carla.md.",
    )
    topic_names: str = _setting(
        "",
        "Topic names that override the profile's, such as "
        "'image=/carla/{role}/front/image, goal=/goal_pose'.",
    )
    map_frame: str = _setting("", "Frame of the map; empty = the profile's.")
    ackermann_message: Literal["profile", "AckermannDrive", "AckermannDriveStamped"] = _setting(
        "profile", "Message type of Ackermann commands."
    )
    image_reliability: Literal["best_effort", "reliable"] = _setting(
        "best_effort",
        "Reliability requested for the camera's images: best_effort matches every bridge.",
    )
    command_lead_s: float = _setting(
        0.0,
        "Wall-clock time between a command and its STEP_ONCE: 0 for the embedded simulator, "
        "0.002 to 0.005 for carla-ros-bridge.",
        "s",
        ge=0.0,
        le=1.0,
    )
    startup_timeout_s: float = _setting(
        120.0, "Wall-clock wait for the first status of the simulator.", "s", gt=0.0
    )
    step_timeout_s: float = _setting(5.0, "Wall-clock wait for one step to complete.", "s", gt=0.0)
    outage_timeout_s: float = _setting(
        600.0,
        "Wall-clock wait for a simulator that stopped answering to come back; after that, "
        "training ends with everything saved.",
        "s",
        ge=0.0,
    )
    route_planner: Literal["waypoint_publisher", "own"] = _setting(
        "waypoint_publisher",
        "Who plans an episode's route: the node that answers goals with a Path, or this package, "
        "from the map's OpenDRIVE along the same lane centres.",
    )

    @field_validator("role_name", "camera", "control")
    @classmethod
    def _is_part_of_a_ros_name(cls, value: str, info: ValidationInfo) -> str:
        # Only ids of sensors may be names in a namespace.
        parts = [value] if info.field_name == "role_name" else value.split("/")
        if not all(map(ROS_NAME.fullmatch, parts)) or len(value) > LONGEST_ROS_NAME:
            raise ValueError(
                "becomes part of topic names, so it has letters, digits and _ only, does not "
                f"start with a digit, and has at most {LONGEST_ROS_NAME} characters"
            )
        return value

    teleport_height_m: float = _setting(
        0.3, "Height above the road from which a reset drops the car.", "m", ge=0.0, le=2.0
    )
    reset_settle_ticks: int = _setting(
        3, "Ticks for which the car is held still after a teleport.", ge=1, le=100
    )


VectorPart = Literal["speed", "lateral", "heading", "waypoints", "previous_action", "command"]
VECTOR_PARTS: tuple[VectorPart, ...] = get_args(VectorPart)
"""What the observation's vector can be made of, in the order in which it is."""
LANE_PARTS = {"lateral", "heading", "waypoints"}
"""Those that say where the lane is."""
ROUTE_PARTS = {*LANE_PARTS, "command"}
"""Those that are read off the route."""
PrivilegedPart = Literal[VectorPart, "others", "advice"]
"""What only training can know: parts of the vector, the others on the road, and an action that a
scripted driver advises who is told them."""


TOLD_IN = (
    "driving.privileged_others and driving.advice need the embedded simulator in process: set "
    "fleet.collectors to 1 or more and fleet.simulator to in_process, or turn them off"
)


class DrivingConfig(Section):
    """The task: observation, action, reward and the ends of an episode."""

    image_size_px: int = _setting(84, "Side of the square image observed.", "px", ge=36, le=1024)
    image_stack: int = _setting(4, "Latest images stacked in one observation.", ge=1, le=16)
    image_channels: Literal[1, 3] = _setting(
        1, "Channels of each image observed: 1 = grey, 3 = red, green and blue."
    )
    waypoints: int = _setting(10, "Route points in the observation.", ge=1, le=50)
    waypoint_spacing_m: float = _setting(
        2.0, "Distance along the route between observed points.", "m", gt=0.0
    )
    vector: tuple[VectorPart, ...] = _setting(
        ("speed", "lateral", "heading", "waypoints"),
        "What the observation's vector is made of. Without lateral, heading, waypoints and "
        "command, a policy needs no route: it drives by its camera.",
        min_length=1,
    )
    command_ahead_m: float = _setting(
        30.0,
        "Distance before a turn of the route from which command announces it.",
        "m",
        gt=0.0,
        le=1000.0,
    )
    privileged_critic: bool = _setting(
        False,
        "In training, show the critic those of lateral, heading and waypoints that the vector "
        "leaves out; all three, as they really are, where the route is observed with an error (an "
        "asymmetric actor-critic, Pinto et al., 2018). The policy sees and needs nothing of them.",
    )
    privileged_others: int = _setting(
        0,
        "In training, tell the critic of so many of the vehicles and pedestrians next on the "
        "route: the room before them, how far to move aside to pass them, and their speed; 0 = "
        "none. The policy sees and needs nothing of it.",
        ge=0,
        le=10,
    )
    advice: bool = _setting(
        False,
        "In training, ask a scripted driver that is told where the others are what it would do: "
        "the critic sees it, and learning.imitated: advice draws the actor towards it.",
    )
    route_offset_m: float = _setting(
        0.0,
        "Largest sideways error, either way, of where training and evaluation observe the route; "
        "drawn for each episode. Reward and ends keep the truth.",
        "m",
        ge=0.0,
        le=10.0,
    )
    route_turn_rad: float = _setting(
        0.0,
        "Largest error, either way, of the heading at which they observe it, drawn likewise.",
        "rad",
        ge=0.0,
        le=0.5,
    )
    action_repeat: int = _setting(1, "Ticks for which one action is held.", ge=1, le=10)

    max_steering_angle_rad: float = _setting(
        0.5, "Largest steering angle commanded.", "rad", gt=0.0, le=1.3
    )
    max_steering_rate_rps: float = _setting(
        1.5, "Fastest change of the commanded steering angle.", "rad/s", gt=0.0
    )
    max_speed_mps: float = _setting(8.0, "Largest speed commanded.", "m/s", gt=0.0, le=50.0)
    max_acceleration_mps2: float = _setting(
        3.0, "Fastest rise of the commanded speed.", "m/s^2", gt=0.0
    )
    max_deceleration_mps2: float = _setting(
        6.0, "Fastest fall of the commanded speed.", "m/s^2", gt=0.0
    )

    vehicle_max_steer_rad: float = _setting(
        1.2217,
        "Wheel angle at full steer (70 degrees for CARLA's cars).",
        "rad",
        gt=0.0,
        le=1.5,
    )

    target_speed_mps: float = _setting(6.0, "Speed that earns the full reward.", "m/s", gt=0.0)
    reward_speed_limit_mps: float = _setting(
        9.0, "Speed from which the reward is 0.", "m/s", gt=0.0
    )
    lateral_limit_m: float = _setting(
        2.0, "Distance from the route that counts as off the lane.", "m", gt=0.0
    )
    off_lane_ticks: int = _setting(2, "Decisions in a row off the lane that end an episode.", ge=1)
    heading_limit_rad: float = _setting(
        0.7854, "Heading error at which the reward is 0.", "rad", gt=0.0, le=3.15
    )
    wrong_way_rad: float = _setting(
        1.5708, "Heading error that counts as wrong way.", "rad", gt=0.0, le=3.15
    )
    steering_change_cost: float = _setting(
        0.05, "Cost of changing the steering action by 1 (half its range).", ge=0.0
    )
    lane_invasion_cost: float = _setting(0.1, "Cost of crossing a solid line.", ge=0.0)
    failure_cost: float = _setting(5.0, "Cost of a terminal failure.", ge=0.0)
    collision_impulse_ns: float = _setting(
        1.0, "Impulse from which a contact is a collision.", "N s", ge=0.0
    )
    stuck_speed_mps: float = _setting(
        0.3, "Speed below which the car counts as standing.", "m/s", ge=0.0
    )
    stuck_time_s: float = _setting(10.0, "Standing time that counts as stuck.", "s", gt=0.0)
    stuck_grace_s: float = _setting(
        2.0, "Time at the start during which standing is allowed.", "s", ge=0.0
    )
    time_limit_s: float = _setting(90.0, "Simulated time that truncates an episode.", "s", gt=0.0)
    goal_tolerance_m: float = _setting(
        2.0, "Remaining route at which its end counts as reached.", "m", ge=0.0
    )

    @model_validator(mode="before")
    @classmethod
    def _reads_older_runs(cls, values: Any) -> Any:
        """Take the name that the previous action's part had before vectors had parts."""
        if not isinstance(values, dict) or "observe_previous_action" not in values:
            return values
        if "vector" in values:
            raise ValueError("observe_previous_action is now previous_action, a part of vector")
        values = dict(values)
        parts = cls.model_fields["vector"].default
        observed = values.pop("observe_previous_action")
        values["vector"] = (*parts, "previous_action") if observed is True else parts
        return values

    @field_validator("vector")
    @classmethod
    def _in_the_order_of_parts(cls, value: tuple[VectorPart, ...]) -> tuple[VectorPart, ...]:
        if len(set(value)) != len(value):
            raise ValueError("names a part twice")
        return tuple(part for part in VECTOR_PARTS if part in value)

    @property
    def privileged(self) -> tuple[PrivilegedPart, ...]:
        """What only the critic sees: parts of the route, the others on it, and last the advice."""
        parts: list[PrivilegedPart] = []
        if self.privileged_critic:
            wrong = self.route_offset_m or self.route_turn_rad
            # Waypoints say all that a command does.
            hidden = LANE_PARTS if wrong else LANE_PARTS.difference(self.vector)
            parts += [part for part in VECTOR_PARTS if part in hidden]
        if self.privileged_others:
            parts.append("others")
        if self.advice:
            parts.append("advice")
        return tuple(parts)

    @property
    def needs_others(self) -> bool:
        """Whether training needs a world that tells who else is on the road."""
        return bool(self.privileged_others or self.advice)

    @property
    def needs_route(self) -> bool:
        """Whether the vector holds anything that is read off the route."""
        return not ROUTE_PARTS.isdisjoint(self.vector)

    @model_validator(mode="after")
    def _speeds_rise(self) -> DrivingConfig:
        if self.reward_speed_limit_mps <= self.target_speed_mps:
            raise ValueError("reward_speed_limit_mps must be above target_speed_mps")
        return self


CriticKind = Literal["scalar", "categorical"]
"""What the heads of the critic give."""


class LearningConfig(Section):
    """TD3 (Fujimoto et al., 2018), by default with separate encoders for actor and critic.

    docs/ablations.md measures which options pay off.
    """

    image_key: str = _setting(
        "image", "Key of the image stack in an observation; empty = the networks see no image."
    )
    vector_key: str = _setting(
        "vector", "Key of the vector in an observation; empty = the networks see no vector."
    )
    batch_size: int = _setting(256, "Transitions in one update.", ge=1, le=65_536)
    discount: float = _setting(0.99, "Discount of one decision.", ge=0.0, lt=1.0)
    n_step: int = _setting(
        1, "Decisions whose rewards are summed before the target bootstraps.", ge=1, le=20
    )
    tau: float = _setting(0.005, "Share of the online networks in each target step.", gt=0.0, le=1)
    policy_noise: float = _setting(0.2, "Standard deviation of the target policy's noise.", ge=0.0)
    noise_clip: float = _setting(0.5, "Bound of the target policy's noise.", ge=0.0)
    policy_freq: int = _setting(2, "Critic updates per actor update.", ge=1)
    exploration_noise: float = _setting(
        0.1, "Initial standard deviation of the acting policy's noise.", ge=0.0
    )
    exploration_noise_final: float = _setting(
        0.05, "Standard deviation of the acting policy's noise after its decay.", ge=0.0
    )
    exploration_noise_correlation: float = _setting(
        0.0,
        "Share of the exploration noise that stays from one decision to the next; 0 = each is "
        "drawn on its own. What lasts for some decisions moves a car aside, what does not hardly.",
        ge=0.0,
        lt=1.0,
    )
    exploration_noise_decay_steps: int = _setting(
        0, "Decisions over which the noise decays linearly to its final value; 0 = no decay.", ge=0
    )
    actor_learning_rate: float = _setting(3e-4, "Adam's rate for the actor's head.", gt=0.0)
    critic_learning_rate: float = _setting(3e-4, "Adam's rate for the critic's heads.", gt=0.0)
    actor_encoder_learning_rate: float = _setting(
        1e-4, "Adam's rate for the actor's encoder, if it has its own.", gt=0.0
    )
    critic_encoder_learning_rate: float = _setting(
        1e-4, "Adam's rate for the critic's encoder.", gt=0.0
    )
    learning_rate_final_share: float = _setting(
        0.1, "Share of every learning rate that remains after its decay.", gt=0.0, le=1.0
    )
    learning_rate_decay_updates: int = _setting(
        0, "Updates over which the rates decay linearly to that share; 0 = no decay.", ge=0
    )
    actor_warmup_updates: int = _setting(
        400, "Updates of the critic alone before the actor learns.", ge=0
    )
    pre_tanh_penalty: float = _setting(
        1e-3, "Weight of the mean square of the actor's pre-tanh activations.", ge=0.0
    )
    bc_alpha: float = _setting(
        0.0,
        "Weight of Q against the squared distance to the recorded actions in the actor's loss "
        "(TD3+BC, Fujimoto and Gu, 2021); 0 = plain TD3, and pretraining then uses 0.5.",
        ge=0.0,
    )
    imitated: Literal["recorded", "advice"] = _setting(
        "recorded",
        "Which actions bc_alpha is about: those of the transitions, or what driving.advice would "
        "have done in the same place (as in DAgger, Ross et al., 2011).",
    )
    bc_decay_steps: int = _setting(
        20_000,
        "Online decisions over which the weight of the recorded actions decays linearly from 1 to "
        "bc_weight_final (after Beeson and Montana, 2022); 0 = no decay.",
        ge=0,
    )
    bc_weight_final: float = _setting(
        0.2, "Weight of the recorded actions after its decay.", ge=0.0, le=1.0
    )
    offline_share: float = _setting(
        0.5,
        "Share of each batch from the recorded drives when training continues online (Ball et "
        "al., 2023).",
        gt=0.0,
        lt=1.0,
    )
    huber_threshold: float = _setting(
        1.0,
        "TD error from which LAP's loss (Huber's) is linear and its priority exceeds the minimum.",
        gt=0,
    )
    gradient_clip_norm: float = _setting(
        0.0, "Norm to which a network's larger gradient is clipped; 0 = no clipping.", ge=0.0
    )
    image_shift_px: int = _setting(
        4,
        "Random shift of the image stack in each update; 0 = none.",
        "px",
        ge=0,
        le=16,
    )
    image_jitter: float = _setting(
        0.0,
        "Random change of light in each update: contrast by a factor of up to exp(±image_jitter), "
        "and brightness by up to half of image_jitter of its range; 0 = none.",
        ge=0.0,
        le=1.0,
    )
    reward_scale: float = _setting(1.0, "Factor of every reward.", gt=0.0)
    normalize_rewards: bool = _setting(
        False, "Divide rewards by their mean absolute value so far (Fujimoto et al., 2025)."
    )
    replay_sampling: Literal["uniform", "lap"] = _setting(
        "uniform",
        "How transitions are drawn: uniformly, or by TD error (LAP, Fujimoto et al., 2020).",
    )
    priority_exponent: float = _setting(
        0.4, "Exponent of the TD error in LAP's priorities.", ge=0.0, le=1.0
    )
    priority_half_life_steps: int = _setting(
        0,
        "Decisions after which a transition of the run counts half in LAP's draws, after as many "
        "more a quarter, and at least a tenth (DR.Q, arXiv 2605.11711); 0 = age does not count.",
        ge=0,
    )
    self_prediction: float = _setting(
        0.0,
        "Weight, in the loss that trains an encoder, of predicting its next features and the "
        "reward (after MR.Q, arXiv 2501.16142, and DR.Q, 2605.11711); 0 = none.",
        ge=0.0,
        le=100.0,
    )
    self_prediction_steps: int = _setting(
        1, "Decisions ahead that are predicted, each from the prediction before.", ge=1, le=5
    )
    self_prediction_of: Literal["critic", "actor", "both"] = _setting(
        "critic", "Whose encoder learns so, where encoders are separate."
    )
    critic: CriticKind = _setting(
        "scalar",
        "What the critic gives: a value; or a distribution over 101 values from -5 to 5, with "
        "rewards divided so that returns fit and the weights of each unit of a linear layer kept "
        "at a norm of 1 (after FlashSAC, arXiv 2604.04539). Q is then in units of those rewards.",
    )
    channels: tuple[Width, Width, Width] = _setting(
        (32, 64, 64), "Channels of the three convolutions."
    )
    encoders: Literal["separate", "critic", "actor"] = _setting(
        "separate",
        "Who has an encoder for the image: separate = actor and critic, each its own; critic = "
        "the actor uses the critic's, which the critic's loss alone trains (DrQ-v2, Yarats et "
        "al., 2021); actor = the actor alone, where the critic is told what the image shows.",
    )
    reuse_critic_features: bool = _setting(
        False,
        "With separate encoders, value the actor's action on the features of the critic's pass, "
        "from before its step, instead of encoding the image again; so it always is with "
        "encoders: critic.",
    )
    image_features: int = _setting(512, "Features of the image encoder.", ge=1, le=WIDEST)
    image_layer_norm: bool = _setting(
        True, "Bound the image features by LayerNorm and tanh; off = a ReLU."
    )
    hidden: tuple[Width, ...] = _setting(
        (256, 256), "Widths of the heads' hidden layers.", max_length=16
    )
    replay_capacity: int = _setting(100_000, "Transitions kept.", ge=100)
    replay_memory_fraction: float = _setting(
        0.5,
        "Share of the device's memory that the replay buffer may use; its copy for checkpoints "
        "uses the same amount of the host's memory.",
        gt=0.0,
        le=0.95,
    )
    device: Literal["auto", "cpu", "cuda"] = _setting("auto", "Where the networks live.")
    replay_device: Literal["auto", "cpu", "cuda"] = _setting(
        "auto", "Where the replay buffer lives; auto = with the networks."
    )
    precision: Literal["auto", "float32", "bfloat16"] = _setting(
        "auto",
        "Arithmetic of the encoders and hidden layers; auto = bfloat16 where that is faster.",
    )
    cuda_graphs: bool = _setting(
        True, "Capture an update once and replay it, where networks and replay are on one GPU."
    )

    @model_validator(mode="after")
    def _sees_something(self) -> LearningConfig:
        if not (self.image_key or self.vector_key):
            raise ValueError(
                "image_key and vector_key are both empty: the networks would see nothing"
            )
        if self.image_key == self.vector_key:
            raise ValueError("image_key and vector_key are the same key")
        return self

    @model_validator(mode="after")
    def _predicts_what_it_sees(self) -> LearningConfig:
        if self.self_prediction and not self.image_key:
            raise ValueError("self_prediction is of an image's features: set image_key")
        return self

    @model_validator(mode="after")
    def _scales_rewards_once(self) -> LearningConfig:
        if self.critic == "categorical" and (self.normalize_rewards or self.reward_scale != 1.0):
            raise ValueError(
                "critic: categorical scales rewards itself; leave out normalize_rewards and "
                "reward_scale"
            )
        return self


class TrainingConfig(Section):
    """One training run."""

    seed: int = _setting(0, "Seed of networks, exploration, batches and episodes.", ge=0, lt=2**31)
    total_steps: int = _setting(300_000, "Decisions to train for.", ge=1)
    offline_updates: int = _setting(20_000, "Updates on recorded drives, in pretraining.", ge=1)
    random_steps: int = _setting(
        4000,
        "Random decisions before the first update; none when continuing from another run.",
        ge=0,
    )
    updates_per_step: float = _setting(1.0, "Ratio of updates to decisions.", gt=0.0, le=16)
    updates_per_step_final: float = _setting(
        0.0,
        "Ratio once the critic's dormant share has settled (after Ma et al., 2024); 0 = it stays.",
        ge=0.0,
        le=16.0,
    )
    settled_rows: int = _setting(
        5, "Latest rows of metrics that say whether that share has settled.", ge=2, le=1000
    )
    settled_spread: float = _setting(
        0.05, "Largest difference between two of their shares if it has.", ge=0.0, le=1.0
    )
    synchronous_updates: bool = _setting(
        False,
        "Alternate updates and steps (repeatable) instead of running them in parallel (faster).",
    )
    maps: tuple[str, ...] = _setting(
        ("ring_meadow", "ring_harbour", "ring_orchard", "ring_quarry", "grid_old_town"),
        "Maps of the embedded simulator to train on.",
        min_length=1,
    )
    starts: Literal["maps", "town", "listed", "route"] = _setting(
        "maps",
        "Where episodes start: at random on training.maps, which the embedded simulator loads; at "
        "random in the simulator's current town; at the places listed in training.starts_file; or "
        "along the route that is published when training begins.",
    )
    starts_file: str = _setting(
        "carla_towns",
        "Starts and goals of each town: a YAML file, or the name of one in config/starts.",
    )
    route_length_m: float = _setting(200.0, "Length of a training route.", "m", ge=20.0, le=1e5)
    log_interval_updates: int = _setting(200, "Updates between two rows of metrics.", ge=1)
    checkpoint_interval_steps: int = _setting(10_000, "Decisions between checkpoints.", ge=1)
    checkpoints_kept: int = _setting(2, "Checkpoints kept.", ge=1)
    torch_threads: int = _setting(
        0, "Threads of PyTorch on CPU; 0 = PyTorch's choice.", ge=0, le=1024
    )

    @model_validator(mode="after")
    def _learns_at_all(self) -> TrainingConfig:
        if self.random_steps >= self.total_steps:
            raise ValueError("random_steps must be below total_steps, or nothing is learnt")
        return self

    @model_validator(mode="after")
    def _rises(self) -> TrainingConfig:
        if 0.0 < self.updates_per_step_final < self.updates_per_step:
            raise ValueError("updates_per_step_final must be 0 or at least updates_per_step")
        return self


MOST_COLLECTORS = 4096


class FleetConfig(Section):
    """Many worlds that feed one learner; docs/fleet.md."""

    collectors: int = _setting(
        0,
        "Worlds that collect side by side; 0 = the trainer steps a single one itself.",
        ge=0,
        le=MOST_COLLECTORS,
    )
    cluster: str = _setting(
        "none",
        "Where they run: none = in processes on this machine; auto = on the Ray cluster that this "
        "machine belongs to; or such a cluster's address, host:port.",
    )
    simulator: Literal["in_process", "node", "command"] = _setting(
        "in_process",
        "What a collector drives in: the embedded simulator, stepped in its own process or as a "
        "node; or what simulator_command starts, which the topics lead to.",
    )
    simulator_command: str = _setting(
        "",
        "Shell command that starts one collector's simulator and does not return, such as CARLA "
        "with its bridge. In its environment are ROS_DOMAIN_ID, CARLA_PORT, TRAFFIC_MANAGER_PORT "
        "and SLOT, its number on the machine.",
    )
    first_domain_id: int = _setting(
        110, "ROS_DOMAIN_ID of a machine's first slot; the next ones follow.", ge=0, le=232
    )
    first_carla_port: int = _setting(
        2000,
        "CARLA_PORT of a machine's first slot; the next ones are 10 apart.",
        ge=1024,
        le=65_000,
    )
    first_traffic_manager_port: int = _setting(
        8000, "TRAFFIC_MANAGER_PORT of a machine's first slot.", ge=1024, le=65_000
    )
    chunk_decisions: int = _setting(
        64, "Decisions that a collector hands over at once.", ge=1, le=256
    )
    weights_period_s: float = _setting(
        1.0,
        "Wall-clock time between two policies that are sent to collectors.",
        "s",
        ge=0.0,
        le=600.0,
    )
    least_noise_factor: float = _setting(
        0.5,
        "Factor of the exploration noise of the first collector, where there are several.",
        gt=0.0,
        le=10.0,
    )
    greatest_noise_factor: float = _setting(
        2.0, "Factor of the noise of the last; the others' rise by equal ratios.", gt=0.0, le=10.0
    )
    silence_timeout_s: float = _setting(
        15.0,
        "Wall-clock time without a decision after which a collector is started again.",
        "s",
        ge=1.0,
        le=600.0,
    )
    start_timeout_s: float = _setting(
        120.0, "Wall-clock time that a collector may take to begin.", "s", ge=1.0, le=3600.0
    )

    @property
    def in_process(self) -> bool:
        """Whether collectors step embedded worlds in their own processes."""
        return bool(self.collectors) and self.simulator == "in_process"


class ValidationConfig(Section):
    """Examinations during training: drives without noise, on maps of their own."""

    interval_steps: int = _setting(
        0, "Decisions between examinations; 0 = none. Training stands still meanwhile.", ge=0
    )
    maps: tuple[str, ...] = _setting(
        ("ring_hillside", "ring_riverside", "grid_mill_town"),
        "Maps to drive on, neither trained nor evaluated on; CARLA stays in its town.",
        min_length=1,
    )
    episodes: int = _setting(6, "Episodes of an examination, spread over the maps in turn.", ge=1)
    seed: int = _setting(500, "Seed of the first episode.", ge=0, lt=2**31)
    route_length_m: float = _setting(250.0, "Length of a route.", "m", ge=20.0)
    stop_at_completion: float = _setting(
        0.0,
        "Route completion that ends the training when two examinations in a row reach it; 0 = "
        "all steps are taken.",
        ge=0.0,
        le=1.0,
    )


class EvaluationConfig(Section):
    """Driving without noise on held-out maps."""

    maps: tuple[str, ...] = _setting(
        ("ring_lakeside", "ring_vineyard", "grid_new_town"),
        "Held-out maps.",
        min_length=1,
    )
    episodes: int = _setting(20, "Episodes, spread over the maps in turn.", ge=1)
    seed: int = _setting(1000, "Seed of the first episode.", ge=0, lt=2**31)
    route_length_m: float = _setting(300.0, "Length of an evaluation route.", "m", ge=20.0, le=1e5)


class DriverConfig(Section):
    """The node that drives."""

    publish_vehicle_control: bool = _setting(
        True,
        "Also publish pedals on vehicle_control_cmd; off where another node turns "
        "ackermann_cmd into pedals.",
    )
    shadow: bool = _setting(
        False,
        "Compute everything but command nothing: commands go to ~/shadow/, with their difference "
        "from the commands of whoever drives.",
    )
    camera_timeout_s: float = _setting(
        0.3, "Wall-clock silence of the camera that stops the car.", "s", gt=0.0, le=0.4
    )
    odometry_timeout_s: float = _setting(
        0.3, "Wall-clock silence of the odometry that stops the car.", "s", gt=0.0, le=0.4
    )
    speedometer_timeout_s: float = _setting(
        0.3, "Wall-clock silence of the speedometer that stops the car.", "s", gt=0.0, le=0.4
    )
    route_timeout_s: float = _setting(
        0.0,
        "Wall-clock age of the route that stops the car; 0 = a route never expires, as the "
        "bridge publishes it only once.",
        "s",
        ge=0.0,
    )
    policy_timeout_s: float = _setting(
        0.2,
        "Wall-clock time of a decision, or from an image to its command, that stops the car.",
        "s",
        gt=0.0,
        le=0.4,
    )
    max_clock_gap_s: float = _setting(
        0.5,
        "Simulated time between two images, received without a pause, that means a clock jump; in "
        "a simulator faster than real time, as many times longer.",
        "s",
        gt=0.0,
        le=10.0,
    )
    image_width_px: int = _setting(
        0, "Width that images must have; 0 = the first image's.", "px", ge=0, le=8192
    )
    image_height_px: int = _setting(
        0, "Height that images must have; 0 = the first image's.", "px", ge=0, le=8192
    )
    resume_after: tuple[Fault | Literal["none"], ...] = _setting(
        HARMLESS,
        "Faults after which the car resumes by itself; after others it stands until ~/resume.",
        min_length=1,  # ROS parameters know no empty list.
    )
    resume_delay_s: float = _setting(
        0.5, "Wall-clock time without a fault before the car resumes.", "s", ge=0.0
    )
    standstill_timeout_s: float = _setting(
        2.5,
        "Longest wall-clock wait for the car to stop when the driver is deactivated or ends.",
        "s",
        ge=0.0,
        le=10.0,
    )
    watch_checkpoints: bool = _setting(
        True, "Switch to newer checkpoints of the run while driving."
    )
    watch_period_s: float = _setting(
        2.0, "Wall-clock time between checks for a newer checkpoint.", "s", gt=0.0
    )


class AckermannControllerConfig(Section):
    """The node that turns Ackermann commands into pedals."""

    input_timeout_s: float = _setting(
        0.4,
        "Wall-clock silence of ackermann_cmd after which the car is stopped.",
        "s",
        ge=0.05,
        le=5.0,
    )
    speed_timeout_s: float = _setting(
        0.4,
        "Wall-clock silence of the speedometer, while the simulator runs, after which the car is "
        "stopped.",
        "s",
        ge=0.05,
        le=5.0,
    )


class Config(Section):
    """All settings."""

    simulator: SimulatorConfig = SimulatorConfig()
    carla: CarlaConfig = CarlaConfig()
    driving: DrivingConfig = DrivingConfig()
    learning: LearningConfig = LearningConfig()
    training: TrainingConfig = TrainingConfig()
    fleet: FleetConfig = FleetConfig()
    validation: ValidationConfig = ValidationConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    driver: DriverConfig = DriverConfig()
    ackermann_controller: AckermannControllerConfig = AckermannControllerConfig()

    @model_validator(mode="after")
    def _asks_whom_it_imitates(self) -> Config:
        if self.learning.imitated == "advice" and not self.driving.advice:
            raise ValueError("learning.imitated is advice, but driving.advice is false")
        return self

    @model_validator(mode="after")
    def _measures_what_is_to_settle(self) -> Config:
        looks = self.learning.image_key and self.learning.encoders != "actor"
        if self.training.updates_per_step_final and not looks:
            raise ValueError(
                "training.updates_per_step_final waits for a critic that has image layers, and "
                "this one has none"
            )
        return self


def build(values: dict[str, Any], source: str) -> Config:
    """Build a configuration from the defaults and nested values that override them.

    Raises ConfigError naming every wrong setting; `source` says where they came from.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{source} has wrong settings:\n{in_words(error)}") from None


SHOWN = 200
"""Characters of a wrong value that a message shows."""


def shown(value: Any) -> str:
    """Return a value as a message shows it, cut if it is long; quick for nested ones, too."""
    text = reprlib.repr(value) if isinstance(value, list | tuple | dict) else repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


TOLD = 20
"""Wrong settings that a message names."""


def in_words(error: ValidationError) -> str:
    """Return one line for each of the first `TOLD` wrong settings."""
    lines = []
    for problem in error.errors(include_url=False)[:TOLD]:
        name = in_short(".".join(str(part) for part in problem["loc"]))
        if problem["type"] == "extra_forbidden":
            lines.append(f"  {name}: there is no such setting")
        else:
            lines.append(f"  {name}: {problem['msg']} (it is {shown(problem['input'])})")
    if error.error_count() > TOLD:
        lines.append(f"  and {error.error_count() - TOLD} more")
    return "\n".join(lines)


def override(base: Config, values: Mapping[str, Any], source: str) -> Config:
    """Return `base` with `section.setting` values overridden; raises ConfigError."""
    sections = base.model_dump()
    for name, value in values.items():
        section, _, setting = name.partition(".")
        if not setting:
            raise ConfigError(f"there is no such parameter: {in_short(name)}")
        sections.setdefault(section, {})[setting] = value
    return build(sections, source)


def find_file(name_or_path: str | Path) -> Path:
    """Return the path of a configuration given by path or by name in the config folder."""
    for path in (Path(name_or_path), CONFIG_FOLDER / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in CONFIG_FOLDER.glob("*.yaml")))
    raise ConfigError(f"no configuration {str(name_or_path)!r}: not a file, nor one of {shipped}")


def load(name_or_path: str | Path, node: str = "") -> Config:
    """Read a YAML file `/**: ros__parameters: {section: {setting: value}}` over the defaults.

    The heads of the file may also name nodes: `node` is the reader's fully qualified name, and
    without one the settings of all of this package's nodes are read. Raises ConfigError.
    """
    path = find_file(name_or_path)
    return build(read_parameters(path, node), str(path))


def read_parameters(path: Path, node: str = "") -> dict[str, Any]:
    """Return the parameters of a ROS parameter file for a node; raises ConfigError."""
    try:
        return parameter_files.read(path, node)
    except ParameterFileError as error:
        raise ConfigError(str(error)) from None
