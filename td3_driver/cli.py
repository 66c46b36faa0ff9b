# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""`td3-driver`: the command line interface.

Exit codes: 0 on success, 1 if training failed or the doctor found a problem, 2 for wrong input;
commands that start processes use those of `supervision.run`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from td3_driver import startup
from td3_driver.config import Config, ConfigError, LookChoice, load, override, shown
from td3_driver.doctor import command as doctor_command
from td3_driver.evaluation import suite_command
from td3_driver.launching import arguments, supervision
from td3_driver.launching.commands import COMMANDS
from td3_driver.launching.parts import LaunchCommand
from td3_driver.launching.settings import (
    CONFIG,
    SET,
    setting_overrides,
)

EXIT_FAILED = 1
NAME_SHOWN = 50
"""Characters of a name that are shown to either side of those that are wrong."""
BAG_HELP = "A bag's folder, or a .mcap, .db3 or .bag file."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.execute(given))
    except ConfigError as error:
        return _refuse(error)
    except UnicodeEncodeError as error:
        text = str(error.object)[max(error.start - NAME_SHOWN, 0) : error.end + NAME_SHOWN]
        return _refuse(ConfigError(f"a name that is not UTF-8: {shown(text)}; rename it"))
    except KeyboardInterrupt:
        return supervision.EXIT_INTERRUPTED


def _refuse(error: Exception) -> int:
    print(f"td3-driver: {error}", file=sys.stderr)
    return startup.EXIT_WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="td3-driver", description="Learn to drive from camera images with TD3, and drive."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        _add_processes_command(commands.add_parser(name, help=command.summary), command)
    summary = "Drive a run's policy in the embedded simulator, without noise; report the results."
    _add_evaluate(commands.add_parser("evaluate", help=summary, description=summary))
    summary = "Check this machine and the running system; report problems and how to fix them."
    doctor = commands.add_parser("doctor", help=summary, description=summary)
    doctor_command.add_options(doctor)
    doctor.set_defaults(execute=doctor_command.run)
    summary = "Export a run's policy to a single ONNX file, and compare it with PyTorch."
    _add_export(commands.add_parser("export", help=summary, description=summary))
    summary = "Learn offline from bags of any driver, before driving or further training."
    _add_pretrain(commands.add_parser("pretrain", help=summary, description=summary))
    summary = "Write a page about a bag: what its driver saw, and how a run's networks judge it."
    _add_inspect(commands.add_parser("inspect", help=summary, description=summary))
    summary = "Copy what can be read of a damaged bag to a new bag; say what is left out."
    _add_repair(commands.add_parser("repair", help=summary, description=summary))
    return parser


def _add_processes_command(parser: argparse.ArgumentParser, command: LaunchCommand) -> None:
    parser.description = command.summary
    for option in command.options:
        if not option.launch_only:
            arguments.add_option(parser, option)
    parser.set_defaults(execute=lambda given: supervision.run(command.processes(vars(given))))


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    of_the_run = "; default: as in the run's configuration"
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="Folder of the run, or its name under runs/. With --suite several are compared.",
    )
    parser.add_argument(
        "--map",
        action="extend",
        nargs="+",
        metavar="MAP",
        help=f"Names of shipped maps, or paths{of_the_run}.",
    )
    parser.add_argument(
        "--episodes", type=arguments.count, help=f"Number of episodes{of_the_run}."
    )
    parser.add_argument(
        "--seed", type=arguments.seed, help=f"Seed of the first episode{of_the_run}."
    )
    parser.add_argument(
        "--look",
        choices=get_args(LookChoice),
        metavar="LOOK",
        help=f"As simulator.look{of_the_run}.",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="Report file; default: evaluation.json in the run's folder, or beside the policy; "
        "with --suite a page, and its JSON beside it: suite-NAME.html in the run's folder.",
    )
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="ONNX file from td3-driver export, to drive with instead of the run's actor.",
    )
    parser.add_argument(
        "--camera-test",
        action="store_true",
        help="Test instead whether it drives by its camera: with the image black, frozen, another "
        "episode's, late, mirrored, without the road or the sky. Default: 10 episodes of each, "
        "and camera_test.json, with a picture beside it.",
    )
    suite_command.add_options(parser, arguments.count)
    parser.set_defaults(execute=_evaluate)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="Folder of the run, or its name under runs/.")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="ONNX file; default: policy.onnx in the run's folder.",
    )
    parser.set_defaults(execute=_export)


