# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The exported policy: equal to PyTorch's, described, and refused where it does not fit."""

from __future__ import annotations

import gc
import json
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from driver_runs import make_run, small_config

from td3_driver.config import VECTOR_PARTS, Config, ConfigError, DrivingConfig, LearningConfig
from td3_driver.deployment import description, export
from td3_driver.deployment.description import (
    OF_EPISODES,
    OF_THE_CAR,
    Array,
    Entry,
    Origin,
    PolicyFileError,
    TaskDescription,
    describe_task,
)
from td3_driver.deployment.loading import load_policy
from td3_driver.deployment.onnx_policy import TOLERANCE, OnnxPolicy
from td3_driver.driving.control import CommandLimiter, action_ranges
from td3_driver.driving.observation import vector_names
from td3_driver.learning.networks import Actor, NetworkSpec
from td3_driver.learning.policy import Policy
from td3_driver.learning.td3 import TD3
from td3_driver.runs import RunFolder

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
DRIVING = DrivingConfig()
TICK_S = 0.05
SCALE = (8.0, 2.0, 0.8, 40.0)
SPEC: dict[str, Any] = {
    "image": (2, 36, 40),
    "vector_scale": SCALE,
    "actions": 2,
    "channels": (4, 6, 5),
    "image_features": 8,
    "hidden": (16, 12),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "grey": {},
    "colour, other keys": {
        "image": (3, 3, 36, 40),
        "image_key": "camera/front",
        "vector_key": "state",
    },
    "no vector, image features by ReLU, one image": {
        "vector_scale": (),
        "image_layer_norm": False,
        "image": (1, 36, 40),
    },
    "no image, one layer, three actions": {"image": None, "hidden": (), "actions": 3},
}


def policy_of(**options: Any) -> Policy:
    """A policy whose actions fill their range."""
    torch.manual_seed(0)
    spec = NetworkSpec(**{**SPEC, **options})
    actor = Actor(spec)
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.mul_(2.5 if parameter.ndim > 1 else 1.0)
        actor.head[-1].bias.zero_()
    return Policy(actor, spec)


def task_of(policy: Policy) -> TaskDescription:
    """Describe what a policy takes, whatever it may be for."""
    spec = policy.spec
    arrays = {}
    for key, shape in policy.observed.items():
        if key == spec.vector_key:
            entries = tuple(
                Entry(name=f"entry_{i}", unit="1", low=-10.0 * scale, high=10.0 * scale)
                for i, scale in enumerate(spec.vector_scale)
            )
            arrays[key] = Array(dtype="float32", shape=shape, axes=("entry",), entries=entries)
        else:
            axes = ("stack", "channel", "height", "width") if len(shape) == 4 else ("stack",)
            arrays[key] = Array(dtype="uint8", shape=shape, axes=axes)
    return TaskDescription(
        observation=arrays,
        action=Array(dtype="float32", shape=(spec.actions,), axes=("entry",)),
        driving=DRIVING,
        fixed_delta_s=TICK_S,
    )


def export_to(path: Path, policy: Policy) -> export.Export:
    origin = Origin(step=7, actor_sha256="0" * 64)
    return export.export_policy(policy, task_of(policy), origin, path)


def observations(policy: Policy, count: int) -> dict[str, np.ndarray]:
    """Random observations, some of them extreme."""
    rng = np.random.default_rng(5)
    batch = {}
    for key, shape in policy.observed.items():
        if key == policy.spec.image_key:
            values = rng.integers(0, 256, (count, *shape), np.uint8)
            values[::3] //= 8
            values[0], values[1] = 0, 255
        else:
            usual = np.array(policy.spec.vector_scale)
            values = (usual * rng.normal(size=(count, *shape))).astype(np.float32)
            values[2::5] *= 10.0
        batch[key] = values
    return batch


def actions_of(policy: Policy, batch: dict[str, np.ndarray]) -> np.ndarray:
    count = len(next(iter(batch.values())))
    each = ({key: values[i] for key, values in batch.items()} for i in range(count))
    return np.stack([policy.act(observation) for observation in each])


