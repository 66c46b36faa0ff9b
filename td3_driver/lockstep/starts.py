# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Where episodes start in the simulator's town: at random, as listed, or along a route."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from td3_driver.config import CONFIG_FOLDER, TOLD, ConfigError, TrainingConfig
from td3_driver.documents import DocumentError, in_short, load_yaml
from td3_driver.driving.environment import SampleStart
from td3_driver.driving.world import Pose, Start
from td3_driver.lockstep.world import CarlaWorld
from td3_driver.roads.errors import RoadMapError
from td3_driver.roads.goals import goal_ahead
from td3_driver.roads.map_files import plain_name
from td3_driver.roads.road_map import RoadMap
from td3_driver.roads.starts import StartSampler as MapStarts

STARTS_FOLDER = CONFIG_FOLDER / "starts"
# A listed place further from any lane's centre is a mistake, such as using CARLA's own axes.
OFF_LANE_M = 3.0
SHORTEST_ROUTE_M = 20.0


class ListedPose(BaseModel):
    """A place in a file: ROS map frame, x ahead, y left, yaw counter-clockwise."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    x_m: float
    y_m: float
    yaw_deg: float
    z_m: float | None = None
    """Height of the road; None = the map's."""


class ListedStart(BaseModel):
    """One entry of a file."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    start: ListedPose
    goal: ListedPose | None = None
    """None = a random one, `training.route_length_m` ahead."""


class TownStarts:
    """Draws starts and goals anywhere on the roads of the simulator's town."""

    def __init__(self, world: CarlaWorld, route_length_m: float) -> None:
        self._world = world
        self._route_length_m = route_length_m

    def __call__(self, rng: np.random.Generator) -> Start:
        """Draw a start; raises RoadMapError if the town has no route."""
        pose, goal = self._world.road_map.random_start(rng, self._route_length_m)
        return Start(self._world.map_name, pose, goal, _drawn_seed(rng))


class ListedStarts:
    """Draws from the starts that a file lists for the simulator's town."""

    def __init__(self, world: CarlaWorld, file: str, route_length_m: float) -> None:
        """Read the file; raises ConfigError for one that is wrong or lacks the town."""
        self._world = world
        self._path = find_starts(file)
        self._towns = read_starts(self._path)
        self._route_length_m = route_length_m
        self._checked_town = ""
        self._starts: list[tuple[Pose, Pose | None]] = []
        self._look_up()

    def __call__(self, rng: np.random.Generator) -> Start:
        """Draw a start."""
        self._look_up()
        road_map = self._world.road_map
        pose, goal = self._starts[int(rng.integers(len(self._starts)))]
        if goal is None:
            goal = goal_ahead(road_map, rng, pose, self._route_length_m)
        return Start(self._world.map_name, pose, goal, _drawn_seed(rng))

    def _look_up(self) -> None:
        """Find the town's starts, and check them against its roads."""
        road_map = self._world.road_map
        town = town_of(self._world.map_name)
        if town == self._checked_town:
            return
        if town not in self._towns:
            raise ConfigError(
                f"{self._path} lists no starts in {town}, the simulator's town (only in "
                f"{', '.join(self._towns)}): add some, or set training.starts to town"
            )
        self._starts = [
            self._entry(road_map, entry, f"{town}, entry {number}")
            for number, entry in enumerate(self._towns[town], 1)
        ]
        self._checked_town = town

    def _entry(self, road_map: RoadMap, entry: ListedStart, name: str) -> tuple[Pose, Pose | None]:
        """Return an entry's places; raises ConfigError if no route leads on from the start."""
        pose = self._placed(road_map, entry.start, f"{name}, start")
        goal = None if entry.goal is None else self._placed(road_map, entry.goal, f"{name}, goal")
        try:
            if goal is None:
                goal_ahead(road_map, np.random.default_rng(0), pose, self._route_length_m)
            else:
                road_map.route(pose, goal)
        except RoadMapError as error:
            raise ConfigError(f"{self._path}: {name}: {error}") from None
        return pose, goal

    def _placed(self, road_map: RoadMap, place: ListedPose, name: str) -> Pose:
        pose = Pose(place.x_m, place.y_m, math.radians(place.yaw_deg))
        road = road_map.on_lane(pose)
        away_m = math.hypot(pose.x - road.x, pose.y - road.y)
        turned = abs(math.remainder(pose.yaw - road.yaw, math.tau))
        if away_m > OFF_LANE_M or turned > math.pi / 2.0:
            what = f"is {away_m:.1f} m from the nearest lane"
            if away_m <= OFF_LANE_M:
                what = f"faces against its lane, which leads to {math.degrees(road.yaw):.0f} deg"
            raise ConfigError(
                f"{self._path}: {name} {what}. Places are in ROS's map frame: y and yaw have the "
                "opposite sign of CARLA's own"
            )
        return Pose(pose.x, pose.y, pose.yaw, road.z if place.z_m is None else place.z_m)


