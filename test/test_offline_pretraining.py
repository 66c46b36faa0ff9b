# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""`td3-driver pretrain`, from bags to a run that drives and can be trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bag_drives import Drive, drive, write

from td3_driver import cli
from td3_driver.bridge import topics
from td3_driver.config import Config, ConfigError, override
from td3_driver.driving.baseline import RouteFollower
from td3_driver.driving.observation import image_shape, vector_names
from td3_driver.learning.checkpoint import REPLAY
from td3_driver.learning.offline import BC_ALPHA
from td3_driver.learning.policy import Policy, load_tensors
from td3_driver.learning.warm_start import WARM_START
from td3_driver.nodes.trainer import open_run, train
from td3_driver.runs import RunFolder

pytestmark = pytest.mark.long

TINY = (
    "learning.channels=[2, 2, 2]",
    "learning.image_features=4",
    "learning.hidden=[8]",
    "learning.batch_size=8",
    "learning.device=cpu",
    "training.offline_updates=12",
    "training.log_interval_updates=4",
    "driving.target_speed_mps=5.0",
)


@pytest.fixture(scope="module")
def driven() -> Drive:
    config = Config().driving
    return drive(ticks=130, config=config, act=RouteFollower(config).act)


@pytest.fixture(scope="module")
def bag(driven: Drive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bags") / "bag", driven.messages)


def pretrain(out: Path, *bags: Path, more: Sequence[str] = ()) -> int:
    settings = [part for item in (*TINY, *more) for part in ("--set", item)]
    return cli.main(["pretrain", *map(str, bags), "--out", str(out), *settings])


@pytest.fixture(scope="module")
def run(bag: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    out = tmp_path_factory.mktemp("runs") / "pretrained"
    assert pretrain(out, bag, bag) == 0
    return RunFolder(out)


def test_a_bag_becomes_a_run_whose_policy_acts(run: RunFolder) -> None:
    config = run.config
    assert config.learning.bc_alpha == BC_ALPHA  # where nothing else was said
    assert config.driving.target_speed_mps == 5.0
    policy = Policy.load(run.latest_checkpoint())
    observation = {
        "image": np.zeros(image_shape(config.driving), np.uint8),
        "vector": np.zeros(len(vector_names(config.driving)), np.float32),
    }
    assert policy.act(observation).shape == (2,)
    # Twice the bag's 130 frames, less an outcome that nobody knows; an image for each of them.
    replay = load_tensors(run.latest_checkpoint() / REPLAY)
    assert len(replay["images"]) == 2 * 130
    assert replay["counters"].tolist() == [260, 0, 2 * 129]
    assert len((run.path / "metrics.csv").read_text().splitlines()) == 1 + 3


def test_it_tells_what_was_learnt_left_out_and_written(
    bag: Path, driven: Drive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin_ns = driven.messages[0].log_ns
    quiet = [
        item
        for item in driven.messages
        if item.topic not in (topics.ACKERMANN, topics.VEHICLE_CONTROL, topics.VEHICLE_STATUS)
        or item.log_ns < begin_ns + 5_000_000_000
    ]
    out = tmp_path / "run"
    assert pretrain(out, bag, write(tmp_path / "quiet", quiet)) == 0
    told = capsys.readouterr().out
    assert "transitions (" in told and "no command recorded" in told and " 1 stretches" in told
    for path in ("config.yaml", "metrics.csv", "checkpoints/000000012"):
        assert (out / path).exists()
    assert str(out / "metrics.csv") in told and str(out / "checkpoints" / "000000012") in told
    assert f"--from {out}" in told


@pytest.mark.parametrize("alpha", [0.3, 7.0])
def test_an_alpha_of_ones_own_is_kept(bag: Path, tmp_path: Path, alpha: float) -> None:
    assert pretrain(tmp_path / "run", bag, more=[f"learning.bc_alpha={alpha}"]) == 0
    assert RunFolder(tmp_path / "run").config.learning.bc_alpha == alpha


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    assert code == 2
    told = capsys.readouterr().err
    return told[told.index("td3-driver: ") :]


def test_bags_do_not_tell_of_others(
    bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = pretrain(tmp_path / "run", bag, more=["driving.privileged_others=1"])
    assert "bags do not hold who else was on the road" in refused(capsys, code)


def test_wrong_bags_are_refused_in_plain_words(
    bag: Path, driven: Drive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = write(tmp_path / "blind", driven.messages, leave_out=[topics.ODOMETRY])
    assert "odometry" in refused(capsys, pretrain(tmp_path / "a", bag, blind))
    assert not (tmp_path / "a").exists()  # told before anything is made
    mute = [topics.ACKERMANN, topics.VEHICLE_CONTROL, topics.VEHICLE_STATUS]
    silent = write(tmp_path / "silent", driven.messages, leave_out=mute)
    assert "too few" in refused(capsys, pretrain(tmp_path / "b", silent))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.yaml").touch()
    assert "exists" in refused(capsys, pretrain(tmp_path / "c", bag))


# --- the trainer -----------------------------------------------------------------------------


def node_of(config: Config, **given: str) -> Any:
    values = {"run": "", "resume": "", "from": "", **given}
    return SimpleNamespace(
        config=config,
        get_parameter=lambda name: SimpleNamespace(value=values[name]),
        get_logger=lambda: SimpleNamespace(warning=pytest.fail),
    )


def test_the_trainer_begins_a_run_with_anothers_checkpoint(run: RunFolder, tmp_path: Path) -> None:
    config = override(run.config, {"training.random_steps": 0}, "the test")
    new = open_run(node_of(config, run=str(tmp_path / "new"), **{"from": str(run.path)}))
    assert new.path == tmp_path / "new" and new.config == config
    origin = new.path / WARM_START
    assert (origin / REPLAY).read_bytes() == (run.latest_checkpoint() / REPLAY).read_bytes()
    with pytest.raises(ConfigError, match="exists"):
        open_run(node_of(config, run=str(tmp_path / "new"), **{"from": str(run.path)}))


def test_a_training_that_is_told_of_others_is_in_process(tmp_path: Path) -> None:
    for changes in ({}, {"fleet.collectors": 1, "fleet.simulator": "node"}):
        config = override(Config(), {"driving.advice": True, **changes}, "the test")
        with pytest.raises(ConfigError, match=r"set fleet\.collectors to 1 or more"):
            train(node_of(config, run=str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_another_task_does_not_go_on(run: RunFolder, tmp_path: Path) -> None:
    other = override(run.config, {"driving.image_stack": 3}, "the test")
    with pytest.raises(ConfigError, match=r"driving\.image_stack is 3, the run's \d+\. Leave"):
        open_run(node_of(other, run=str(tmp_path / "new"), **{"from": str(run.path)}))
    assert not (tmp_path / "new").exists()


def test_a_run_goes_on_with_another_device_and_not_with_other_learning(run: RunFolder) -> None:
    how = {"learning.device": "cpu", "learning.cuda_graphs": False, "training.torch_threads": 1}
    elsewhere = override(run.config, how, "the test")
    assert elsewhere != run.config
    assert open_run(node_of(elsewhere, resume=str(run.path))).path == run.path
    other = override(elsewhere, {"learning.discount": 0.5}, "the test")
    with pytest.raises(ConfigError, match=r"learning\.discount is 0\.5, the run's 0\.99\. Leave"):
        open_run(node_of(other, resume=str(run.path)))
