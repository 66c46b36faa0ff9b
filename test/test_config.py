# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Settings: defaults, what is refused and in which words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from td3_driver import config as configuration
from td3_driver.config import (
    Config,
    ConfigError,
    Section,
    build,
    find_file,
    load,
    shipped_folder,
)

ROOT = Path(__file__).resolve().parent.parent


def written(folder: Path, values: dict[str, Any]) -> Path:
    path = folder / "settings.yaml"
    path.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
    return path


def every_setting() -> list[tuple[str, FieldInfo]]:
    found = []
    for section, field in Config.model_fields.items():
        assert isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        found += [
            (f"{section}.{name}", setting)
            for name, setting in field.annotation.model_fields.items()
        ]
    return found


def test_every_setting_has_a_description_and_a_place_for_its_unit() -> None:
    settings = every_setting()
    assert len(settings) > 60
    for name, setting in settings:
        assert setting.description and setting.description.endswith("."), name
        assert isinstance(setting.json_schema_extra, dict) and "unit" in setting.json_schema_extra


def test_names_that_end_in_a_unit_state_that_unit() -> None:
    units = {"m": "m", "px": "px", "deg": "deg", "rad": "rad", "mps": "m/s", "rps": "rad/s"}
    units |= {"mps2": "m/s^2", "ns": "N s", "s": "s"}
    for name, setting in every_setting():
        ending = name.rsplit("_", 1)[-1]
        if ending in units:
            assert isinstance(setting.json_schema_extra, dict)
            assert setting.json_schema_extra["unit"] == units[ending], name


def test_the_defaults_are_valid_and_an_empty_file_gives_them(tmp_path: Path) -> None:
    assert build({}, "nothing") == Config()
    assert load(written(tmp_path, {})) == Config()
    # Built anew from its own values, every default passes its own limits.
    assert build(Config().model_dump(), "defaults") == Config()


def test_the_defaults_agree_with_each_other() -> None:
    driving = Config().driving
    assert driving.target_speed_mps < driving.reward_speed_limit_mps
    assert driving.target_speed_mps < driving.max_speed_mps
    assert driving.heading_limit_rad < driving.wrong_way_rad
    assert driving.stuck_time_s + driving.stuck_grace_s < driving.time_limit_s
    training = Config().training
    assert training.random_steps < training.total_steps
    assert not set(training.maps) & set(Config().evaluation.maps)


@pytest.mark.parametrize("path", sorted(configuration.CONFIG_FOLDER.glob("*.yaml")), ids=str)
def test_shipped_files_are_valid_by_path_and_by_name(path: Path) -> None:
    assert load(path) == load(path.stem)


@pytest.mark.parametrize("name", ["camera_lane", "camera_town", "new_looks", "wrong_route"])
def test_a_task_is_examined_and_evaluated_on_maps_of_their_own(name: str) -> None:
    config = load(name)
    maps = [*config.training.maps, *config.validation.maps, *config.evaluation.maps]
    assert len(set(maps)) == len(maps)


def test_the_town_is_driven_by_image_speed_and_command() -> None:
    config = load("camera_town")
    assert config.driving.vector == ("speed", "command") and config.driving.needs_route
    assert {each.split("_")[0] for each in config.training.maps} == {"grid", "ring"}
    assert config.evaluation.maps == ("grid_new_town",)


def test_values_of_a_file_go_over_the_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, {"learning": {"batch_size": 64, "hidden": [32]}}))
    assert config.learning.batch_size == 64 and config.learning.hidden == (32,)
    expected = Config().model_dump()
    expected["learning"] |= {"batch_size": 64, "hidden": (32,)}
    assert config.model_dump() == expected


