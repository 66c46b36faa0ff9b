# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""A process that loads many exported policies one after another."""

from __future__ import annotations

from pathlib import Path

from many_reader import ManyReader

from td3_driver.deployment.description import PolicyFileError
from td3_driver.deployment.onnx_policy import OnnxPolicy

# Takes a path a line, and answers why it is refused. It needs no other process for each trial:
# it is one.
READER = """
import json, sys
from pathlib import Path
from td3_driver.deployment import onnx_policy, onnx_session
from td3_driver.deployment.description import PolicyFileError, example_observation
from td3_driver.trial_process import limit_this_process

def ask(module, data, limit_s):
    try:
        onnx_session.try_once(data)
    except onnx_session.SessionError as error:
        return json.dumps({"refusal": str(error)}).encode()
    return json.dumps({"refusal": ""}).encode()

limit_this_process(6 << 30)
onnx_policy.ask = ask
for line in sys.stdin:
    try:
        policy = onnx_policy.OnnxPolicy.load(Path(json.loads(line)))
        policy.act(example_observation(policy.description.task))
        answer = ["", ""]
    except PolicyFileError as error:
        answer = [str(error), ""]
    except Exception as error:
        answer = ["", repr(error)[:300]]
    print("\\n=" + json.dumps(answer), flush=True)
"""


class OnnxReader:
    """The process, started again after a file that ends it."""

    def __init__(self) -> None:
        self._reader = ManyReader(READER)
        self.close = self._reader.close

    def load(self, path: Path) -> str:
        """Return what is wrong with what a file is loaded as; raises PolicyFileError."""
        answer = self._reader.answer(str(path))
        if answer is None:
            OnnxPolicy.load(path)
            return "ended a process, and was then loaded"
        refusal, wrong = answer
        if refusal:
            raise PolicyFileError(refusal)
        return str(wrong)
