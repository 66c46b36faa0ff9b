# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""The trainer: learns to drive in a world that is stepped over topics."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

# Read when PyTorch is loaded: its threads must not spin while the simulator needs the processor.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tqdm import tqdm

from td3_driver.bridge import runtime
from td3_driver.bridge.parameters import ConfiguredNode
from td3_driver.config import TOLD_IN, ConfigError
from td3_driver.driving.environment import DrivingEnv
from td3_driver.driving.observation import privileged_scale, vector_scale
from td3_driver.driving.world import WorldError
from td3_driver.evaluation.examination import EmbeddedExaminer, TownExaminer
from td3_driver.fleet.engines import make_engine
from td3_driver.fleet.gathering import EMBEDDED
from td3_driver.fleet.training import fleet_training
from td3_driver.learning.assembly import online_training
from td3_driver.learning.devices import ReplayMemoryError
from td3_driver.learning.health import NotFiniteError
from td3_driver.learning.online import Collecting
from td3_driver.learning.policy import CheckpointError
from td3_driver.learning.trainer import Progress
from td3_driver.learning.validation import Validation
from td3_driver.learning.warm_start import adopt
from td3_driver.lockstep.starts import make_sampler
from td3_driver.lockstep.world import CarlaWorld
from td3_driver.nodes.diagnostics import HealthDiagnostics, SimulationDiagnostics
from td3_driver.runs import RunFolder

OWN_PARAMETERS = {
    "run": ("", "Name of the run's new folder under runs/, or its path; empty = time of day."),
    "resume": ("", "Folder of a run to resume, instead of starting a new one."),
    "from": ("", "Folder of a run whose latest checkpoint a new run starts from."),
    "evaluate_at_end": (False, "Evaluate on the held-out maps when the training is complete."),
}
OVER_TOPICS = "td3_driver.nodes.collector_world:over_topics"
FILMED_DRIVES = 1
LINE_PERIOD_S = 10.0
# Ctrl-C may come twice: from the terminal to the whole group, and from a launch to each process.
SAME_SIGNAL_S = 1.0


