# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Suites: their files, who drives them, what comes of it, and the page in a real browser."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from browser import Page, find_browser, open_browser
from document_spoiler import COUNT, as_yaml, check, spoil_values
from driver_runs import add_checkpoint, make_run, small_config

from td3_driver import cli
from td3_driver.config import Config, ConfigError, DrivingConfig, SimulatorConfig
from td3_driver.deployment.loading import LoadedPolicy, finite
from td3_driver.evaluation import suite_page
from td3_driver.evaluation.baselines import BASELINES
from td3_driver.evaluation.contenders import find_contenders
from td3_driver.evaluation.figures import FIGURES
from td3_driver.evaluation.suite import ENDS, SEEN_WITH, Suite, shipped_suites
from td3_driver.evaluation.suite_drives import (
    CLIP_FRAMES_PER_S,
    CLIP_QUALITY,
    CLIP_S,
    CLIP_SIDE_PX,
    Drive,
    SuiteDriver,
    Task,
    clip_frame,
    plan,
)
from td3_driver.evaluation.suite_evaluation import evaluate_suite
from td3_driver.pages import jpeg
from td3_driver.roads.map_files import is_shipped

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "evaluation.md").read_text()
MARKUP = "town </script> & <b>"
SMALL = {
    "description": "A small one.",
    "ends": {"time_limit_s": 15.0, "stuck_time_s": 3.0, "stuck_grace_s": 1.0},
    "groups": [
        {
            "name": "ring",
            "maps": ["ring_meadow", "ring_lakeside"],
            "episodes": 2,
            "seed": 1,
            "route_length_m": 25.0,
        },
        {
            "name": MARKUP,
            "maps": ["grid_old_town"],
            "episodes": 2,
            "seed": 3,
            "route_length_m": 25.0,
            "simulator": {"traffic_vehicles": 6, "seed": 5},
        },
    ],
}


def write(path: Path, **given: Any) -> Path:
    path.write_text(yaml.safe_dump({**SMALL, **given}, sort_keys=False))
    return path


# --- files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_suites())
def test_a_shipped_suite_is_new_where_it_says_so(name: str) -> None:
    trained_on = set(Config().training.maps)
    used = {*trained_on, *Config().validation.maps}
    groups = Suite.load(name).groups
    assert {group.name.startswith("new") for group in groups} == {True, False}
    for group in groups:
        assert all(map(is_shipped, group.maps))
        if "new map" in group.name:
            assert used.isdisjoint(group.maps)
        else:
            assert trained_on.issuperset(group.maps)
        usual = SimulatorConfig()
        if not group.name.startswith("new"):
            assert (group.simulator.look, group.simulator.seed) == (usual.look, usual.seed)
        elif name == "traffic":
            assert group.simulator.seed != usual.seed
        else:
            assert (group.simulator.look == "held_out") == ("looks" in group.name)


# Where the first episodes of a suite's first and last group start and lead to: x, y, x, y.
FIRST_STARTS = {
    "lane": [(-48.6, -73.9, 77.3, 34.7), (-29.0, 64.6, 6.0, -66.3)],
    "obstacles": [(-2.5, 64.8, -24.0, -84.9), (53.1, 60.4, -34.3, -37.7)],
    "town": [(3.9, 183.3, 62.7, 27.4), (18.9, 27.9, 225.1, 99.4)],
    "traffic": [(50.7, 55.0, 13.8, 166.3), (148.4, -43.8, 141.2, 75.8)],
}


@pytest.mark.parametrize("name", shipped_suites())
def test_episodes_start_where_they_always_did(name: str) -> None:
    suite = Suite.load(name)
    first: dict[int, tuple[float, ...]] = {}
    for task in plan(suite, find_contenders([], ["stand_still"])):
        pose, goal = task.start.pose, task.start.goal
        first.setdefault(task.group, (pose.x, pose.y, goal.x, goal.y))
    places = list(first.values())
    for found, known in zip((places[0], places[-1]), FIRST_STARTS[name], strict=True):
        assert found == pytest.approx(known, abs=0.1)