def _evaluate(given: argparse.Namespace) -> int:
    # Slow to import, and not needed by the other commands.
    from td3_driver.driving.world import WorldError
    from td3_driver.evaluation import evaluate
    from td3_driver.roads.errors import RoadMapError

    suite_command.check(given)
    try:
        if given.suite is not None:
            return suite_command.run(given)
        choice = evaluate.Choice(given.map, given.episodes, given.seed, given.look, given.policy)
        if given.camera_test:
            from td3_driver.evaluation.camera_evaluation import evaluate_camera

            result, written = evaluate_camera(given.runs[0], choice, given.out)
            print("\n".join([result.table(), "written:", *(f"  {path}" for path in written)]))
            return 0
        report = evaluate.evaluate_run(given.runs[0], choice, given.out)
    except (RoadMapError, WorldError, OSError) as error:
        return _refuse(error)
    print(evaluate.table(report["episodes"]))
    return 0


def _export(given: argparse.Namespace) -> int:
    # Slow to import, and not needed by the other commands.
    from td3_driver.deployment import export

    try:
        done = export.export_run(given.run, given.out)
    except OSError as error:
        return _refuse(error)
    print(done.summary())
    return 0


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help=BAG_HELP)
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN",
        help="Folder of the new run, or its name under runs/.",
    )
    for option in (CONFIG, SET):
        arguments.add_option(parser, option)
    parser.set_defaults(execute=_pretrain)


def _pretrain(given: argparse.Namespace) -> int:
    # Slow to import, and not needed by the other commands.
    from td3_driver.learning.devices import ReplayMemoryError
    from td3_driver.learning.health import NotFiniteError
    from td3_driver.learning.manifest import CheckpointError
    from td3_driver.offline.bag import BagError
    from td3_driver.offline.pretraining import pretrain

    base = load(given.config) if given.config else Config()
    config = override(base, setting_overrides(given.set, base), "the command")
    try:
        done = pretrain(given.bags, given.out, config)
    except (BagError, CheckpointError, ReplayMemoryError, OSError) as error:
        return _refuse(error)
    except NotFiniteError as error:
        print(f"td3-driver: {error}", file=sys.stderr)
        return EXIT_FAILED
    run = done.folder.path
    print(
        f"{done.updates:,} updates on {done.transitions:,} transitions\n"
        f"run:        {run}\ncheckpoint: {done.checkpoint}\nfigures:    {run / 'metrics.csv'}\n"
        f"next:       td3-driver evaluate {given.out}, or td3-driver train --from {given.out}"
    )
    return 0


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help=BAG_HELP)
    parser.add_argument(
        "--run",
        required=True,
        metavar="RUN",
        help="Folder or name of the run, or the folder of one of its checkpoints.",
    )
    parser.add_argument(
        "--compare", metavar="RUN", help="Another run or checkpoint to evaluate the same bag with."
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="The page; default: BAG.html in the current folder.",
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Also write the table, as CSV.")
    for name, what in (("role-name", "Role name of the car"), ("camera", "Id of the camera")):
        parser.add_argument(f"--{name}", help=f"{what}, if the bag has several.")
    parser.set_defaults(execute=_inspect)


def _inspect(given: argparse.Namespace) -> int:
    # Slow to import, and not needed by the other commands.
    from td3_driver.learning.manifest import CheckpointError
    from td3_driver.offline import inspection, report
    from td3_driver.offline.bag import Bag, BagError
    from td3_driver.offline.output import check_output

    page = given.out or Path(f"{given.bag.resolve().stem}.html")
    if given.csv is not None and given.csv.resolve() == page.resolve():
        raise ConfigError(f"the page and the table would both be {page}: name another file")
    try:
        with Bag(given.bag) as bag:
            for path in filter(None, (page, given.csv)):
                check_output(path, bag)
            names = {"role_name": given.role_name, "camera": given.camera}
            inspector = inspection.Inspector(bag, given.run, given.compare, names)
            result = inspector.inspect()
            if given.csv is not None:
                inspection.write_csv(result, given.csv)
            report.write_report(inspector, result, page)
    except (BagError, CheckpointError, OSError) as error:
        return _refuse(error)
    for note in result.notes:
        print(f"note: {note}")
    for name, fact in result.facts.items():
        print(f"{name + ':':<18}{fact}")
    print(f"wrote {', '.join(str(path) for path in (page, given.csv) if path is not None)}")
    return 0


def _add_repair(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, metavar="BAG", help=BAG_HELP)
    parser.set_defaults(execute=_repair)


def _repair(given: argparse.Namespace) -> int:
    from td3_driver.offline.bag import BagError
    from td3_driver.offline.writer import repair

    try:
        done = repair(given.bag)
    except (BagError, OSError) as error:
        return _refuse(error)
    for note in done.notes:
        print(f"note: {note}")
    print(f"wrote {done.path}: {done.messages:,} messages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
