"""The driver: drives with the actor of a run, one command for every camera image."""

from __future__ import annotations

import signal
import sys
import time
from typing import Any

import numpy as np
import torch
from geometry_msgs.msg import PoseStamped
from rclpy.clock import Clock, ClockType
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher

from td3_driver.carla import runtime, topics
from td3_driver.carla.conversion import control_to_message, make_header, pose_to_message
from td3_driver.carla.live_frames import LiveFrames
from td3_driver.carla.parameters import ConfiguredNode
from td3_driver.carla.topics import Topic
from td3_driver.config import ConfigError
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.observation import image_shape, vector_names
from td3_driver.driving.pilot import Command, Pilot
from td3_driver.driving.world import Frame, Pose, WorldError
from td3_driver.learning.policy import CheckpointError, Policy
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.goals import goal_ahead
from td3_driver.roads.road_map import RoadMap
from td3_driver.runs import RunFolder

NODE_NAME = "driver"
OWN_PARAMETERS = {
    "run": ("", "Folder of the run whose actor drives, or its name under runs/."),
    "baseline": (False, "Follow the route by pure pursuit, instead of a run's actor."),
    "random_goal": (True, "Choose a goal at random whenever there is no route to drive."),
    "seed": (0, "Seed of the random goals."),
}

# Together they keep the time from the last image to the stop command below 0.5 s.
CAMERA_TIMEOUT_S = 0.4
WATCHDOG_PERIOD_S = 0.05
LOG_PERIOD_S = 3.0
# Time for a route to come, one there is already or a new one, before another goal is tried.
GOAL_RETRY_S = 5.0
# The last command must arrive: nothing replaces it, and the simulator keeps to the one it has.
STOP_REPEATS = 3
STOP_INTERVAL_S = 0.05
STOP_DELIVERY_S = 0.2