@pytest.mark.parametrize(
    "given, told",
    [
        ({"groups": []}, "groups: Value error, there has to be one at least"),
        ({"colour": 1}, "colour: there is no such setting"),
        ({"ends": {"waypoints": 3}}, "ends: Value error, waypoints does not end an episode"),
        ({"ends": {"time_limit_s": -1}}, "ends.time_limit_s: "),
        ({"groups": SMALL["groups"] * 2}, "two groups are named 'ring'"),
    ],
)
def test_a_wrong_suite_is_refused_in_one_line(
    given: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "wrong.yaml", **given)
    with pytest.raises(ConfigError) as refused:
        Suite.load(str(path))
    message = str(refused.value)
    assert message.startswith(f"{path} is no suite: ") and told in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "given, told",
    [
        ({"episodes": 0}, "groups.0.episodes: "),
        ({"name": "all"}, "none can be named 'all'"),
        ({"maps": []}, "groups.0.maps: "),
        ({"simulator": {"trafic": 3}}, "groups.0.simulator.trafic: there is no such setting"),
        ({"simulator": {"map": "ring_meadow"}}, "groups.0.simulator: Value error, map is not"),
        ({"simulator": {"traffic_vehicles": 51}}, "groups.0.simulator.traffic_vehicles: "),
    ],
)
def test_a_wrong_group_is_refused_with_its_number(
    given: dict[str, Any], told: str, tmp_path: Path
) -> None:
    group = {"name": "one", "maps": ["ring_meadow"], "episodes": 1, **given}
    path = write(tmp_path / "wrong.yaml", groups=[group])
    with pytest.raises(ConfigError, match=re.escape(told)):
        Suite.load(str(path))


@pytest.mark.parametrize(
    "name", ["nonesuch", "x" * 5000, "", "/dev/zero", "."], ids=["name", "long", "", "dev", "."]
)
def test_no_suite_is_told_with_those_there_are(name: str) -> None:
    with pytest.raises(ConfigError, match=r"no suite .*lane, obstacles, town, traffic$"):
        Suite.load(name)


def test_spoilt_suites_are_loaded_or_refused(tmp_path: Path) -> None:
    def load(path: Path) -> str:
        suite = Suite.load(str(path))
        own = SimulatorConfig()
        for group in suite.groups:
            assert group.simulator_for(own).map == group.maps[0]
        return "" if suite.driving_for(DrivingConfig()).time_limit_s > 0.0 else "no time"

    spoilt = spoil_values(SMALL, as_yaml, COUNT, 17)
    check("suite", spoilt, tmp_path / "suite.yaml", load, ConfigError)


def test_the_world_is_the_suites_and_the_camera_the_drivers(tmp_path: Path) -> None:
    _, town = Suite.load(str(write(tmp_path / "small.yaml"))).groups
    own = SimulatorConfig(
        map="ring_quarry", traffic_vehicles=3, camera_z_m=2.5, faults="x", seed=9
    )
    settings = town.simulator_for(own)
    assert settings.map == "grid_old_town"
    assert (settings.traffic_vehicles, settings.seed, settings.faults) == (6, 5, "")
    assert settings.camera_z_m == 2.5
    assert set(SEEN_WITH) < set(SimulatorConfig.model_fields)


def test_the_ends_are_the_suites_and_the_rest_is_the_drivers(tmp_path: Path) -> None:
    suite = Suite.load(str(write(tmp_path / "small.yaml")))
    own = DrivingConfig(time_limit_s=5.0, lateral_limit_m=9.0, waypoints=4, max_speed_mps=7.0)
    driving = suite.driving_for(own)
    assert driving.time_limit_s == 15.0
    assert driving.lateral_limit_m == DrivingConfig().lateral_limit_m
    assert (driving.waypoints, driving.max_speed_mps) == (4, 7.0)
    assert set(ENDS) < set(DrivingConfig.model_fields)


def test_the_document_tells_of_every_figure_end_baseline_and_suite() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    assert {*FIGURES, *BASELINES, *shipped_suites()} == set(rows)
    assert {name: rows[name] for name, of in FIGURES.items() if of.unit} == {
        name: of.unit for name, of in FIGURES.items() if of.unit
    }
    for name in ENDS:
        assert f"`{name}`" in PAGE or f"`driving.{name}`" in PAGE
    for name in shipped_suites():
        groups = Suite.load(name).groups
        assert f"| {len(groups)} x {groups[0].episodes} |" in PAGE
        assert len({group.episodes for group in groups}) == 1