class LiveLine:
    """Training progress: a line that is redrawn on a terminal, or else one now and then."""

    def __init__(self, log: Callable[[str], object]) -> None:
        self._log = log
        self._bar: tqdm | None = None
        self._last_logged_s = time.monotonic()

    def show(self, progress: Progress) -> None:
        """Update the line; may be called for every step."""
        if sys.stderr.isatty():
            self._draw(progress)
        elif time.monotonic() - self._last_logged_s >= LINE_PERIOD_S:
            self._last_logged_s = time.monotonic()
            self._log(
                f"step {progress.step:,} of {progress.total_steps:,}: {_standing(progress)}, "
                f"{progress.steps_per_s:.0f} steps/s, {progress.remaining_s / 60.0:.1f} min left"
            )

    def log(self, message: str) -> None:
        """Log a message, above the line if there is one."""
        with tqdm.external_write_mode(file=sys.stderr):
            self._log(message)

    def _draw(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=progress.total_steps, initial=progress.step - 1, desc="train", unit="step"
            )
        self._bar.set_postfix_str(_standing(progress), refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()


def _standing(progress: Progress) -> str:
    examined = progress.validation_completion
    without_noise = "" if math.isnan(examined) else f" ({examined:.2f} without noise)"
    return (
        f"return {progress.return_mean:.1f}, "
        f"completion {progress.route_completion_mean:.2f}{without_noise}, "
        f"{progress.updates_per_s:.0f} updates/s"
        + (f"; {progress.collection}" if progress.collection else "")
    )


def open_run(node: ConfiguredNode) -> RunFolder:
    """Return the run to resume, or create a new one; raises ConfigError."""
    resume = node.get_parameter("resume").value
    if resume:
        folder = RunFolder(resume)
        folder.check_same(node.config, ("driving", "learning"))
        return folder
    run, earlier = node.get_parameter("run").value, node.get_parameter("from").value
    if not earlier:
        return RunFolder.create(run, node.config)
    origin = RunFolder(earlier)
    origin.check_same(node.config, ("driving",))
    begun_with = origin.latest_checkpoint(node.get_logger().warning)
    folder = RunFolder.create(run, node.config)
    adopt(begun_with, folder.path)
    return folder


def train(node: ConfiguredNode) -> RunFolder:
    """Train until done or asked to stop; return the run, complete or not."""
    if node.config.driving.needs_others and not node.config.fleet.in_process:
        raise ConfigError(TOLD_IN)
    folder = open_run(node)
    node.get_logger().info(f"run folder: {folder.path}")
    with folder.claimed():
        return _train_in_folder(folder, node)


def _train_in_folder(folder: RunFolder, node: ConfiguredNode) -> RunFolder:
    config, logger = node.config, node.get_logger()
    if config.fleet.collectors:
        training, saved = _train_with_collectors(node, folder)
    else:
        simulation = SimulationDiagnostics(node)
        with closing(
            CarlaWorld(
                node,
                config.carla,
                on_outage=lambda line: simulation.publish_outage(line, world.counters),
                looks=config.simulator,
            )
        ) as world:
            training, saved = _train_in(world, node, folder, simulation)
    standing = training.trainer.standing
    logger.info(f"{standing.step:,} steps, {standing.episodes:,} episodes; saved {saved}")
    if training.complete and node.get_parameter("evaluate_at_end").value:
        _evaluate(folder)
    return folder


def _train_with_collectors(node: ConfiguredNode, folder: RunFolder) -> tuple[Collecting, Path]:
    """Train from collectors; return the training and its last checkpoint's path."""
    config, logger = node.config, node.get_logger()
    in_process = config.fleet.in_process
    if config.training.starts != "maps" and (in_process or config.validation.interval_steps):
        raise ConfigError(
            "examinations beside collectors are driven on maps: set training.starts to maps, or, "
            "with a simulator of its own for each collector, validation.interval_steps to 0"
        )
    diagnostics = HealthDiagnostics(node)
    live = LiveLine(logger.info)
    with _told(node, folder, live, diagnostics), closing(make_engine(config, live.log)) as engine:
        training = fleet_training(
            config,
            folder.path,
            engine,
            validation=Validation(config.validation, EmbeddedExaminer(config)),
            resume=bool(node.get_parameter("resume").value),
            say=live.log,
            show=live.show,
            report=diagnostics.publish,
            world=EMBEDDED if in_process else OVER_TOPICS,
        )
        with ending_gracefully(training):
            return training, training.run()


def _train_in(
    world: CarlaWorld, node: ConfiguredNode, folder: RunFolder, simulation: SimulationDiagnostics
) -> tuple[Collecting, Path]:
    """Train in a world; return the training and its last checkpoint's path."""
    config, logger = node.config, node.get_logger()
    sample = make_sampler(config.training, world)
    env = DrivingEnv(world, sample, config.driving)
    # Only the embedded simulator has those maps.
    examine = (
        EmbeddedExaminer(config)
        if config.training.starts == "maps"
        else TownExaminer(env, sample, config)
    )
    diagnostics = HealthDiagnostics(node)
    live = LiveLine(logger.info)

    def show(progress: Progress) -> None:
        live.show(progress)
        simulation.publish(world.counters, world.rivals.line)

    try:
        with _told(node, folder, live, diagnostics):
            training = online_training(
                env,
                vector_scale(config.driving),
                config.learning,
                config.training,
                folder.path,
                privileged_scale=privileged_scale(config.driving),
                validation=Validation(config.validation, examine),
                resume=bool(node.get_parameter("resume").value),
                say=live.log,
                show=show,
                report=diagnostics.publish,
            )
            with ending_gracefully(training, world.interrupt):
                return training, training.run()
    finally:
        if problems := world.counters.in_words():
            logger.warning(f"in {world.counters.ticks:,} ticks: {problems}")


@contextmanager
def _told(
    node: ConfiguredNode, folder: RunFolder, live: LiveLine, diagnostics: HealthDiagnostics
) -> Iterator[None]:
    """Say how a training ended that did not end well, and what is saved of it."""
    try:
        yield
    except NotFiniteError as error:
        diagnostics.publish_failure(str(error))
        raise
    except WorldError as error:
        raise WorldError(f"{error}\n{_where_saved(folder)}") from error
    except KeyboardInterrupt:
        node.get_logger().info(f"stopped. {_where_saved(folder)}")
        raise
    finally:
        live.close()


def _where_saved(folder: RunFolder) -> str:
    """Return a line on whether the run was saved, and how to resume it."""
    if not any(folder.checkpoints.glob("*")):
        return f"No checkpoint has been saved in {folder.path} yet"
    return (
        f"The run is saved: resume it with td3-driver train --resume {folder.path}, or with "
        f"ros2 launch td3_driver train.launch.py resume:={folder.path}"
    )


@contextmanager
def ending_gracefully(
    training: Collecting, interrupt: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """End the training after its step on the first SIGINT or SIGTERM, and at once on a later one.

    The first also calls `interrupt`, which ends a wait for a lost simulator.
    """
    at_once = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    first_s: dict[int, float] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if now_s - first_s.setdefault(number, now_s) > SAME_SIGNAL_S:
            handler = at_once[signal.Signals(number)]
            signal.signal(number, handler)
            if callable(handler):
                handler(number, frame)
            return
        training.stop()
        interrupt()

    for number in at_once:
        signal.signal(number, stop)
    try:
        yield
    finally:
        # What came once may be on its way again: it is still not to end what closes and saves.
        for number in at_once.keys() - first_s.keys():
            signal.signal(number, at_once[number])


def _evaluate(folder: RunFolder) -> None:
    """Evaluate on the held-out maps; write the report and the pictures to the run's folder."""
    # Slow to import, and not needed until now.
    from td3_driver.evaluation import evaluate, pictures

    drives = evaluate.drive_run(folder, filmed=FILMED_DRIVES)
    result = evaluate.write_report(drives, folder.path / "evaluation.json")
    written = pictures.illustrate(folder, drives)
    table = evaluate.table(result["episodes"])
    # Last, as whoever reads it may have gone.
    print("\n".join([table, "written:", *(f"  {path}" for path in written)]), flush=True)


def main(args: list[str] | None = None) -> None:
    """Run the trainer's process."""

    def body() -> None:
        node = ConfiguredNode("trainer", own=OWN_PARAMETERS)
        try:
            train(node)
        except (CheckpointError, ReplayMemoryError) as error:
            raise ConfigError(str(error)) from error
        except NotFiniteError as error:
            sys.exit(f"error: {error}")  # with exit code 1
        finally:
            node.destroy_node()  # at once, for those that wait for it to leave the graph

    sys.exit(runtime.run(body, args, at_once=True))


if __name__ == "__main__":
    main()