def test_a_number_that_yaml_takes_for_text_is_a_number(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("/**:\n  ros__parameters:\n    learning:\n      actor_learning_rate: 3e-4\n")
    assert isinstance(yaml.safe_load("3e-4"), str)
    assert load(path).learning.actor_learning_rate == 3e-4


@pytest.mark.parametrize(
    "values, line",
    [
        ({"learning": {"bach_size": 3}}, "learning.bach_size: there is no such setting"),
        ({"learner": {}}, "learner: there is no such setting"),
        ({"learning": {"discount": 1.0}}, "learning.discount: .*less than 1.*it is 1.0"),
        ({"learning": {"batch_size": 0}}, "learning.batch_size: .*1.*it is 0"),
        ({"learning": {"batch_size": 2.5}}, "learning.batch_size: .*integer.*it is 2.5"),
        ({"learning": {"device": "tpu"}}, "learning.device: .*'auto', 'cpu' or 'cuda'.*'tpu'"),
        ({"learning": {"channels": [1, 2]}}, "learning.channels"),
        (
            {"learning": {"actor_learning_rate": float("nan")}},
            "learning.actor_learning_rate: .*nan",
        ),
        ({"training": {"seed": -1}}, "training.seed: .*it is -1"),
        ({"training": {"maps": []}}, "training.maps: .*at least 1"),
        ({"training": None}, "training: .*it is None"),
        ({"driving": {"image_size_px": 20}}, "driving.image_size_px: .*36.*it is 20"),
        ({"carla": {"role_name": ""}}, "carla.role_name: .*it is ''"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(
    tmp_path: Path, values: dict[str, Any], line: str
) -> None:
    path = written(tmp_path, values)
    with pytest.raises(ConfigError) as error:
        load(path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{path} has wrong settings:"
    assert len(lines) == 2 and re.match(f"  {line}", lines[1]), lines


def test_every_wrong_setting_is_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, {"learning": {"tau": 2, "x": 1}, "training": {"seed": "a"}})
    with pytest.raises(ConfigError) as error:
        load(path)
    for name in ("learning.tau", "learning.x", "training.seed"):
        assert f"  {name}: " in str(error.value)


@pytest.mark.parametrize("content", ["/**: [", "a: b: c", "\t- x"])
def test_a_file_that_is_not_yaml_is_refused_by_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML"):
        load(path)


def test_a_file_that_is_not_text_is_refused_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ConfigError, match=r"picture\.yaml is not YAML"):
        load(path)


@pytest.mark.parametrize(
    "content", ["", "learning:\n  tau: 0.1\n", "/**:\n  learning: {}\n", "[1, 2]", "text"]
)
def test_a_file_without_the_heading_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"does not start with '/\*\*: ros__parameters:'"):
        load(path)


def test_a_name_that_is_nowhere_is_refused_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("short", "long"):
        (tmp_path / f"{name}.yaml").write_text("")
    monkeypatch.setattr(configuration, "CONFIG_FOLDER", tmp_path)
    assert find_file("short") == tmp_path / "short.yaml"
    with pytest.raises(ConfigError, match="'medium': not a file, nor one of long, short"):
        find_file("medium")


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().learning.tau = 0.1  # type: ignore[misc]


def test_shipped_configurations_are_found_beside_the_source_and_installed(tmp_path: Path) -> None:
    assert shipped_folder(ROOT / "td3_driver" / "config.py") == ROOT / "config"
    share = tmp_path / "share" / "td3_driver" / "config"
    share.mkdir(parents=True)
    packages = tmp_path / "lib" / "python3.12" / "site-packages"
    (packages / "config").mkdir(parents=True)  # somebody else's package
    assert shipped_folder(packages / "td3_driver" / "config.py") == share


@pytest.mark.parametrize("setting", ["role_name", "camera", "control"])
@pytest.mark.parametrize("value", ["hero-1", "", "1st", "a b", "\N{AUTOMOBILE}", "/hero", "he#ro"])
def test_what_becomes_part_of_a_ros_name_is_checked_by_its_rules(setting: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"carla\.{setting}: .*"):
        build({"carla": {setting: value}}, "the test")
    build({"carla": {setting: "hero_1"}}, "the test")


def test_a_sensor_may_have_a_namespace_and_a_role_may_not() -> None:
    assert build({"carla": {"camera": "front/rgb"}}, "the test").carla.camera == "front/rgb"
    with pytest.raises(ConfigError, match=r"role_name: .*letters, digits and _ only"):
        build({"carla": {"role_name": "front/rgb"}}, "the test")


def test_a_wrong_value_of_any_size_is_shown_in_a_few_words() -> None:
    bomb: list = ["x" * 1000]
    for _ in range(30):
        bomb = [bomb] * 9
    with pytest.raises(ConfigError) as caught:
        build({"training": {"seed": bomb, "maps": {"key": "y" * 10**6}}}, "the test")
    assert len(str(caught.value)) < 2000 and "training.seed" in str(caught.value)