def test_a_file_has_the_encoder_of_the_critic_that_its_actor_looked_through(
    tmp_path: Path,
) -> None:
    spec = NetworkSpec(**{**SPEC, "encoders": "critic", "privileged_scale": (3.0,)})
    learner = TD3(spec, LearningConfig(encoders="critic"), seed=1)
    policy = Policy.like(spec)
    policy.follow(learner.actor)
    done = export_to(tmp_path / "policy.onnx", policy)
    assert done.comparison.largest_difference <= TOLERANCE
    batch = observations(policy, 4)
    acted = OnnxPolicy.load(done.path).act_on_batch(batch)
    state = learner.critic.encoder(
        {
            "image": torch.from_numpy(batch["image"]),
            "vector": torch.from_numpy(np.pad(batch["vector"], ((0, 0), (0, 1)))),
        }
    )
    wanted = torch.tanh(learner.actor.head(state[:, :-1])).detach().numpy()
    np.testing.assert_allclose(acted, wanted, atol=TOLERANCE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the file of a policy of some of OPTIONS, exported once."""
    folder = tmp_path_factory.mktemp("files")

    @cache
    def file(name: str) -> Path:
        return export_to(folder / name / "policy.onnx", policy_of(**OPTIONS[name])).path

    return file


@pytest.mark.parametrize("name", OPTIONS)
def test_the_file_acts_as_pytorch_does_whatever_the_networks(
    name: str, files: Callable[[str], Path]
) -> None:
    policy = policy_of(**OPTIONS[name])
    exported = OnnxPolicy.load(files(name))
    batch = observations(policy, 300)
    wanted = actions_of(policy, batch)
    for key, values in batch.items():
        one_only = actions_of(policy, {**batch, key: np.repeat(values[4:5], len(values), axis=0)})
        assert np.abs(wanted - one_only).max() > 0.1, f"{key} has too little effect to be tested"
    alone = {**{key: values[4] for key, values in batch.items()}, "not seen": np.zeros(1)}
    action = exported.act(alone)
    assert (action.dtype, action.shape) == (np.float32, (policy.spec.actions,))
    np.testing.assert_allclose(action, wanted[4], rtol=0.0, atol=TOLERANCE)
    for size in (1, 7, 300):
        some = {key: values[:size] for key, values in batch.items()}
        np.testing.assert_allclose(
            exported.act_on_batch(some), wanted[:size], rtol=0.0, atol=TOLERANCE
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "run", small_config())


class Said(NamedTuple):
    """What a process's streams and Python's warnings had of an export."""

    out: str
    err: str
    warned: list[str]


@pytest.fixture(scope="module")
def done_and_said(
    run: RunFolder, tmp_path_factory: pytest.TempPathFactory
) -> tuple[export.Export, Said]:
    """Export the run as users do, with all that is said meanwhile."""
    folder = tmp_path_factory.mktemp("said")
    gc.collect()  # what earlier tests left open is none of its remarks
    with warnings.catch_warnings(record=True) as warned, redirected(folder):
        warnings.simplefilter("default")
        done = export.export_run(run.path)
    texts = ((folder / name).read_text() for name in ("out", "err"))
    return done, Said(*texts, [str(each.message) for each in warned])


@contextmanager
def redirected(folder: Path) -> Iterator[None]:
    """Have files take what goes to this process's streams, from wherever."""
    before = {number: os.dup(number) for number in (1, 2)}
    for stream, number, name in ((sys.stdout, 1, "out"), (sys.stderr, 2, "err")):
        stream.flush()
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), number)
    try:
        with (
            os.fdopen(1, "w", closefd=False) as out,
            os.fdopen(2, "w", closefd=False) as err,
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            yield
    finally:
        for number, file in before.items():
            os.dup2(file, number)
            os.close(file)


@pytest.fixture(scope="module")
def done(done_and_said: tuple[export.Export, Said]) -> export.Export:
    return done_and_said[0]


def load(file: Path, driving: DrivingConfig = DRIVING, tick_s: float = TICK_S) -> Any:
    return load_policy(RunFolder(file.parent), file, driving, tick_s)


def test_a_run_s_policy_drives_from_its_file_as_from_its_checkpoint(
    run: RunFolder, done: export.Export
) -> None:
    assert done.path == run.path / "policy.onnx"
    assert [path.name for path in run.path.iterdir() if path.name.startswith(".")] == []
    by_file = load(done.path)
    by_checkpoint = load_policy(run, "", DRIVING, TICK_S)
    assert "policy.onnx (step 1)" in by_file.name and "000000001" in by_checkpoint.name
    example = description.example_observation(done.description.task)
    np.testing.assert_allclose(by_file.act(example), by_checkpoint.act(example), atol=TOLERANCE)


def test_the_summary_names_what_was_written_and_measured(done: export.Export) -> None:
    text = done.summary()
    assert str(done.path) in text and "MB" in text and "step 1" in text
    assert f"{done.comparison.largest_difference:.1e}" in text and text.count("p99") == 2
    assert done.comparison.onnx_s.min() > 0.0 and done.comparison.torch_s.min() > 0.0


def test_other_tools_can_read_what_the_policy_is_for(run: RunFolder, done: export.Export) -> None:
    model = onnx.load(done.path)
    (entry,) = model.metadata_props
    read = json.loads(entry.value)
    assert entry.key == "td3_driver" and read["format"] == 1
    task, driving = read["task"], run.config.driving
    assert task["observation"]["image"]["shape"] == [4, 84, 84]
    assert task["observation"]["image"]["dtype"] == "uint8"
    entries = task["observation"]["vector"]["entries"]
    assert [entry["name"] for entry in entries] == vector_names(driving)
    units = {entry["name"]: entry["unit"] for entry in entries}
    assert (units["speed_mps"], units["waypoint_3_x_m"]) == ("m/s", "m")
    assert units["heading_error_rad"] == "rad"
    assert task["action"]["entries"] == [
        {"name": "steering", "unit": "rad", "low": -0.5, "high": 0.5},
        {"name": "speed", "unit": "m/s", "low": 0.0, "high": 8.0},
    ]
    assert task["driving"] == driving.model_dump(mode="json")
    assert task["fixed_delta_s"] == run.config.simulator.fixed_delta_s
    manifest = json.loads((run.checkpoints / "000000001" / "manifest.json").read_text())
    digest = manifest["actor.safetensors"]
    assert read["checkpoint"] == {"step": 1, "actor_sha256": digest}
    inputs = {node.name: node.type.tensor_type for node in model.graph.input}
    assert {name: kind.elem_type for name, kind in inputs.items()} == {
        "image": onnx.TensorProto.UINT8,
        "vector": onnx.TensorProto.FLOAT,
    }
    assert all(kind.shape.dim[0].dim_param for kind in inputs.values())


def test_the_file_tells_nothing_of_the_machine_it_was_made_on(done: export.Export) -> None:
    content = done.path.read_bytes()
    for path in (ROOT, Path(sys.prefix), Path.home()):
        assert str(path).encode() not in content


def test_an_action_s_range_is_what_the_limiter_makes_of_it() -> None:
    limiter = CommandLimiter(DRIVING)
    steering, speed = action_ranges(DRIVING)
    long_s = 100.0  # the limits of the rates no longer matter
    for action, end in ((-1.0, "low"), (1.0, "high")):
        command = limiter.command(np.full(2, action), long_s)
        assert command.steering_angle == pytest.approx(getattr(steering, end))
        assert command.speed == pytest.approx(getattr(speed, end))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"image_size_px": 96}, "driving.image_size_px: 84 in the file, 96 here"),
        ({"image_stack": 3}, "observation.image.shape: [4, 84, 84] in the file, [3, 84, 84] here"),
        ({"waypoints": 9}, "observation.vector.entries.waypoint_10_x_m: only the file has it"),
        ({"vector": VECTOR_PARTS}, "vector.entries.previous_speed: the file lacks it"),
        ({"action_repeat": 2}, "driving.action_repeat: 1 in the file, 2 here"),
        ({"max_speed_mps": 5.0}, "driving.max_speed_mps: 8.0 in the file, 5.0 here"),
        ({"max_steering_rate_rps": 1.0}, "driving.max_steering_rate_rps: 1.5 in the file, 1.0"),
    ],
)
def test_another_task_is_refused_by_what_differs(
    changes: dict[str, Any], named: str, done: export.Export
) -> None:
    with pytest.raises(PolicyFileError) as refusal:
        load(done.path, DrivingConfig(**changes))
    assert named in str(refusal.value) and str(done.path) in str(refusal.value)


