"""`td3-driver`: the commands people type.

Exit codes: 0 when done, 2 for wrong input, and those of `supervision.run` for what it ran.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from td3_driver import supervision
from td3_driver.config import Config, ConfigError, load, override
from td3_driver.processes import COMMANDS, CONFIG, SET, Command, Option, setting_overrides

EXIT_FAILED = 1
EXIT_WRONG_INPUT = 2
BAG_HELP = "A bag's folder, or a file .mcap, .db3 or .bag."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        return int(given.execute(given))
    except ConfigError as error:
        return _refuse(error)


def _refuse(error: Exception) -> int:
    print(f"td3-driver: {error}", file=sys.stderr)
    return EXIT_WRONG_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="td3-driver", description="Learn to drive from camera images with TD3, and drive."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        _add_processes_command(commands.add_parser(name, help=command.summary), command)
    summary = "Drive a run's policy in the embedded simulator, without noise, and report."
    _add_evaluate(commands.add_parser("evaluate", help=summary, description=summary))
    summary = "Learn from bags of any driver, offline, before driving or training on."
    _add_pretrain(commands.add_parser("pretrain", help=summary, description=summary))
    summary = "Show in one page what a bag's driver saw and what a run's networks make of it."
    _add_inspect(commands.add_parser("inspect", help=summary, description=summary))
    summary = "Copy what is whole of a bag that was cut off into a new one beside it."
    _add_repair(commands.add_parser("repair", help=summary, description=summary))
    return parser


def _add_processes_command(parser: argparse.ArgumentParser, command: Command) -> None:
    parser.description = command.summary
    for option in command.options:
        _add_option(parser, option)
    parser.set_defaults(execute=lambda given: supervision.run(command.processes(vars(given))))


def _add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    """Give the parser an option; one that must be given is an argument without dashes."""
    if option.default is None or option.positional:
        parser.add_argument(
            option.name,
            metavar=option.name.upper(),
            nargs=None if option.default is None else "?",
            default=option.default,
            help=option.description,
        )
        return
    flag = "--" + option.name.replace("_", "-")
    if isinstance(option.default, bool):
        parser.add_argument(
            flag,
            action=argparse.BooleanOptionalAction,
            default=option.default,
            help=option.description,
        )
    elif isinstance(option.default, tuple):
        parser.add_argument(
            flag,
            action="append",
            default=[],
            metavar="ITEM",
            help=option.description + " May be repeated.",
        )
    else:
        parser.add_argument(
            flag,
            default=option.default,
            choices=option.choices or None,
            help=option.description + (f" Default: {option.default}." if option.default else ""),
        )


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    of_the_run = "; default: the run's configuration"
    parser.add_argument("run", metavar="RUN", help="Folder of the run, or its name under runs/.")
    parser.add_argument(
        "--map",
        action="extend",
        nargs="+",
        metavar="MAP",
        help=f"Shipped names or paths of maps{of_the_run}.",
    )
    parser.add_argument("--episodes", type=_count, help=f"Number of episodes{of_the_run}.")
    parser.add_argument("--seed", type=int, help=f"Seed of the first episode{of_the_run}.")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="Report; default: evaluation.json of the run."
    )
    parser.set_defaults(execute=_evaluate)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def _evaluate(given: argparse.Namespace) -> int:
    # Slow to import, and of no use to the other commands.
    from td3_driver import evaluation
    from td3_driver.learning.policy import CheckpointError
    from td3_driver.roads.errors import RoadMapError

    try:
        report = evaluation.evaluate_run(
            given.run, given.map, given.episodes, given.seed, given.out
        )
    except (CheckpointError, RoadMapError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return supervision.EXIT_INTERRUPTED
    print(evaluation.table(report["episodes"]))
    return 0


def _add_pretrain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bags", nargs="+", type=Path, metavar="BAG", help=BAG_HELP)
    parser.add_argument(
        "--out",
        required=True,
        metavar="RUN",
        help="New run's folder, or its name under runs/.",
    )
    for option in (CONFIG, SET):
        _add_option(parser, option)
    parser.set_defaults(execute=_pretrain)


def _pretrain(given: argparse.Namespace) -> int:
    # Slow to import, and of no use to the other commands.
    from td3_driver.learning.health import NotFiniteError
    from td3_driver.learning.manifest import CheckpointError
    from td3_driver.learning.replay import ReplayMemoryError
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
    except KeyboardInterrupt:
        return supervision.EXIT_INTERRUPTED
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
        help="Run, by folder or name, or the folder of one of its checkpoints.",
    )
    parser.add_argument(
        "--compare", metavar="RUN", help="Another run or checkpoint, to judge the same bag."
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="The page; default: BAG.html in this folder."
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="Write the table as well.")
    for name, what in (("role-name", "Role name of the car"), ("camera", "Id of the camera")):
        parser.add_argument(f"--{name}", help=f"{what}, where the bag has several.")
    parser.set_defaults(execute=_inspect)


def _inspect(given: argparse.Namespace) -> int:
    # Slow to import, and of no use to the other commands.
    from td3_driver.learning.manifest import CheckpointError
    from td3_driver.offline import inspection, report
    from td3_driver.offline.bag import Bag, BagError

    page = given.out or Path(f"{given.bag.resolve().stem}.html")
    try:
        with Bag(given.bag) as bag:
            names = {"role_name": given.role_name, "camera": given.camera}
            inspector = inspection.Inspector(bag, given.run, given.compare, names)
            result = inspector.inspect()
            if given.csv is not None:
                inspection.write_csv(result, given.csv)
            report.write_report(inspector, result, page)
    except (BagError, CheckpointError, OSError) as error:
        return _refuse(error)
    except KeyboardInterrupt:
        return supervision.EXIT_INTERRUPTED
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
        print(f"wrote {repair(given.bag)}")
    except (BagError, OSError) as error:
        return _refuse(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
