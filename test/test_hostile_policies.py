# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Exported policies that would hang, fill the memory or end the process; and of other versions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch
from document_spoiler import COUNT, LONG, check, spoil_bytes
from onnx import TensorProto, helper
from onnx_reader import OnnxReader

from td3_driver import config as configuration
from td3_driver.deployment import export, onnx_policy
from td3_driver.deployment.description import Origin, PolicyFileError, describe_task
from td3_driver.deployment.onnx_file import outline
from td3_driver.deployment.onnx_policy import OnnxPolicy
from td3_driver.learning.networks import NetworkSpec
from td3_driver.learning.policy import Policy
from td3_driver.trial_process import TrialKilledError, TrialTimeoutError

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600 if LONG else 240)]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    torch.manual_seed(0)
    config = configuration.build({"driving": {"waypoints": 1}}, "the test")
    policy = Policy.like(NetworkSpec(None, (1.0,) * 5, 2, (2, 3, 2), 4, (5, 6)))
    task = describe_task(config.driving, 0.05, policy.observed)
    origin = Origin(step=1, actor_sha256="0" * 64)
    path = tmp_path_factory.mktemp("exported") / "policy.onnx"
    return onnx.load(export.export_policy(policy, task, origin, path).path)


@pytest.fixture
def model(good: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(good)
    return copy


def test_spoilt_files_are_loaded_rightly_or_refused(good: onnx.ModelProto, tmp_path: Path) -> None:
    reader = OnnxReader()
    try:
        spoilt = spoil_bytes(good.SerializeToString(), 2 * COUNT, 10)
        check("policy.onnx", spoilt, tmp_path / "policy.onnx", reader.load, PolicyFileError)
    finally:
        reader.close()


def refusal(model: onnx.ModelProto, folder: Path) -> str:
    """Return why a file is refused, after a check that this is one line that names it."""
    path = folder / "policy.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PolicyFileError) as refused:
        OnnxPolicy.load(path)
    message = str(refused.value)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1
    return message


def endless_loop() -> onnx.NodeProto:
    inputs = [
        helper.make_tensor_value_info("iteration", TensorProto.INT64, []),
        helper.make_tensor_value_info("before", TensorProto.BOOL, []),
    ]
    outputs = [helper.make_tensor_value_info("after", TensorProto.BOOL, [])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["before"], ["after"])], "body", inputs, outputs
    )
    return helper.make_node("Loop", ["", "yes"], [], body=body)


def test_a_loop_without_end_is_refused_before_anything_runs_it(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_asked(*_: object) -> bytes:
        raise AssertionError("it was tried")

    monkeypatch.setattr(onnx_policy, "ask", not_asked)
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    model.graph.node.append(endless_loop())
    assert "it has a graph within 'Loop', which may never end" in refusal(model, tmp_path)


def test_a_loop_within_a_function_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function("own", "wait", ["yes"], [], [endless_loop()], opsets)
    model.functions.append(function)
    assert "it has a graph within 'Loop'" in refusal(model, tmp_path)


def test_what_fills_the_memory_does_so_elsewhere(model: onnx.ModelProto, tmp_path: Path) -> None:
    last = model.graph.node[-1]
    action, last.output[0] = last.output[0], "own"
    size = helper.make_tensor("size", TensorProto.INT64, [1], [10**11])
    model.graph.initializer.append(size)
    model.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["size"], ["many"]),
            helper.make_node("ReduceSum", ["many"], ["sum"], keepdims=0),
            helper.make_node("Mul", ["own", "sum"], [action]),
        ]
    )
    assert "is damaged" in refusal(model, tmp_path)


def test_what_ends_the_process_ends_another(model: onnx.ModelProto, tmp_path: Path) -> None:
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    itself = [helper.make_node("again", ["x"], ["y"], domain="own")]
    model.functions.append(helper.make_function("own", "again", ["x"], ["y"], itself, opsets))
    model.opset_import.append(opsets[1])
    last = model.graph.node[-1]
    action, last.output[0] = last.output[0], "own"
    model.graph.node.append(helper.make_node("again", ["own"], [action], domain="own"))
    refusal(model, tmp_path)