def test_another_tick_is_refused(done: export.Export) -> None:
    with pytest.raises(PolicyFileError, match=r"fixed_delta_s: 0\.05 in the file, 0\.1 here"):
        load(done.path, tick_s=0.1)


def test_settings_that_change_no_observation_and_no_command_may_differ(
    done: export.Export,
) -> None:
    assert set(DrivingConfig.model_fields) >= OF_EPISODES | OF_THE_CAR
    values = {name: getattr(DRIVING, name) for name in OF_EPISODES | OF_THE_CAR}
    other = {name: value + 1 if name != "vehicle_max_steer_rad" else 0.7
             for name, value in values.items()}  # fmt: skip
    load(done.path, DrivingConfig(**other))


def test_a_checkpoint_of_other_observations_is_refused_too(run: RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"images \(4, 84, 84\).*give images \(3, 84, 84\)"):
        load_policy(run, "", DrivingConfig(image_stack=3), TICK_S)


def test_a_run_that_sees_no_image_is_exported_and_drives(tmp_path: Path) -> None:
    policy = policy_of(image=None, vector_scale=tuple([1.0] * len(vector_names(DRIVING))))
    task = describe_task(DRIVING, TICK_S, policy.observed)
    origin = Origin(step=1, actor_sha256="0" * 64)
    file = export.export_policy(policy, task, origin, tmp_path / "policy.onnx").path
    (tmp_path / "config.yaml").write_text("")
    assert load(file).act({"vector": np.zeros(23, np.float32)}).shape == (2,)


