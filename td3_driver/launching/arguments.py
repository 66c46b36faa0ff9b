# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How the command line takes an option, and reads numbers."""

from __future__ import annotations

import argparse

from td3_driver.config import ConfigError
from td3_driver.launching.parts import Option
from td3_driver.launching.settings import SEEDS, whole_number


def add_option(parser: argparse.ArgumentParser, option: Option) -> None:
    """Add an option to the parser; a required one is a positional argument."""
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


def count(text: str) -> int:
    """Return a whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be above 0, not {number}")
    return number


def seed(text: str) -> int:
    """Return a seed."""
    try:
        return whole_number("it", text, *SEEDS)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    """Return seconds, above 0 and at most an hour."""
    number = float(text)
    if not 0.0 < number <= 3600.0:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 3600, not {number:g}")
    return number
