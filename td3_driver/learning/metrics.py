# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Logs a training run: lines, and a row of figures per interval to CSV and TensorBoard."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from torch.utils.tensorboard import SummaryWriter

from td3_driver.files import replacing
from td3_driver.learning.health import HealthMonitor

COLUMNS = (
    "step",
    "updates",
    "episodes",
    "wall_s",
    "steps_per_s",
    "updates_per_s",
    "return_mean",
    "route_completion_mean",
    "validation_completion",
    "health",
    "q1_mean",
    "q1_std",
    "q2_mean",
    "q2_std",
    "target_mean",
    "target_std",
    "td_error_1",
    "td_error_2",
    "critic_loss",
    "actor_loss",
    "critic_gradient_norm",
    "critic_encoder_gradient_norm",
    "actor_gradient_norm",
    "actor_encoder_gradient_norm",
    "saturated_share",
    "pre_tanh_abs",
    "policy_q_mean",
    "policy_distance",
    "actor_dormant_share",
    "critic_dormant_share",
)


FLEET_COLUMNS = (
    "collectors",
    "ratio_wanted",
    "ratio_held",
    "learner_idle_share",
    "collectors_idle_share",
    "policy_lag_median",
    "policy_lag_longest",
)
"""What a run with collectors has besides; lags are in updates."""


def in_words(row: Mapping[str, float]) -> str:
    """Return a row's figures as a line for the log; unknown figures are shown as a dash."""

    def shown(name: str) -> str:
        return f"{row[name]:.3g}" if name in row else "-"

    def spread(name: str) -> str:
        return f"{shown(f'{name}_mean')}±{shown(f'{name}_std')}"

    def gradients(network: str) -> str:
        encoder = shown(f"{network}_encoder_gradient_norm")
        return f"{network} {shown(f'{network}_gradient_norm')} (encoder {encoder})"

    return (
        f"updates {row['updates']:,}: Q1 {spread('q1')}, Q2 {spread('q2')}, "
        f"target {spread('target')}, TD errors {shown('td_error_1')} {shown('td_error_2')}; "
        f"losses: critic {shown('critic_loss')}, actor {shown('actor_loss')}; "
        f"gradients: {gradients('critic')}, {gradients('actor')}; "
        f"policy Q {shown('policy_q_mean')}, distance {shown('policy_distance')}, "
        f"saturated {shown('saturated_share')}, |pre-tanh| {shown('pre_tanh_abs')}, "
        f"dormant {shown('actor_dormant_share')} {shown('critic_dormant_share')}, "
        f"health warnings {shown('health')}; "
        f"return {shown('return_mean')}, completion {shown('route_completion_mean')}, "
        f"without noise {shown('validation_completion')}, "
        f"{shown('steps_per_s')} steps/s, {shown('updates_per_s')} updates/s"
    )


class MetricsWriter:
    """Appends rows to `metrics.csv` and the same figures to TensorBoard, by step."""

    def __init__(
        self,
        folder: Path,
        resume_step: int | None = None,
        resume_updates: int = 0,
        more_columns: Sequence[str] = (),
    ) -> None:
        """Keep the rows of earlier updates if a run is resumed; `open` writes them."""
        self.path = folder / "metrics.csv"
        self._resume_step = resume_step
        self._earlier = self._rows_until(resume_updates) if resume_step is not None else []
        earlier = {name for row in self._earlier for name in row}
        more = [name for name in FLEET_COLUMNS if name in earlier or name in more_columns]
        self._columns = (*COLUMNS, *more)
        self._file: TextIO | None = None
        self._board: SummaryWriter | None = None

    def open(self) -> tuple[TextIO, SummaryWriter]:
        """Open both once, the earlier rows in place, whole or as they were. Raises OSError."""
        if self._file is None:
            with replacing(self.path) as new, new.open("w", newline="") as file:
                rows = csv.DictWriter(file, self._columns)
                rows.writeheader()
                rows.writerows(self._earlier)
            self._file = self.path.open("a", newline="")
        if self._board is None:
            folder = self.path.parent / "tensorboard"
            self._board = SummaryWriter(str(folder), purge_step=self._resume_step)
        return self._file, self._board

    def _rows_until(self, updates: int) -> list[dict[str, str]]:
        """Return the rows from before a checkpoint; the later ones will be written again."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        # A row that was cut off by a kill or a full disk says nothing.
        whole = (row for row in rows if None not in row.values() and row["updates"].isdecimal())
        return [row for row in whole if int(row["updates"]) <= updates]

    def write(self, row: Mapping[str, float]) -> None:
        """Write one row; unknown figures are left out. Raises OSError."""
        file, board = self.open()
        known = {name: _short(row[name]) for name in self._columns if name in row}
        csv.DictWriter(file, self._columns).writerow(known)
        file.flush()
        for name, value in row.items():
            if name != "step":
                board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Close both. Raises OSError."""
        try:
            if self._file is not None:
                self._file.close()
        finally:
            if self._board is not None:
                self._board.close()


class RunLogger:
    """Passes a run's rows of figures on to the log, the metrics files and a hook.

    `say` logs a line; `report` is called with each row of figures and the health monitor that has
    observed it.
    """

    def __init__(
        self,
        metrics: MetricsWriter,
        say: Callable[[str], object],
        report: Callable[[Mapping[str, float], HealthMonitor], object],
    ) -> None:
        self._metrics = metrics
        self.say = say
        self._report = report
        self._failing = False
        self._note(metrics.open)

    def row(self, row: Mapping[str, float], health: HealthMonitor) -> None:
        """Write a row of figures, log it in words and report it."""
        self._note(lambda: self._metrics.write(row))
        self.say(in_words(row))
        self._report(row, health)

    def close(self) -> None:
        """Close the metrics files."""
        self._note(self._metrics.close)

    def _note(self, write: Callable[[], object]) -> None:
        """Write figures; if that fails, say so once, as figures are never worth a run."""
        try:
            write()
        except OSError as error:
            if not self._failing:
                self.say(
                    f"warning: the figures in {self._metrics.path.parent} cannot be written "
                    f"({error}); training continues without them"
                )
            self._failing = True
        else:
            self._failing = False


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.6g}"