# --- who drives ------------------------------------------------------------------------------


def test_drivers_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    one = make_run(tmp_path / "a" / "run", small_config())
    other = make_run(tmp_path / "b" / "run", small_config(waypoints=5))
    older = one.checkpoints / "000000001"
    add_checkpoint(one, 2)
    runs = [str(one.path), str(older), str(other.path)]
    found = find_contenders(runs, ["stand_still"])
    assert [each.step for each in found] == [2, 1, 1, 0]
    assert len({each.label for each in found}) == 4
    assert found[1].label == str(older) and found[3].label == "stand_still"
    assert found[2].driving.waypoints == 5
    with pytest.raises(ConfigError, match="twice"):
        find_contenders([str(one.path), str(one.path)])


def test_a_policy_that_goes_wrong_while_it_drives_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", small_config())
    suite = Suite.load(str(write(tmp_path / "small.yaml")))
    contenders = find_contenders([str(run.path)])
    driver = SuiteDriver(suite, contenders)
    acted = [np.zeros(2, np.float32), np.array([np.nan, 0.0], np.float32)]
    policy = LoadedPolicy(lambda observation: acted.pop(0), "checkpoint 1")
    driver._acts[0] = finite(policy)
    with pytest.raises(ConfigError, match=r"checkpoint 1 acts \[nan  0\.\], which is not finite"):
        driver(plan(suite, contenders)[0])


