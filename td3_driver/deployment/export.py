# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Exports a run's policy as one ONNX file, and checks it against PyTorch before keeping it."""

from __future__ import annotations

import itertools
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from td3_driver.config import ConfigError
from td3_driver.deployment.description import (
    METADATA_KEY,
    Origin,
    PolicyDescription,
    PolicyFileError,
    TaskDescription,
    check_observed,
    describe_task,
    example_observation,
)
from td3_driver.deployment.onnx_policy import ACTION, TOLERANCE, OnnxPolicy
from td3_driver.driving.observation import Observation
from td3_driver.files import replacing
from td3_driver.learning.checkpoint import step_of
from td3_driver.learning.manifest import CheckpointError, digest_of
from td3_driver.learning.networks import IMAGE, VECTOR, Actor, NetworkSpec
from td3_driver.learning.policy import WEIGHTS, Policy
from td3_driver.runs import find_checkpoint

FILE = "policy.onnx"
"""Default name of the file, in the run's folder."""
OPSET, IR_VERSION = 18, 8
"""Of the file: the oldest operators that PyTorch exports to, and the form that came with them."""
COMPARED = 200
"""Random observations on which file and PyTorch are compared, singly and in one batch."""
SEED = 0


@dataclass(frozen=True)
class Comparison:
    """How a file compares with PyTorch, one observation at a time on one thread."""

    largest_difference: float
    onnx_s: np.ndarray
    """Time of each inference, float64 (observations,)."""
    torch_s: np.ndarray


@dataclass(frozen=True)
class Export:
    """A written file, its description and its comparison with PyTorch."""

    path: Path
    description: PolicyDescription
    comparison: Comparison

    def summary(self) -> str:
        """Return a summary for people to read."""
        origin, compared = self.description.checkpoint, self.comparison
        return "\n".join(
            (
                f"{self.path}  {self.path.stat().st_size / 1e6:.2f} MB, the actor of step "
                f"{origin.step}",
                f"largest difference from PyTorch on {len(compared.onnx_s)} random observations: "
                f"{compared.largest_difference:.1e}",
                f"one observation on one thread: onnxruntime {_times(compared.onnx_s)}, "
                f"PyTorch {_times(compared.torch_s)}",
            )
        )


def _times(seconds: np.ndarray) -> str:
    median, p99 = 1e3 * np.percentile(seconds, (50, 99))
    return f"{median:.2f} ms (p99 {p99:.2f} ms)"


def export_run(
    run: str | Path, out: Path | None = None, say: Callable[[str], object] = print
) -> Export:
    """Export the actor of a run's best checkpoint, or of one given by its own folder.

    By default it is written into the run's folder.

    The file is only written if it is complete and passes the comparison. Raises ConfigError with a
    readable message.
    """
    try:
        folder, checkpoint = find_checkpoint(run)
        policy = Policy.load(checkpoint)
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    config = folder.config
    check_observed(policy.observed, config.driving, str(checkpoint))
    task = describe_task(config.driving, config.simulator.fixed_delta_s, policy.observed)
    origin = Origin(step=step_of(checkpoint), actor_sha256=digest_of(checkpoint, WEIGHTS))
    say(f"exporting {checkpoint} ...")
    return export_policy(policy, task, origin, out or folder.path / FILE)


