# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""onnxruntime's sessions, and their trial in a process of its own.

As a program it opens the model on its input, has it act once, and prints why that failed, as JSON.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import numpy as np

from td3_driver.documents import in_short
from td3_driver.trial_process import limit_this_process

NUMPY_TYPES = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}
_CODES = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+:\d+ .*?\)(?: const)? (?=[A-Z])"
)
_MEMORY_BYTES = 4 << 30
_MEMORY_PER_BYTE = 4


class SessionError(ValueError):
    """onnxruntime refuses a model, or fails with it."""


def errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises: besides ValueError, errors without a common base."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return (ValueError, *(getattr(state, name) for name in names if hasattr(state, name)))


def open_session(data: bytes) -> Any:
    """Return a single-threaded session of a model; raises SessionError, or ImportError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # One observation is too little work to share between threads, and idle ones would spin.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # what is an error is raised
    try:
        # As bytes: given a path, the file could name other files to read.
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except errors() as error:
        raise SessionError(_in_words(error)) from None


def run(session: Any, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return outputs of a model; raises SessionError."""
    try:
        values: list[np.ndarray] = session.run(outputs, inputs)
    except errors() as error:
        raise SessionError(_in_words(error)) from None
    return values


def _in_words(error: Exception) -> str:
    """Return what onnxruntime says, without its error codes and places in its source."""
    said = _CODES.sub("", str(error))
    # Of an opset that is too new, the last of many sentences says which are not.
    return in_short(said[max(said.find("Current official support"), 0) :]).rstrip(". ")


def try_once(data: bytes) -> None:
    """Open a model and have it act on zeros; raises SessionError."""
    session = open_session(data)
    inputs = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in node.shape]
        if node.type not in NUMPY_TYPES or min(shape, default=1) < 0:
            raise SessionError(f"it takes {in_short(node.type)} of {in_short(node.shape)}")
        inputs[node.name] = np.zeros(shape, NUMPY_TYPES[node.type])
    run(session, [node.name for node in session.get_outputs()], inputs)


def main() -> None:
    """Try one model."""
    data = sys.stdin.buffer.read()
    limit_this_process(_MEMORY_BYTES + _MEMORY_PER_BYTE * len(data))
    refusal = ""
    try:
        try_once(data)
    except SessionError as error:
        refusal = str(error)
    except MemoryError:
        refusal = "it takes more memory than there is"
    sys.stdout.write("\n" + json.dumps({"refusal": refusal}))


if __name__ == "__main__":
    main()
