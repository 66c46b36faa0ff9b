# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Runs an exported policy with onnxruntime, without PyTorch."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from td3_driver.config import MOST_WEIGHTS, shown
from td3_driver.deployment import onnx_session
from td3_driver.deployment.description import (
    METADATA_KEY,
    Array,
    PolicyDescription,
    PolicyFileError,
    example_observation,
    read,
)
from td3_driver.deployment.onnx_file import Outline, outline
from td3_driver.deployment.onnx_session import SessionError, open_session, run
from td3_driver.documents import DocumentError, parse_json, read_bytes
from td3_driver.driving.observation import Observation
from td3_driver.trial_process import TrialError, TrialKilledError, TrialTimeoutError, ask

ACTION = "action"
"""Name of the output; the inputs are named after the observation's keys."""
TOLERANCE = 1e-4
"""Largest difference allowed between an action of the file and PyTorch's."""
MOST_BYTES = 4 * MOST_WEIGHTS + (1 << 24)
"""Size of the largest networks that the settings can mean, with their description."""
TRIAL_S = 60.0
DTYPES = {"uint8": "tensor(uint8)", "float32": "tensor(float)"}


class OnnxPolicy:
    """Maps one observation to one action, like `td3_driver.learning.policy.Policy`."""

    def __init__(self, session: Any, description: PolicyDescription) -> None:
        self.description = description
        self._session = session

    @classmethod
    def load(cls, path: Path) -> OnnxPolicy:
        """Load a file that `td3-driver export` wrote, without running any code from it.

        Its outline and its description are checked first, then it is tried in a process of its
        own. Raises PolicyFileError if onnxruntime is missing, or if the file is missing, damaged,
        of another version or not from `td3-driver export`.
        """
        _check_installed(path)
        try:
            data = read_bytes(path, MOST_BYTES)
        except DocumentError as error:
            raise PolicyFileError(f"cannot read the policy: {error}") from None
        try:
            found = outline(data)
        except ValueError as error:
            raise PolicyFileError(f"{path} is not an ONNX file, or is damaged: {error}") from None
        text = found.metadata.get(METADATA_KEY)
        if text is None:
            raise PolicyFileError(f"{path} was not written by td3-driver export")
        description = read(text, str(path))
        _try(path, data, found)
        try:
            policy = cls(open_session(data), description)
        except SessionError as error:
            raise PolicyFileError(f"{path} {_in_words(str(error), found)}") from None
        policy._check(path)
        return policy

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action, float32 (actions,) in [-1, 1], for one unbatched observation."""
        keys = self.description.task.observation
        return self.act_on_batch({key: observation[key][None] for key in keys})[0]

    def act_on_batch(self, observations: Observation) -> np.ndarray:
        """Return the actions, float32 (B, actions), for a batch of observations.

        Raises ValueError if onnxruntime fails.
        """
        (actions,) = run(self._session, [ACTION], observations)
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
        try:
            answer = self.act(example_observation(task))
        except ValueError as error:
            raise PolicyFileError(f"{path} is damaged: {error}") from None
        wanted = np.array(self.description.example_action)
        if answer.shape != wanted.shape or not np.allclose(answer, wanted, 0.0, TOLERANCE):
            raise PolicyFileError(
                f"{path} is damaged: for the example it returns {shown(answer.tolist())}, not "
                f"{shown(wanted.tolist())}"
            )


def _check_installed(path: Path) -> None:
    if importlib.util.find_spec("onnxruntime") is None:
        raise PolicyFileError(
            f"{path} needs onnxruntime, which is not installed: pip install onnxruntime"
        )


_NEWEST_TAKEN = re.compile(r"(?:max supported |till )(?P<kind>IR version|opset):? (?P<newest>\d+)")
_tried: set[bytes] = set()
"""Digests of the files that this process has tried."""


def _try(path: Path, data: bytes, found: Outline) -> None:
    """Raise PolicyFileError for a file that onnxruntime refuses or cannot survive."""
    digest = hashlib.sha256(data).digest()
    if digest in _tried:
        return
    try:
        answer = parse_json(ask(onnx_session.__name__, data, TRIAL_S).decode(), "its trial")
        refusal = str(answer["refusal"])
    except TrialTimeoutError:
        raise PolicyFileError(f"{path} does not act within {TRIAL_S:.0f} s") from None
    except TrialKilledError as error:
        raise PolicyFileError(f"{path}: onnxruntime ends its process with {error}") from None
    except (TrialError, ValueError, LookupError, TypeError) as error:
        raise PolicyFileError(f"{path} cannot be tried in a process of its own: {error}") from None
    if refusal:
        raise PolicyFileError(f"{path} {_in_words(refusal, found)}")
    _tried.add(digest)


def _in_words(refusal: str, found: Outline) -> str:
    """Return why onnxruntime refuses a file, and the versions if it is for those."""
    taken = _NEWEST_TAKEN.search(refusal)
    if taken is not None:
        return (
            f"has ONNX IR version {found.ir_version} and opset {found.opset}, but onnxruntime "
            f"{version('onnxruntime')} takes {taken['kind']} {taken['newest']} at most: install a "
            "newer onnxruntime"
        )
    return f"is not an ONNX file, or is damaged: {refusal}"


def _matches(node: Any, array: Array) -> bool:
    """Return whether an input or output is a batch of such arrays."""
    return node.type == DTYPES[array.dtype] and tuple(node.shape[1:]) == array.shape
