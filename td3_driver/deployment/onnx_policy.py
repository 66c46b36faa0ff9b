# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs an exported policy with onnxruntime, without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from td3_driver.deployment.description import (
    METADATA_KEY,
    Array,
    PolicyDescription,
    PolicyFileError,
    example_observation,
    read,
)
from td3_driver.driving.observation import Observation

ACTION = "action"
"""Name of the output; the inputs are named after the observation's keys."""
TOLERANCE = 1e-4
"""Largest difference allowed between an action of the file and PyTorch's."""
DTYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxPolicy:
    """Maps one observation to one action, like `td3_driver.learning.policy.Policy`."""

    def __init__(self, session: Any, description: PolicyDescription) -> None:
        self.description = description
        self._session = session

    @classmethod
    def load(cls, path: Path) -> OnnxPolicy:
        """Load a file that `td3-driver export` wrote, without running any code from it.

        Raises PolicyFileError if onnxruntime is missing, or if the file is missing, damaged, of
        another version or not from `td3-driver export`.
        """
        session = _open(path)
        text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise PolicyFileError(f"{path} was not written by td3-driver export")
        policy = cls(session, read(text, str(path)))
        policy._check(path)
        return policy

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action, float32 (actions,) in [-1, 1], for one unbatched observation."""
        keys = self.description.task.observation
        return self.act_on_batch({key: observation[key][None] for key in keys})[0]

    def act_on_batch(self, observations: Observation) -> np.ndarray:
        """Return the actions, float32 (B, actions), for a batch of observations."""
        actions: np.ndarray = self._session.run([ACTION], observations)[0]
        return actions

    def _check(self, path: Path) -> None:
        """Raise PolicyFileError unless the file does what its description says."""
        task = self.description.task
        arrays = task.observation
        inputs = {node.name: node for node in self._session.get_inputs()}
        outputs = {node.name: node for node in self._session.get_outputs()}
        if not (
            inputs.keys() == arrays.keys()
            and all(_matches(inputs[key], array) for key, array in arrays.items())
            and outputs.keys() == {ACTION}
            and _matches(outputs[ACTION], task.action)
        ):
            raise PolicyFileError(f"{path} is damaged: its networks do not fit its description")
        answer = self.act(example_observation(task))
        if not np.allclose(answer, self.description.example_action, rtol=0.0, atol=TOLERANCE):
            raise PolicyFileError(
                f"{path} is damaged: for the example it returns {answer.tolist()}, not "
                f"{list(self.description.example_action)}"
            )


def _open(path: Path) -> Any:
    """Return a single-threaded onnxruntime session; raise PolicyFileError if that fails."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as errors
    except ImportError:
        raise PolicyFileError(
            f"{path} needs onnxruntime, which is not installed: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    # One observation is too little work to share between threads, and idle ones would spin.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors: its warnings are about how graphs are optimised
    try:
        # As bytes: given a path, the file could name other files to read.
        return onnxruntime.InferenceSession(
            path.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
    except OSError as error:
        raise PolicyFileError(f"cannot read the policy {path}: {error.strerror}") from None
    except (
        errors.EPFail,
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as error:
        raise PolicyFileError(f"{path} is not an ONNX file, or is damaged: {error}") from None


def _matches(node: Any, array: Array) -> bool:
    """Return whether an input or output is a batch of such arrays."""
    return node.type == DTYPES[array.dtype] and tuple(node.shape[1:]) == array.shape
