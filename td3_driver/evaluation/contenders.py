# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Who drives a suite: the policies of runs, exported policies and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from td3_driver.config import Config, ConfigError, DrivingConfig, SimulatorConfig, shown
from td3_driver.deployment.loading import finite, load_policy
from td3_driver.evaluation.baselines import BASELINES
from td3_driver.evaluation.rollout import Act
from td3_driver.files import is_utf8
from td3_driver.learning.manifest import CheckpointError
from td3_driver.runs import RunFolder, find_checkpoint


@dataclass(frozen=True)
class Contender:
    """One driver: how it sees and drives, and where it comes from."""

    label: str
    """Its name among those compared; no two have the same."""
    driving: DrivingConfig = field(repr=False)
    simulator: SimulatorConfig = field(repr=False)
    """Its own, of which only the camera and the length of a tick matter."""
    baseline: str = ""
    """A name in BASELINES; empty for a policy."""
    run: Path | None = None
    policy: Path | None = None
    """A checkpoint's folder, or an exported file."""
    step: int = 0
    """The training step of its policy."""
    actor_sha256: str = ""

    def act(self) -> Act:
        """Return what drives; raises ConfigError if the policy is gone or does not fit.

        It raises ConfigError for an action that is not finite.
        """
        if self.baseline:
            return BASELINES[self.baseline](self.driving)
        assert self.run is not None and self.policy is not None
        run = RunFolder(self.run)
        return finite(load_policy(run, self.policy, self.driving, self.simulator.fixed_delta_s))


def find_contenders(
    runs: Sequence[str], baselines: Sequence[str] = (), policy_file: Path | None = None
) -> list[Contender]:
    """Return the drivers to compare, in the order given; each policy has been tried.

    A run is given by name, path or the folder of one of its checkpoints. A `policy_file` drives
    instead of the one run's own policy. Raises ConfigError.
    """
    if policy_file is not None and len(runs) != 1:
        raise ConfigError(f"--policy takes the place of one run's policy, not of {len(runs)}")
    if policy_file is not None and not is_utf8(policy_file):
        raise ConfigError(
            f"a policy's path has to be UTF-8, unlike {shown(str(policy_file))}: rename it"
        )
    for name in baselines:
        if name not in BASELINES:
            raise ConfigError(f"no baseline {shown(name)}: there are {', '.join(BASELINES)}")
    contenders = [_of_run(run, policy_file) for run in runs]
    defaults = Config()
    contenders += [
        Contender(name, defaults.driving, defaults.simulator, baseline=name) for name in baselines
    ]
    if not contenders:
        raise ConfigError("nobody is to drive the suite: name a run, or a --baseline")
    return _told_apart(contenders)


def _of_run(name_or_path: str, policy_file: Path | None) -> Contender:
    try:
        if policy_file is None:
            run, chosen = find_checkpoint(name_or_path)
        else:
            run, chosen = RunFolder(name_or_path), policy_file.resolve()
    except CheckpointError as error:
        raise ConfigError(str(error)) from None
    config = run.config
    policy = load_policy(run, chosen, config.driving, config.simulator.fixed_delta_s)
    label = run.path.name if policy_file is None else f"{run.path.name}, {policy_file.name}"
    return Contender(
        label,
        config.driving,
        config.simulator,
        run=run.path,
        policy=chosen,
        step=policy.step,
        actor_sha256=policy.actor_sha256,
    )


def _told_apart(contenders: Sequence[Contender]) -> list[Contender]:
    """Name those of one label by their paths; raise ConfigError for one that is given twice."""
    labels = [contender.label for contender in contenders]
    named = [
        contender
        if labels.count(contender.label) == 1 or contender.policy is None
        else replace(contender, label=str(contender.policy))
        for contender in contenders
    ]
    labels = [contender.label for contender in named]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"{twice[0]} is to drive twice: name it once")
    return named