def test_the_help_names_every_baseline_and_suite(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    told = capsys.readouterr().out
    assert all(name in told for name in [*BASELINES, *shipped_suites()])


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["--suite", "lane"], "nobody is to drive"),
        (["--suite", "lane", "--baseline", "fly"], "no baseline 'fly': there are stand_still, "),
        (["--suite", "lane", "--baseline", "stand_still", "--out", "a.json"], "end in .html"),
        (["--suite", "lane", "--baseline", "stand_still", "--out", "no/a.html"], "no folder no"),
        (["nonesuch", "--suite", "lane"], "no run 'nonesuch'"),
        (["--suite", "lane", "--baseline", "stand_still", "--policy", "x"], "one run's policy"),
        (["a", "--suite", "lane", "--map", "ring_meadow"], "--map does not go with --suite"),
        (["a", "--suite", "lane", "--look", "dusk"], "--look does not go with --suite"),
        (["a", "--suite", "lane", "--camera-test"], "--camera-test does not go with --suite"),
        (["a", "--baseline", "stand_still"], "go with --suite NAME only"),
        (["a", "b"], "takes one RUN"),
        ([], "takes one RUN"),
    ],
)
def test_what_does_not_go_together_is_told(
    arguments: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["evaluate", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("td3-driver: ") and told in said and said.count("\n") == 1


def test_a_suite_of_a_map_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group = {"name": "one", "maps": ["nonesuch"], "episodes": 1}
    path = write(tmp_path / "small.yaml", groups=[group])
    arguments = ["--suite", str(path), "--baseline", "stand_still", "--jobs", "1"]
    assert cli.main(["evaluate", *arguments, "--out", str(tmp_path / "a.html")]) == 2
    assert "no map 'nonesuch'" in capsys.readouterr().err


# --- drives ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Give the command that evaluates an untrained run and all baselines."""
    folder = tmp_path_factory.mktemp("suite")
    run = make_run(folder / "untrained", small_config())
    baselines = [word for name in BASELINES for word in ("--baseline", name)]
    return ["evaluate", str(run.path), *baselines, "--suite", str(write(folder / "small.yaml"))]


@pytest.fixture(scope="module")
def page_file(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Evaluate in one process."""
    page = tmp_path_factory.mktemp("pages") / "one.html"
    assert cli.main([*arguments, "--jobs", "1", "--out", str(page)]) == 0
    return page


@pytest.fixture(scope="module")
def report(page_file: Path) -> dict[str, Any]:
    return dict(json.loads(page_file.with_suffix(".json").read_text()))


@pytest.mark.long
def test_the_result_is_the_same_whatever_the_number_of_processes(
    arguments: list[str], page_file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "two.html"
    assert cli.main([*arguments, "--jobs", "2", "--out", str(page)]) == 0
    for suffix in (".json", ".html"):
        one, two = (each.with_suffix(suffix).read_bytes() for each in (page_file, page))
        assert one == two


@pytest.mark.long
def test_the_baselines_do_what_they_are_called(report: dict[str, Any]) -> None:
    drivers = {driver["name"]: driver for driver in report["contenders"]}
    assert list(drivers) == ["untrained", *BASELINES]
    ends = {
        name: {episode["ended_by"] for episode in driver["episodes"]}
        for name, driver in drivers.items()
    }
    assert ends["stand_still"] == {"stuck"}
    assert ends["route_follower"] == {"route_end"}
    still, straight, follower = (drivers[name]["figures"]["all"] for name in BASELINES)
    assert still["speed_mps"]["value"] == still["route_completion"]["value"] == 0.0
    assert still["collisions_per_km"] == {"value": None, "low": None, "high": None}
    # 4 s, of which the first one may be taken to start.
    assert still["blocked_share"]["value"] == pytest.approx(75.0, abs=2.0)
    assert straight["steering_rate_rps"]["value"] == 0.0 < straight["off_lane_share"]["value"]
    assert straight["route_completion"]["value"] < 1.0
    assert follower["success"]["value"] == 1.0 and follower["success"]["low"] < 1.0
    assert follower["driving_score"]["value"] == 100.0
    assert follower["off_lane_share"]["value"] == 0.0 < follower["steering_rate_rps"]["value"]
    better = drivers["route_follower"]["better_than_first"]["all"]["driving_score"]
    untrained = drivers["untrained"]["figures"]["all"]["driving_score"]["value"]
    assert better["value"] == pytest.approx(100.0 - untrained)


@pytest.mark.long
def test_the_report_says_what_it_is_of(report: dict[str, Any], arguments: list[str]) -> None:
    suite = Suite.load(arguments[-1])
    assert (report["suite"], report["suite_sha256"]) == ("small", suite.sha256)
    untrained = report["contenders"][0]
    assert untrained["step"] == 1 and len(untrained["actor_sha256"]) == 64
    assert untrained["policy"].endswith("untrained/checkpoints/000000001")
    for driver in report["contenders"]:
        assert list(driver["figures"]) == ["ring", MARKUP, "all"]
        assert set(driver["figures"]["ring"]) == set(FIGURES)
        starts = [(each["map"], each["seed"]) for each in driver["episodes"]]
        assert starts == [
            ("ring_meadow", 1),
            ("ring_lakeside", 2),
            ("grid_old_town", 3),
            ("grid_old_town", 4),
        ]


def test_a_collision_costs_what_carla_takes_for_it(tmp_path: Path) -> None:
    """The route follower does not see the traffic."""
    town = {
        "name": "regular",
        "maps": ["grid_old_town"],
        "episodes": 1,
        "seed": 6000,
        "route_length_m": 80.0,
        "simulator": {"traffic_vehicles": 8},
    }
    suite = Suite.load(str(write(tmp_path / "small.yaml", groups=[town])))
    contenders = find_contenders([], ["route_follower"])
    (task,) = plan(suite, contenders)
    driver = SuiteDriver(suite, contenders)
    drive = driver(task)
    assert drive.ended_by == "collision"
    found = drive.quantities
    assert not found.success and found.collisions == 1
    assert found.driving_score == pytest.approx(60.0 * found.route_completion)
    assert found.least_time_to_collision_s == 0.0 < found.near_s
    assert drive.clip is not None and drive.clip.frames == 61
    # Nor does it matter what was driven before.
    assert same(driver(task), drive)
    other_start = replace(task.start, seed=1)
    assert not same(driver(Task(0, 0, other_start)), drive)
    assert same(driver(task), drive)


def test_of_many_failures_in_each_group_the_first_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite_page, "MOST_CLIPS", 1)
    suite = write(tmp_path / "small.yaml")
    results, page = evaluate_suite(
        str(suite), [], ["stand_still"], jobs=1, out=tmp_path / "a.html"
    )
    clips = [(each["group"], "clip" in each) for each in data_of(page)["episodes"]]
    assert clips == [(0, True), (0, False), (1, True), (1, False)]
    assert all(drive.ended_by == "stuck" for drive in results.drives)


@pytest.mark.parametrize("height, width", [(120, 160), (1080, 1920), (1080, 16), (16, 1920)])
def test_a_clip_of_any_camera_is_one_picture(height: int, width: int) -> None:
    frame = clip_frame(np.zeros((height, width, 4), np.uint8))
    assert max(frame.shape[:2]) <= CLIP_SIDE_PX
    frames = round(CLIP_S * CLIP_FRAMES_PER_S) + 1
    assert len(jpeg(np.vstack([frame] * frames), CLIP_QUALITY)) > 100


def same(one: Drive, other: Drive) -> bool:
    """Return whether two drives are equal, bit by bit."""
    return (one.quantities, one.path, one.clip) == (other.quantities, other.path, other.clip)


# --- the page --------------------------------------------------------------------------------


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.mark.long
def test_the_page_holds_everything_itself(page_file: Path) -> None:
    text = page_file.read_text()
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", text)
    within = text[text.index('id="data">') + len('id="data">') :].partition("</")[0]
    assert "<" not in within
    data = data_of(page_file)
    failures = [each for each in data["episodes"] if not each["success"]]
    assert failures and all(each["clip"]["url"].startswith("data:image/jpeg") for each in failures)
    assert set(data["maps"]) == {"ring_meadow", "ring_lakeside", "grid_old_town"}


@pytest.fixture
def page(page_file: Path, tmp_path: Path) -> Iterator[Page]:
    if find_browser() is None:
        pytest.skip("no Chromium is installed (Debian/Ubuntu: apt install chromium)")
    with open_browser(tmp_path / "profile") as page:
        page.open(page_file)
        page.wait("window.suite")
        yield page


def count(page: Page, selector: str) -> int:
    return int(page.evaluate(f"document.querySelectorAll('{selector}').length"))


def choose(page: Page, what: str, value: int) -> None:
    page.evaluate(
        f"(() => {{ const s = document.getElementById('{what}'); s.value = {value};"
        " s.dispatchEvent(new Event('change')); })()"
    )


@pytest.mark.long
def test_the_page_shows_figures_routes_and_failures(page: Page) -> None:
    # For each group and all: a heading, and a row for each of the four drivers.
    assert count(page, "#figures tr") == 1 + 3 * (1 + 4)
    assert count(page, "#differences tr") == 1 + 3 * (1 + 3)
    assert page.evaluate("document.querySelectorAll('tr.group th')[1].textContent").startswith(
        MARKUP
    )
    choose(page, "contender", 1)  # stand_still
    assert count(page, "#maps svg") == 3
    assert count(page, "#maps .path") == count(page, "#clips article") == 4
    choose(page, "group", 0)
    assert count(page, "#maps svg") == count(page, "#clips article") == 2
    choose(page, "contender", 3)  # route_follower
    assert count(page, "#maps .path.success") == 2
    assert page.evaluate("document.getElementById('clips-note').textContent") == "There were none."
    assert page.problems == []


@pytest.mark.long
def test_a_clip_plays_and_its_path_is_marked(page: Page) -> None:
    choose(page, "contender", 2)  # straight_on
    canvas = "document.querySelector('#clips canvas')"
    page.wait(f"{canvas}.width > 16")
    last = page.evaluate(f"{canvas}.toDataURL()")
    page.evaluate("document.querySelector('#clips button').click()")
    page.wait(f"{canvas}.toDataURL() !== {json.dumps(last)}")
    slider = "document.querySelector('#clips input')"
    page.wait(f"{slider}.value === {slider}.max")
    assert page.evaluate(f"{canvas}.toDataURL()") == last
    page.evaluate("document.querySelector('#clips article').click()")
    assert count(page, "#maps .path.here") == count(page, "#clips article.here") == 1
    assert page.problems == []