class RouteStarts:
    """Draws stretches of the route that was published when the training began."""

    def __init__(self, world: CarlaWorld, route_length_m: float) -> None:
        """Take the published route; raises WorldError if there is none."""
        self._map_name = world.map_name
        self._poses = list(world.published_path())
        self._route = np.array([(pose.x, pose.y, pose.yaw) for pose in self._poses])
        steps = np.hypot(*np.diff(self._route[:, :2], axis=0).T)
        self._along = np.concatenate([[0.0], np.cumsum(steps)])
        if self._along[-1] < SHORTEST_ROUTE_M:
            raise ConfigError(
                f"the published route is {self._along[-1]:.0f} m long but must have at least "
                f"{SHORTEST_ROUTE_M:.0f} m: publish a longer one, or choose other training.starts"
            )
        self._length_m = min(route_length_m, float(self._along[-1]))

    def __call__(self, rng: np.random.Generator) -> Start:
        """Draw a stretch of the route, as long as a training route or all of it."""
        begin_m = float(rng.uniform(0.0, self._along[-1] - self._length_m))
        first = int(np.searchsorted(self._along, begin_m))
        last = int(np.searchsorted(self._along, self._along[first] + self._length_m)) + 1
        route = self._route[first:last].copy()
        poses = self._poses[first:last]
        return Start(self._map_name, poses[0], poses[-1], _drawn_seed(rng), route)


def _drawn_seed(rng: np.random.Generator) -> int:
    """Return the seed of what else an episode draws, such as its weather."""
    return int(rng.integers(2**31))


def make_sampler(config: TrainingConfig, world: CarlaWorld) -> SampleStart:
    """Return the sampler that `training.starts` asks for.

    Raises ConfigError, RoadMapError or WorldError in plain words.
    """
    length_m = config.route_length_m
    if config.starts == "town":
        return TownStarts(world, length_m)
    if config.starts == "listed":
        return ListedStarts(world, config.starts_file, length_m)
    if config.starts == "route":
        return RouteStarts(world, length_m)
    return MapStarts(config.maps, length_m)


def town_of(map_name: str) -> str:
    """Return `Town01` for `Carla/Maps/Town01_Opt` and the like."""
    return plain_name(map_name).removesuffix("_Opt")


def find_starts(name_or_path: str) -> Path:
    """Return the path of a file of starts, given by path or by name in config/starts."""
    for path in (Path(name_or_path), STARTS_FOLDER / f"{name_or_path}.yaml"):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in STARTS_FOLDER.glob("*.yaml")))
    raise ConfigError(
        f"training.starts_file: no file {name_or_path!r}, nor one of {shipped} in {STARTS_FOLDER}"
    )


def read_starts(path: Path) -> dict[str, list[ListedStart]]:
    """Read the starts of each town; raises ConfigError naming what is wrong, and where."""
    try:
        document = load_yaml(path)
    except DocumentError as error:
        raise ConfigError(str(error)) from None
    try:
        towns = RootModel[dict[str, list[ListedStart]]].model_validate(document).root
    except ValidationError as error:
        lines = [
            f"  {_place(problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False)[:TOLD]
        ]
        if error.error_count() > TOLD:
            lines.append(f"  and {error.error_count() - TOLD} more")
        raise ConfigError(f"{path} is wrong:\n" + "\n".join(lines)) from None
    empty = [town for town, starts in towns.items() if not starts]
    if empty or not towns:
        named = in_short(", ".join(empty) or "any town")
        raise ConfigError(f"{path} lists no starts for {named}")
    return towns


def _place(location: tuple[int | str, ...]) -> str:
    """Return where in a file something is: entries are counted from 1."""
    parts = [f"entry {part + 1}" if isinstance(part, int) else part for part in location]
    return in_short(", ".join(parts) or "the file")
