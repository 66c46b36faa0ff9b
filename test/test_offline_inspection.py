# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""What the networks make of a bag, the table and the page, and the page in a real browser."""

from __future__ import annotations

import copy
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bag_drives import CARLA, Drive, Recorded, drive, write
from browser import Page, find_browser, open_browser
from driver_runs import make_run, small_config
from safetensors.torch import save_file

from td3_driver import cli
from td3_driver.bridge import topics
from td3_driver.config import Config
from td3_driver.driving.observation import image_shape, vector_scale
from td3_driver.learning import manifest
from td3_driver.learning.batch import Batch
from td3_driver.learning.checkpoint import LEARNER
from td3_driver.learning.learner_state import learner_tensors
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.normalization import Returns
from td3_driver.learning.policy import save_actor
from td3_driver.learning.td3 import TD3
from td3_driver.offline.bag import Bag, BagError
from td3_driver.offline.decisions import decisions
from td3_driver.offline.frames import BagFrames
from td3_driver.offline.inspection import Inspector, write_csv
from td3_driver.offline.networks import batch_of, evaluate, load_networks
from td3_driver.offline.report import find_moments, spread, write_report
from td3_driver.offline.saliency import saliencies, saliency
from td3_driver.runs import RunFolder

CONFIG = small_config(action_repeat=2)
torch.set_num_threads(1)  # as the inspector does: the other tests' processes want to run as well


def add_learner(run: RunFolder, config: Config, seed: int = 0, **left_out: Any) -> TD3:
    """Give a run's checkpoint critics and targets, all of random weights, and return them."""
    torch.manual_seed(seed)
    checkpoint = run.latest_checkpoint()
    driving, learning = config.driving, config.learning
    spec = NetworkSpec(
        image=image_shape(driving),
        vector_scale=tuple(vector_scale(driving).tolist()),
        actions=2,
        channels=learning.channels,
        image_features=learning.image_features,
        hidden=learning.hidden,
        critic=learning.critic,
    )
    spec = replace(spec, **left_out)
    learner = TD3(spec, learning.model_copy(update={"policy_noise": 0.0}), torch.device("cpu"))
    learner.reward_norm.observe(torch.tensor([0.2, -0.4]))
    learner.reward_norm.follow(Returns(10, 0.0, 40.0, 3.0))
    with torch.no_grad():  # targets of their own
        for network in (learner.actor_target, learner.critic_target):
            for parameter in network.parameters():
                parameter.mul_(1.1)
    save_actor(checkpoint, learner.actor, spec)
    save_file(learner_tensors(learner, {}), checkpoint / LEARNER)
    manifest.seal(checkpoint)
    return learner


@pytest.fixture(scope="module")
def driven() -> Drive:
    return drive(ticks=120, config=CONFIG.driving)