def rewritten(done: export.Export, path: Path, **changes: Any) -> Path:
    """Copy a file with another description."""
    model = onnx.load(done.path)
    values = json.loads(model.metadata_props[0].value) | changes
    onnx.helper.set_model_props(model, {"td3_driver": json.dumps(values)})
    onnx.save(model, path)
    return path


def test_a_damaged_file_is_refused(done: export.Export, tmp_path: Path) -> None:
    file = tmp_path / "policy.onnx"
    for length in (0, 100, done.path.stat().st_size // 2):
        file.write_bytes(done.path.read_bytes()[:length])
        with pytest.raises(
            PolicyFileError, match=r"policy\.onnx is not an ONNX file, or is damaged"
        ):
            OnnxPolicy.load(file)


def test_other_weights_than_described_are_refused(done: export.Export, tmp_path: Path) -> None:
    model = onnx.load(done.path)
    tensor = next(t for t in model.graph.initializer if t.name.endswith("head.0.weight"))
    tensor.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, tmp_path / "policy.onnx")
    with pytest.raises(PolicyFileError, match="is damaged: for the example it returns"):
        OnnxPolicy.load(tmp_path / "policy.onnx")


def test_networks_that_do_not_fit_their_description_are_refused(
    done: export.Export, tmp_path: Path
) -> None:
    task = json.loads(done.description.model_dump_json())["task"]
    task["observation"]["image"]["shape"] = [3, 84, 84]
    file = rewritten(done, tmp_path / "policy.onnx", task=task)
    with pytest.raises(PolicyFileError, match="networks do not fit its description"):
        OnnxPolicy.load(file)


def test_another_format_is_refused(done: export.Export, tmp_path: Path) -> None:
    file = rewritten(done, tmp_path / "policy.onnx", format=2)
    with pytest.raises(PolicyFileError, match="of format 2, but this version reads 1"):
        OnnxPolicy.load(file)


def test_an_unknown_setting_in_the_file_is_named(done: export.Export, tmp_path: Path) -> None:
    task = json.loads(done.description.model_dump_json())["task"]
    task["driving"]["wings"] = 2
    file = rewritten(done, tmp_path / "policy.onnx", task=task)
    with pytest.raises(PolicyFileError, match=r"driving\.wings: there is no such setting"):
        OnnxPolicy.load(file)