class DriverNode(ConfiguredNode):
    """Camera, odometry, speed and route in; Ackermann commands, and pedals, out.

    A safety layer belongs between `Pilot` and `_publish`, through which every command goes.
    """

    def __init__(
        self,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Load the run's actor; raises ConfigError where that cannot be."""
        super().__init__(
            NODE_NAME,
            ("carla", "driving", "driver", "evaluation"),
            own=OWN_PARAMETERS,
            context=context,
            parameter_overrides=parameter_overrides,
        )
        baseline = self.get_parameter("baseline").value
        pilot = RouteFollower(self.config.driving) if baseline else self._load_policy()
        fixed_delta_s = self.config.simulator.fixed_delta_s
        self._pilot = Pilot(self.config.driving, fixed_delta_s, pilot.act)
        self._outputs = self._create_outputs()
        self._frames = LiveFrames(self, self.config.carla, fixed_delta_s, self._on_frame)
        self._last_frame_s = time.monotonic()
        self._goals = RandomGoals(self) if self.get_parameter("random_goal").value else None
        # Simulation time stands still when the simulator dies.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(WATCHDOG_PERIOD_S, self._watch, clock=steady)
        self.create_timer(LOG_PERIOD_S, self._report, clock=steady)

    def run(self) -> None:
        """Drive until the context ends, or an exception does."""
        executor = runtime.create_executor(self.context)
        executor.add_node(self)
        try:
            while self.context.ok():
                executor.spin_once(timeout_sec=runtime.SIGNAL_CHECK_S)
                runtime.check_signals()
        finally:
            executor.remove_node(self)
            executor.shutdown()

    def stop_car(self) -> None:
        """Publish the stop command several times and wait until it has been delivered."""
        if not self.context.ok():
            return
        for _ in range(STOP_REPEATS):
            self._publish(self._pilot.stop("the driver ends"))
            time.sleep(STOP_INTERVAL_S)
        for publisher in self._outputs.values():
            publisher.wait_for_all_acked(Duration(seconds=STOP_DELIVERY_S))

    def _take_overrides(self) -> dict[str, Any]:
        """Take the run's configuration for the one to start from, unless another is named."""
        given = super()._take_overrides()
        if given.get("run") and not given.get("config"):
            given["config"] = str(_find_run(given["run"]).path / "config.yaml")
        return given

    def _load_policy(self) -> Policy:
        folder = _find_run(self.get_parameter("run").value)
        try:
            checkpoint = folder.latest_checkpoint(self.get_logger().warning)
            policy = Policy.load(checkpoint)
        except CheckpointError as error:
            raise ConfigError(str(error)) from None
        driving = self.config.driving
        image, entries = image_shape(driving), len(vector_names(driving))
        wrong_image = policy.spec.image not in (None, image)
        if wrong_image or len(policy.spec.vector_scale) not in (0, entries):
            raise ConfigError(
                f"{checkpoint} is made for images {policy.spec.image} and "
                f"{len(policy.spec.vector_scale)} numbers, the driving settings for {image} and "
                f"{entries}"
            )
        # The first inference is slow: it must not be the first of a drive.
        policy.act({"image": np.zeros(image, np.uint8), "vector": np.zeros(entries, np.float32)})
        self.get_logger().info(f"drives with {checkpoint}")
        return policy

    def _create_outputs(self) -> dict[Topic, Publisher]:
        outputs = [topics.ACKERMANN]
        if self.config.driver.publish_vehicle_control:
            outputs.append(topics.VEHICLE_CONTROL)
        return {
            topic: self.create_publisher(
                topic.message_type, topic.name(self.config.carla), topic.client_qos.profile()
            )
            for topic in outputs
        }

    def _on_frame(self, frame: Frame) -> None:
        self._last_frame_s = time.monotonic()
        was_standing, was_off_course = self._pilot.standing_because, self._pilot.off_course
        try:
            command = self._pilot.drive(frame)
        except ValueError as error:
            raise WorldError(f"the policy is of no use: {error}") from error
        self._publish(command, frame.stamp_ns)
        if self._pilot.standing_because != was_standing:
            self.get_logger().info(self._state())
        if self._pilot.off_course is not was_off_course and self._pilot.off_course is not None:
            self.get_logger().warning(f"off course: {self._pilot.off_course.value}")
        if self._goals is not None and self._pilot.standing_because:
            self._goals.request(frame)

    def _publish(self, command: Command, stamp_ns: int | None = None) -> None:
        """Publish a command; `stamp_ns` is that of the image it answers."""
        ackermann = topics.ACKERMANN.message_type(
            steering_angle=command.ackermann.steering_angle, speed=command.ackermann.speed
        )
        self._outputs[topics.ACKERMANN].publish(ackermann)
        if topics.VEHICLE_CONTROL in self._outputs:
            pedals = control_to_message(command.control, stamp_ns)
            self._outputs[topics.VEHICLE_CONTROL].publish(pedals)

    def _watch(self) -> None:
        """Stop the car when it is blind."""
        silence_s = time.monotonic() - self._last_frame_s
        if silence_s < CAMERA_TIMEOUT_S or self._pilot.standing_because:
            return
        self._publish(self._pilot.stop(f"no camera image for {silence_s:.1f} s"))
        self.get_logger().error(f"{self._state()}; drives on when it is back")

    def _report(self) -> None:
        """Log a line on how it goes."""
        missing = self._frames.missing()
        self._frames.expect()
        if missing:
            self.get_logger().warning(
                f"nothing on {', '.join(missing)} for {LOG_PERIOD_S:.0f} s: is the simulator "
                f"running, not paused, with the role name {self.config.carla.role_name!r}?"
            )
        else:
            self.get_logger().info(self._state())

    def _state(self) -> str:
        pilot = self._pilot
        if pilot.standing_because:
            return f"stopped: {pilot.standing_because}"
        summary, projection = pilot.task.summary, pilot.task.projection
        return (
            f"drives: {self._frames.speed:.1f} m/s, {projection.lateral_m:+.2f} m off the centre, "
            f"{100.0 * summary.route_completion:.0f} % of {summary.route_length_m:.0f} m, "
            f"inference {1e3 * pilot.inference_s:.1f} ms"
        )


class RandomGoals:
    """Asks for routes to random goals ahead of the car."""

    def __init__(self, node: DriverNode) -> None:
        """Subscribe to the map, and publish goals, on `node`."""
        self._logger = node.get_logger()
        self._length_m = node.config.evaluation.route_length_m
        self._rng = np.random.default_rng(node.get_parameter("seed").value)
        self._road_map: RoadMap | None = None
        self._requested_s = time.monotonic()
        names = node.config.carla
        node.create_subscription(
            topics.WORLD_INFO.message_type,
            topics.WORLD_INFO.name(names),
            self._on_world_info,
            topics.WORLD_INFO.client_qos.profile(),
        )
        self._publisher = node.create_publisher(
            topics.GOAL.message_type, topics.GOAL.name(names), topics.GOAL.client_qos.profile()
        )

    def request(self, frame: Frame) -> None:
        """Publish a goal ahead of the car, unless one has just been published."""
        now = time.monotonic()
        if self._road_map is None or now - self._requested_s < GOAL_RETRY_S:
            return
        if not self._publisher.get_subscription_count():
            return
        self._requested_s = now
        try:
            goal = goal_ahead(self._road_map, self._rng, frame.pose, self._length_m)
        except RoadMapError as error:
            self._logger.warning(str(error))
            return
        self._publish(goal, frame.stamp_ns)

    def _publish(self, goal: Pose, stamp_ns: int) -> None:
        message = PoseStamped(header=make_header(stamp_ns), pose=pose_to_message(goal))
        self._publisher.publish(message)
        self._logger.info(f"new goal: x {goal.x:.1f}, y {goal.y:.1f}")

    def _on_world_info(self, message: Any) -> None:
        self._road_map = RoadMap.from_opendrive(message.map_name, message.opendrive)


def _find_run(name_or_path: str) -> RunFolder:
    if not name_or_path:
        raise ConfigError("name the run to drive with: run:=FOLDER")
    return RunFolder(name_or_path)


def drive() -> None:
    """Drive until told to end, and leave the car standing."""
    # One observation is too little work to share; the other cores are the simulator's.
    torch.set_num_threads(1)
    node = DriverNode()
    try:
        node.run()
    finally:
        # A second signal must not cut the stopping short.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        node.stop_car()


def main(args: list[str] | None = None) -> None:
    """Run the driver's process."""
    sys.exit(runtime.run(drive, args))


if __name__ == "__main__":
    main()
