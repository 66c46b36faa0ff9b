# Copyright 2026 td3_driver authors
# SPDX-License-Identifier: Apache-2.0

"""Checks of a Ray cluster: whether its machines are alike, and have what collectors need."""

from __future__ import annotations

from collections.abc import Sequence

from td3_driver.config import ConfigError
from td3_driver.doctor.findings import Finding, Group
from td3_driver.fleet.machines import SAME_REMEDY, Facts, differences

GROUP = Group("cluster")
LARGE_STORE_BYTES = 1 << 30
"""A store is to hold a few chunks and policies; Ray's own default is 30 % of the memory."""
DDS_BYTES = 16 << 20
"""Shared memory of each process that speaks ROS (config/fastdds_profiles.xml)."""


def examine(address: str) -> list[Finding]:
    """Return the findings on the cluster at an address, or the one of this machine (auto)."""
    try:
        from td3_driver.fleet import ray_engine  # brings Ray, which is optional
    except ImportError as error:
        remedy = "pip install -c constraints.txt .[fleet]"
        return [GROUP.failed("Ray", f"cannot be used: {error}", remedy)]
    try:
        with ray_engine.joined(address):
            return judge(ray_engine.gather_facts())
    except ConfigError as error:
        remedy = "start it as docs/fleet.md shows, from the same environment on every machine"
        return [GROUP.failed("cluster", str(error), remedy)]


def judge(machines: Sequence[Facts]) -> list[Finding]:
    """Return the findings on machines, of which the first is this one."""
    different = differences(machines)
    versions = machines[0].versions
    findings = [
        GROUP.failed("versions", "; ".join(different), SAME_REMEDY)
        if different
        else GROUP.ok(
            "versions",
            f"the same on {len(machines)} machines: Python {versions['python']}, Ray "
            f"{versions['ray']}, td3_driver {versions['td3_driver']}",
        )
    ]
    slots = sum(facts.slots for facts in machines)
    findings.append(
        GROUP.ok("slots", f"{slots}")
        if slots
        else GROUP.failed("slots", "none", "start Ray with --resources='{\"slot\": 8}'")
    )
    for facts in machines:
        findings.append(_shared_memory(facts))
        if not facts.tokens:
            findings.append(
                GROUP.warning(
                    f"{facts.machine}: access",
                    "Ray asks for no token: whoever reaches its ports can run anything",
                    "start Ray with RAY_AUTH_MODE=token (docs/fleet.md)",
                )
            )
    return findings


def _shared_memory(facts: Facts) -> Finding:
    check = f"{facts.machine}: shared memory"
    store, shared = facts.object_store_bytes, facts.shared_memory_bytes
    # A simulator and a collector's node for each slot.
    needed = store + 2 * facts.slots * DDS_BYTES
    found = f"{shared >> 20} MiB, of which Ray's store takes {store >> 20} MiB"
    if shared < needed:
        remedy = f"if this is a container, start it with --shm-size={(needed >> 20) + 1}m"
        return GROUP.warning(check, f"{found}; {needed >> 20} MiB are needed", remedy)
    if store > LARGE_STORE_BYTES:
        remedy = "start Ray with --object-store-memory=268435456: chunks need no more"
        return GROUP.warning(check, found, remedy)
    return GROUP.ok(check, found)