def test_foreign_files_are_refused_and_not_executed(done: export.Export, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    file = tmp_path / "policy.onnx"
    file.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(PolicyFileError, match="not an ONNX file"):
        OnnxPolicy.load(file)
    assert not (tmp_path / "executed").exists()
    model = onnx.load(done.path)
    del model.metadata_props[:]
    onnx.save(model, file)
    with pytest.raises(PolicyFileError, match="was not written by td3-driver export"):
        OnnxPolicy.load(file)
    with pytest.raises(PolicyFileError, match=r"cannot read the policy: .*nonesuch"):
        OnnxPolicy.load(tmp_path / "nonesuch")


def test_a_file_that_names_another_file_does_not_have_it_read(
    done: export.Export, tmp_path: Path
) -> None:
    file = tmp_path / "policy.onnx"
    onnx.save(
        onnx.load(done.path), file, save_as_external_data=True, location="w", size_threshold=0
    )
    with pytest.raises(PolicyFileError, match="not an ONNX file, or is damaged"):
        OnnxPolicy.load(file)


def test_what_is_missing_to_drive_is_named(
    done: export.Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(PolicyFileError, match="pip install onnxruntime"):
        OnnxPolicy.load(done.path)


def test_what_is_missing_to_export_is_named(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(PolicyFileError, match="onnxscript is missing: pip install onnx "):
        export.export_run(run.path, run.path / "none.onnx", say=lambda line: None)
    assert not (run.path / "none.onnx").exists()


def test_driving_with_a_file_needs_no_pytorch(done: export.Export) -> None:
    code = (
        "import sys; from pathlib import Path; from td3_driver.deployment.loading import *; "
        f"run = RunFolder({str(done.path.parent)!r}); config = run.config; "
        "load_policy(run, run.path / 'policy.onnx', config.driving, 0.05); "
        "sys.exit('torch is imported' if 'torch' in sys.modules else 0)"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (outcome.returncode, outcome.stderr) == (0, "")


def test_an_export_says_one_line_and_no_library_s_remark(
    done_and_said: tuple[export.Export, Said],
) -> None:
    _, said = done_and_said
    assert said.out.count("\n") == 1 and said.out.startswith("exporting ")
    assert said.err == "" and not said.warned


def test_a_comparison_sees_other_weights(files: Callable[[str], Path]) -> None:
    policy, other = policy_of(), policy_of()
    with torch.no_grad():
        other.actor.head[-1].weight.add_(0.01)
    exported = OnnxPolicy.load(files("grey"))
    assert export.compare(exported, policy).largest_difference < TOLERANCE
    assert export.compare(exported, other).largest_difference > TOLERANCE


@pytest.mark.parametrize("difference", [2 * TOLERANCE, np.inf])
def test_a_file_that_differs_does_not_replace_one_that_is_right(
    difference: float,
    tmp_path: Path,
    files: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "policy.onnx"
    file.write_bytes(b"the one before")
    nothing = np.ones(1)
    apart = export.Comparison(difference, nothing, nothing)
    monkeypatch.setattr(export, "compare", lambda exported, policy: apart)
    content = files("grey").read_bytes()
    monkeypatch.setattr(export, "to_onnx", lambda actor, spec, description: content)
    with pytest.raises(PolicyFileError, match="nothing was written"):
        export_to(file, policy_of())
    assert file.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [file]


def test_an_actor_of_nan_is_not_exported(tmp_path: Path) -> None:
    policy = policy_of(image=None)
    with torch.no_grad():
        policy.actor.head[0].bias.fill_(np.nan)
    with pytest.raises(PolicyFileError):
        export_to(tmp_path / "policy.onnx", policy)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_was_described_otherwise_is_not_exported(tmp_path: Path) -> None:
    config = Config()
    run = make_run(tmp_path / "run", small_config())
    other = config.model_copy(update={"driving": DrivingConfig(image_stack=3)})
    RunFolder.create(str(tmp_path / "other"), other)
    run.checkpoints.rename(tmp_path / "other" / "checkpoints")
    with pytest.raises(ConfigError, match="expects images"):
        export.export_run(tmp_path / "other", say=lambda line: None)