@pytest.fixture(scope="module")
def bag(driven: Drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bags") / "drive", driven.messages)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = make_run(tmp_path_factory.mktemp("runs") / "a", CONFIG)
    add_learner(run, CONFIG)
    return run


@pytest.mark.parametrize(
    "changes", [{"normalize_rewards": True, "reward_scale": 3.0}, {"critic": "categorical"}]
)
def test_values_and_td_errors_are_those_of_the_learner(
    bag: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    learning = CONFIG.learning.model_copy(update=changes)
    config = CONFIG.model_copy(update={"learning": learning})
    run = make_run(tmp_path / "run", config)
    learner = add_learner(run, config, seed=3)
    networks = load_networks(run.latest_checkpoint(), learning)
    with Bag(bag) as opened:
        made = list(decisions(BagFrames(opened, CARLA), CONFIG.driving, 0.05))[:8]
    actions = np.array([decision.action for decision in made])
    rewards = np.array([decision.reward.total for decision in made], np.float32)  # type: ignore[union-attr]
    terminated = np.array([0, 1, 0, 0, 0, 0, 1, 0], np.float32)
    found = evaluate(
        networks,
        [decision.observation for decision in made],
        actions,
        rewards,
        [decision.next_observation for decision in made],
        terminated,
    )

    def batch_of(name: str) -> dict[str, torch.Tensor]:
        each = [getattr(decision, name) for decision in made]
        return {
            key: torch.from_numpy(np.stack([item[key] for item in each]))
            for key in ("image", "vector")
        }

    observations, following = batch_of("observation"), batch_of("next_observation")
    batch = Batch(
        observations=observations,
        actions=torch.from_numpy(actions),
        rewards=torch.from_numpy(rewards),
        next_observations=following,
        terminated=torch.from_numpy(terminated),
        steps=torch.ones(8),
    )
    with torch.no_grad():
        target = learner.form.mean(learner.target_values(batch, following)).numpy()
        q1, q2 = (q.numpy() for q in learner.critic.q_values(observations, batch.actions))
        chosen = learner.actor(observations)
    assert found.policy_action == pytest.approx(chosen.numpy(), abs=1e-5)
    assert found.q1 == pytest.approx(q1, abs=1e-5)
    assert found.td_error_1 == pytest.approx(target - q1, abs=1e-4)
    assert found.td_error_2 == pytest.approx(target - q2, abs=1e-4)
    assert np.ptp(found.td_error_1) > 1e-3


def test_what_is_not_known_has_no_value(bag: Path, run: RunFolder) -> None:
    networks = load_networks(run.latest_checkpoint(), CONFIG.learning)
    with Bag(bag) as opened:
        made = list(decisions(BagFrames(opened, CARLA), CONFIG.driving, 0.05))[:2]
    actions = np.array([[np.nan, np.nan], [0.1, 0.2]], np.float32)
    found = evaluate(
        networks,
        [decision.observation for decision in made],
        actions,
        np.array([np.nan, 1.0], np.float32),
        [None, made[1].next_observation],
        np.zeros(2, np.float32),
    )
    assert np.isnan([found.q1[0], found.td_error_1[0]]).all()
    assert np.isfinite([found.q1[1], found.td_error_1[1], *found.policy_q]).all()


def test_saliency_shows_the_pixels_that_matter() -> None:
    batch = {"image": torch.randint(0, 255, (3, 4, 84, 84), dtype=torch.uint8)}

    def output(seen: dict[str, torch.Tensor]) -> torch.Tensor:
        # A corner of the newest image, and nothing else, moves it.
        return torch.tanh(3.0 * seen["image"][:, 3, 10:20, 60:70].mean(dim=(1, 2)))

    maps = saliency(output, batch)
    assert maps.shape == (3, 84, 84)
    inside = maps[:, 8:22, 58:72].sum(axis=(1, 2)) / maps.sum(axis=(1, 2))
    assert np.all(inside > 0.9)
    assert np.allclose(maps.max(axis=(1, 2)), 1.0)
    assert np.array_equal(maps, saliency(output, batch))


@pytest.mark.parametrize("critic", ["scalar", "categorical"])
def test_every_output_has_its_own_saliency(bag: Path, tmp_path: Path, critic: str) -> None:
    run = make_run(tmp_path / "run", CONFIG)
    add_learner(run, CONFIG, critic=critic)
    with Bag(bag) as opened:
        made = list(decisions(BagFrames(opened, CARLA), CONFIG.driving, 0.05))[:2]
    networks = load_networks(run.latest_checkpoint(), CONFIG.learning)
    observations = [item.observation for item in made]
    maps = saliencies(networks, observations)
    assert list(maps) == ["steering", "speed", "critic"]
    assert not np.allclose(maps["steering"], maps["speed"])

    batch = batch_of(networks.spec, observations)
    acted, judge = networks.actor(batch).detach(), networks.critic
    assert judge is not None
    lower = saliency(lambda seen: torch.minimum(*judge.q_values(seen, acted)), batch)
    np.testing.assert_allclose(maps["critic"], lower, atol=1e-6)


def test_the_table_has_a_row_for_each_decision(
    bag: Path, driven: Drive, run: RunFolder, tmp_path: Path
) -> None:
    with Bag(bag) as opened:
        inspection = Inspector(opened, run.path).inspect()
    write_csv(inspection, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == inspection.decisions == len(driven.frames) // 2
    for row, frame in zip(rows, driven.frames[::2], strict=True):
        assert float(row["x_m"]) == pytest.approx(frame.pose.x, abs=1e-4)
        assert float(row["speed_mps"]) == pytest.approx(frame.speed, abs=1e-4)
        assert float(row["q_gap"]) == pytest.approx(float(row["q1"]) - float(row["q2"]), abs=1e-5)
    assert rows[-1]["reward"] == ""  # nobody knows what came of it
    assert float(inspection.facts["duration"].split()[0]) == pytest.approx(119 * 0.05, abs=0.1)
    assert inspection.facts["gaps"] == "0"
    assert inspection.facts["ended by"] == "end of the recording"
    assert inspection.road_map is not None


def test_the_same_bag_makes_the_same_page(bag: Path, run: RunFolder, tmp_path: Path) -> None:
    pages = []
    for name in ("a.html", "b.html"):
        with Bag(bag) as opened:
            inspector = Inspector(opened, run.path)
            write_report(inspector, inspector.inspect(), tmp_path / name)
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_moments_stand_apart(bag: Path, run: RunFolder) -> None:
    with Bag(bag) as opened:
        inspection = Inspector(opened, run.path).inspect()
    moments = find_moments(inspection)
    assert {moment["kind"] for moment in moments} == {"disagreement", "td_error_1", "q_gap"}
    for kind in ("disagreement", "td_error_1", "q_gap"):
        places = [moment["index"] for moment in moments if moment["kind"] == kind]
        size = np.abs(np.nan_to_num(inspection.columns[kind]))
        assert places[0] == int(np.argmax(size))
        times = inspection.columns["time_s"][places]
        assert len(times) < 2 or np.diff(np.sort(times)).min() >= 3.0


def test_pictures_are_spread_over_the_bag() -> None:
    assert spread(5, 10, [3]) == [0, 1, 2, 3, 4]
    assert spread(1001, 11, [7]) == [0, 7, *range(100, 1001, 100)]


def inspected(bag: Path, run: RunFolder, page: Path) -> Any:
    """Inspect a bag as users do; return the page's data."""
    assert cli.main(["inspect", str(bag), "--run", str(run.path), "--out", str(page)]) == 0
    return data_of(page)


def has_no_values(data: Any) -> bool:
    """Return whether a page shows the actor alone."""
    assert "policy_steering" in data["columns"]
    return "q1" not in data["columns"] and data["outputs"] == ["steering", "speed"]


def test_an_actor_alone_is_inspected_without_values(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "actor", CONFIG)
    assert has_no_values(inspected(bag, run, tmp_path / "page.html"))
    assert "saved without its critic" in capsys.readouterr().out


def test_a_critic_that_was_told_of_others_judges_no_bag(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(action_repeat=2, privileged_others=1, advice=True)
    run = make_run(tmp_path / "run", config)
    add_learner(run, config, privileged_scale=(1.0,) * 7, encoders="actor")
    assert has_no_values(inspected(bag, run, tmp_path / "page.html"))
    assert "one that knew who else was on the road" in capsys.readouterr().out


@pytest.mark.parametrize(
    "task, left_out, looks",
    [
        ({"image_channels": 3, "image_stack": 2}, {}, ["steering", "speed", "critic"]),
        ({}, {"vector_scale": ()}, ["steering", "speed", "critic"]),
        ({}, {"image": None}, []),
    ],
    ids=["colour", "no vector", "no image"],
)
def test_networks_that_see_otherwise_are_inspected_too(
    bag: Path, tmp_path: Path, task: dict[str, Any], left_out: dict[str, Any], looks: list[str]
) -> None:
    config = small_config(action_repeat=2, **task)
    run = make_run(tmp_path / "run", config)
    add_learner(run, config, **left_out)
    page = tmp_path / "page.html"
    assert cli.main(["inspect", str(bag), "--run", str(run.path), "--out", str(page)]) == 0
    data = data_of(page)
    assert data["outputs"] == looks
    assert {"q1", "td_error_1", "policy_speed"} <= set(data["columns"])


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.mark.parametrize(
    "leave_out, reason",
    [
        (topics.WAYPOINTS, "waypoints"),
        (topics.ODOMETRY, "odometry"),
        (topics.IMAGE, "no camera image"),
    ],
)
def test_a_bag_that_cannot_be_inspected_is_refused_in_plain_words(
    leave_out: topics.Topic,
    reason: str,
    driven: Drive,
    run: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path / "bag", driven.messages, leave_out=[leave_out])
    out = tmp_path / "page.html"
    assert cli.main(["inspect", str(path), "--run", str(run.path), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert "td3-driver: " in told and reason in told and "Traceback" not in told
    assert not out.exists()


def with_another(driven: Drive, place: int) -> list[Recorded]:
    """Return the messages, with a copy of the one at a place that may be changed."""
    messages = list(driven.messages)
    messages[place] = replace(messages[place], message=copy.deepcopy(messages[place].message))
    return messages


def test_an_image_from_a_place_on_no_map_is_left_out(
    driven: Drive, run: RunFolder, tmp_path: Path
) -> None:
    place = [item.topic is topics.ODOMETRY for item in driven.messages].index(True)
    odd = with_another(driven, place)
    odd[place].message.pose.pose.position.x = 1e308
    with Bag(write(tmp_path / "bag", odd)) as opened:
        inspection = Inspector(opened, run.path).inspect()
    assert any("a position of 1e+308 m is on no map" in note for note in inspection.notes)
    assert np.abs(inspection.path).max() < 1000.0


def test_a_route_of_no_numbers_is_named(driven: Drive, run: RunFolder, tmp_path: Path) -> None:
    place = [item.topic is topics.WAYPOINTS for item in driven.messages].index(True)
    odd = with_another(driven, place)
    odd[place].message.poses[0].pose.position.x = float("nan")
    with Bag(write(tmp_path / "bag", odd)) as opened, pytest.raises(BagError) as refusal:
        Inspector(opened, run.path).inspect()
    assert "is on a route, and 1 messages are invalid (the pose is not" in str(refusal.value)


def test_a_bag_that_is_nowhere_on_a_route_says_so(
    driven: Drive, run: RunFolder, tmp_path: Path
) -> None:
    late = [item for item in driven.messages if item.topic is not topics.WAYPOINTS]
    route = next(item for item in driven.messages if item.topic is topics.WAYPOINTS)
    after = type(route)(route.topic, driven.messages[-1].log_ns + 10**9, route.message)
    path = write(tmp_path / "bag", [*late, after])
    reason = "none of its 120 frames is on a route"
    with Bag(path) as opened, pytest.raises(BagError, match=reason):
        Inspector(opened, run.path).inspect()


def test_runs_of_different_tasks_are_not_compared(
    bag: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_run(tmp_path / "other", small_config(waypoints=5))
    arguments = ["inspect", str(bag), "--run", str(run.path), "--compare", str(other.path)]
    assert cli.main([*arguments, "--out", str(tmp_path / "page.html")]) == 2
    assert "driving.waypoints (10 and 5)" in capsys.readouterr().err


# --- in a browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page_file(bag: Path, run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    other = make_run(folder / "other", CONFIG)
    add_learner(other, CONFIG, seed=5)
    page = folder / "page.html"
    arguments = ["inspect", str(bag), "--run", str(run.path), "--compare", str(other.path)]
    assert cli.main([*arguments, "--out", str(page)]) == 0
    return page


@pytest.mark.long
def test_a_name_of_markup_leaves_the_page_whole(
    driven: Drive, run: RunFolder, tmp_path: Path
) -> None:
    name = "<!--<script>&amp;"
    bag = write(tmp_path / name, driven.messages)
    file = tmp_path / "page.html"
    assert cli.main(["inspect", str(bag), "--run", str(run.path), "--out", str(file)]) == 0
    assert data_of(file)["bag"] == name
    text = file.read_text()
    assert "<" not in text[text.index('id="data">') + len('id="data">') :].partition("</")[0]
    if find_browser() is None:
        pytest.skip("no Chromium is installed (Debian/Ubuntu: apt install chromium)")
    with open_browser(tmp_path / "profile") as page:
        page.open(file)
        page.wait("window.report && window.report.state().picture >= 0")
        assert page.evaluate("document.getElementById('bag').textContent") == name
        assert page.problems == []


@pytest.fixture
def page(page_file: Path, tmp_path: Path) -> Iterator[Page]:
    if find_browser() is None:
        pytest.skip("no Chromium is installed (Debian/Ubuntu: apt install chromium)")
    with open_browser(tmp_path / "profile") as page:
        page.open(page_file)
        page.wait("window.report && window.report.state().picture >= 0")
        yield page


def state(page: Page) -> dict[str, object]:
    return dict(page.evaluate("window.report.state()"))


@pytest.mark.long
def test_the_page_opens_offline_without_a_complaint(page: Page, page_file: Path) -> None:
    assert page.problems == []
    assert page.evaluate("document.querySelectorAll('.plot canvas').length") == 9
    assert page.evaluate("document.querySelectorAll('#moments article').length") > 3
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0 or all(
        name.startswith("data:")
        for name in page.evaluate("performance.getEntriesByType('resource').map((e) => e.name)")
    )
    # Nothing is left to be fetched from anywhere.
    assert not re.search(r'(src|href)="https?:', page_file.read_text())


@pytest.mark.long
def test_the_cursor_moves_frame_and_plots_together(page: Page) -> None:
    box = page.evaluate(
        "(() => { const b = document.querySelectorAll('.u-over')[1].getBoundingClientRect();"
        " return [b.left, b.top, b.width, b.height]; })()"
    )
    left, top, width, height = box
    seen = []
    for share in (0.25, 0.75):
        page.move_mouse(left + share * width, top + height / 2)
        count = page.evaluate("window.report.plots[0].data[0].length")
        page.wait(
            f"Math.abs(window.report.state().index - {share} * {count}) < 3"
            " && window.report.state().picture === window.report.state().index"
        )
        now = state(page)
        assert set(now["cursors"]) == {now["index"]}  # type: ignore[call-overload]
        shown = page.evaluate("document.querySelector('#cameras canvas').toDataURL()")
        seen.append((now["index"], shown))
    assert seen[0][0] < seen[1][0] and seen[0][1] != seen[1][1]  # type: ignore[operator]
    assert page.problems == []


@pytest.mark.long
def test_a_zoom_leaves_the_cursor_at_its_time(page: Page) -> None:
    count = page.evaluate("window.report.plots[0].data[0].length")
    page.evaluate(f"window.report.moveTo({count // 2})")
    page.evaluate(
        "(() => { const t = window.report.plots[0].data[0]; for (const plot of"
        f" window.report.plots) plot.setScale('x', {{min: t[{count // 3}], max: t[{count - 5}]}});"
        " })()"
    )
    page.wait(
        "window.report.plots.every((plot) => plot.scales.x.min > plot.data[0][1])"
        f" && window.report.state().cursors.every((index) => index === {count // 2})"
    )
    # Moved out of sight, the view goes along.
    page.evaluate("window.report.moveTo(0)")
    page.wait("window.report.state().cursors.every((index) => index === 0)")
    assert page.problems == []


@pytest.mark.long
def test_keys_moments_and_signals_work(page: Page) -> None:
    page.press("End")
    last = page.evaluate("window.report.plots[0].data[0].length - 1")
    page.wait(f"window.report.state().index === {last}")
    page.press("ArrowLeft")
    page.wait(f"window.report.state().index === {last - 1}")
    page.evaluate("document.querySelector('#moments article').click()")
    index = page.evaluate(
        "JSON.parse(document.getElementById('data').textContent).moments[0].index"
    )
    page.wait(f"window.report.state().picture === {index}")
    before = page.evaluate("document.getElementById('range').textContent")
    page.evaluate(
        "(() => { const s = document.getElementById('signal'); s.value = 'q1';"
        " s.dispatchEvent(new Event('change')); })()"
    )
    assert page.evaluate("document.getElementById('range').textContent") != before
    assert page.problems == []
