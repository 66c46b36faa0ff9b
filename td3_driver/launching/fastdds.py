# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""How processes on one machine exchange images: the shared memory of Fast DDS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from td3_driver.config import CONFIG_FOLDER

PROFILE = CONFIG_FOLDER / "fastdds_profiles.xml"
"""Profiles with shared memory for full-size images."""

VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
# Its name in Fast DDS 2; later middlewares complain of it.
OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")
# What says that the user has arranged the transports.
CHOICES = (VARIABLE, OLD_VARIABLE, "FASTDDS_BUILTIN_TRANSPORTS")
# Fast DDS reads these by itself where it is started.
_LOCAL_PROFILES = ("DEFAULT_FASTDDS_PROFILES.xml", "DEFAULT_FASTRTPS_PROFILES.xml")


def environment(environ: Mapping[str, str], folder: Path | None = None) -> dict[str, str]:
    """Return the variables that give processes the shipped profile.

    None where the user has chosen: in `environ`, or by a profile in the `folder` that the
    processes start in (default: the current one). Other middlewares do not read them.
    """
    folder = folder or Path.cwd()
    chosen = any(environ.get(name) for name in CHOICES)
    if chosen or any((folder / name).is_file() for name in _LOCAL_PROFILES):
        return {}
    return naming(PROFILE, environ)


def naming(profile: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name a profile to the Fast DDS of `environ`."""
    old = environ.get("ROS_DISTRO") in OLD_DISTRIBUTIONS
    return {name: str(profile) for name in (VARIABLE, *((OLD_VARIABLE,) if old else ()))}