@pytest.mark.parametrize(
    "error, said",
    [(TrialTimeoutError("late"), "does not act within 60 s"), (TrialKilledError(11), "SIGSEGV")],
)
def test_what_happens_to_the_trial_is_told(
    model: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    said: str,
) -> None:
    def ask(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(onnx_policy, "ask", ask)
    monkeypatch.setattr(onnx_policy, "_tried", set())
    assert said in refusal(model, tmp_path)


def newer_form(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def newer_operators(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


@pytest.mark.parametrize(
    "change, versions, limit",
    [
        (newer_form, "IR version 99 and opset 18", "takes IR version"),
        (newer_operators, "IR version 8 and opset 99", "takes opset"),
    ],
)
def test_versions_that_onnxruntime_does_not_take_are_named(
    model: onnx.ModelProto,
    tmp_path: Path,
    change: Callable[[onnx.ModelProto], None],
    versions: str,
    limit: str,
) -> None:
    change(model)
    message = refusal(model, tmp_path)
    assert versions in message and limit in message and "install a newer onnxruntime" in message


def test_a_file_is_of_the_oldest_form_that_pytorch_exports_to(good: onnx.ModelProto) -> None:
    assert (good.ir_version, good.opset_import[0].version) == (8, 18)


def many_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Relu", ["x"], ["y"])] * 10_001)


def values_elsewhere(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def constant_elsewhere(model: onnx.ModelProto) -> None:
    tensor = TensorProto(data_location=TensorProto.EXTERNAL, dims=[1], data_type=1)
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def no_network(model: onnx.ModelProto) -> None:
    model.ClearField("graph")


@pytest.mark.parametrize(
    "change, said",
    [
        (many_nodes, "more than 10,000 nodes"),
        (values_elsewhere, "its values are in another file"),
        (constant_elsewhere, "its values are in another file"),
        (no_network, "it has no network"),
    ],
)
def test_what_no_exported_policy_has_is_refused(
    model: onnx.ModelProto, tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str
) -> None:
    change(model)
    assert said in refusal(model, tmp_path)


def test_the_outline_is_what_the_library_reads(good: onnx.ModelProto) -> None:
    found = outline(good.SerializeToString())
    assert (found.ir_version, found.opset) == (good.ir_version, good.opset_import[0].version)
    assert found.nodes == len(good.graph.node)
    assert found.metadata == {entry.key: entry.value for entry in good.metadata_props}


@pytest.mark.parametrize("data", [b"\x08", b"\xff" * 20, b"\x3a\xff\x01", b"\x0b", b"PK\x03\x04"])
def test_bytes_that_are_no_protocol_buffer_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it (is|has) "):
        outline(data)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"shape": [1 << 17]}, "shape.0: .*65536"),
        ({"shape": [1 << 16, 1 << 16], "dtype": "uint8", "entries": []}, "more than 67,108,864"),
        ({"shape": [4]}, "as many entries as its shape says"),
        ({"entries": [{"name": "x", "unit": "m", "low": 0.0, "high": 1e999}]}, "not a finite"),
    ],
)
def test_a_description_that_means_nothing_is_refused(
    model: onnx.ModelProto, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    (entry,) = model.metadata_props
    values = json.loads(entry.value)
    values["task"]["observation"]["vector"].update(changes)
    entry.value = json.dumps(values).replace("Infinity", "1e999")
    path = tmp_path / "policy.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(PolicyFileError) as refused:
        OnnxPolicy.load(path)
    assert re.search(said, str(refused.value))


def test_a_file_larger_than_any_policy_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_policy, "MOST_BYTES", 1000)
    (tmp_path / "policy.onnx").write_bytes(b"x" * 1001)
    with pytest.raises(PolicyFileError, match="larger than 1,000 bytes"):
        OnnxPolicy.load(tmp_path / "policy.onnx")


def test_an_error_of_onnxruntime_while_driving_is_a_value_error(good: onnx.ModelProto) -> None:
    description: Any = SimpleNamespace(task=SimpleNamespace(observation={"vector": None}))
    session = onnx_policy.open_session(good.SerializeToString())
    with pytest.raises(ValueError, match="vector"):
        OnnxPolicy(session, description).act_on_batch({"vector": torch.zeros(1, 9).numpy()})