def export_policy(policy: Policy, task: TaskDescription, origin: Origin, path: Path) -> Export:
    """Write a policy's file, compare it with the policy, and only then move it to `path`."""
    example_action = policy.act(example_observation(task))
    if not np.isfinite(example_action).all():
        raise PolicyFileError(f"the actor returns {example_action}: nothing was written")
    description = PolicyDescription(
        task=task, checkpoint=origin, example_action=tuple(example_action.tolist())
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        unfinished.touch()  # Where nothing can be written, that is found out at once.
        unfinished.write_bytes(to_onnx(policy.actor, policy.spec, description))
        comparison = compare(OnnxPolicy.load(unfinished), policy)
        if not comparison.largest_difference <= TOLERANCE:
            raise PolicyFileError(
                f"the exported policy differs from PyTorch's by {comparison.largest_difference:g}"
                f", more than {TOLERANCE:g}: nothing was written"
            )
    return Export(path, description, comparison)


def compare(exported: OnnxPolicy, policy: Policy) -> Comparison:
    """Let both act, in turn, on the same random observations."""
    batch = _random_observations(exported.description.task)
    torch.set_num_threads(1)  # as the driver does
    wanted = []
    onnx_s, torch_s = np.zeros(COMPARED), np.zeros(COMPARED)
    largest = 0.0
    for index in range(COMPARED):
        observation = {key: values[index] for key, values in batch.items()}
        begin = time.perf_counter()
        ours = policy.act(observation)
        between = time.perf_counter()
        theirs = exported.act(observation)
        onnx_s[index] = time.perf_counter() - between
        torch_s[index] = between - begin
        wanted.append(ours)
        largest = max(largest, _apart(theirs, ours))
    largest = max(largest, _apart(exported.act_on_batch(batch), np.stack(wanted)))
    return Comparison(largest, onnx_s, torch_s)


def _apart(some: np.ndarray, others: np.ndarray) -> float:
    """Return the largest difference; infinite if a value is NaN."""
    return float(np.nan_to_num(np.abs(some - others).max(), nan=np.inf))


def _random_observations(task: TaskDescription) -> Observation:
    """Return a batch of `COMPARED`: noise of any contrast, vectors of any size within bounds."""
    rng = np.random.default_rng(SEED)
    batch = {}
    for key, array in task.observation.items():
        each = (COMPARED, *(1 for _ in array.shape))
        noise = rng.uniform(size=(COMPARED, *array.shape))
        if array.dtype == "uint8":
            darkest, brightest = rng.uniform(0.0, 255.0, (2, *each))
            values = darkest + (brightest - darkest) * noise
        else:
            low = np.array([entry.low for entry in array.entries])
            high = np.array([entry.high for entry in array.entries])
            values = (low + (high - low) * noise) * 10.0 ** rng.uniform(-2.0, 0.0, each)
        batch[key] = values.astype(array.dtype)
    return batch


class _NamedInputs(nn.Module):
    """An actor with one argument per key, as an ONNX graph has them."""

    def __init__(self, actor: Actor, keys: tuple[str, ...]) -> None:
        super().__init__()
        self.actor = actor
        self.keys = keys

    def forward(self, *arrays: Tensor) -> Tensor:
        actions: Tensor = self.actor(dict(zip(self.keys, arrays, strict=True)))
        return actions


def to_onnx(actor: Actor, spec: NetworkSpec, description: PolicyDescription) -> bytes:
    """Return an actor as an ONNX model with its description and all normalisation included.

    It has an input for each key of the observation, and takes batches of any size. Raises
    PolicyFileError if the packages needed are missing.
    """
    onnx = _import_onnx()
    own_names = {spec.image_key: IMAGE, spec.vector_key: VECTOR}
    arrays = description.task.observation
    module = _NamedInputs(actor, tuple(own_names[key] for key in arrays)).eval()
    # Any batch size but 1, which the exporter would take as fixed.
    examples = tuple(
        torch.zeros((2, *array.shape), dtype=getattr(torch, array.dtype))
        for array in arrays.values()
    )
    size = {0: torch.export.Dim("batch", min=1)}
    with _quiet():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            input_names=list(arrays),
            output_names=[ACTION],
            dynamic_shapes=(tuple(size for _ in examples),),
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_origin(model)
    model.ir_version = IR_VERSION
    onnx.helper.set_model_props(model, {METADATA_KEY: description.model_dump_json()})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _import_onnx() -> ModuleType:
    try:
        import onnx
        import onnxscript  # noqa: F401  (PyTorch exports with it)
    except ImportError as error:
        raise PolicyFileError(
            f"cannot export, {error.name} is missing: pip install onnx onnxruntime onnxscript"
        ) from None
    return onnx


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PyTorch's messages about operators and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _forget_origin(model: Any) -> None:
    """Remove what the exporter records about this machine: source lines with their paths."""
    graph = model.graph
    parts = (graph.node, graph.input, graph.output, graph.value_info, graph.initializer)
    for part in (graph, *itertools.chain(*parts)):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
